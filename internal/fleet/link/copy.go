package link

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
)

// copy keeps the member's own copy as the hub told it, whoever changes it.
func (l *Link) copy(ctx context.Context) {
	b := backoff{most: l.Timing.Retry}
	told := ""
	for l.copying.wait(ctx) {
		err := l.mirror(ctx)
		switch {
		case err == nil:
			b.reset()
			told = ""
			continue
		case ctx.Err() != nil:
			return
		case !apierrors.IsConflict(err) && told != err.Error():
			told = err.Error()
			l.Log.Error(err, "the assignment cannot be copied")
		}
		if !pause(ctx, b.step()) {
			return
		}
		l.copying.up()
	}
}

// mirror writes the copy where it differs.
func (l *Link) mirror(ctx context.Context) error {
	l.mu.Lock()
	wanted := l.wanted
	l.mu.Unlock()
	if wanted == nil {
		return nil
	}
	if err := l.dropStale(ctx); err != nil {
		return err
	}
	own := &v1alpha1.ClusterAssignment{}
	err := l.Copies.Get(ctx, l.key(), own)
	if apierrors.IsNotFound(err) {
		// It may be there without the label, which is what the cache goes by.
		err = l.Direct.Get(ctx, l.key(), own)
	}
	switch {
	case apierrors.IsNotFound(err):
		l.noteUncopied("")
		return l.make(ctx, wanted)
	case err != nil:
		return fmt.Errorf("read ClusterAssignment %s: %w", l.key(), err)
	}
	if member := l.memberOf(own); member != "" {
		err := l.occupied(member)
		l.noteUncopied(err.Error())
		return err
	}
	want, err := wanted.Spec.Fingerprint()
	if err != nil {
		return err
	}
	has, err := own.Spec.Fingerprint()
	if err != nil {
		return err
	}
	why, same := "", has == l.stored.as(want)
	if !same {
		why = l.outdated(own, wanted)
	}
	l.noteUncopied(why)
	if why != "" || same && own.Labels[v1alpha1.LabelSelf] == "true" && own.Annotations[v1alpha1.CopiedAnnotation] == has {
		return nil
	}
	next := own.DeepCopy()
	l.mark(next, want)
	heard(next, wanted)
	wanted.Spec.DeepCopyInto(&next.Spec)
	if err := l.Client.Update(ctx, next, owner); err != nil {
		return fmt.Errorf("update ClusterAssignment %s: %w", l.key(), err)
	}
	return l.noted(ctx, next, want)
}

// memberOf returns the FleetCluster of this cluster's own fleet that an assignment is for; empty where it is for none, as the copy. A cluster
// that is its own hub has one object for both.
func (l *Link) memberOf(a *v1alpha1.ClusterAssignment) string {
	by := metav1.GetControllerOf(a)
	if by == nil || a.Labels[v1alpha1.LabelSelf] == "true" || a.Spec.Incarnation == l.Incarnation {
		return ""
	}
	return by.Kind + "/" + a.Namespace + "/" + by.Name
}

// occupied is the error of a copy whose name a member of this cluster's own fleet has.
func (l *Link) occupied(member string) error {
	return &failure.Error{Op: "copy", Object: "the assignment of " + l.Cluster.String(), Kind: failure.Conflict,
		Err:    fmt.Errorf("%s of this cluster's own fleet has the name that the copy needs", member),
		Remedy: "declare one of the two clusters under another name"}
}

// noteUncopied has reported why what the hub told is not copied; nothing where it is.
func (l *Link) noteUncopied(why string) {
	l.mu.Lock()
	changed := l.uncopied != why
	l.uncopied = why
	l.mu.Unlock()
	if changed {
		l.telling.up()
	}
}

// stored says what the member's API makes of an assignment: one whose definition is older or newer than the hub's leaves
// out or adds something.
type stored struct {
	wanted, is string // fingerprints
}

// as returns the fingerprint that an assignment has once it is stored, as far as is known.
func (s stored) as(wanted string) string {
	if s.wanted == wanted {
		return s.is
	}
	return wanted
}

// mark makes an object the member's own copy of an assignment with a fingerprint.
func (l *Link) mark(own *v1alpha1.ClusterAssignment, wanted string) {
	metav1.SetMetaDataLabel(&own.ObjectMeta, v1alpha1.LabelSelf, "true")
	metav1.SetMetaDataAnnotation(&own.ObjectMeta, v1alpha1.CopiedAnnotation, l.stored.as(wanted))
}

// noted sees to it that the note on a copy that was written is that of what the API server answered.
func (l *Link) noted(ctx context.Context, own *v1alpha1.ClusterAssignment, wanted string) error {
	is, err := own.Spec.Fingerprint()
	if err != nil {
		return err
	}
	l.stored = stored{wanted, is}
	if own.Annotations[v1alpha1.CopiedAnnotation] == is {
		return nil
	}
	before := own.DeepCopy()
	l.mark(own, wanted)
	if err := l.Client.Patch(ctx, own, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), owner); err != nil {
		return fmt.Errorf("note what was written on ClusterAssignment %s: %w", l.key(), err)
	}
	return nil
}

// make makes the copy, and its namespace where that is not there yet.
func (l *Link) make(ctx context.Context, wanted *v1alpha1.ClusterAssignment) error {
	want, err := wanted.Spec.Fingerprint()
	if err != nil {
		return err
	}
	var own *v1alpha1.ClusterAssignment
	create := func() error {
		own = &v1alpha1.ClusterAssignment{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MemberNamespace, Name: l.Cluster.Name}}
		l.mark(own, want)
		heard(own, wanted)
		wanted.Spec.DeepCopyInto(&own.Spec)
		return l.Client.Create(ctx, own, owner)
	}
	err = create()
	if apierrors.IsNotFound(err) {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.MemberNamespace}}
		if err := client.IgnoreAlreadyExists(l.Client.Create(ctx, namespace, owner)); err != nil {
			return fmt.Errorf("make Namespace %s: %w", v1alpha1.MemberNamespace, err)
		}
		err = create()
	}
	if err != nil {
		return fmt.Errorf("make ClusterAssignment %s: %w", l.key(), err)
	}
	return l.noted(ctx, own, want)
}

// dropStale deletes copies of fleets that the cluster has left: the oldest copy is the one that counts.
func (l *Link) dropStale(ctx context.Context) error {
	var all v1alpha1.ClusterAssignmentList
	if err := l.Copies.List(ctx, &all); err != nil {
		return fmt.Errorf("list the copies of assignments: %w", err)
	}
	for i := range all.Items {
		a := &all.Items[i]
		if (a.Name != l.Cluster.Name || a.Spec.Incarnation != l.Incarnation) && a.HasLeft() {
			if err := client.IgnoreNotFound(l.Client.Delete(ctx, a, client.Preconditions{UID: &a.UID})); err != nil {
				return fmt.Errorf("delete ClusterAssignment %s, which was left: %w", a.Name, err)
			}
		}
	}
	return nil
}

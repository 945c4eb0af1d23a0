package link

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
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
		return l.make(ctx, wanted)
	case err != nil:
		return fmt.Errorf("read ClusterAssignment %s: %w", l.key(), err)
	case own.Labels[v1alpha1.LabelSelf] == "true" && own.Spec.Same(&wanted.Spec):
		return nil
	}
	next := own.DeepCopy()
	next.Labels = maps.Clone(own.Labels)
	if next.Labels == nil {
		next.Labels = map[string]string{}
	}
	next.Labels[v1alpha1.LabelSelf] = "true"
	wanted.Spec.DeepCopyInto(&next.Spec)
	if err := l.Client.Update(ctx, next, owner); err != nil {
		return fmt.Errorf("update ClusterAssignment %s: %w", l.key(), err)
	}
	return nil
}

// make makes the copy, and its namespace where that is not there yet.
func (l *Link) make(ctx context.Context, wanted *v1alpha1.ClusterAssignment) error {
	create := func() error {
		own := &v1alpha1.ClusterAssignment{ObjectMeta: metav1.ObjectMeta{
			Namespace: v1alpha1.MemberNamespace, Name: l.Cluster.Name, Labels: map[string]string{v1alpha1.LabelSelf: "true"},
		}}
		wanted.Spec.DeepCopyInto(&own.Spec)
		return l.Client.Create(ctx, own, owner)
	}
	err := create()
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
	return nil
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

package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/compose"
)

// deliveries bring objects that are made in this process to the cluster in the way of
// all others: an ExternalArtifact holds them as files, and a Kustomization of the same name
// delivers it.
type deliveries struct {
	client   client.Client
	clock    clock.PassiveClock
	handouts *handouts
}

// sender is the object for which something is delivered. What it sends is in its own namespace.
type sender struct {
	maker
	// label is the value of fleetv1.LabelMadeBy on what it sends: all that has it is the
	// sender's, and what has it and is sent no longer goes.
	label string
	// owner, where it is set, has the cluster delete what was sent when the sender is gone.
	owner *metav1.OwnerReference
}

// parcel is what one Kustomization delivers.
type parcel struct {
	name     string
	artifact source.Artifact
	// spec is that of the Kustomization.
	spec kustomizev1.KustomizationSpec
	// annotations are those of the ExternalArtifact.
	annotations map[string]string
}

// newParcel packs files, by path. Its revision is that of their content.
func newParcel(name string, files map[string][]byte, spec kustomizev1.KustomizationSpec) (parcel, error) {
	b := compose.New()
	for _, at := range slices.Sorted(maps.Keys(files)) {
		if err := b.Write(at, files[at]); err != nil {
			return parcel{}, fmt.Errorf("pack %s: %w", name, err)
		}
	}
	tree := b.Tree()
	digest, err := tree.Digest()
	if err != nil {
		return parcel{}, fmt.Errorf("pack %s: %w", name, err)
	}
	spec.Path = "./"
	spec.SourceRef = kustomizev1.CrossNamespaceSourceReference{Kind: sourcev1.ExternalArtifactKind, Name: name}
	revision := "latest@sha256:" + strings.TrimPrefix(digest, "tree:")
	return parcel{name: name, artifact: source.Artifact{Revision: revision, Digest: digest, Tree: tree}, spec: spec}, nil
}

// send writes what of the parcels is not yet as it should be: nothing, where nothing has
// changed. One that fails does not hold up the others. A name that is somebody else's
// is an error of kind failure.Conflict.
func (d *deliveries) send(ctx context.Context, from sender, parcels []parcel) error {
	var failed error
	for i := range parcels {
		p := &parcels[i]
		failed = errors.Join(failed, d.sendOne(ctx, from, p, types.NamespacedName{Namespace: from.Namespace, Name: p.name}))
	}
	return failed
}

func (d *deliveries) sendOne(ctx context.Context, from sender, p *parcel, name types.NamespacedName) error {
	k := &kustomizev1.Kustomization{}
	err := d.client.Get(ctx, name, k)
	switch {
	case client.IgnoreNotFound(err) != nil:
		return fmt.Errorf("read Kustomization %s: %w", name, err)
	case err == nil && !from.sent(k):
		return taken(kustomizev1.KustomizationKind, name, "somebody else")
	}
	if err := d.handouts.mine(ctx, from.maker, name, from.owns); err != nil {
		return err
	}
	d.handouts.hand(ctx, from.maker, name, p.artifact)
	if _, err := d.handouts.ensure(ctx, d.artifactOf(from, name, p.annotations), p.artifact, owner, false, d.clock.Now()); err != nil {
		return err
	}
	return d.ensure(ctx, from, p, k, name)
}

// ensure writes a Kustomization, as far as it is not what it should be.
func (d *deliveries) ensure(ctx context.Context, from sender, p *parcel, there *kustomizev1.Kustomization, name types.NamespacedName) error {
	if !there.DeletionTimestamp.IsZero() {
		return &failure.Error{Op: "write", Object: "Kustomization " + name.String(), Kind: failure.Unavailable, Err: errGoing}
	}
	want := there.DeepCopy()
	want.Name, want.Namespace, want.Spec = name.Name, name.Namespace, p.spec
	from.mark(want)
	var err error
	switch {
	case there.UID == "":
		err = d.client.Create(ctx, want, owner)
	case !equality.Semantic.DeepEqual(there, want):
		// The lock keeps a cache that is behind from undoing what was written last.
		err = d.client.Patch(ctx, want, client.MergeFromWithOptions(there, client.MergeFromWithOptimisticLock{}), owner)
	}
	if err != nil {
		return fmt.Errorf("write Kustomization %s: %w", name, err)
	}
	return nil
}

// errGoing says that what is to be written is still on its way out.
var errGoing = errors.New("the one of this name is still being deleted, and is made anew when it is gone")

// withdraw deletes what the sender has sent and is not kept, and what its Kustomizations
// delivered, or leaves that where the policy is to orphan. It returns the names of those that are not gone yet,
// whose events bring the sender back. An artifact goes after its Kustomization.
func (d *deliveries) withdraw(ctx context.Context, from sender, kept map[string]bool, policy fleetv1.DeletionPolicy) (left []string, err error) {
	units, artifacts := &kustomizev1.KustomizationList{}, &sourcev1.ExternalArtifactList{}
	mine := []client.ListOption{client.InNamespace(from.Namespace), client.MatchingLabels{fleetv1.LabelMadeBy: from.label}}
	for _, list := range []client.ObjectList{units, artifacts} {
		if err := d.client.List(ctx, list, mine...); err != nil {
			return nil, fmt.Errorf("list what was made for %s: %w", from.maker, err)
		}
	}
	there := map[string]bool{}
	for i := range units.Items {
		k := &units.Items[i]
		if kept[k.Name] {
			continue
		}
		there[k.Name] = true
		left = append(left, k.Name)
		err = errors.Join(err, d.delete(ctx, k, policy))
	}
	gone := map[string]bool{}
	for i := range artifacts.Items {
		gone[artifacts.Items[i].Name] = true
	}
	for _, name := range d.handouts.madeBy(from.maker) {
		gone[name.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(gone)) {
		if !kept[name] && !there[name] {
			err = errors.Join(err, d.handouts.remove(ctx, from.maker, types.NamespacedName{Namespace: from.Namespace, Name: name}, from.owns))
		}
	}
	return left, err
}

// delete deletes a Kustomization whose spec says first what is to become of what it delivered.
func (d *deliveries) delete(ctx context.Context, k *kustomizev1.Kustomization, policy fleetv1.DeletionPolicy) error {
	before := k.DeepCopy()
	k.Spec.Suspend = false
	k.Spec.DeletionPolicy = kustomizev1.DeletionPolicyWaitForTermination
	if policy == fleetv1.DeletionPolicyOrphan {
		k.Spec.DeletionPolicy = kustomizev1.DeletionPolicyOrphan
	}
	if !equality.Semantic.DeepEqual(before, k) {
		if err := client.IgnoreNotFound(d.client.Patch(ctx, k, client.MergeFrom(before), owner)); err != nil {
			return fmt.Errorf("write Kustomization %s/%s: %w", k.Namespace, k.Name, err)
		}
	}
	if !k.DeletionTimestamp.IsZero() {
		return nil
	}
	if err := client.IgnoreNotFound(d.client.Delete(ctx, k, client.Preconditions{UID: &k.UID})); err != nil {
		return fmt.Errorf("delete Kustomization %s/%s: %w", k.Namespace, k.Name, err)
	}
	return nil
}

// artifactOf is the ExternalArtifact of a parcel, without its status.
func (d *deliveries) artifactOf(from sender, name types.NamespacedName, annotations map[string]string) *sourcev1.ExternalArtifact {
	ea := &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Name: name.Name, Namespace: name.Namespace, Annotations: annotations}}
	ea.SetGroupVersionKind(sourcev1.GroupVersion.WithKind(sourcev1.ExternalArtifactKind))
	ea.Spec.SourceRef = d.handouts.refer(from.maker)
	from.mark(ea)
	return ea
}

// mark writes on an object whose it is.
func (f sender) mark(o client.Object) {
	labels := maps.Clone(o.GetLabels())
	if labels == nil {
		labels = map[string]string{}
	}
	labels[fleetv1.LabelMadeBy] = f.label
	o.SetLabels(labels)
	refs := o.GetOwnerReferences()
	if f.owner != nil && !slices.ContainsFunc(refs, func(r metav1.OwnerReference) bool { return r.UID == f.owner.UID }) {
		o.SetOwnerReferences(append(slices.Clone(refs), *f.owner))
	}
}

// sent reports whether a Kustomization is the sender's. One that lost its label is, as long as it
// delivers what the sender made under its name.
func (f sender) sent(k *kustomizev1.Kustomization) bool {
	by, labelled := k.Labels[fleetv1.LabelMadeBy]
	ref := k.Spec.SourceRef
	return by == f.label || !labelled && ref.Kind == sourcev1.ExternalArtifactKind && ref.Name == k.Name && (ref.Namespace == "" || ref.Namespace == k.Namespace)
}

// owns reports whether an ExternalArtifact is the sender's.
func (f sender) owns(ea *sourcev1.ExternalArtifact) bool {
	ref := ea.Spec.SourceRef
	return ea.Labels[fleetv1.LabelMadeBy] == f.label || ref != nil && refersTo(ref, f.maker)
}

func refersTo(ref *meta.NamespacedObjectKindReference, m maker) bool {
	return ref.Kind == m.Kind && ref.Name == m.Name && (ref.Namespace == "" || ref.Namespace == m.Namespace)
}

// behind reports whether an error only says that the cache has not caught up yet with what
// was written: the event that it is behind with brings the sender back.
func behind(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }

package release

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	"helm.sh/helm/v4/pkg/release/common"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	helmutil "helm.sh/helm/v4/pkg/release/v1/util"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
)

// Removal uninstalls a release without waiting for it:
//
//	record as uninstalling ─► pre-delete hooks ─► objects ─► gone ─► post-delete hooks ─► history
//
// A value is one run; a new one goes on where the record ends.
type Removal struct {
	Hooks *Hooks
	Store *Store
	// Record is the newest revision.
	Record *Record
	// Spec is how; Timeout bounds each hook and the wait for the objects.
	Spec    v2.Uninstall
	Timeout time.Duration
	// Action is Uninstall or UninstallRemediation.
	Action v2.ReleaseAction
	// Besides are objects that the unit has delivered and that Record may not name: what was
	// there before, where the newest revision failed half way. They go if they carry the
	// unit's labels, and not those of a Kustomization as well.
	Besides []observe.Reference
	// MadeFirst spares what is older than the record: an install that failed has only taken it over.
	MadeFirst bool
	// Restart begins anew what an earlier attempt failed at.
	Restart bool

	begun, sent bool
	since       time.Time // what is older is spared, by the server's clock
	left        []observe.Reference
	// Left are the objects that are left where they are, with the reason.
	Left []string
}

// Advance does what can be done now. When it is done, Record says uninstalled; in the storage it
// is kept only where the spec asks for the history.
func (x *Removal) Advance(ctx context.Context) (Progress, error) {
	if x.Record.Info.Status == common.StatusUninstalled {
		return x.finish(ctx)
	}
	if err := x.begin(ctx); err != nil {
		return Progress{}, err
	}
	marks := &x.Record.Marks
	if !x.Spec.DisableHooks && marks.Event != helmrelease.HookPostDelete {
		p, err := x.Hooks.Advance(ctx, x.run(helmrelease.HookPreDelete))
		if err != nil || !p.Done {
			return p, err
		}
	}
	if x.Spec.DisableHooks || marks.Event != helmrelease.HookPostDelete {
		p, err := x.objects(ctx)
		if err != nil || !p.Done {
			return p, err
		}
	}
	if !x.Spec.DisableHooks {
		p, err := x.Hooks.Advance(ctx, x.run(helmrelease.HookPostDelete))
		if err != nil || !p.Done {
			return p, err
		}
	}
	return x.finish(ctx)
}

// run begins anew, once, the event at which the earlier attempt failed.
func (x *Removal) run(event helmrelease.HookEvent) HookRun {
	restart := x.Restart && x.Record.Marks.Event == event
	if restart {
		x.Restart = false
	}
	return HookRun{Record: x.Record, Event: event, Timeout: x.Timeout, Restart: restart}
}

// begin records that the release is being uninstalled, by this unit.
func (x *Removal) begin(ctx context.Context) error {
	r, unit := x.Record, x.Hooks.Unit.String()
	going := r.Info.Status == common.StatusUninstalling && r.Marks.Unit == unit
	if x.begun || going && r.Marks.Action == x.Action && !x.Restart && !r.unsaved {
		return nil
	}
	if !going {
		r.Marks = Marks{Unit: unit, Inputs: r.Marks.Inputs}
	}
	r.Marks.Action = x.Action
	r.SetStatus(common.StatusUninstalling, "Deletion in progress (or silently failed)")
	r.Info.Deleted = x.Hooks.Clock.Now().UTC().Truncate(time.Microsecond)
	r.unsaved = true
	if err := x.Store.Update(ctx, r); err != nil {
		return err
	}
	x.begun, r.unsaved = true, false
	return nil
}

// objects deletes what the release installed and waits until it is gone.
func (x *Removal) objects(ctx context.Context) (Progress, error) {
	if !x.sent {
		if p, err := x.send(ctx); err != nil || p.Failed != nil {
			return p, err
		}
	}
	for len(x.left) > 0 && !x.Spec.DisableWait {
		ref := x.left[0]
		if err := x.Hooks.Follow.Follow(ctx, x.Hooks.Unit, []observe.Reference{ref}); err != nil {
			return Progress{}, err
		}
		live, err := x.Hooks.Live.metadata(ctx, ref)
		if err != nil {
			return Progress{}, err
		}
		if live == nil || live.DeletionTimestamp == nil {
			x.left = x.left[1:] // gone, or made anew by somebody
			continue
		}
		until := x.Record.Info.Deleted.Add(x.Timeout)
		if !x.Hooks.Clock.Now().Before(until) {
			return x.failed(failure.Timeout, ref, fmt.Errorf("%s is not gone after %s%s", ref.ID, x.Timeout, heldBy(live))), nil
		}
		return Progress{Object: ref, Until: until, Waits: ref.ID.String() + " is being deleted" + heldBy(live)}, nil
	}
	return Progress{Done: true}, x.Hooks.Follow.Follow(ctx, x.Hooks.Unit, nil)
}

func heldBy(live *metav1.PartialObjectMetadata) string {
	if len(live.Finalizers) == 0 {
		return ""
	}
	return ", held by the finalizers " + strings.Join(live.Finalizers, ", ")
}

func (x *Removal) failed(kind failure.Kind, ref observe.Reference, why error) Progress {
	return Progress{Object: ref, Failed: &failure.Error{
		Op: "uninstall", Kind: kind, Object: x.Record.Namespace + "/" + x.Record.Name, Err: why,
	}}
}

// refused is an error that ends the attempt, unless asking again may help.
func (x *Removal) refused(ref observe.Reference, err error) (Progress, error) {
	switch kind := failure.KindOf(err); kind {
	case "", failure.Unavailable, failure.Timeout:
		return Progress{}, err
	default:
		return x.failed(kind, ref, err), nil
	}
}

// send deletes the objects in Helm's order, those of a kind side by side.
func (x *Removal) send(ctx context.Context) (Progress, error) {
	x.Left, x.left = nil, nil
	if x.MadeFirst {
		var err error
		if x.since, err = x.Store.CreatedAt(ctx, x.Record); err != nil {
			return Progress{}, err
		}
	}
	groups, named, err := x.manifests(ctx)
	if err != nil {
		return x.refused(observe.Reference{}, err)
	}
	groups = append(groups, slices.DeleteFunc(slices.Clone(x.Besides), func(ref observe.Reference) bool { return named[ref.ID] }))
	for _, group := range groups {
		results := make([]deletion, len(group))
		x.Hooks.Live.each(ctx, group, func(i int, ref observe.Reference) { results[i] = x.delete(ctx, ref, named[ref.ID]) })
		for i, result := range results {
			if result.err != nil {
				return x.refused(group[i], result.err)
			}
			switch {
			case result.kept != "":
				x.Left = append(x.Left, fmt.Sprintf("%s (%s)", group[i].ID, result.kept))
			case result.going:
				x.left = append(x.left, group[i])
			}
		}
	}
	if err := ctx.Err(); err != nil {
		return Progress{}, fmt.Errorf("uninstall %s: %w", x.Record.Name, err)
	}
	x.sent = true
	return Progress{}, nil
}

type deletion struct {
	going bool
	kept  string
	err   error
}

// delete deletes one object, provided it says that it is the release's; one that the record
// does not name must carry the unit's labels as well.
func (x *Removal) delete(ctx context.Context, ref observe.Reference, named bool) deletion {
	live, err := x.Hooks.Live.metadata(ctx, ref)
	if errors.Is(err, kube.ErrUnknownKind) {
		return deletion{} // it went with its definition
	}
	if err != nil || live == nil {
		return deletion{err: err}
	}
	owner, _ := object.OwnerOf(live.Labels, object.HelmGroup)
	labelled := owner.Name == x.Hooks.Unit.Name && owner.Namespace == x.Hooks.Unit.Namespace
	belongs := Belongs(live, x.Record.Name, x.Record.Namespace)
	_, delivered := object.OwnerOf(live.Labels, object.KustomizeGroup) // whose apply leaves our labels and Helm's annotations
	switch {
	case x.Hooks.delivered(ref.ID):
		return deletion{kept: "another unit delivers it"}
	case Kept(live):
		return deletion{kept: "its resource policy says so"}
	case live.CreationTimestamp.Time.Before(x.since):
		return deletion{kept: "it was there before"}
	case !named && delivered:
		return deletion{kept: "a Kustomization delivers it"}
	// Our labels stay on what another release took since; Helm's annotations then name that.
	case labelled && (belongs || live.Annotations[releaseAnnotation] == ""), named && belongs:
		return deletion{going: true, err: x.Hooks.Live.remove(ctx, ref, live, x.propagation())}
	default:
		return deletion{kept: "it is not of this release"}
	}
}

func (x *Removal) propagation() metav1.DeletionPropagation {
	switch x.Spec.GetDeletionPropagation() {
	case "foreground":
		return metav1.DeletePropagationForeground
	case "orphan":
		return metav1.DeletePropagationOrphan
	default:
		return metav1.DeletePropagationBackground
	}
}

// manifests returns the objects of the revision in the order in which Helm uninstalls
// them, grouped by kind, and which ones it names. What the record says to keep, and what is
// of a kind that is not served any more, is in no group.
func (x *Removal) manifests(ctx context.Context) (groups [][]observe.Reference, named map[object.ID]bool, err error) {
	_, files, err := helmutil.SortManifests(helmutil.SplitManifests(x.Record.Manifest), nil, helmutil.UninstallOrder)
	if err != nil {
		return nil, nil, &failure.Error{Op: "read the stored manifest of", Kind: failure.Invalid, Object: SecretName(x.Record.Name, x.Record.Version), Err: err}
	}
	named = map[object.ID]bool{}
	for _, file := range files {
		u, err := x.Hooks.Live.read(ctx, file.Content, x.Record.Namespace)
		if errors.Is(err, kube.ErrUnknownKind) {
			continue // it went with its definition
		}
		if err != nil {
			return nil, nil, err
		}
		ref := referenceOf(u)
		named[ref.ID] = true
		if Kept(u) {
			x.Left = append(x.Left, ref.ID.String()+" (its resource policy says so)")
			continue
		}
		if n := len(groups); n == 0 || groups[n-1][0].ID.GroupKind() != ref.ID.GroupKind() {
			groups = append(groups, nil)
		}
		groups[len(groups)-1] = append(groups[len(groups)-1], ref)
	}
	return groups, named, nil
}

// finish records the end, or removes all record of the release.
func (x *Removal) finish(ctx context.Context) (Progress, error) {
	r := x.Record
	if r.Info.Status != common.StatusUninstalled {
		r.SetStatus(common.StatusUninstalled, "Uninstallation complete")
		if x.Spec.KeepHistory {
			if err := x.Store.Update(ctx, r); err != nil {
				r.SetStatus(common.StatusUninstalling, "Deletion in progress (or silently failed)")
				return Progress{}, err
			}
		}
	}
	if !x.Spec.KeepHistory {
		return Progress{Done: true}, x.Store.Purge(ctx, r.Name)
	}
	_, err := x.Store.Supersede(ctx, r.Name, r.Version)
	return Progress{Done: true}, err
}

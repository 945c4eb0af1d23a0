package release

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
)

// HookAnnotation ties the object of a hook to the one run that made it.
const HookAnnotation = "fleet.bowline.dev/hook"

// Hooks runs the hooks of a release without waiting for them. How far a run came is in
// the record: a hook is recorded as running before its object is made, and as ended
// after that was seen, so that whoever goes on neither loses nor repeats one.
type Hooks struct {
	Live    *Live
	Records Records
	Follow  Follower
	Clock   clock.PassiveClock
	// Unit is who is woken.
	Unit types.NamespacedName
	// Explain says in one line why an object fails or hangs; "" where it cannot tell. It is asked
	// before the object is removed. May be nil.
	Explain func(context.Context, observe.Reference) string
	// Delivered reports whether another unit, of either kind, delivers the object: neither a hook
	// nor an uninstall takes that away. May be nil.
	Delivered func(object.ID) bool
}

func (h *Hooks) delivered(id object.ID) bool { return h.Delivered != nil && h.Delivered(id) }

// HookRun is one run of all hooks of one event.
type HookRun struct {
	// Record is the revision whose hooks run. It is kept up to date.
	Record *Record
	Event  helmrelease.HookEvent
	// Timeout bounds each hook.
	Timeout time.Duration
	// Only selects hooks by name; nil: all.
	Only func(name string) bool
	// Restart begins anew what an earlier attempt ended.
	Restart bool
}

// errHook is wrapped by what says that a hook failed.
var errHook = errors.New("the hook failed")

// Advance does what can be done now. Where hooks are disabled it is not called.
// An error means that the call may be repeated; a hook that failed is in the Progress.
func (h *Hooks) Advance(ctx context.Context, run HookRun) (Progress, error) {
	x := &execution{Hooks: h, HookRun: run, r: run.Record, hooks: chosen(run)}
	marks := &x.r.Marks
	if len(x.hooks) == 0 || marks.Ended(run.Event) && !run.Restart {
		return Progress{Done: true}, nil
	}
	if marks.Event != run.Event || run.Restart {
		x.begin()
	}
	p, err := x.advance(ctx)
	if x.r.unsaved && err == nil {
		err = x.store(ctx)
	}
	if err == nil && p.ended() {
		err = h.Follow.Follow(ctx, h.Unit, nil)
	}
	return p, err
}

// HooksOf returns the hooks of the event in the order in which they would run.
func HooksOf(record *Record, event helmrelease.HookEvent) []*helmrelease.Hook {
	return chosen(HookRun{Record: record, Event: event})
}

// chosen returns the hooks of the event in the order in which they run.
func chosen(run HookRun) []*helmrelease.Hook {
	var hooks []*helmrelease.Hook
	for _, hook := range run.Record.Hooks {
		if slices.Contains(hook.Events, run.Event) && (run.Only == nil || run.Only(hook.Name)) {
			hooks = append(hooks, hook)
		}
	}
	slices.SortStableFunc(hooks, func(a, b *helmrelease.Hook) int {
		return cmp.Or(cmp.Compare(a.Weight, b.Weight), cmp.Compare(a.Name, b.Name))
	})
	return hooks
}

// HasHooks reports whether the revision has hooks of the event.
func HasHooks(rel *Release, event helmrelease.HookEvent) bool {
	return slices.ContainsFunc(rel.Hooks, func(h *helmrelease.Hook) bool { return slices.Contains(h.Events, event) })
}

// execution is one call.
type execution struct {
	*Hooks
	HookRun
	r     *Record
	hooks []*helmrelease.Hook
}

// begin notes that the hooks of the event begin now. It is stored with the first hook.
func (x *execution) begin() {
	marks := &x.r.Marks
	marks.Event, marks.Since, marks.Created = x.Event, metav1.NewMicroTime(x.now()), ""
	marks.Done = slices.DeleteFunc(slices.Clone(marks.Done), func(e helmrelease.HookEvent) bool { return e == x.Event })
}

// now has the precision with which times are stored.
func (x *execution) now() time.Time { return x.Clock.Now().UTC().Truncate(time.Microsecond) }

func (x *execution) store(ctx context.Context) error {
	if err := x.Records.Update(ctx, x.r); err != nil {
		return err
	}
	x.r.unsaved = false
	return nil
}

// phase returns what became of the hook in this run; "" where it has not begun.
func (x *execution) phase(hook *helmrelease.Hook) helmrelease.HookPhase {
	if hook.LastRun.StartedAt.IsZero() || hook.LastRun.StartedAt.Before(x.r.Marks.Since.Time) {
		return ""
	}
	return hook.LastRun.Phase
}

func (x *execution) advance(ctx context.Context) (Progress, error) {
	for i, hook := range x.hooks {
		phase := x.phase(hook)
		if phase == helmrelease.HookPhaseSucceeded {
			continue
		}
		u, err := x.Live.read(ctx, hook.Manifest, x.r.Namespace)
		if err != nil && u == nil {
			return Progress{}, err
		}
		j := &job{execution: x, hook: hook, object: u, ref: observe.Reference{}}
		if u != nil {
			j.name(u)
		}
		p, err := j.advance(ctx, phase, err)
		if err != nil || !p.ended() {
			return p, err
		}
		if p.Failed != nil {
			return p, x.clean(ctx, i, hook)
		}
	}
	if err := x.clean(ctx, len(x.hooks), nil); err != nil {
		return Progress{}, err
	}
	x.r.Marks.Done = append(x.r.Marks.Done, x.Event) // stored with whatever is written next
	return Progress{Done: true}, nil
}

// clean removes, as their policies say, the hooks that succeeded, the last first, and the
// one that failed.
func (x *execution) clean(ctx context.Context, succeeded int, failing *helmrelease.Hook) error {
	if x.r.unsaved { // an end that is not recorded must still be there to be seen
		if err := x.store(ctx); err != nil {
			return err
		}
	}
	if failing != nil && slices.Contains(failing.DeletePolicies, helmrelease.HookFailed) {
		if err := x.removeOwn(ctx, failing); err != nil {
			return err
		}
	}
	for _, hook := range slices.Backward(x.hooks[:succeeded]) {
		if slices.Contains(hook.DeletePolicies, helmrelease.HookSucceeded) {
			if err := x.removeOwn(ctx, hook); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeOwn removes the object that this run made for the hook.
func (x *execution) removeOwn(ctx context.Context, hook *helmrelease.Hook) error {
	if hook.Kind == definitionKind {
		return nil // what is of the kind would go with it
	}
	u, err := x.Live.read(ctx, hook.Manifest, x.r.Namespace)
	if err != nil {
		return nil //nolint:nilerr // of a kind that is not served nothing is there
	}
	j := &job{execution: x, hook: hook}
	j.name(u)
	live, err := x.Live.metadata(ctx, j.ref)
	if err != nil || live == nil || live.Annotations[HookAnnotation] != j.tie() || x.delivered(j.ref.ID) {
		return err
	}
	return x.Live.remove(ctx, j.ref, live, metav1.DeletePropagationBackground)
}

// job is one hook.
type job struct {
	*execution
	hook   *helmrelease.Hook
	object *unstructured.Unstructured
	ref    observe.Reference
	sent   bool // by this call
}

// tie is what the annotation says: which run of which hook made the object.
func (j *job) tie() string {
	return fmt.Sprintf("%s/%s.v%d %s %s", j.r.Namespace, j.r.Name, j.r.Version, j.Event, j.hook.LastRun.StartedAt.UTC().Format(time.RFC3339Nano))
}

// name gives the object a name where the manifest asks the server to: one that is the
// same whoever goes on.
func (j *job) name(u *unstructured.Unstructured) {
	if u.GetName() == "" && u.GetGenerateName() != "" {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s/%s.v%d %s %s", j.r.Namespace, j.r.Name, j.r.Version, j.hook.Path, j.hook.Name))
		u.SetName(u.GetGenerateName() + hex.EncodeToString(sum[:])[:8])
		u.SetGenerateName("")
	}
	j.object, j.ref = u, referenceOf(u)
}

// advance brings the hook as far as it goes. unread is why its kind is not known.
func (j *job) advance(ctx context.Context, phase helmrelease.HookPhase, unread error) (Progress, error) {
	switch phase {
	case helmrelease.HookPhaseFailed, helmrelease.HookPhaseUnknown:
		return j.told(errHook), nil
	case helmrelease.HookPhaseRunning:
		return j.follow(ctx)
	default:
	}
	if unread != nil {
		if failure.KindOf(unread) == failure.Unavailable {
			return Progress{}, unread
		}
		j.started()
		return j.fail(ctx, unread), nil
	}
	if j.delivered(j.ref.ID) {
		j.started()
		return j.fail(ctx, &failure.Error{Kind: failure.Conflict, Err: fmt.Errorf("%s is delivered by another unit", j.ref.ID),
			Remedy: "remove it from that unit, or rename the hook"}), nil
	}
	if waits, err := j.makeRoom(ctx); err != nil || waits != nil {
		return j.waitFor(ctx, waits, err)
	}
	j.started()
	if err := j.store(ctx); err != nil {
		j.hook.LastRun = helmrelease.HookExecution{} // what is not recorded has not begun
		return Progress{}, err
	}
	return j.create(ctx)
}

func (j *job) started() {
	now := j.now()
	if since := j.r.Marks.Since.Time; now.Before(since) {
		now = since.UTC() // a clock that went back must not take the hook out of its run
	}
	j.hook.LastRun = helmrelease.HookExecution{StartedAt: now, Phase: helmrelease.HookPhaseRunning}
	j.r.Marks.Created = ""
	j.r.unsaved = true
}

// makeRoom removes what an earlier run left under the name, where the policy says so, and
// returns it while it is still going.
func (j *job) makeRoom(ctx context.Context) (*metav1.PartialObjectMetadata, error) {
	policies := j.hook.DeletePolicies
	if j.hook.Kind == definitionKind || len(policies) > 0 && !slices.Contains(policies, helmrelease.HookBeforeHookCreation) {
		return nil, nil
	}
	live, err := j.Live.metadata(ctx, j.ref)
	if err != nil || live == nil {
		return nil, err
	}
	if err := j.Live.remove(ctx, j.ref, live, metav1.DeletePropagationBackground); err != nil {
		return nil, err
	}
	return j.Live.metadata(ctx, j.ref)
}

func (j *job) waitFor(ctx context.Context, left *metav1.PartialObjectMetadata, err error) (Progress, error) {
	if err != nil {
		return Progress{}, err
	}
	if err := j.Hooks.Follow.Follow(ctx, j.Unit, []observe.Reference{j.ref}); err != nil {
		return Progress{}, err
	}
	until := left.CreationTimestamp.Time
	if left.DeletionTimestamp != nil {
		until = left.DeletionTimestamp.Time
	}
	until = until.Add(j.Timeout)
	if !j.Clock.Now().Before(until) {
		j.started()
		return j.fail(ctx, fmt.Errorf("%s of an earlier run is still being deleted after %s", j.ref.ID, j.Timeout)), nil
	}
	return Progress{
		Object: j.ref, Hook: j.hook.Name, Until: until,
		Waits: fmt.Sprintf("%s hook %s: %s of an earlier run is being deleted", j.Event, j.hook.Name, j.ref.ID),
	}, nil
}

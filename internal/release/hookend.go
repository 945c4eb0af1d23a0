package release

import (
	"context"
	"errors"
	"fmt"

	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
)

const definitionKind = "CustomResourceDefinition"

// create makes the object of a hook that is recorded as running.
func (j *job) create(ctx context.Context) (Progress, error) {
	u := j.object.DeepCopy()
	annotations := u.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[HookAnnotation] = j.tie()
	u.SetAnnotations(annotations)
	if err := j.Live.send(ctx, u); err != nil {
		if kind := failure.KindOf(err); ctx.Err() != nil || kind == failure.Unavailable || kind == failure.Timeout {
			return Progress{}, err // whether it was made is seen when the hook is followed
		}
		return j.fail(ctx, err), nil
	}
	if j.sent = true; !runsToEnd(j.ref.ID) {
		return j.follow(ctx)
	}
	j.r.Marks.Created = j.tie()
	if err := j.Records.Mark(ctx, j.r); err != nil {
		return Progress{}, err
	}
	return j.follow(ctx)
}

// runsToEnd reports whether a hook of the kind has ended only when its object says so.
func runsToEnd(id object.ID) bool {
	return id.Group == "batch" && id.Kind == "Job" || id.Group == "" && id.Kind == "Pod"
}

// follow looks at the object of a running hook.
func (j *job) follow(ctx context.Context) (Progress, error) {
	if err := j.Hooks.Follow.Follow(ctx, j.Unit, []observe.Reference{j.ref}); err != nil {
		return Progress{}, err
	}
	live, err := j.Live.whole(ctx, j.ref)
	if err != nil {
		return Progress{}, err
	}
	made := j.sent || j.r.Marks.Created == j.tie()
	if live == nil || live.GetAnnotations()[HookAnnotation] != j.tie() {
		if made {
			return j.fail(ctx, errors.New("its object was removed before its end was seen")), nil
		}
		return j.create(ctx)
	}
	switch end := verdict(live); {
	case end.failed != "":
		return j.fail(ctx, errors.New(end.failed)), nil
	case end.ended:
		j.hook.LastRun.CompletedAt, j.hook.LastRun.Phase = j.now(), helmrelease.HookPhaseSucceeded
		j.r.unsaved = true
		if definition(j.ref.ID) {
			j.Live.Cluster.Resources.Learn(live)
		}
		return Progress{Done: true}, nil
	case live.GetDeletionTimestamp() != nil:
		return j.fail(ctx, errors.New("its object is being deleted by somebody else")), nil
	}
	until := j.hook.LastRun.StartedAt.Add(j.Timeout)
	if !j.Clock.Now().Before(until) {
		return j.fail(ctx, j.late(ctx)), nil
	}
	return Progress{
		Object: j.ref, Hook: j.hook.Name, Until: until,
		Waits: fmt.Sprintf("%s hook %s: %s is running", j.Event, j.hook.Name, j.ref.ID),
	}, nil
}

// late says that the time is over, and why, as far as can be told.
func (j *job) late(ctx context.Context) error {
	why := fmt.Errorf("it did not end within %s", j.Timeout)
	if j.Explain != nil {
		if cause := j.Explain(ctx, j.ref); cause != "" {
			why = fmt.Errorf("%w: %s", why, cause)
		}
	}
	return &failure.Error{Kind: failure.Timeout, Err: why}
}

// fail records that the hook failed.
func (j *job) fail(ctx context.Context, why error) Progress {
	if f := (&failure.Error{}); j.Explain != nil && runsToEnd(j.ref.ID) && !errors.As(why, &f) {
		if cause := j.Explain(ctx, j.ref); cause != "" {
			why = fmt.Errorf("%w: %s", why, cause)
		}
	}
	j.hook.LastRun.CompletedAt, j.hook.LastRun.Phase = j.now(), helmrelease.HookPhaseFailed
	j.r.unsaved = true
	return j.told(why)
}

func (j *job) told(why error) Progress {
	f := &failure.Error{
		Op: fmt.Sprintf("run the %s hook", j.Event), Kind: failure.Conflict,
		Object: fmt.Sprintf("%s (%s)", j.hook.Name, j.hook.Path), Err: why,
	}
	if failure.KindOf(why) != "" {
		f.Kind = failure.KindOf(why)
	}
	return Progress{Failed: f, Object: j.ref, Hook: j.hook.Name}
}

// end is what an object says of its end.
type end struct {
	ended  bool
	failed string
}

// verdict reports whether a hook's object has ended: a job or a pod says so, a definition
// is established, anything else need only be there.
func verdict(u *unstructured.Unstructured) end {
	id := object.IDOf(u)
	switch {
	case id.Group == "batch" && id.Kind == "Job":
		if message, ok := condition(u, "Failed"); ok {
			return end{failed: "the job failed: " + message}
		}
		_, complete := condition(u, "Complete")
		return end{ended: complete}
	case id.Group == "" && id.Kind == "Pod":
		phase, _, _ := unstructured.NestedString(u.Object, "status", "phase")
		if phase == "Failed" {
			message, _, _ := unstructured.NestedString(u.Object, "status", "message")
			return end{failed: "the pod failed: " + message}
		}
		return end{ended: phase == "Succeeded"}
	case definition(id):
		_, established := condition(u, "Established")
		if message, refused := conditionIs(u, "NamesAccepted", "False"); refused {
			return end{failed: "its names are taken: " + message}
		}
		return end{ended: established}
	}
	return end{ended: true}
}

func definition(id object.ID) bool {
	return id.Group == "apiextensions.k8s.io" && id.Kind == definitionKind
}

func condition(u *unstructured.Unstructured, name string) (string, bool) {
	return conditionIs(u, name, "True")
}

// conditionIs returns the message of a condition that has this status.
func conditionIs(u *unstructured.Unstructured, name, status string) (string, bool) {
	conditions, _, _ := unstructured.NestedSlice(u.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == name && c["status"] == status {
			message, _ := c["message"].(string)
			if reason, _ := c["reason"].(string); message == "" {
				message = reason
			}
			return message, true
		}
	}
	return "", false
}

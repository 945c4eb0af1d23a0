package flux

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Annotations of a deployment that was stopped.
const (
	// replicasAnnotation is how many replicas it had.
	replicasAnnotation = "fleet.bowline.dev/flux-replicas"
	// reconcileAnnotation with the value "disabled" keeps the engine from delivering
	// the deployment from Git, where an installation that delivers itself has it with
	// all its replicas.
	reconcileAnnotation = "kustomize.toolkit.fluxcd.io/reconcile"
	// reconciledAnnotation is the value of reconcileAnnotation that it had; absent
	// where it had none.
	reconciledAnnotation = "fleet.bowline.dev/flux-reconcile"
)

const owner = client.FieldOwner("bowline-migrate")

// Stopped reports whether Stop stopped the controller, and not somebody else.
func (c *Controller) Stopped() bool {
	return c.Annotations[replicasAnnotation] != "" && c.replicas() == 0
}

func (c *Controller) replicas() int32 {
	if c.Spec.Replicas == nil {
		return 1
	}
	return *c.Spec.Replicas
}

// Recorded is how many replicas a stopped controller had.
func (c *Controller) Recorded() string { return c.Annotations[replicasAnnotation] }

// Stop scales a controller to zero and notes at it how it was, in one request, so that
// a call that is interrupted can be repeated.
func (c *Controller) Stop(ctx context.Context, to client.Client) error {
	if c.Stopped() {
		return nil
	}
	annotations := map[string]any{replicasAnnotation: strconv.Itoa(int(c.replicas())), reconcileAnnotation: "disabled"}
	if c.Recorded() == "" {
		// Where Stop was here before, and somebody scaled it up since, the value is Stop's.
		annotations[reconciledAnnotation] = c.annotation(reconcileAnnotation)
	}
	return c.patch(ctx, to, 0, annotations)
}

// annotation is the value of an annotation in a patch: nil where there is none.
func (c *Controller) annotation(name string) any {
	if value, ok := c.Annotations[name]; ok {
		return value
	}
	return nil
}

// Start scales a controller to what it had before Stop.
func (c *Controller) Start(ctx context.Context, to client.Client) error {
	replicas, err := strconv.Atoi(c.Recorded())
	if err != nil || replicas < 0 {
		return &failure.Error{Op: "start", Object: c.String(), Kind: failure.Invalid,
			Err: fmt.Errorf("annotation %s holds %q", replicasAnnotation, c.Recorded()), Remedy: "correct it to the number of replicas"}
	}
	return c.patch(ctx, to, replicas, map[string]any{
		replicasAnnotation: nil, reconcileAnnotation: c.annotation(reconciledAnnotation), reconciledAnnotation: nil,
	})
}

func (c *Controller) patch(ctx context.Context, to client.Client, replicas int, annotations map[string]any) error {
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"annotations": annotations}, "spec": map[string]any{"replicas": replicas},
	})
	if err != nil {
		return err
	}
	if err := to.Patch(ctx, &c.Deployment, client.RawPatch(types.MergePatchType, body), owner); err != nil {
		return fmt.Errorf("scale %s to %d: %w", c, replicas, err)
	}
	return nil
}

// poll is how often the cluster is asked while something stops or starts.
const poll = 500 * time.Millisecond

// AwaitStopped returns when no pod of the controllers is left and nobody holds their
// leases: only then can no request of theirs be under way.
func AwaitStopped(ctx context.Context, c client.Reader, controllers []*Controller, timeout time.Duration) error {
	var last string
	// Requests do not have the deadline of the wait: one that it cuts off would hide
	// what is waited for.
	err := wait.PollUntilContextTimeout(ctx, poll, timeout, true, func(context.Context) (bool, error) {
		var err error
		last, err = running(ctx, c, controllers)
		return last == "", err
	})
	if last != "" && wait.Interrupted(err) {
		return &failure.Error{Op: "stop Flux", Kind: failure.Timeout, Err: fmt.Errorf("after %s, %s", timeout, last),
			Remedy: "see why it does not end, or wait longer with --timeout"}
	}
	return err
}

// running says what of the controllers still runs.
func running(ctx context.Context, c client.Reader, controllers []*Controller) (string, error) {
	for _, d := range controllers {
		selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
		if err != nil {
			return "", fmt.Errorf("read the selector of %s: %w", d, err)
		}
		var pods corev1.PodList
		if err := c.List(ctx, &pods, client.InNamespace(d.Namespace), client.MatchingLabelsSelector{Selector: selector}); err != nil {
			return "", fmt.Errorf("look for pods of %s: %w", d, err)
		}
		for _, p := range pods.Items {
			if p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
				return fmt.Sprintf("Pod/%s/%s is still there", p.Namespace, p.Name), nil
			}
		}
	}
	held, err := Leases(ctx, c, controllers[0].Namespace, func(l *coordinationv1.Lease) bool {
		return slices.ContainsFunc(controllers, func(d *Controller) bool { return strings.HasPrefix(l.Name, d.Role+"-leader-election") })
	})
	if err != nil || len(held) == 0 {
		return "", err
	}
	return fmt.Sprintf("%s is held by %s", leaseName(&held[0]), holder(&held[0])), nil
}

// Leases returns the leases of a namespace, or of all, that somebody holds now.
func Leases(ctx context.Context, c client.Reader, namespace string, which func(*coordinationv1.Lease) bool) ([]coordinationv1.Lease, error) {
	var list coordinationv1.LeaseList
	if err := c.List(ctx, &list, client.InNamespace(namespace)); err != nil {
		return nil, fmt.Errorf("look for leases: %w", err)
	}
	now := time.Now()
	return slices.DeleteFunc(list.Items, func(l coordinationv1.Lease) bool { return !which(&l) || !isHeld(&l, now) }), nil
}

// isHeld reports whether a lease has a holder who renewed it in time.
func isHeld(l *coordinationv1.Lease, now time.Time) bool {
	if holder(l) == "" || l.Spec.RenewTime == nil || l.Spec.LeaseDurationSeconds == nil {
		return false
	}
	return now.Before(l.Spec.RenewTime.Add(time.Duration(*l.Spec.LeaseDurationSeconds) * time.Second))
}

func holder(l *coordinationv1.Lease) string {
	if l.Spec.HolderIdentity == nil {
		return ""
	}
	return *l.Spec.HolderIdentity
}

func leaseName(l *coordinationv1.Lease) string { return "Lease/" + l.Namespace + "/" + l.Name }

// RefuseEngine is an error while an engine of Bowline leads on the cluster, whose
// lease has this name. An engine without leader election cannot be seen.
func RefuseEngine(ctx context.Context, c client.Reader, lease string) error {
	held, err := Leases(ctx, c, "", func(l *coordinationv1.Lease) bool { return l.Name == lease })
	if err != nil || len(held) == 0 {
		return err
	}
	return &failure.Error{Op: "give back to Flux", Kind: failure.Conflict,
		Err:    fmt.Errorf("an engine of Bowline runs: %s holds %s", holder(&held[0]), leaseName(&held[0])),
		Remedy: "stop it first: two engines would undo each other's work"}
}

// AwaitStarted returns when all replicas of the controllers are ready.
func AwaitStarted(ctx context.Context, c client.Reader, controllers []*Controller, timeout time.Duration) error {
	var last *Controller
	err := wait.PollUntilContextTimeout(ctx, poll, timeout, true, func(context.Context) (bool, error) {
		for _, d := range controllers {
			if err := c.Get(ctx, client.ObjectKeyFromObject(&d.Deployment), &d.Deployment); err != nil {
				return false, fmt.Errorf("read %s: %w", d, err)
			}
			if d.Status.ObservedGeneration < d.Generation || d.Status.ReadyReplicas < d.replicas() {
				last = d
				return false, nil
			}
		}
		return true, nil
	})
	if last != nil && wait.Interrupted(err) {
		return &failure.Error{Op: "start Flux", Kind: failure.Timeout,
			Err: fmt.Errorf("after %s, %d of %d replicas of %s are ready", timeout, last.Status.ReadyReplicas, last.replicas(), last), Remedy: "see why with `kubectl describe`"}
	}
	return err
}

// sorted returns names without duplicates, for people.
func sorted(names []string) []string {
	slices.SortFunc(names, cmp.Compare[string])
	return slices.Compact(names)
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
)

// await watches one object until until says that it has settled, and returns
// its state then. When timeout passes first, the error names what it was last
// waiting for.
func (c *cluster) await(ctx context.Context, k kind, name string, timeout time.Duration, until func(client.Object, state) bool) (state, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errTimeout)
	defer cancel()
	var last state
	err := c.follow(ctx, k.newList, follower{changed: func(ch change) (bool, error) {
		if ch.deleted {
			return false, &failure.Error{Op: "wait for", Object: k.name + "/" + name, Kind: failure.NotFound,
				Err: errors.New("it was deleted meanwhile")}
		}
		last = k.state(ch.object)
		return until(ch.object, last), nil
	}}, c.named(name)...)
	if errors.Is(context.Cause(ctx), errTimeout) && err != nil {
		return last, &failure.Error{Op: "wait for", Object: k.name + "/" + name, Kind: failure.Timeout,
			Err: fmt.Errorf("not settled after %s: %s", timeout, line(last.ready().Message))}
	}
	return last, err
}

const errTimeout = constError("the time given ran out")

// settled reports whether the controller has come to a verdict on the object's
// present generation. Waiting for a dependency is none: a new revision reaches
// the units of a chain one after the other.
func settled(o client.Object, s state) bool {
	if s.static {
		return true
	}
	ready := s.ready()
	if ready.Reason == meta.DependencyNotReadyReason {
		return false
	}
	return ready.Status != metav1.ConditionUnknown && s.observed >= o.GetGeneration() && ready.ObservedGeneration >= o.GetGeneration()
}

// verdict is nil when the object is ready and otherwise an error with the
// condition's message.
func verdict(k kind, name string, s state) error {
	ready := s.ready()
	if ready.Status == metav1.ConditionTrue {
		return nil
	}
	return &failure.Error{Op: "reconcile", Object: k.name + "/" + name, Kind: failure.Unavailable,
		Err: fmt.Errorf("%s: %s", ready.Reason, line(ready.Message))}
}

// result is the line that tells of a success.
func result(k kind, name string, s state) string {
	if s.outcome != "" {
		return fmt.Sprintf("%s/%s %s", k.name, name, s.outcome)
	}
	verb := "fetched"
	switch k.gvk.Kind {
	case kustomizev1.KustomizationKind:
		verb = "applied"
	case helmv2.HelmReleaseKind:
		verb = "released"
	}
	if s.static {
		return fmt.Sprintf("%s/%s %s", k.name, name, s.ready().Message)
	}
	return fmt.Sprintf("%s/%s %s revision %s", k.name, name, verb, s.revision)
}

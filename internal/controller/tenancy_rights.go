package controller

import (
	"context"
	"sync"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/plan"
)

// rights answers what one account may do, by asking the API server in its name, once
// in a while for each sort of object. It serves nothing but the question whose
// wanting an object counts: what is changed, the API server decides with the change.
type rights struct {
	cluster *kube.Cluster // as the account
	clock   clock.PassiveClock

	mu    sync.Mutex
	known map[rightKey]rightSeen // guarded by mu
}

// rightKey is a sort of object; name is empty for all of the sort.
type rightKey struct{ group, resource, namespace, name string }

type rightSeen struct {
	allowed bool
	at      time.Time
}

// grantTrusted is how long a right stands that the account was seen to have. To
// believe it for too long harms little, since no change is made by it.
const grantTrusted = 10 * time.Minute

func (s rightSeen) fresh(now time.Time) bool {
	age := now.Sub(s.at)
	return age < accountTrusted || s.allowed && age < grantTrusted
}

func newRights(cluster *kube.Cluster, c clock.PassiveClock) *rights {
	return &rights{cluster: cluster, clock: c, known: map[rightKey]rightSeen{}}
}

// mayApply reports whether the account may apply the object. What cannot be found
// out it may not.
func (r *rights) mayApply(ctx context.Context, w plan.Want) bool {
	resource, err := r.cluster.Resources.Of(ctx, w.GVK())
	if err != nil {
		return false
	}
	key := rightKey{group: resource.Group, resource: resource.Resource}
	if resource.Namespaced {
		key.namespace = w.ID.Namespace
	}
	if r.ask(ctx, key) {
		return true
	}
	key.name = w.ID.Name
	return r.ask(ctx, key)
}

func (r *rights) ask(ctx context.Context, key rightKey) bool {
	now := r.clock.Now()
	r.mu.Lock()
	seen, ok := r.known[key]
	r.mu.Unlock()
	if ok && seen.fresh(now) {
		return seen.allowed
	}
	allowed, err := r.review(ctx, key)
	if err != nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, s := range r.known {
		if !s.fresh(now) {
			delete(r.known, k)
		}
	}
	r.known[key] = rightSeen{allowed: allowed, at: now}
	return allowed
}

// review asks the API server.
func (r *rights) review(ctx context.Context, key rightKey) (bool, error) {
	review := &authorizationv1.SelfSubjectAccessReview{
		TypeMeta: metav1.TypeMeta{APIVersion: authorizationv1.SchemeGroupVersion.String(), Kind: "SelfSubjectAccessReview"},
		Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: "patch", Group: key.group, Resource: key.resource, Namespace: key.namespace, Name: key.name,
		}},
	}
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(review)
	if err != nil {
		return false, err
	}
	reviews := r.cluster.Dynamic.Resource(authorizationv1.SchemeGroupVersion.WithResource("selfsubjectaccessreviews"))
	answer, err := reviews.Create(ctx, &unstructured.Unstructured{Object: raw}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	allowed, _, err := unstructured.NestedBool(answer.Object, "status", "allowed")
	return allowed, err
}

// scopedLedger is the ledger as one run of a unit may know it, which acts as an
// account. What the account may not apply and the unit did not deliver
//
//   - is not known to it: whether another tenant has such an object makes no
//     difference, and the API server refuses the apply that is tried;
//   - is not wanted by it as far as others are concerned: wanting what one has no
//     right to must neither keep it from others nor save it from being deleted.
type scopedLedger struct {
	pipeline.Ledger
	may func(plan.Want) bool

	unit   types.NamespacedName
	hidden map[object.ID]bool
}

// scoped returns the target as the run may use it. With the engine's own rights, it is
// the target itself.
func (d *delivery) scoped(ctx context.Context, unit types.NamespacedName) pipeline.Target {
	if d.rights == nil {
		return d.Target
	}
	t := d.Target
	t.Ledger = &scopedLedger{Ledger: t.Ledger, unit: unit, may: func(w plan.Want) bool { return d.rights.mayApply(ctx, w) }}
	return t
}

// Want implements pipeline.Ledger.
func (l *scopedLedger) Want(unit types.NamespacedName, wants []plan.Want) {
	l.hidden = map[object.ID]bool{}
	counted := wants
	for i, w := range wants {
		switch {
		case l.delivers(w.ID) || l.may(w):
			if len(l.hidden) > 0 {
				counted = append(counted, w)
			}
		default:
			if len(l.hidden) == 0 {
				counted = append([]plan.Want{}, wants[:i]...)
			}
			l.hidden[w.ID] = true
		}
	}
	l.Ledger.Want(unit, counted)
}

// delivers reports whether the labels of the object name the unit: the API server let
// somebody write them who may write the object.
func (l *scopedLedger) delivers(id object.ID) bool {
	known, there := l.Ledger.Known(id)
	return there && known.Owner == l.unit
}

// Known implements plan.Ledger.
func (l *scopedLedger) Known(id object.ID) (plan.Known, bool) {
	if l.hidden[id] {
		return plan.Known{}, false
	}
	return l.Ledger.Known(id)
}

// Claimant implements plan.Ledger.
func (l *scopedLedger) Claimant(id object.ID) (types.NamespacedName, bool) {
	if l.hidden[id] {
		return types.NamespacedName{}, false
	}
	return l.Ledger.Claimant(id)
}

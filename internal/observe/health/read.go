package health

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
)

// Reader lists objects of a cluster. A [client.Reader] that reads from the API
// server is one; one that reads from a cache is not, because events are
// selected by field.
type Reader interface {
	List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error
}

// The bounds of one explanation, in objects. A cause shows in the first few
// pods that are not well; reading all of a large workload would say no more.
const (
	maxReplicaSets = 100
	maxPods        = 250
	maxSuspects    = 3
	maxEvents      = 50
)

// Explain reads why the workload u is not complete. It answers for Deployments,
// StatefulSets, DaemonSets, ReplicaSets, Jobs, Pods and PersistentVolumeClaims;
// for other kinds, and where nothing is known to be wrong, the Cause is zero.
//
// It makes at most six bounded lists, so ask it when a verdict changes or a
// wait goes on, not for every event. The error is a [failure.Error]: Denied
// where reading is forbidden, Unavailable otherwise.
func Explain(ctx context.Context, r Reader, u *unstructured.Unstructured) (Cause, error) {
	gvk := u.GroupVersionKind()
	e := evidence{workload: u}
	var err error
	switch gvk.Group + "/" + gvk.Kind {
	case "/PersistentVolumeClaim":
		return explainClaim(ctx, r, u)
	case "/Pod":
		e.pods, err = thePod(u)
	case "apps/Deployment":
		err = e.readDeployment(ctx, r)
	case "apps/StatefulSet", "apps/DaemonSet", "batch/Job":
		e.pods, err = podsOf(ctx, r, u, u.GetUID(), nil)
	case "apps/ReplicaSet":
		e.replicaSets, err = theReplicaSet(u)
		if err == nil {
			e.pods, err = podsOf(ctx, r, u, u.GetUID(), nil)
		}
	default:
		return Cause{}, nil
	}
	if err != nil {
		return Cause{}, err
	}
	if err := e.readEvents(ctx, r); err != nil {
		return Cause{}, err
	}
	return explain(e), nil
}

// readDeployment reads the Deployment's replica sets and the newest one's pods.
func (e *evidence) readDeployment(ctx context.Context, r Reader) error {
	sel, err := selector(e.workload)
	if err != nil {
		return err
	}
	var list appsv1.ReplicaSetList
	if err := r.List(ctx, &list, client.InNamespace(e.workload.GetNamespace()),
		client.MatchingLabelsSelector{Selector: sel}, client.Limit(maxReplicaSets)); err != nil {
		return readFailure("read replica sets of", e.workload, err)
	}
	for i := range list.Items {
		if ownedBy(&list.Items[i], e.workload.GetUID()) {
			e.replicaSets = append(e.replicaSets, list.Items[i])
		}
	}
	rs := newest(e.replicaSets)
	if rs == nil {
		return nil
	}
	e.pods, err = podsOf(ctx, r, e.workload, rs.UID, rs.Spec.Selector)
	return err
}

// podsOf reads the pods that the object with uid controls. A nil selector means
// that of the workload.
func podsOf(ctx context.Context, r Reader, u *unstructured.Unstructured, uid types.UID, by *metav1.LabelSelector) ([]corev1.Pod, error) {
	var sel labels.Selector
	var err error
	if by == nil {
		sel, err = selector(u)
	} else {
		sel, err = metav1.LabelSelectorAsSelector(by)
	}
	if err != nil {
		return nil, err
	}
	var list corev1.PodList
	if err := r.List(ctx, &list, client.InNamespace(u.GetNamespace()),
		client.MatchingLabelsSelector{Selector: sel}, client.Limit(maxPods)); err != nil {
		return nil, readFailure("read pods of", u, err)
	}
	var pods []corev1.Pod
	for i := range list.Items {
		if ownedBy(&list.Items[i], uid) {
			pods = append(pods, list.Items[i])
		}
	}
	return pods, nil
}

// readEvents reads the warnings about the workload, where it tells anything by
// events, and about the first few pods that are not well.
func (e *evidence) readEvents(ctx context.Context, r Reader) error {
	var about []types.UID
	if len(e.replicaSets) == 0 && e.workload.GetKind() != "Pod" && e.missing() > 0 {
		about = append(about, e.workload.GetUID())
	}
	for i, p := range suspects(e.pods) {
		if i == maxSuspects {
			break
		}
		about = append(about, p.UID)
	}
	for _, uid := range about {
		events, err := eventsAbout(ctx, r, e.workload, client.MatchingFields{
			"involvedObject.uid": string(uid), "type": corev1.EventTypeWarning})
		if err != nil {
			return err
		}
		e.events = append(e.events, events...)
	}
	return nil
}

// eventsAbout reads the events of u's namespace that have these fields.
func eventsAbout(ctx context.Context, r Reader, u *unstructured.Unstructured, by client.MatchingFields) ([]corev1.Event, error) {
	var list corev1.EventList
	if err := r.List(ctx, &list, client.InNamespace(u.GetNamespace()), client.Limit(maxEvents), by); err != nil {
		return nil, readFailure("read events of", u, err)
	}
	return list.Items, nil
}

// explainClaim says why a claim is not bound, from its events. Those are not
// warnings: a claim may wait for its first consumer.
func explainClaim(ctx context.Context, r Reader, u *unstructured.Unstructured) (Cause, error) {
	if text(u.Object, "status", "phase") == string(corev1.ClaimBound) {
		return Cause{}, nil
	}
	events, err := eventsAbout(ctx, r, u, client.MatchingFields{"involvedObject.uid": string(u.GetUID())})
	if err != nil {
		return Cause{}, err
	}
	latest := (&evidence{events: events}).eventsOf(u.GetUID())
	if len(latest) == 0 {
		return Cause{}, nil
	}
	id := object.IDOf(u)
	return Cause{Kind: VolumePending, Object: id, Message: compose("persistent volume claim is not bound", id.String(), latest[0].Message)}, nil
}

func thePod(u *unstructured.Unstructured) ([]corev1.Pod, error) {
	var p corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &p); err != nil {
		return nil, invalid(u, err)
	}
	return []corev1.Pod{p}, nil
}

func theReplicaSet(u *unstructured.Unstructured) ([]appsv1.ReplicaSet, error) {
	var rs appsv1.ReplicaSet
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &rs); err != nil {
		return nil, invalid(u, err)
	}
	return []appsv1.ReplicaSet{rs}, nil
}

// selector returns the workload's spec.selector. An empty one would select
// every pod of the namespace, and is refused.
func selector(u *unstructured.Unstructured) (labels.Selector, error) {
	m, _, err := unstructured.NestedMap(u.Object, "spec", "selector")
	if err != nil {
		return nil, invalid(u, err)
	}
	var s metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m, &s); err != nil {
		return nil, invalid(u, fmt.Errorf("spec.selector: %w", err))
	}
	sel, err := metav1.LabelSelectorAsSelector(&s)
	if err != nil {
		return nil, invalid(u, fmt.Errorf("spec.selector: %w", err))
	}
	if sel.Empty() {
		return nil, invalid(u, errors.New("spec.selector is empty"))
	}
	return sel, nil
}

func invalid(u *unstructured.Unstructured, err error) error {
	return &failure.Error{Op: "explain", Kind: failure.Invalid, Object: object.IDOf(u).String(), Err: err}
}

func readFailure(op string, u *unstructured.Unstructured, err error) error {
	kind := failure.Unavailable
	switch {
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		kind = failure.Denied
	case errors.Is(err, context.DeadlineExceeded):
		kind = failure.Timeout
	}
	return &failure.Error{Op: op, Kind: kind, Object: object.IDOf(u).String(), Err: err}
}

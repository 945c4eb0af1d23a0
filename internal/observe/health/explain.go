package health

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/object"
)

// evidence is all that a cause is found from.
type evidence struct {
	workload *unstructured.Unstructured
	// pods are the workload's pods; of a Deployment, those of the newest
	// replica set.
	pods []corev1.Pod
	// replicaSets are those that the Deployment owns; empty for other kinds.
	replicaSets []appsv1.ReplicaSet
	// events are warnings about the workload and about some of its pods.
	events []corev1.Event
}

// explain finds the cause that is most telling. Where several pods or
// containers tell as much, the oldest pod and its first container speak, so
// that the same evidence always gives the same answer.
func explain(e evidence) Cause {
	if isWorkload(e.workload) && !observed(e.workload.Object) {
		return Cause{} // What the pods say is about the spec before.
	}
	var found []Cause
	if c := e.refused(); c.Kind != None {
		found = append(found, c)
	}
	for _, p := range suspects(e.pods) {
		found = append(found, podCauses(p, e.eventsOf(p.UID), isWorkload(e.workload))...)
	}
	if len(found) == 0 {
		return Cause{}
	}
	return slices.MinFunc(found, func(a, b Cause) int { return cmp.Compare(rank(a.Kind), rank(b.Kind)) })
}

// isWorkload reports whether u is one of the kinds whose controller says which
// generation it has seen, and whose containers are meant to run for ever, so
// that one that ends with code 0 is a failure as well. Neither holds for Jobs
// and single pods.
func isWorkload(u *unstructured.Unstructured) bool {
	return u.GroupVersionKind().Group == "apps"
}

// suspects returns the pods that are not well, oldest first; pods on their way
// out only when there are no others.
func suspects(pods []corev1.Pod) []*corev1.Pod {
	var live, leaving []*corev1.Pod
	for i := range pods {
		p := &pods[i]
		switch {
		case p.Status.Phase == corev1.PodSucceeded || podReady(p):
		case p.DeletionTimestamp != nil:
			leaving = append(leaving, p)
		default:
			live = append(live, p)
		}
	}
	if len(live) == 0 {
		live = leaving
	}
	slices.SortFunc(live, func(a, b *corev1.Pod) int {
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return live
}

func podReady(p *corev1.Pod) bool {
	c := podCondition(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

func podCondition(p *corev1.Pod, kind corev1.PodConditionType) *corev1.PodCondition {
	for i := range p.Status.Conditions {
		if p.Status.Conditions[i].Type == kind {
			return &p.Status.Conditions[i]
		}
	}
	return nil
}

// refused says why pods that should exist do not. A replica set keeps the
// reason in a condition, which goes when a pod is created; other workloads tell
// it by events only, which stay after the matter is settled, and so count only
// while pods are missing.
func (e *evidence) refused() Cause {
	if rs := newest(e.replicaSets); rs != nil {
		for _, c := range rs.Status.Conditions {
			if c.Type == appsv1.ReplicaSetReplicaFailure && c.Status == corev1.ConditionTrue {
				return refusal(c.Message, object.ID{Group: "apps", Kind: "ReplicaSet", Namespace: rs.Namespace, Name: rs.Name}, e.roomComes())
			}
		}
		return Cause{}
	}
	if e.missing() <= 0 {
		return Cause{}
	}
	var last *corev1.Event
	for i, ev := range e.events {
		if ev.InvolvedObject.UID != e.workload.GetUID() || ev.Reason != "FailedCreate" || e.settled(ev) {
			continue
		}
		if last == nil || lastSeen(ev).After(lastSeen(*last)) {
			last = &e.events[i]
		}
	}
	if last == nil {
		return Cause{}
	}
	return refusal(last.Message, object.IDOf(e.workload), e.roomComes())
}

// missing is how many pods the workload should have and has not.
func (e *evidence) missing() int64 {
	o := e.workload.Object
	alive := int64(0)
	for i := range e.pods {
		if e.pods[i].DeletionTimestamp == nil {
			alive++
		}
	}
	switch e.workload.GetKind() {
	case "DaemonSet":
		return num(o, 0, "status", "desiredNumberScheduled") - alive
	case "Job":
		done := num(o, 0, "status", "succeeded") + num(o, 0, "status", "failed")
		return min(1, num(o, 1, "spec", "parallelism")) - alive - done
	default:
		return num(o, 1, "spec", "replicas") - alive
	}
}

// sameRound is how far apart the events and the pods of one round of a
// controller can be: their times have whole seconds, and one round creates
// pods side by side.
const sameRound = 5 * time.Second

// settled reports whether a pod was created well after the event told that none
// could be.
func (e *evidence) settled(ev corev1.Event) bool {
	for i := range e.pods {
		if e.pods[i].CreationTimestamp.After(lastSeen(ev).Add(sameRound)) {
			return true
		}
	}
	return false
}

// roomComes reports whether old pods are still to end, which gives back what
// they hold of a quota.
func (e *evidence) roomComes() bool {
	rs := newest(e.replicaSets)
	for i := range e.replicaSets {
		if old := &e.replicaSets[i]; old.UID != rs.UID && old.Status.Replicas > 0 {
			return true
		}
	}
	return slices.ContainsFunc(e.pods, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// eventsOf returns the events about one object, the latest first.
func (e *evidence) eventsOf(uid types.UID) []corev1.Event {
	var of []corev1.Event
	for _, ev := range e.events {
		if ev.InvolvedObject.UID == uid {
			of = append(of, ev)
		}
	}
	slices.SortStableFunc(of, func(a, b corev1.Event) int { return lastSeen(b).Compare(lastSeen(a)) })
	return of
}

// lastSeen is when the event was last observed; which field holds it depends on
// the recorder that wrote it.
func lastSeen(ev corev1.Event) time.Time {
	switch {
	case ev.Series != nil:
		return ev.Series.LastObservedTime.Time
	case !ev.LastTimestamp.IsZero():
		return ev.LastTimestamp.Time
	case !ev.EventTime.IsZero():
		return ev.EventTime.Time
	default:
		return ev.CreationTimestamp.Time
	}
}

// newest returns the replica set of the Deployment's present template: the one
// with the highest revision. It is nil when there is none yet.
func newest(sets []appsv1.ReplicaSet) *appsv1.ReplicaSet {
	var best *appsv1.ReplicaSet
	for i := range sets {
		if best == nil || revision(&sets[i]) > revision(best) {
			best = &sets[i]
		}
	}
	return best
}

// revision is the Deployment's count of its templates; the rollback to an older
// template gives that one's replica set the highest number anew.
func revision(rs *appsv1.ReplicaSet) int64 {
	n, err := strconv.ParseInt(rs.Annotations["deployment.kubernetes.io/revision"], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// ownedBy reports whether the controller of o is the object with that uid.
func ownedBy(o metav1.Object, uid types.UID) bool {
	ref := metav1.GetControllerOf(o)
	return ref != nil && ref.UID == uid
}

package health

import (
	"math"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// The rules of this file are those of `kubectl rollout status`, in kubectl's
// polymorphichelpers/rollout_status.go. They read single fields instead of
// converting the whole object, because every status change of every workload
// of a cluster passes here.

const (
	notObserved = "waits for its controller to see the latest change"
	onDelete    = "OnDelete"
)

// deployment says how far a Deployment is rolled out.
func deployment(o map[string]any) Verdict {
	if !observed(o) {
		return inProgress(notObserved)
	}
	// The controller sets this reason after spec.progressDeadlineSeconds without
	// progress, and takes it back when progress is made.
	if c, ok := condition(o, "Progressing"); ok && c.reason == "ProgressDeadlineExceeded" {
		return failed("exceeded its progress deadline of %d s: %d of %d updated replicas are available",
			num(o, 600, "spec", "progressDeadlineSeconds"), num(o, 0, "status", "availableReplicas"), num(o, 1, "spec", "replicas"))
	}
	want := num(o, 1, "spec", "replicas")
	all := num(o, 0, "status", "replicas")
	updated := num(o, 0, "status", "updatedReplicas")
	available := num(o, 0, "status", "availableReplicas")
	switch {
	case updated < want && flag(o, "spec", "paused"):
		return inProgress("its rollout is paused: %d of %d replicas are updated", updated, want)
	case updated < want:
		return inProgress("%d of %d replicas are updated", updated, want)
	case all > updated:
		return inProgress("old replicas still to end: %d", all-updated)
	case available < updated:
		return inProgress("%d of %d updated replicas are available", available, updated)
	}
	return current()
}

// statefulSet says how far a StatefulSet is rolled out. With the OnDelete
// strategy kubectl declines to answer; the set is then asked for its ready
// replicas only, since replacing pods is somebody else's work.
func statefulSet(o map[string]any) Verdict {
	if !observed(o) {
		return inProgress(notObserved)
	}
	want := num(o, 1, "spec", "replicas")
	if ready := num(o, 0, "status", "readyReplicas"); ready < want {
		return inProgress("%d of %d replicas are ready", ready, want)
	}
	if text(o, "spec", "updateStrategy", "type") == onDelete {
		return current()
	}
	updated := num(o, 0, "status", "updatedReplicas")
	if rolling, _, _ := unstructured.NestedFieldNoCopy(o, "spec", "updateStrategy", "rollingUpdate"); rolling != nil {
		// Pods below the partition keep the old revision on purpose.
		partition := num(o, math.MinInt64, "spec", "updateStrategy", "rollingUpdate", "partition")
		if partition != math.MinInt64 && updated < want-partition {
			return inProgress("%d of %d replicas are updated", updated, want-partition)
		}
		return current()
	}
	if text(o, "status", "updateRevision") != text(o, "status", "currentRevision") {
		return inProgress("%d of %d replicas are updated", updated, want)
	}
	return current()
}

// daemonSet says how far a DaemonSet is rolled out. With the OnDelete strategy
// kubectl declines to answer; the set is then asked for its available pods
// only, since replacing pods is somebody else's work.
func daemonSet(o map[string]any) Verdict {
	if !observed(o) {
		return inProgress(notObserved)
	}
	want := num(o, 0, "status", "desiredNumberScheduled")
	updated := num(o, 0, "status", "updatedNumberScheduled")
	if updated < want && text(o, "spec", "updateStrategy", "type") != onDelete {
		return inProgress("%d of %d pods are updated", updated, want)
	}
	if available := num(o, 0, "status", "numberAvailable"); available < want {
		return inProgress("%d of %d pods are available", available, want)
	}
	return current()
}

// observed reports whether the controller's status is about the present spec.
func observed(o map[string]any) bool {
	return num(o, 0, "metadata", "generation") <= num(o, 0, "status", "observedGeneration")
}

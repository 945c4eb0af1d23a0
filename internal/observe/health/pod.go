package health

import (
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/bowline-dev/bowline/internal/object"
)

func podID(p *corev1.Pod) object.ID {
	return object.ID{Kind: "Pod", Namespace: p.Namespace, Name: p.Name}
}

// podCauses lists what is wrong with a pod, in the order of its life: placed,
// set up, started, running. Events come the latest first.
func podCauses(p *corev1.Pod, events []corev1.Event, forever bool) []Cause {
	var found []Cause
	add := func(c Cause) {
		if c.Kind != None {
			found = append(found, c)
		}
	}
	add(placement(p))
	if p.Status.Phase == corev1.PodPending {
		add(setup(p, events))
	}
	for _, c := range containers(p) {
		add(containerCause(c, events, forever))
	}
	if p.Status.Phase == corev1.PodFailed && p.Status.Reason != "" {
		add(Cause{
			Kind: Evicted, Object: podID(p),
			Message: compose("pod failed", podID(p).String(), p.Status.Reason+": "+p.Status.Message),
		})
	}
	if len(found) == 0 {
		add(gates(p))
	}
	return found
}

// placement says why the scheduler has no node for the pod.
func placement(p *corev1.Pod) Cause {
	c := podCondition(p, corev1.PodScheduled)
	if c == nil || c.Status != corev1.ConditionFalse || c.Reason == "" {
		return Cause{}
	}
	kind, what := Unschedulable, "no node takes the pod"
	switch {
	case strings.Contains(strings.ToLower(c.Message), "persistentvolumeclaim"):
		kind, what = VolumePending, "persistent volume claim is not bound"
	case c.Reason == corev1.PodReasonSchedulingGated:
		what = "pod is held back by a scheduling gate"
	}
	return Cause{Kind: kind, Object: podID(p), Message: compose(what, podID(p).String(), c.Message)}
}

// setup says what keeps the node from setting up the pod before any container
// can start. The kubelet tells this by events only.
func setup(p *corev1.Pod, events []corev1.Event) Cause {
	for _, ev := range events {
		c := Cause{Object: podID(p)}
		switch ev.Reason {
		case "FailedMount", "FailedAttachVolume", "FailedMapVolume":
			c.Kind = Volume
			c.Message = compose("volume cannot be mounted", podID(p).String(), ev.Message)
			// A volume of a ConfigMap or Secret waits for it without end.
			c.Stuck = strings.HasSuffix(strings.TrimSpace(ev.Message), "not found")
		case "FailedCreatePodSandBox", "NetworkNotReady":
			c.Kind = Sandbox
			c.Message = compose("node cannot set up the pod", podID(p).String(), ev.Message)
		default:
			continue
		}
		return c
	}
	return Cause{}
}

// gates says why a pod whose containers are all well is not ready: a condition
// that somebody else has to set.
func gates(p *corev1.Pod) Cause {
	ready := podCondition(p, corev1.PodReady)
	if ready == nil || p.Status.Phase != corev1.PodRunning || ready.Reason != "ReadinessGatesNotReady" {
		return Cause{}
	}
	return Cause{Kind: NotReady, Object: podID(p), Message: compose("readiness gate is not met", podID(p).String(), ready.Message)}
}

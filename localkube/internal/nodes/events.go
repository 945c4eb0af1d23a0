package nodes

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// message is what a kubelet would say in one event about one container.
type message struct {
	name, kind, reason, text string // name tells the events of one pod apart
}

// messagesFunc says what a kubelet would say at a turn.
type messagesFunc func(pod *corev1.Pod) []message

func pullFailed(pod *corev1.Pod) []message {
	return forFailingPulls(pod, func(image string) []message {
		return []message{
			{"pull", corev1.EventTypeWarning, "Failed", fmt.Sprintf("Failed to pull image %q: %s", image, pullError(image))},
			{"errimagepull", corev1.EventTypeWarning, "Failed", "Error: " + reasonErrImagePull},
		}
	})
}

func pullBackedOff(pod *corev1.Pod) []message {
	return forFailingPulls(pod, func(image string) []message {
		return []message{
			{"backoff", corev1.EventTypeNormal, "BackOff", fmt.Sprintf("Back-off pulling image %q", image)},
			{"imagepullbackoff", corev1.EventTypeWarning, "Failed", "Error: " + reasonImagePullBackOff},
		}
	})
}

func forFailingPulls(pod *corev1.Pod, say func(image string) []message) []message {
	for _, container := range pod.Spec.Containers {
		if failsToPull(pod, container) {
			return say(container.Image)
		}
	}
	return nil
}

func restartBackedOff(pod *corev1.Pod) []message {
	return []message{{"backoff", corev1.EventTypeWarning, "BackOff",
		fmt.Sprintf("Back-off restarting failed container %s in pod %s_%s(%s)", pod.Spec.Containers[0].Name, pod.Name, pod.Namespace, pod.UID)}}
}

func probeFailed(pod *corev1.Pod) []message {
	why := "HTTP probe failed with statuscode: 503"
	if probe := pod.Spec.Containers[0].ReadinessProbe; probe != nil {
		switch {
		case probe.Exec != nil:
			why = "command exited with code 1"
		case probe.TCPSocket != nil:
			why = fmt.Sprintf("dial tcp %s: connect: connection refused", probe.TCPSocket.Port.String())
		case probe.GRPC != nil:
			why = "service unhealthy (responded with \"NOT_SERVING\")"
		}
	}
	return []message{{"unhealthy", corev1.EventTypeWarning, "Unhealthy", "Readiness probe failed: " + why}}
}

// event is the object for a message. Said again, it is the same object with a later time.
func event(pod *corev1.Pod, m message, now metav1.Time) *corev1.Event {
	count := int32(1)
	for _, status := range pod.Status.ContainerStatuses {
		count = max(count, status.RestartCount)
	}
	return &corev1.Event{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Event"},
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s.%s.%.8s", pod.Name, m.name, pod.UID), Namespace: pod.Namespace},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "v1", Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID,
			ResourceVersion: pod.ResourceVersion, FieldPath: fmt.Sprintf("spec.containers{%s}", pod.Spec.Containers[0].Name),
		},
		Type: m.kind, Reason: m.reason, Message: m.text,
		Source:              corev1.EventSource{Component: "kubelet", Host: pod.Spec.NodeName},
		ReportingController: "kubelet", ReportingInstance: pod.Spec.NodeName,
		FirstTimestamp: now, LastTimestamp: now, Count: count,
	}
}

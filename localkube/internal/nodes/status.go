package nodes

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reasons as the kubelet words them.
const (
	reasonErrImagePull     = "ErrImagePull"
	reasonImagePullBackOff = "ImagePullBackOff"
	reasonCrashLoopBackOff = "CrashLoopBackOff"
	reasonNotReady         = "ContainersNotReady"
)

// statusFunc works out the status that a kubelet would report next. It touches neither pod nor
// clock. Addresses are left out: they are given by whoever allocates them.
type statusFunc func(pod *corev1.Pod, now metav1.Time) corev1.PodStatus

// errImagePull is a pod whose image could not be pulled.
func errImagePull(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
	return failedPull(pod, now, reasonErrImagePull, pullError)
}

// imagePullBackOff is a pod that waits before the next attempt to pull.
func imagePullBackOff(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
	return failedPull(pod, now, reasonImagePullBackOff, func(image string) string {
		return fmt.Sprintf("Back-off pulling image %q: %s: %s", image, reasonErrImagePull, pullError(image))
	})
}

func pullError(image string) string {
	return fmt.Sprintf("rpc error: code = NotFound desc = failed to pull and unpack image %q: failed to resolve reference %q: %s: not found",
		image, image, image)
}

func failedPull(pod *corev1.Pod, now metav1.Time, reason string, message func(image string) string) corev1.PodStatus {
	return compose(pod, now, corev1.PodPending, func(container corev1.Container) corev1.ContainerStatus {
		if !failsToPull(pod, container) {
			return running(container, true, now)
		}
		return corev1.ContainerStatus{
			Started: new(false),
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
				Reason: reason, Message: message(container.Image),
			}},
		}
	})
}

// crashed is a pod whose containers have just ended.
func crashed(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
	phase := corev1.PodRunning
	if pod.Spec.RestartPolicy == corev1.RestartPolicyNever {
		phase = corev1.PodFailed
	}
	return compose(pod, now, phase, func(container corev1.Container) corev1.ContainerStatus {
		before := statusOf(pod, container.Name)
		return corev1.ContainerStatus{
			Started:              new(false),
			RestartCount:         before.RestartCount,
			LastTerminationState: before.LastTerminationState,
			State:                corev1.ContainerState{Terminated: termination(pod, container, now)},
		}
	})
}

// crashLoopBackOff is a pod whose containers have been started again, have ended again, and wait.
func crashLoopBackOff(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
	return compose(pod, now, corev1.PodRunning, func(container corev1.Container) corev1.ContainerStatus {
		before := statusOf(pod, container.Name)
		ended := before.State.Terminated
		if ended == nil {
			ended = termination(pod, container, now)
		}
		return corev1.ContainerStatus{
			Started:              new(false),
			RestartCount:         before.RestartCount + 1,
			LastTerminationState: corev1.ContainerState{Terminated: ended},
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
				Reason: reasonCrashLoopBackOff,
				Message: fmt.Sprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
					backOff(before.RestartCount), container.Name, pod.Name, pod.Namespace, pod.UID),
			}},
		}
	})
}

// neverReady is a pod that runs and whose readiness probe fails.
func neverReady(pod *corev1.Pod, now metav1.Time) corev1.PodStatus {
	return compose(pod, now, corev1.PodRunning, func(container corev1.Container) corev1.ContainerStatus {
		return running(container, false, now)
	})
}

// compose puts a pod status together from what each container does.
func compose(pod *corev1.Pod, now metav1.Time, phase corev1.PodPhase, of func(corev1.Container) corev1.ContainerStatus) corev1.PodStatus {
	status := corev1.PodStatus{Phase: phase, StartTime: pod.Status.StartTime}
	if status.StartTime == nil {
		status.StartTime = &now
	}
	for _, container := range pod.Spec.InitContainers {
		done := corev1.ContainerStatus{Ready: true, State: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
			Reason: "Completed", StartedAt: now, FinishedAt: now,
		}}}
		if policy := container.RestartPolicy; policy != nil && *policy == corev1.ContainerRestartPolicyAlways {
			done = running(container, true, now)
		}
		status.InitContainerStatuses = append(status.InitContainerStatuses, named(done, container))
	}
	var unready []string
	for _, container := range pod.Spec.Containers {
		one := named(of(container), container)
		if !one.Ready {
			unready = append(unready, container.Name)
		}
		status.ContainerStatuses = append(status.ContainerStatuses, one)
	}
	ready := corev1.PodCondition{Status: corev1.ConditionTrue}
	if len(unready) > 0 {
		ready = corev1.PodCondition{
			Status: corev1.ConditionFalse, Reason: reasonNotReady,
			Message: fmt.Sprintf("containers with unready status: [%s]", strings.Join(unready, " ")),
		}
	}
	status.Conditions = []corev1.PodCondition{
		condition(pod, corev1.PodInitialized, corev1.PodCondition{Status: corev1.ConditionTrue}, now),
		condition(pod, corev1.PodReady, ready, now),
		condition(pod, corev1.ContainersReady, ready, now),
	}
	return status
}

func named(status corev1.ContainerStatus, container corev1.Container) corev1.ContainerStatus {
	status.Name, status.Image = container.Name, container.Image
	return status
}

func running(_ corev1.Container, ready bool, now metav1.Time) corev1.ContainerStatus {
	return corev1.ContainerStatus{
		Ready:   ready,
		Started: new(true),
		State:   corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
	}
}

func termination(pod *corev1.Pod, container corev1.Container, now metav1.Time) *corev1.ContainerStateTerminated {
	reason := "Error"
	if exitCode(pod) == 0 {
		reason = "Completed"
	}
	return &corev1.ContainerStateTerminated{
		ExitCode:    exitCode(pod),
		Reason:      reason,
		Message:     pod.Annotations[TerminationMessageAnnotation],
		StartedAt:   now,
		FinishedAt:  now,
		ContainerID: "simulated://" + string(pod.UID) + "/" + container.Name,
	}
}

// condition keeps the time of the last transition when the status stays the same.
func condition(pod *corev1.Pod, kind corev1.PodConditionType, value corev1.PodCondition, now metav1.Time) corev1.PodCondition {
	value.Type, value.LastTransitionTime = kind, now
	for _, before := range pod.Status.Conditions {
		if before.Type == kind && before.Status == value.Status && !before.LastTransitionTime.IsZero() {
			value.LastTransitionTime = before.LastTransitionTime
		}
	}
	return value
}

func statusOf(pod *corev1.Pod, container string) corev1.ContainerStatus {
	for _, status := range pod.Status.ContainerStatuses {
		if status.Name == container {
			return status
		}
	}
	return corev1.ContainerStatus{}
}

// backOff is the pause before the next restart as a kubelet counts it: 10 s, doubled each time, 5 min at most.
func backOff(restarts int32) string {
	const first, longest = 10 * time.Second, 5 * time.Minute
	return min(first<<min(restarts, 5), longest).String()
}

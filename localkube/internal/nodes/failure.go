package nodes

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Annotations of a pod (usually set in a pod template) that choose how it fails.
const (
	// FailAnnotation holds a Failure.
	FailAnnotation = "localkube.bowline.dev/fail"
	// ExitCodeAnnotation is the exit code of a crash, 1 when left out.
	ExitCodeAnnotation = "localkube.bowline.dev/exit-code"
	// TerminationMessageAnnotation is what a crashing container leaves as its termination message.
	TerminationMessageAnnotation = "localkube.bowline.dev/termination-message"
)

// Failure is a way in which a pod fails.
type Failure string

// The ways to fail. With FailAnnotation all containers of the pod fail. Without it, a container
// whose image reference contains MissingImage anywhere fails by ImagePull, and the other
// containers run; that rule also wins over another FailAnnotation, because a container without
// an image cannot do anything else. Init containers always succeed.
const (
	ImagePull Failure = "image-pull" // waiting with ErrImagePull and ImagePullBackOff in turn
	Crash     Failure = "crash"      // terminated and CrashLoopBackOff in turn, the restarts counted; Failed when it must not restart
	Readiness Failure = "readiness"  // running, never ready
)

// MissingImage is the text in an image reference that makes it one that cannot be pulled.
const MissingImage = "does-not-exist"

// failureQuery is the jq expression that yields the Failure of a pod, or null.
const failureQuery = `if [.spec.containers[].image | contains("` + MissingImage + `")] | any then "` + string(ImagePull) + `"` +
	` else .metadata.annotations["` + FailAnnotation + `"] end`

// failsToPull says whether one container of a pod that fails by ImagePull is among those that do.
func failsToPull(pod *corev1.Pod, container corev1.Container) bool {
	return strings.Contains(container.Image, MissingImage) || pod.Annotations[FailAnnotation] == string(ImagePull)
}

func exitCode(pod *corev1.Pod) int32 {
	code, err := strconv.ParseInt(pod.Annotations[ExitCodeAnnotation], 10, 32)
	if err != nil {
		return 1
	}
	return int32(code)
}

package nodes

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/kwok/pkg/utils/lifecycle"
)

var noon = metav1.NewTime(time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC))

func newPod(annotations map[string]string, images ...string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "space", Name: "pod", UID: "uid", Annotations: annotations},
		Status:     corev1.PodStatus{Phase: corev1.PodPending},
	}
	for i, image := range images {
		pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: string(rune('a' + i)), Image: image})
	}
	return pod
}

// possible returns the names of the stages that may be next.
func possible(t *testing.T, pod *corev1.Pod) []string {
	t.Helper()
	stages, err := allStages()
	if err != nil {
		t.Fatal(err)
	}
	life, err := lifecycle.NewLifecycle(stages[podRef])
	if err != nil {
		t.Fatal(err)
	}
	found, err := life.ListAllPossible(t.Context(), &lifecycle.Event{Labels: pod.Labels, Annotations: pod.Annotations, Data: pod})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, stage := range found {
		names = append(names, stage.Name())
	}
	return names
}

func TestLivesOfPods(t *testing.T) {
	fail := func(f Failure) map[string]string { return map[string]string{FailAnnotation: string(f)} }
	cases := []struct {
		name, reason string
		pod          *corev1.Pod
		want         []string // stages from the start; it ends before an empty one
	}{
		{"image pull by annotation", "it is tried again and again", newPod(fail(ImagePull), "image"),
			[]string{"image-pull", "image-pull-back-off", "image-pull-again", "image-pull-back-off"}},
		{"image pull by image", "one missing image is enough", newPod(nil, "image", "image:does-not-exist"),
			[]string{"image-pull", "image-pull-back-off", "image-pull-again"}},
		{"image pull and crash", "nothing crashes that has no image", newPod(fail(Crash), "does-not-exist/image"),
			[]string{"image-pull", "image-pull-back-off"}},
		{"crash", "it is started again and again", newPod(fail(Crash), "image"),
			[]string{"crash", "crash-back-off", "crash-again", "crash-back-off"}},
		{"readiness", "it stays as it is", newPod(fail(Readiness), "image"), []string{"never-ready", ""}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			pod := c.pod.DeepCopy()
			for step, want := range c.want {
				got := possible(t, pod)
				if want == "" && len(got) == 0 {
					return
				}
				if len(got) != 1 || got[0] != want {
					t.Fatalf("step %d: %v, want %q (%s)", step, got, want, c.reason)
				}
				all := turns()
				next := all[slices.IndexFunc(all, func(t turn) bool { return t.name == want })]
				pod.Status = next.status(pod, noon)
			}
		})
	}
}

func TestOtherPods(t *testing.T) {
	deleted := newPod(map[string]string{FailAnnotation: string(Crash)}, "image")
	deleted.DeletionTimestamp = &noon
	never := newPod(map[string]string{FailAnnotation: string(Crash)}, "image")
	never.Spec.RestartPolicy = corev1.RestartPolicyNever
	never.Status = crashed(never, noon)
	cases := []struct {
		name, reason string
		pod          *corev1.Pod
		want         []string
	}{
		{"good", "nothing said means ready", newPod(nil, "image"), []string{"pod-ready"}},
		{"unknown failure", "an annotation of a later version must not leave the pod pending", newPod(map[string]string{FailAnnotation: "else"}, "image"), []string{"pod-ready"}},
		{"deleted while it fails", "deletion always comes through", deleted, []string{"pod-delete"}},
		{"crashed for good", "a pod that must not restart stays failed", never, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := possible(t, c.pod); !slices.Equal(got, c.want) {
				t.Errorf("%v, want %v (%s)", got, c.want, c.reason)
			}
		})
	}
}

func TestCrashStatus(t *testing.T) {
	pod := newPod(map[string]string{
		FailAnnotation: string(Crash), ExitCodeAnnotation: "137", TerminationMessageAnnotation: "out of memory",
	}, "image")
	pod.Status = crashed(pod, noon)
	pod.Status = crashLoopBackOff(pod, noon)
	later := metav1.NewTime(noon.Add(time.Hour))
	pod.Status = crashed(pod, later)
	pod.Status = crashLoopBackOff(pod, later)

	status := pod.Status.ContainerStatuses[0]
	if status.RestartCount != 2 {
		t.Errorf("%d restarts, want 2", status.RestartCount)
	}
	ended := status.LastTerminationState.Terminated
	if ended == nil || ended.ExitCode != 137 || ended.Message != "out of memory" || ended.Reason != "Error" || !ended.FinishedAt.Equal(&later) {
		t.Errorf("ended as %+v", ended)
	}
	if want := "back-off 20s restarting failed container=a pod=pod_space(uid)"; status.State.Waiting.Message != want {
		t.Errorf("waits with %q, want %q", status.State.Waiting.Message, want)
	}
	for _, condition := range pod.Status.Conditions {
		if !condition.LastTransitionTime.Equal(&noon) {
			t.Errorf("condition %s has changed at %s without a change", condition.Type, condition.LastTransitionTime)
		}
	}
}

func TestImagePullLeavesOtherContainers(t *testing.T) {
	status := errImagePull(newPod(nil, "image", "image:does-not-exist"), noon)
	if !status.ContainerStatuses[0].Ready || status.ContainerStatuses[0].State.Running == nil {
		t.Errorf("the container whose image is there: %+v", status.ContainerStatuses[0])
	}
	waiting := status.ContainerStatuses[1].State.Waiting
	if waiting == nil || waiting.Reason != reasonErrImagePull {
		t.Errorf("the container whose image is not there: %+v", status.ContainerStatuses[1].State)
	}
	for _, condition := range status.Conditions {
		if condition.Type == corev1.PodReady && condition.Message != "containers with unready status: [b]" {
			t.Errorf("ready condition says %q", condition.Message)
		}
	}
}

func TestEventSaidAgainIsTheSameObject(t *testing.T) {
	pod := newPod(map[string]string{FailAnnotation: string(Crash)}, "image")
	first := event(pod, restartBackedOff(pod)[0], noon)
	pod.Status = crashLoopBackOff(pod, noon)
	pod.Status = crashLoopBackOff(pod, noon)
	second := event(pod, restartBackedOff(pod)[0], metav1.NewTime(noon.Add(time.Minute)))
	if first.Name != second.Name || second.Count != 2 {
		t.Errorf("%s then %s, count %d", first.Name, second.Name, second.Count)
	}
}

func TestTemplateFunctionsTakeWhatTheTemplatesGive(t *testing.T) {
	var data any
	encoded, err := json.Marshal(newPod(nil, "does-not-exist"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(encoded, &data); err != nil {
		t.Fatal(err)
	}
	functions := templateFunctions()
	status, err := functions["failingStatus"].(func(string, any) (string, error))("image-pull", data)
	if err != nil {
		t.Fatal(err)
	}
	addressed, err := withAddresses(status, []string{"127.0.0.1"}, []string{"10.244.0.9"})
	if err != nil {
		t.Fatal(err)
	}
	var got corev1.PodStatus
	if err := json.Unmarshal([]byte(addressed), &got); err != nil {
		t.Fatal(err)
	}
	if got.PodIP != "10.244.0.9" || got.HostIP != "127.0.0.1" || got.ContainerStatuses[0].State.Waiting.Reason != reasonErrImagePull {
		t.Errorf("status %+v", got)
	}
	for _, one := range turns() {
		if one.say != nil && one.messageCount() == 0 {
			t.Errorf("turn %s says nothing", one.name)
		}
	}
}

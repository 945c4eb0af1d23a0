package main

import (
	"fmt"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

func podsRun(t *testing.T, client *kubernetes.Clientset) {
	namespace := newNamespace(t, client)
	replicas := int32(3)
	labels := map[string]string{"app": "good"}
	template := newPod("", nil, "image")
	template.Labels = labels
	_, err := client.AppsV1().Deployments(namespace).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "good"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas,
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: template.ObjectMeta, Spec: template.Spec},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.CoreV1().Services(namespace).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "good"},
		Spec:       corev1.ServiceSpec{Selector: labels, Ports: []corev1.ServicePort{{Port: 80}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		deployment, err := client.AppsV1().Deployments(namespace).Get(t.Context(), "good", metav1.GetOptions{})
		if err != nil || deployment.Status.AvailableReplicas != replicas {
			return fmt.Sprintf("the deployment: %+v, %v", deployment.Status, err)
		}
		slices, err := client.DiscoveryV1().EndpointSlices(namespace).List(t.Context(), metav1.ListOptions{})
		if err != nil || len(slices.Items) != 1 || len(slices.Items[0].Endpoints) != int(replicas) {
			return fmt.Sprintf("the endpoints of its service: %+v, %v", slices.Items, err)
		}
		return ""
	})
}

// podFailure is a pod that fails, and what a person finds who looks at it.
type podFailure struct {
	name, reason string
	annotations  map[string]string
	image        string
	waiting      string // reason of the container that waits
	event        string // "reason: message", or the start of it
	check        func(*corev1.Pod) string
}

func podFailures() []podFailure {
	const fail = "localkube.bowline.dev/fail"
	return []podFailure{
		{name: "pull-by-image", reason: "an image that says that it is not there", image: "registry.example/app:does-not-exist",
			waiting: "ImagePullBackOff", event: `Failed: Failed to pull image "registry.example/app:does-not-exist"`},
		{name: "pull-by-annotation", reason: "any image can be missing", annotations: map[string]string{fail: "image-pull"}, image: "image",
			waiting: "ImagePullBackOff", event: `BackOff: Back-off pulling image "image"`},
		{name: "pull-before-crash", reason: "without an image nothing runs that could crash", annotations: map[string]string{fail: "crash"},
			image: "does-not-exist", waiting: "ImagePullBackOff", event: "Failed: Error: ErrImagePull"},
		{name: "crash", reason: "the exit code and the last words can be read", image: "image",
			annotations: map[string]string{fail: "crash", "localkube.bowline.dev/exit-code": "3", "localkube.bowline.dev/termination-message": "no database"},
			waiting:     "CrashLoopBackOff", event: "BackOff: Back-off restarting failed container main in pod crash_", check: crashed},
		{name: "readiness", reason: "it runs, but is not ready", annotations: map[string]string{fail: "readiness"}, image: "image",
			event: "Unhealthy: Readiness probe failed: ", check: runsUnready},
	}
}

func crashed(pod *corev1.Pod) string {
	status := pod.Status.ContainerStatuses[0]
	ended := status.LastTerminationState.Terminated
	if status.RestartCount < 1 || ended == nil || ended.ExitCode != 3 || ended.Message != "no database" {
		return fmt.Sprintf("%d restarts, ended: %+v", status.RestartCount, ended)
	}
	return ""
}

func runsUnready(pod *corev1.Pod) string {
	if pod.Status.Phase != corev1.PodRunning || pod.Status.ContainerStatuses[0].State.Running == nil {
		return fmt.Sprintf("does not run: %+v", pod.Status)
	}
	return ""
}

func podsFail(t *testing.T, client *kubernetes.Clientset) {
	namespace := newNamespace(t, client)
	for _, f := range podFailures() {
		if _, err := client.CoreV1().Pods(namespace).Create(t.Context(), newPod(f.name, f.annotations, f.image), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range podFailures() {
		t.Run(f.name, func(t *testing.T) {
			eventually(t, func() string {
				pod, err := client.CoreV1().Pods(namespace).Get(t.Context(), f.name, metav1.GetOptions{})
				if err != nil {
					return err.Error()
				}
				if wrong := f.wrong(pod); wrong != "" {
					return wrong
				}
				events, err := client.CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=" + f.name})
				if err != nil {
					return err.Error()
				}
				for _, event := range events.Items {
					if strings.HasPrefix(event.Reason+": "+event.Message, f.event) {
						return ""
					}
				}
				return fmt.Sprintf("no event %q among %d", f.event, len(events.Items))
			})
		})
	}
}

// wrong says in which way the pod does not fail as it should.
func (f podFailure) wrong(pod *corev1.Pod) string {
	if len(pod.Status.ContainerStatuses) == 0 {
		return "nothing is known about its containers"
	}
	if waiting := pod.Status.ContainerStatuses[0].State.Waiting; f.waiting != "" && (waiting == nil || waiting.Reason != f.waiting) {
		return fmt.Sprintf("waits for %+v, want %s", waiting, f.waiting)
	}
	for _, condition := range pod.Status.Conditions {
		ready := condition.Type == corev1.PodReady || condition.Type == corev1.ContainersReady
		if ready && (condition.Status != corev1.ConditionFalse || condition.Reason != "ContainersNotReady") {
			return fmt.Sprintf("condition %+v", condition)
		}
	}
	if f.check != nil {
		return f.check(pod)
	}
	return ""
}

func newPod(name string, annotations map[string]string, image string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: annotations},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "main", Image: image}}},
	}
}

func newNamespace(t *testing.T, client *kubernetes.Clientset) string {
	t.Helper()
	namespace, err := client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		_, err := client.CoreV1().ServiceAccounts(namespace.Name).Get(t.Context(), "default", metav1.GetOptions{})
		if err != nil {
			return "the service account of the namespace: " + err.Error()
		}
		return ""
	})
	return namespace.Name
}

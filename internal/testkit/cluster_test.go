package testkit

import (
	"context"
	"os"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

func TestClusterServesTheAPI(t *testing.T) {
	namespace := Namespace(t)
	other := Namespace(t)
	if namespace == other {
		t.Fatalf("two namespaces of one test share the name %s", namespace)
	}
	createConfigMap(t, Cluster(t), namespace, "made")

	config, err := clientcmd.BuildConfigFromFlags("", Kubeconfig(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := configMapExists(t.Context(), config, namespace, "made"); err != nil {
		t.Errorf("through the kubeconfig: %v", err)
	}
	info, err := os.Stat(Kubeconfig(t))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("kubeconfig has mode %o, want 600", info.Mode().Perm())
	}
}

func TestClusterConfigIsACopy(t *testing.T) {
	Cluster(t).Host = "changed"
	if got := Cluster(t).Host; got == "changed" {
		t.Error("a test can change the configuration of the next one")
	}
}

func TestInstanceSurvives(t *testing.T) {
	cases := []struct {
		name, reason string
		end          func(*Instance)
	}{
		{"stop", "data stays over a stop in good order", (*Instance).Stop},
		{"kill", "what the API server has acknowledged is in the store", (*Instance).Kill},
	}
	instance := Start(t)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			createConfigMap(t, instance.Config, "default", c.name)
			c.end(instance)
			if err := configMapExists(t.Context(), instance.Config, "default", c.name); err == nil {
				t.Fatal("the API server still answers")
			}
			instance.Start()
			if err := configMapExists(t.Context(), instance.Config, "default", c.name); err != nil {
				t.Errorf("after a restart, with the configuration from before it: %v (%s)", err, c.reason)
			}
		})
	}
}

func TestInstanceSignal(t *testing.T) {
	instance := Start(t)
	createConfigMap(t, instance.Config, "default", "made")
	instance.Signal(syscall.SIGSTOP)
	// The signal reaches the threads one after the other: an answer may still be under way.
	answers := func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		return configMapExists(ctx, instance.Config, "default", "made") == nil
	}
	for deadline := time.Now().Add(10 * time.Second); answers(); {
		if time.Now().After(deadline) {
			t.Fatal("a stopped process answers")
		}
	}
	instance.Signal(syscall.SIGCONT)
	if err := configMapExists(t.Context(), instance.Config, "default", "made"); err != nil {
		t.Errorf("after it went on: %v", err)
	}
}

func createConfigMap(t *testing.T, config *rest.Config, namespace, name string) {
	t.Helper()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}
	client := kubernetes.NewForConfigOrDie(config)
	if _, err := client.CoreV1().ConfigMaps(namespace).Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

func configMapExists(ctx context.Context, config *rest.Config, namespace, name string) error {
	_, err := kubernetes.NewForConfigOrDie(config).CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	return err
}

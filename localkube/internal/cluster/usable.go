package cluster

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/bowline-dev/bowline/localkube/internal/controlplane"
	"github.com/bowline-dev/bowline/localkube/internal/pki"
)

const usablePoll = 25 * time.Millisecond

// waitUsable waits for what a first pod needs beside the API: a default namespace, in it a
// default service account, and ready nodes; each only where its component runs.
func waitUsable(ctx context.Context, plane *controlplane.ControlPlane, state State) error {
	client, err := kubernetes.NewForConfig(plane.ClientConfig(pki.Admin))
	if err != nil {
		return fmt.Errorf("wait for the cluster: %w", err)
	}
	for {
		missing, err := firstMissing(ctx, client, state)
		if err == nil && missing == "" {
			return nil
		}
		select {
		case err := <-plane.Failed():
			return err
		case <-ctx.Done():
			return fmt.Errorf("wait for the cluster: %w; missing: %s", context.Cause(ctx), missing)
		case <-time.After(usablePoll):
		}
	}
}

func firstMissing(ctx context.Context, client kubernetes.Interface, state State) (string, error) {
	if _, err := client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceDefault, metav1.GetOptions{}); err != nil {
		return "namespace default", ignoreNotFound(err)
	}
	if state.runs(ComponentControllerManager) {
		_, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		if err != nil {
			return "service account default/default", ignoreNotFound(err)
		}
	}
	if !state.runs(ComponentNodes) {
		return "", nil
	}
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return "nodes", err
	}
	ready := 0
	for _, node := range list.Items {
		if nodeReady(node) && len(node.Spec.Taints) == 0 {
			ready++
		}
	}
	if ready < state.Nodes {
		return fmt.Sprintf("%d of %d nodes", state.Nodes-ready, state.Nodes), nil
	}
	return "", nil
}

func nodeReady(node corev1.Node) bool {
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

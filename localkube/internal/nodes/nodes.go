// Package nodes is the workshop floor of a local cluster: simulated nodes that take pods and
// bring them to Running and Ready without running anything. KWOK plays the kubelet. Beside its
// own stages it plays ours, which make a pod fail in the ways real pods fail when the pod says
// so (see Failure), and which provide volumes to claims of the default storage class.
package nodes

import (
	"context"
	"fmt"
	"runtime"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/component-base/version"
	"k8s.io/utils/clock"
	"sigs.k8s.io/kwok/pkg/kwok/controllers"
)

const (
	// identity holds the leases of the nodes. It stays the same over restarts, so that a
	// restarted cluster does not wait for its own lease to expire.
	identity = "localkube"
	// leaseSeconds is the lease duration of a kubelet.
	leaseSeconds = 40
	// podRange gives pods their addresses.
	podRange = "10.244.0.0/16"
	// nodeLabel marks the nodes that are simulated. Those that were made here have the value own; others
	// may make more, with another value, which are looked after in the same way.
	nodeLabel = "localkube.bowline.dev/simulated"
	own       = "true"
	// workers is how many pods may change at once.
	workers = 4
)

// Start brings up count nodes, removes those that an earlier start with a larger count left, and
// looks after them and their pods until ctx ends.
func Start(ctx context.Context, config *rest.Config, count int) error {
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("simulated nodes: make client: %w", err)
	}
	dynamicClient, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("simulated nodes: make client: %w", err)
	}
	if err := ensureStorageClass(ctx, client); err != nil {
		return fmt.Errorf("simulated nodes: storage class %s: %w", storageClass, err)
	}
	if err := ensureNodes(ctx, client, count); err != nil {
		return fmt.Errorf("simulated nodes: %w", err)
	}
	stages, err := allStages()
	if err != nil {
		return fmt.Errorf("simulated nodes: read stages: %w", err)
	}
	kubelet, err := controllers.NewController(controllers.Config{
		Clock:                        clock.RealClock{},
		TypedClient:                  client,
		DynamicClient:                dynamicClient,
		RESTClient:                   client.Discovery().RESTClient(),
		RESTMapper:                   kindsWeTouch(),
		ManageNodesWithLabelSelector: nodeLabel,
		CIDR:                         podRange,
		NodeIP:                       "127.0.0.1",
		ID:                           identity,
		LocalStages:                  stages,
		FuncMap:                      templateFunctions(),
		PodPlayStageParallelism:      workers,
		NodePlayStageParallelism:     1,
		NodeLeaseDurationSeconds:     leaseSeconds,
		NodeLeaseParallelism:         1,
		PodsOnNodeSyncParallelism:    1,
	})
	if err != nil {
		return fmt.Errorf("simulated nodes: %w", err)
	}
	if err := kubelet.Start(ctx); err != nil {
		return fmt.Errorf("simulated nodes: %w", err)
	}
	return nil
}

// kindsWeTouch spares a discovery round trip: these kinds have not moved in ten years.
func kindsWeTouch() meta.RESTMapper {
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{corev1.SchemeGroupVersion})
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Event"), meta.RESTScopeNamespace)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("PersistentVolumeClaim"), meta.RESTScopeNamespace)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("PersistentVolume"), meta.RESTScopeRoot)
	return mapper
}

func ensureNodes(ctx context.Context, client kubernetes.Interface, count int) error {
	wanted := map[string]bool{}
	for i := range count {
		node := newNode(fmt.Sprintf("node-%d", i+1))
		wanted[node.Name] = true
		_, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make node %s: %w", node.Name, err)
		}
	}
	present, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: nodeLabel + "=" + own})
	if err != nil {
		return fmt.Errorf("list nodes: %w", err)
	}
	for _, node := range present.Items {
		if wanted[node.Name] {
			continue
		}
		err := client.CoreV1().Nodes().Delete(ctx, node.Name, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete node %s: %w", node.Name, err)
		}
	}
	return nil
}

func newNode(name string) *corev1.Node {
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("64"),
		corev1.ResourceMemory:           resource.MustParse("256Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
		corev1.ResourcePods:             resource.MustParse("1000"),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name,
			Labels: map[string]string{
				nodeLabel:              own,
				corev1.LabelHostname:   name,
				corev1.LabelOSStable:   "linux",
				corev1.LabelArchStable: runtime.GOARCH,
			},
		},
		Status: corev1.NodeStatus{
			Capacity:    capacity,
			Allocatable: capacity,
			// Nothing listens for logs and exec; a refused connection says so at once.
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: "127.0.0.1"},
				{Type: corev1.NodeHostName, Address: name},
			},
			NodeInfo: corev1.NodeSystemInfo{
				KubeletVersion:          version.Get().GitVersion,
				ContainerRuntimeVersion: "localkube://simulated",
				OSImage:                 "simulated",
				OperatingSystem:         "linux",
				Architecture:            runtime.GOARCH,
			},
		},
	}
}

func ensureStorageClass(ctx context.Context, client kubernetes.Interface) error {
	immediate := storagev1.VolumeBindingImmediate
	class := &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{
			Name:        storageClass,
			Annotations: map[string]string{"storageclass.kubernetes.io/is-default-class": "true"},
		},
		Provisioner:       provisioner,
		VolumeBindingMode: &immediate,
	}
	_, err := client.StorageV1().StorageClasses().Create(ctx, class, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

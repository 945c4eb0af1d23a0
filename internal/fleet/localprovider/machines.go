package localprovider

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util"
	"sigs.k8s.io/cluster-api/util/kubeconfig"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	localv1 "github.com/bowline-dev/bowline/api/local/v1alpha1"
)

// simulated is the label by which localkube looks after a node; those that it made itself have
// another value, and go when it is started with fewer.
const simulated = "localkube.bowline.dev/simulated"

// machines reconciles LocalMachines.
type machines struct{ base }

// Reconcile implements reconcile.Reconciler.
func (r *machines) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	return run(ctx, r.base, req, &localv1.LocalMachine{}, true, r.ensure, r.remove)
}

// ensure makes the node. Where it waits, what it waits for wakes it: the Cluster or the Machine changes.
func (r *machines) ensure(ctx context.Context, w *work[*localv1.LocalMachine]) (ctrl.Result, error) {
	o := w.object
	machine, err := util.GetOwnerMachine(ctx, r.client, o.ObjectMeta)
	if err != nil || machine == nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if machine.Spec.Bootstrap.DataSecretName == nil {
		w.say(localv1.ReadyCondition, metav1.ConditionFalse, localv1.AwaitingBootstrap, "its Machine has no bootstrap data yet")
		return ctrl.Result{}, nil
	}
	if initialized := w.cluster.Status.Initialization.ControlPlaneInitialized; initialized == nil || !*initialized {
		w.say(localv1.ReadyCondition, metav1.ConditionFalse, localv1.AwaitingClusterReason, "the control plane takes no requests yet")
		return ctrl.Result{}, nil
	}
	node, err := r.node(ctx, w, machine)
	if err != nil {
		w.say(localv1.ReadyCondition, metav1.ConditionFalse, localv1.NodeFailedReason, err.Error())
		return ctrl.Result{RequeueAfter: lookEvery}, nil
	}
	o.Spec.ProviderID = node.Spec.ProviderID
	o.Status.Addresses = nil
	for _, a := range node.Status.Addresses {
		o.Status.Addresses = append(o.Status.Addresses, localv1.MachineAddress{Type: string(a.Type), Address: a.Address})
	}
	o.Status.Initialization.Provisioned = yes()
	w.say(localv1.ReadyCondition, metav1.ConditionTrue, localv1.NodeReadyReason, "")
	return ctrl.Result{}, nil
}

// node makes the node in the cluster, or finds it.
func (r *machines) node(ctx context.Context, w *work[*localv1.LocalMachine], machine *clusterv1.Machine) (*corev1.Node, error) {
	c, err := r.workload(ctx, w.cluster)
	if err != nil {
		return nil, err
	}
	node := &corev1.Node{}
	err = c.Get(ctx, client.ObjectKey{Name: w.object.Name}, node)
	if !apierrors.IsNotFound(err) {
		return node, err
	}
	if node, err = describe(w.object, w.cluster, machine); err != nil {
		return nil, err
	}
	// Nodes introduce themselves with their status, as a kubelet does.
	if err := c.Create(ctx, node, owner); err != nil {
		return nil, fmt.Errorf("make the node: %w", err)
	}
	return node, nil
}

// describe is the node as it introduces itself.
func describe(o *localv1.LocalMachine, cluster *clusterv1.Cluster, machine *clusterv1.Machine) (*corev1.Node, error) {
	capacity := corev1.ResourceList{corev1.ResourcePods: resource.MustParse("250"), corev1.ResourceEphemeralStorage: resource.MustParse("1Ti")}
	for name, text := range map[corev1.ResourceName]string{corev1.ResourceCPU: o.Spec.CPU, corev1.ResourceMemory: o.Spec.Memory} {
		q, err := resource.ParseQuantity(text)
		if err != nil {
			return nil, fmt.Errorf("spec.%s %q is no quantity: %w", name, text, err)
		}
		capacity[name] = q
	}
	labels := map[string]string{simulated: "machine", corev1.LabelHostname: o.Name, corev1.LabelOSStable: "linux"}
	if o.Spec.Zone != "" {
		labels[corev1.LabelTopologyZone] = o.Spec.Zone
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: o.Name, Labels: labels},
		Spec:       corev1.NodeSpec{ProviderID: fmt.Sprintf("local://%s/%s/%s", cluster.Namespace, cluster.Name, o.Name)},
		Status: corev1.NodeStatus{
			Capacity: capacity, Allocatable: capacity,
			Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}, {Type: corev1.NodeHostName, Address: o.Name}},
			NodeInfo: corev1.NodeSystemInfo{
				KubeletVersion: machine.Spec.Version, ContainerRuntimeVersion: "localkube://simulated", OSImage: "simulated", OperatingSystem: "linux",
			},
		},
	}, nil
}

// remove takes the node away, as far as there is still a cluster to take it from.
func (r *machines) remove(ctx context.Context, w *work[*localv1.LocalMachine]) (ctrl.Result, error) {
	if w.cluster == nil || !w.cluster.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil // the node goes with its cluster
	}
	c, err := r.workload(ctx, w.cluster)
	if apierrors.IsNotFound(err) {
		return ctrl.Result{}, nil // there is no cluster any more, or none yet
	}
	if err != nil {
		return ctrl.Result{}, err
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: w.object.Name}}
	if err := client.IgnoreNotFound(c.Delete(ctx, node)); err != nil {
		return ctrl.Result{}, fmt.Errorf("delete Node %s: %w", node.Name, err)
	}
	return ctrl.Result{}, nil
}

// workload returns a client of the cluster. The kubeconfig is read again each time: it may have changed.
func (r *machines) workload(ctx context.Context, cluster *clusterv1.Cluster) (client.Client, error) {
	data, err := kubeconfig.FromSecret(ctx, r.reader, client.ObjectKeyFromObject(cluster))
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig of %s: %w", cluster.Name, err)
	}
	return client.New(config, client.Options{})
}

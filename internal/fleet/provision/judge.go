package provision

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// served is how often it is looked whether Cluster API has arrived, while clusters wait for it.
const served = 5 * time.Second

// judge says how far a cluster has come. objects are what its template became now; none where that failed.
func (b *clusterBuilder) judge(ctx context.Context, cluster *v1alpha1.FleetCluster, objects []*unstructured.Unstructured) (verdict, error) {
	k, err := b.unit(ctx, cluster)
	if err != nil {
		return verdict{}, err
	}
	there, err := b.clusters.watch()
	if err != nil {
		return verdict{}, err
	}
	if !there {
		return b.unserved(cluster), nil
	}
	of, err := b.clusters.get(ctx, cluster)
	if err != nil {
		return verdict{}, err
	}
	if of == nil {
		return b.undelivered(cluster, k, objects), nil
	}
	v, err := b.state(ctx, of, k)
	v.endpoint, v.provider = endpointOf(of), kindOf(of, "infrastructureRef")
	if err == nil && cluster.Status.KubernetesVersion == "" && v.status == metav1.ConditionTrue {
		v.version = b.tree.version(ctx, of)
	}
	return v, err
}

// unserved judges where the hub does not have the kind Cluster. Of one that was provisioned this says nothing: an API server that has just
// started serves its kinds one after the other.
func (b *clusterBuilder) unserved(cluster *v1alpha1.FleetCluster) verdict {
	v := unprovisioned(v1alpha1.ProvisioningFailedReason, "the hub does not serve the kind Cluster of cluster.x-k8s.io; install Cluster API")
	if c := apimeta.FindStatusCondition(cluster.Status.Conditions, v1alpha1.ProvisionedCondition); c != nil && c.Status == metav1.ConditionTrue {
		v = provisioned(c.Message)
	}
	v.again = min(served, b.Look)
	return v
}

// state judges by the Cluster and the unit that delivers it.
func (b *clusterBuilder) state(ctx context.Context, of *unstructured.Unstructured, k *kustomizev1.Kustomization) (verdict, error) {
	trouble := troubleOf(k)
	if initialized(of) {
		// What the cluster is for goes on, whatever becomes of a change of it.
		message := "the control plane is initialized"
		if trouble != "" {
			message += "; its newest objects are not all there: " + trouble
		}
		return provisioned(message), nil
	}
	if trouble != "" {
		v := unprovisioned(v1alpha1.ProvisioningFailedReason, trouble)
		v.again = b.Look
		return v, nil
	}
	c, err := b.tree.cause(ctx, of)
	if err != nil {
		return verdict{}, err
	}
	v := unprovisioned(v1alpha1.ProvisioningReason, c.String())
	if c.rank == broken {
		v.reason = v1alpha1.ProvisioningFailedReason
	}
	v.again = b.Look
	return v, nil
}

// undelivered judges where there is no Cluster.
func (b *clusterBuilder) undelivered(cluster *v1alpha1.FleetCluster, k *kustomizev1.Kustomization, objects []*unstructured.Unstructured) verdict {
	makes := slices.ContainsFunc(objects, func(o *unstructured.Unstructured) bool {
		gk := o.GroupVersionKind().GroupKind()
		return gk == clusterKind && o.GetName() == cluster.Name
	})
	switch trouble := troubleOf(k); {
	case len(objects) > 0 && !makes:
		return unprovisioned(v1alpha1.ProvisioningFailedReason,
			"the template makes no Cluster of cluster.x-k8s.io with the name of the FleetCluster; give it the name ${cluster.name}")
	case trouble != "":
		return unprovisioned(v1alpha1.ProvisioningFailedReason, trouble)
	case k == nil:
		return unprovisioned(v1alpha1.ProvisioningReason, "nothing was delivered yet")
	default:
		return unprovisioned(v1alpha1.ProvisioningReason, "Kustomization "+k.Name+" is being delivered")
	}
}

// passing are the reasons for which a unit is not ready that say nothing of what it delivers: it waits for others, or for the
// health of objects, of which the objects themselves tell more.
var passing = []string{
	meta.ProgressingReason, meta.ProgressingWithRetryReason, meta.DependencyNotReadyReason, meta.ArtifactFailedReason, meta.HealthCheckFailedReason,
}

// troubleOf says what a unit says it failed by; "" where it did not.
func troubleOf(k *kustomizev1.Kustomization) string {
	if k == nil {
		return ""
	}
	c := apimeta.FindStatusCondition(k.Status.Conditions, meta.ReadyCondition)
	if c == nil || c.Status != metav1.ConditionFalse || slices.Contains(passing, c.Reason) {
		return ""
	}
	return fmt.Sprintf("Kustomization %s: %s: %s", k.Name, c.Reason, c.Message)
}

// initialized says whether a control plane takes requests, by the contract v1beta2 or v1beta1.
func initialized(of *unstructured.Unstructured) bool {
	if is, found, _ := unstructured.NestedBool(of.Object, "status", "initialization", "controlPlaneInitialized"); found {
		return is
	}
	for _, condition := range conditionsOf(of) {
		if condition.kind == "ControlPlaneInitialized" {
			return condition.status == metav1.ConditionTrue
		}
	}
	is, _, _ := unstructured.NestedBool(of.Object, "status", "controlPlaneReady")
	return is
}

// endpointOf is the URL of the API server; "" as long as nobody knows.
func endpointOf(of *unstructured.Unstructured) string {
	host, _, _ := unstructured.NestedString(of.Object, "spec", "controlPlaneEndpoint", "host")
	port, _, _ := unstructured.NestedInt64(of.Object, "spec", "controlPlaneEndpoint", "port")
	if host == "" || port == 0 {
		return ""
	}
	return "https://" + net.JoinHostPort(host, strconv.FormatInt(port, 10))
}

func kindOf(of *unstructured.Unstructured, ref string) string {
	kind, _, _ := unstructured.NestedString(of.Object, "spec", ref, "kind")
	return kind
}

package profile

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// The properties that are told. The first is the standard's (KEP-2149), whose value is recommended to be the uid of the
// namespace kube-system; the others are ours.
const (
	propertyID       = "cluster.clusterset.k8s.io"
	propertyEndpoint = "fleet.bowline.dev/endpoint"
	propertyNodes    = "fleet.bowline.dev/nodes"
	propertyProvider = "fleet.bowline.dev/provider"
)

// The conditions that are told: the first is the standard's, and the second has the meaning of that of FleetClusters.
const (
	conditionHealthy = "ControlPlaneHealthy"
	conditionJoined  = "Joined"
)

// annotationDigest is that of labels and spec as they were written last: labels that went from a FleetCluster go with it.
const annotationDigest = "fleet.bowline.dev/profile"

// status is the part of the status of a ClusterProfile that is written here.
type status struct {
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	Version    version            `json:"version,omitempty"`
	Properties []property         `json:"properties"`
}

type version struct {
	Kubernetes string `json:"kubernetes,omitempty"`
}

type property struct {
	Name             string       `json:"name"`
	Value            string       `json:"value"`
	LastObservedTime *metav1.Time `json:"lastObservedTime,omitempty"`
}

// intended is a profile without its status.
func intended(cluster *v1alpha1.FleetCluster) (*unstructured.Unstructured, error) {
	u := empty()
	u.SetNamespace(cluster.Namespace)
	u.SetName(cluster.Name)
	u.SetOwnerReferences([]metav1.OwnerReference{*metav1.NewControllerRef(cluster, v1alpha1.GroupVersion.WithKind(v1alpha1.FleetClusterKind))})
	labels := map[string]string{ManagerLabel: Manager}
	for key, value := range cluster.Labels {
		if !delivered(key) {
			labels[key] = value
		}
	}
	u.SetLabels(labels)
	u.Object["spec"] = map[string]any{"displayName": cluster.Name, "clusterManager": map[string]any{"name": Manager}}
	data, err := json.Marshal(u.Object)
	if err != nil {
		return nil, fmt.Errorf("publish FleetCluster/%s/%s: %w", cluster.Namespace, cluster.Name, err)
	}
	sum := sha256.Sum256(data)
	u.SetAnnotations(map[string]string{annotationDigest: hex.EncodeToString(sum[:8])})
	return u, nil
}

// delivered says which labels tell who delivered an object: they are not about the cluster, and an engine takes what has its
// label for something that it delivered.
func delivered(label string) bool {
	domain, _, _ := strings.Cut(label, "/")
	return strings.HasSuffix(domain, "fluxcd.io") || strings.HasSuffix(domain, "bowline.dev") || domain == "helm.sh" ||
		label == "app.kubernetes.io/managed-by" || label == ManagerLabel
}

// holds reports whether a profile is as intended, whatever else it has.
func holds(current, want *unstructured.Unstructured) bool {
	labels := current.GetLabels()
	for key, value := range want.GetLabels() {
		if labels[key] != value {
			return false
		}
	}
	name, _, err := unstructured.NestedString(current.Object, "spec", "displayName")
	return err == nil && name == want.GetName() && metav1.IsControlledBy(current, &metav1.ObjectMeta{UID: want.GetOwnerReferences()[0].UID}) &&
		current.GetAnnotations()[annotationDigest] == want.GetAnnotations()[annotationDigest]
}

// facts are what a profile is made from.
func facts(cluster *v1alpha1.FleetCluster) []any {
	s := cluster.Status
	return []any{string(cluster.UID), cluster.Labels, cluster.DeletionTimestamp.IsZero(), healthy(cluster), joined(cluster),
		s.KubernetesVersion, s.ClusterID, s.Endpoint, s.Provider, s.Nodes}
}

// told is the status that follows from a FleetCluster and from what others wrote.
func told(cluster *v1alpha1.FleetCluster, now status) status {
	next := status{Conditions: slices.Clone(now.Conditions), Version: version{cmp.Or(cluster.Status.KubernetesVersion, now.Version.Kubernetes)}}
	for _, c := range []metav1.Condition{healthy(cluster), joined(cluster)} {
		// Generations are those of FleetClusters; a profile's says nothing about them.
		c.ObservedGeneration, c.LastTransitionTime = 0, metav1.Time{}
		apimeta.SetStatusCondition(&next.Conditions, c)
	}
	ours := map[string]string{propertyID: cluster.Status.ClusterID, propertyEndpoint: cluster.Status.Endpoint, propertyProvider: cluster.Status.Provider}
	if cluster.Status.Nodes > 0 {
		ours[propertyNodes] = strconv.Itoa(int(cluster.Status.Nodes))
	}
	for _, p := range now.Properties {
		if _, is := ours[p.Name]; !is && p.Name != propertyNodes {
			next.Properties = append(next.Properties, p)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		if ours[name] != "" {
			next.Properties = append(next.Properties, property{Name: name, Value: ours[name]})
		}
	}
	return next
}

// healthy says what the hub knows of the control plane. It may well run while nobody hears of it.
func healthy(cluster *v1alpha1.FleetCluster) metav1.Condition {
	c := metav1.Condition{Type: conditionHealthy, Status: metav1.ConditionUnknown, Reason: "Unknown", Message: "nothing was heard of the cluster yet"}
	for _, of := range []string{v1alpha1.ProvisionedCondition, v1alpha1.ReachableCondition} {
		found := apimeta.FindStatusCondition(cluster.Status.Conditions, of)
		if found == nil {
			continue
		}
		c.Status, c.Reason, c.Message = found.Status, found.Reason, found.Message
		if found.Status != metav1.ConditionTrue {
			if of == v1alpha1.ReachableCondition {
				c.Status = metav1.ConditionUnknown
			}
			return c
		}
	}
	return c
}

func joined(cluster *v1alpha1.FleetCluster) metav1.Condition {
	if c := apimeta.FindStatusCondition(cluster.Status.Conditions, v1alpha1.JoinedCondition); c != nil {
		return metav1.Condition{Type: conditionJoined, Status: c.Status, Reason: c.Reason, Message: c.Message}
	}
	return metav1.Condition{Type: conditionJoined, Status: metav1.ConditionUnknown, Reason: "Unknown", Message: "the cluster has not joined yet"}
}

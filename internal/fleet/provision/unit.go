package provision

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

const (
	// unitPrefix and the name of a cluster is its unit.
	unitPrefix = "cluster-"
	// maxLabel is how long the value of a label may be: the names of units become such.
	maxLabel = 63
)

// How a cluster's unit is delivered. What has to happen soon comes by an event. A control plane in a cloud takes a
// quarter of an hour, and nobody is told that it takes too long before twice that.
const (
	unitInterval = time.Hour
	unitRetry    = time.Minute
	unitTimeout  = 30 * time.Minute
)

// UnitName is the name of the ExternalArtifact and the Kustomization that deliver what a cluster is made of, in its namespace:
// `cluster-<name>`, shortened where that is longer than a label may be.
func UnitName(cluster string) string { return bounded(unitPrefix + cluster) }

// MadeBy is the value of v1alpha1.LabelMadeBy on them.
func MadeBy(cluster string) string { return bounded(v1alpha1.MadeByClusterPrefix + cluster) }

// bounded cuts what is too long, and keeps it apart from others by a digest.
func bounded(s string) string {
	if len(s) <= maxLabel {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	end := "-" + hex.EncodeToString(sum[:4])
	return s[:maxLabel-len(end)] + end
}

// unitSpec is how a cluster's objects are delivered: they are healed, waited for, and, when the unit goes, deleted and waited for.
func unitSpec(cluster *v1alpha1.FleetCluster) kustomizev1.KustomizationSpec {
	return kustomizev1.KustomizationSpec{
		Interval:      metav1.Duration{Duration: unitInterval},
		RetryInterval: &metav1.Duration{Duration: unitRetry},
		Timeout:       &metav1.Duration{Duration: unitTimeout},
		Prune:         true, Wait: true, DeletionPolicy: kustomizev1.DeletionPolicyWaitForTermination,
		ServiceAccountName: cluster.Spec.Template.ServiceAccountName,
	}
}

// files are objects as the files of a unit, one each. No name of a file is one that kustomize gives a meaning.
func files(objects []*unstructured.Unstructured) (map[string][]byte, error) {
	all := make(map[string][]byte, len(objects))
	for _, o := range objects {
		raw, err := yaml.Marshal(o.Object)
		if err != nil {
			return nil, fmt.Errorf("write %s %s: %w", o.GetKind(), o.GetName(), err)
		}
		all[fmt.Sprintf("%s_%s_%s.yaml", o.GroupVersionKind().Group, o.GetKind(), o.GetName())] = raw
	}
	return all, nil
}

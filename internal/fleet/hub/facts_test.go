package hub

import (
	"reflect"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/placement"
)

// What a member says of itself is on its FleetCluster, and what it does not say stays.
func TestFacts(t *testing.T) {
	t.Parallel()
	known := v1alpha1.FleetClusterStatus{KubernetesVersion: "v1.35.0", Endpoint: "https://here", Provider: "LocalCluster"}
	full := v1alpha1.ClusterReportStatus{
		Assignment: "d", Cluster: v1alpha1.ClusterFacts{ID: "id", KubernetesVersion: "v1.36.0", AgentVersion: "v2", Nodes: 3},
		Units:   v1alpha1.UnitCounts{Total: 4, Ready: 1, Failed: 2, Progressing: 1, Drifted: 1},
		Sources: []v1alpha1.SourceRevision{{Kind: "GitRepository", Namespace: "a", Name: "fleet", Revision: "main@sha1:1"}},
		Fleet:   &v1alpha1.FleetCounts{Clusters: 2, Levels: 1},
	}
	units := full.Units
	units.Summary = "1/4"
	for _, tc := range []struct {
		name, reason string
		report       v1alpha1.ClusterReportStatus
		want         v1alpha1.FleetClusterStatus
	}{
		{"nothing reported", "the report is made empty", v1alpha1.ClusterReportStatus{}, known},
		{"all", "the newest counts", full, v1alpha1.FleetClusterStatus{
			KubernetesVersion: "v1.36.0", Endpoint: "https://here", Provider: "LocalCluster", AgentVersion: "v2", ClusterID: "id", Nodes: 3,
			Units: &units, Sources: full.Sources, Fleet: full.Fleet, Assignment: "d",
		}},
		{"no version", "the agent may not ask", v1alpha1.ClusterReportStatus{Assignment: "d"}, v1alpha1.FleetClusterStatus{
			KubernetesVersion: "v1.35.0", Endpoint: "https://here", Provider: "LocalCluster", Assignment: "d", Units: &v1alpha1.UnitCounts{Summary: "0/0"},
		}},
	} {
		got := known
		facts(&got, &tc.report)
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: got %+v, want %+v: %s", tc.name, got, tc.want, tc.reason)
		}
	}
}

// A status says which spec and which request it is about.
func TestHandled(t *testing.T) {
	t.Parallel()
	p := &v1alpha1.Placement{ObjectMeta: metav1.ObjectMeta{Name: "apps", Generation: 7, Annotations: map[string]string{meta.ReconcileRequestAnnotation: "now"}}}
	conclusion(p, view{fleet: placement.New(nil, nil, nil)}, total{})
	if s := p.Status; s.LastHandledReconcileAt != "now" || s.ObservedGeneration != 7 || s.Conditions[0].ObservedGeneration != 7 {
		t.Errorf("it says %+v", s)
	}
}

package controller

import (
	"fmt"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// What a member delivers is files of one object each, under names that kustomize gives no meaning.
func TestAssignmentParcels(t *testing.T) {
	t.Parallel()
	unit := func(name string) fleetv1.AssignedUnit {
		return fleetv1.AssignedUnit{Kind: "Kustomization", Namespace: "apps", Name: name, Spec: apiextensionsv1.JSON{Raw: []byte(`{"path":"./","n":10000000}`)}}
	}
	for _, row := range []struct {
		name, reason string
		spec         fleetv1.ClusterAssignmentSpec
		want         string
	}{
		{"nothing", "a build of nothing would delete nothing", fleetv1.ClusterAssignmentSpec{}, ""},
		{"a unit alone", "its namespace is made all the same", fleetv1.ClusterAssignmentSpec{Sync: []fleetv1.AssignedUnit{unit("kustomization")}},
			"fleet-sources: Namespace__apps.yaml; fleet-sync: Kustomization_apps_kustomization.yaml"},
		{"placements", "each is one of its own", fleetv1.ClusterAssignmentSpec{Placements: []fleetv1.AssignedPlacement{{Name: "a", Units: []fleetv1.AssignedUnit{unit("x")}}, {Name: "b"}}},
			"fleet-sources: Namespace__apps.yaml; placement-a: Kustomization_apps_x.yaml"},
	} {
		t.Run(row.name, func(t *testing.T) {
			parcels, err := parcelsOf(&row.spec)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range parcels {
				entries, err := p.artifact.Tree.ReadDir(".")
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range entries {
					got = append(got, fmt.Sprintf("%s: %s", p.name, e.Name()))
					data, err := p.artifact.Tree.ReadFile(e.Name())
					if err != nil || e.Name() != "Namespace__apps.yaml" && !strings.Contains(string(data), "10000000\n") {
						t.Errorf("%s reads %s, %v", e.Name(), data, err)
					}
				}
			}
			if all := strings.Join(got, "; "); all != row.want {
				t.Errorf("got %q, want %q: %s", all, row.want, row.reason)
			}
		})
	}
}

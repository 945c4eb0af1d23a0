package examples

import (
	"io/fs"
	"path"
	"slices"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/placement"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// readLevel reads what a management cluster delivers to itself from a folder.
func readLevel(t *testing.T, mem filesys.FileSystem, dir string) hub {
	t.Helper()
	h := hub{templates: map[string]*fleetv1.ClusterTemplate{}}
	for _, r := range build(t, mem, path.Join("/", dir)).Resources() {
		text, err := r.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		h.read(t, dir, text)
	}
	return h
}

func TestTemplateOfAllLevelsIsTheShippedOne(t *testing.T) {
	t.Parallel()
	const file = "common/templates/local.yaml"
	data, err := fs.ReadFile(Hierarchy(), file)
	if err != nil {
		t.Fatal(err)
	}
	copied := &fleetv1.ClusterTemplate{}
	if err := yaml.UnmarshalStrict(data, copied); err != nil {
		t.Fatal(err)
	}
	checkShipped(t, file, copied)
}

// The top has masters, whose folders hold clusters; those have none below them. What is placed on
// all of them builds.
func TestLevels(t *testing.T) {
	t.Parallel()
	mem := onDisk(t, Hierarchy())
	top := readLevel(t, mem, All()[1].Path)
	names := map[string]int{}
	for _, master := range top.clusters {
		if len(master.Spec.Sync) != 1 || !master.Spec.Sync[0].Wait {
			t.Fatalf("%s is no master that is ready when its clusters are: %+v", master.Name, master.Spec.Sync)
		}
		below := readLevel(t, mem, master.Spec.Sync[0].Path)
		for _, tenant := range below.clusters {
			names[tenant.Name]++
			if len(tenant.Spec.Sync) > 0 || tenant.Labels["location"] != master.Name {
				t.Errorf("%s of %s is %+v, with the labels %v", tenant.Name, master.Name, tenant.Spec, tenant.Labels)
			}
		}
		checkLevel(t, mem, below)
	}
	if checkLevel(t, mem, top); len(top.clusters) != 2 || len(names) != 3 || names["shop"] != 2 {
		t.Errorf("%d masters, and tenants of the names %v; two are meant to have one name", len(top.clusters), names)
	}
}

func checkLevel(t *testing.T, mem filesys.FileSystem, h hub) {
	t.Helper()
	fleet := placedOn(h.placements)
	for _, c := range h.clusters {
		if objects, err := template.NewCompiler().Render(t.Context(), h.templates[c.Spec.Template.Name], c); err != nil || len(objects) == 0 {
			t.Errorf("%s: rendered to %d objects, %v", c.Name, len(objects), err)
		}
		result, err := fleet.Assign(t.Context(), placement.Input{Cluster: c})
		if err != nil || len(result.Problems) > 0 || len(result.Spec.Placements) != 1 {
			t.Fatalf("%s: %+v, %v, %v", c.Name, result.Spec.Placements, err, result.Problems)
		}
		for _, u := range result.Spec.Placements[0].Units {
			var k kustomizev1.KustomizationSpec
			if err := yaml.Unmarshal(u.Spec.Raw, &k); err != nil {
				t.Fatal(err)
			}
			checkUnit(t, mem, u.Name, &k)
			for _, d := range k.DependsOn {
				if !slices.ContainsFunc(result.Spec.Placements[0].Units, func(u fleetv1.AssignedUnit) bool { return u.Name == d.Name }) {
					t.Errorf("%s depends on %q, which is not there", u.Name, d.Name)
				}
			}
		}
	}
}

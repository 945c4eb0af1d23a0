package examples

import (
	"bytes"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/placement"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// hub is what the hub delivers to itself.
type hub struct {
	units      []kustomizev1.Kustomization
	templates  map[string]*fleetv1.ClusterTemplate
	clusters   []*fleetv1.FleetCluster
	placements []*fleetv1.Placement
}

func readHub(t *testing.T) hub {
	t.Helper()
	h := hub{templates: map[string]*fleetv1.ClusterTemplate{}}
	err := fs.WalkDir(Fleet(), "clusters/hub", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(Fleet(), name)
		for _, doc := range bytes.Split(data, []byte("\n---\n")) {
			h.read(t, name, doc)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *hub) read(t *testing.T, file string, doc []byte) {
	t.Helper()
	var k kustomizev1.Kustomization
	if err := yaml.Unmarshal(doc, &k); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if k.Namespace != "bowline-system" {
		t.Errorf("%s: is in namespace %q; `bowline up` makes GitRepository fleet in bowline-system, and a fleet is one namespace", file, k.Namespace)
	}
	var into any
	switch k.Kind {
	case kustomizev1.KustomizationKind:
		h.units = append(h.units, kustomizev1.Kustomization{})
		into = &h.units[len(h.units)-1]
	case fleetv1.ClusterTemplateKind:
		h.templates[k.Name] = &fleetv1.ClusterTemplate{}
		into = h.templates[k.Name]
	case fleetv1.FleetClusterKind:
		h.clusters = append(h.clusters, &fleetv1.FleetCluster{})
		into = h.clusters[len(h.clusters)-1]
	case fleetv1.PlacementKind:
		h.placements = append(h.placements, &fleetv1.Placement{})
		into = h.placements[len(h.placements)-1]
	default:
		t.Fatalf("%s: nobody expects a %s here", file, k.Kind)
	}
	if err := yaml.UnmarshalStrict(doc, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// onDisk copies an example into memory, in the form that kustomize reads.
func onDisk(t *testing.T, of fs.FS) filesys.FileSystem {
	t.Helper()
	mem := filesys.MakeFsInMemory()
	err := fs.WalkDir(of, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(of, name)
		if err != nil {
			return err
		}
		return mem.WriteFile("/"+name, data)
	})
	if err != nil {
		t.Fatal(err)
	}
	return mem
}

func build(t *testing.T, mem filesys.FileSystem, dir string) resmap.ResMap {
	t.Helper()
	if !mem.Exists(path.Join(dir, "kustomization.yaml")) {
		files, err := mem.Glob(path.Join(dir, "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s holds no manifests: %v", dir, err)
		}
		made := "resources:\n"
		for _, file := range files {
			made += "- " + path.Base(file) + "\n"
		}
		if err := mem.WriteFile(path.Join(dir, "kustomization.yaml"), []byte(made)); err != nil {
			t.Fatal(err)
		}
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(mem, dir)
	if err != nil {
		t.Fatalf("build %s: %v", dir, err)
	}
	return built
}

var variable = regexp.MustCompile(`\$\{(\w+)`)

// checkUnit checks what a reader relies on: a unit builds, and is given a value for each variable.
func checkUnit(t *testing.T, mem filesys.FileSystem, name string, k *kustomizev1.KustomizationSpec) {
	t.Helper()
	if k.SourceRef.Kind != "GitRepository" || k.SourceRef.Name != "fleet" {
		t.Errorf("%s is from %s %s; there is GitRepository fleet", name, k.SourceRef.Kind, k.SourceRef.Name)
	}
	text, err := build(t, mem, path.Join("/", k.Path)).AsYaml()
	if err != nil {
		t.Fatal(err)
	}
	for _, match := range variable.FindAllStringSubmatch(string(text), -1) {
		if k.PostBuild == nil || k.PostBuild.Substitute[match[1]] == "" {
			t.Errorf("%s: nothing is given for ${%s}", name, match[1])
		}
	}
}

func TestHubsOwnUnits(t *testing.T) {
	t.Parallel()
	h, mem := readHub(t), onDisk(t, Fleet())
	if len(h.units) == 0 {
		t.Error("it is meant to show that a hub runs something itself")
	}
	for i := range h.units {
		checkUnit(t, mem, h.units[i].Name, &h.units[i].Spec)
	}
}

// Every cluster is made of a template that is there, and differs from the others in labels and mode.
func TestClusters(t *testing.T) {
	t.Parallel()
	h := readHub(t)
	modes := map[fleetv1.AgentMode]string{}
	for _, c := range h.clusters {
		if other := modes[c.Spec.Agent.Mode]; other != "" {
			t.Errorf("%s and %s have one mode; they are meant to show both", c.Name, other)
		}
		modes[c.Spec.Agent.Mode] = c.Name
		if c.Labels["environment"] == "" || c.Labels["zone"] == "" {
			t.Errorf("%s: placements look at the labels environment and zone", c.Name)
		}
		objects, err := template.NewCompiler().Render(t.Context(), h.templates[c.Spec.Template.Name], c)
		if err != nil || len(objects) == 0 {
			t.Errorf("%s: rendered to %d objects, %v", c.Name, len(objects), err)
		}
	}
	if len(h.clusters) != 2 {
		t.Errorf("there are %d clusters", len(h.clusters))
	}
}

// The template is the one that ships, so that whoever reads it there knows it here.
func TestTemplateIsTheShippedOne(t *testing.T) {
	t.Parallel()
	checkShipped(t, "clusters/hub/templates/local.yaml", readHub(t).templates["local"])
}

// checkShipped compares a copy of the template for clusters on this machine with the one that ships.
func checkShipped(t *testing.T, file string, copied *fleetv1.ClusterTemplate) {
	t.Helper()
	want, wantErr := yaml.Marshal(shipped(t))
	got, gotErr := yaml.Marshal(copied)
	if wantErr != nil || gotErr != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not templates/local/template.yaml, but\n%s", file, got)
	}
}

// shipped is the template for clusters on this machine, in the namespace of an example.
func shipped(t *testing.T) *fleetv1.ClusterTemplate {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "templates", "local", "template.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	out := &fleetv1.ClusterTemplate{}
	if err := yaml.UnmarshalStrict(data, out); err != nil {
		t.Fatal(err)
	}
	out.Namespace = "bowline-system"
	return out
}

// On every cluster every unit that is placed there builds, waits for nothing that is not there, and knows its environment.
func TestPlacements(t *testing.T) {
	t.Parallel()
	h, mem := readHub(t), onDisk(t, Fleet())
	fleet := placedOn(h.placements)
	for _, p := range h.placements {
		if err := fleet.Broken(p.Name); err != nil {
			t.Error(err)
		}
	}
	for _, c := range h.clusters {
		t.Run(c.Name, func(t *testing.T) {
			result, err := fleet.Assign(t.Context(), placement.Input{Cluster: c})
			if err != nil || len(result.Problems) > 0 {
				t.Fatalf("%v, %v", err, result.Problems)
			}
			checkAssignment(t, mem, result.Spec.Placements, c.Labels["environment"])
		})
	}
}

// placedOn is the fleet of a hub that has the GitRepository which up makes.
func placedOn(placements []*fleetv1.Placement) *placement.Fleet {
	git := placement.SourceKey{Kind: sourcev1.GitRepositoryKind, Name: "fleet"}
	return placement.New(placements, map[placement.SourceKey]placement.Source{
		git: {Spec: &sourcev1.GitRepositorySpec{URL: "https://git.example.com/fleet.git"}, Revision: "main@sha1:" + strings.Repeat("0", 40)},
	}, template.NewCompiler())
}

func checkAssignment(t *testing.T, mem filesys.FileSystem, placements []fleetv1.AssignedPlacement, environment string) {
	t.Helper()
	kinds := map[string]int{}
	for _, p := range placements {
		names := make([]string, 0, len(p.Units))
		for _, u := range p.Units {
			names = append(names, u.Name)
			kinds[u.Kind]++
		}
		for _, u := range p.Units {
			if u.Kind == helmv2.HelmReleaseKind {
				continue
			}
			var k kustomizev1.KustomizationSpec
			if err := yaml.Unmarshal(u.Spec.Raw, &k); err != nil {
				t.Fatal(err)
			}
			checkUnit(t, mem, u.Name, &k)
			for _, dep := range k.DependsOn {
				if !slices.Contains(names, dep.Name) {
					t.Errorf("%s depends on %q, which is not in its Placement", u.Name, dep.Name)
				}
			}
			if k.PostBuild != nil && k.PostBuild.Substitute["environment"] != "" && k.PostBuild.Substitute["environment"] != environment {
				t.Errorf("%s is for %s", u.Name, k.PostBuild.Substitute["environment"])
			}
		}
	}
	if kinds[kustomizev1.KustomizationKind] < 5 || kinds[helmv2.HelmReleaseKind] == 0 {
		t.Errorf("the units are %v; they are meant to show an order of several, and a release", kinds)
	}
}

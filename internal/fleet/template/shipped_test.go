package template

import (
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/fleet/template/shipped"
)

var repository = filepath.Join("..", "..", "..")

type example struct {
	shipped.Example
	compiler *Compiler // the same for all of them
}

// shippedExamples are those of the templates at the top of the repository.
func shippedExamples(t testing.TB) []example {
	t.Helper()
	found, err := shipped.Examples(repository)
	if err != nil {
		t.Fatal(err)
	}
	compiler := NewCompiler()
	all := make([]example, 0, len(found))
	for _, e := range found {
		all = append(all, example{Example: e, compiler: compiler})
	}
	return all
}

func (e example) render(t testing.TB) []*unstructured.Unstructured {
	t.Helper()
	objects, err := e.compiler.Render(t.Context(), e.Template, e.Cluster)
	if err != nil {
		t.Fatalf("%s: %v", e.File, err)
	}
	return objects
}

// Each template has three sets of parameters, which become what the golden files hold.
func TestShippedTemplates(t *testing.T) {
	t.Parallel()
	sets := map[string]int{}
	for _, e := range shippedExamples(t) {
		sets[e.Template.Name]++
		t.Run(e.Name, func(t *testing.T) {
			t.Parallel()
			folder := filepath.Base(filepath.Dir(filepath.Dir(e.File)))
			if e.Template.Name != folder || e.Cluster.Spec.Template == nil || e.Cluster.Spec.Template.Name != folder {
				t.Errorf("the folder is %s, the template %s", folder, e.Template.Name)
			}
			if err := e.compiler.CheckTemplate(t.Context(), e.Template); err != nil {
				t.Fatal(err)
			}
			objects := e.render(t)
			for _, u := range objects {
				if u.GetKind() == "Secret" {
					t.Errorf("%s: credentials do not come from a template", u.GetName())
				}
			}
			golden(t, "shipped-"+e.Name+".yaml", asYAML(t, objects))
		})
	}
	for _, name := range []string{"eks", "aks", "vsphere", "local"} {
		if sets[name] != 3 {
			t.Errorf("%s has %d examples", name, sets[name])
		}
	}
}

// What one object of a cluster refers to is another one of it.
func TestShippedReferencesHold(t *testing.T) {
	t.Parallel()
	outside := map[string]bool{"InClusterIPPool": true, "GlobalInClusterIPPool": true}
	for _, e := range shippedExamples(t) {
		objects := e.render(t)
		made := map[string]bool{}
		for _, u := range objects {
			made[u.GroupVersionKind().Group+"/"+u.GetKind()+"/"+u.GetName()] = true
		}
		found := 0
		for _, u := range objects {
			references(u.Object, func(ref string, kind string) {
				found++
				if !made[ref] && !outside[kind] {
					t.Errorf("%s: %s/%s refers to %s, which is not made", e.File, u.GetKind(), u.GetName(), ref)
				}
			})
		}
		if found < 3 {
			t.Errorf("%s: found %d references", e.File, found)
		}
	}
}

// references finds all maps with an apiGroup, a kind and a name.
func references(value any, found func(ref, kind string)) {
	switch v := value.(type) {
	case map[string]any:
		group, _ := v["apiGroup"].(string)
		kind, _ := v["kind"].(string)
		name, _ := v["name"].(string)
		if group != "" && kind != "" && name != "" {
			found(group+"/"+kind+"/"+name, kind)
		}
		for _, item := range v {
			references(item, found)
		}
	case []any:
		for _, item := range v {
			references(item, found)
		}
	}
}

// Machines are made anew when what they are made from changes, and only then.
func TestMachineTemplatesAreRenamed(t *testing.T) {
	t.Parallel()
	all := shippedExamples(t)
	at := slices.IndexFunc(all, func(e example) bool { return e.Name == "vsphere-production" })
	if at < 0 {
		t.Fatal("the example is gone")
	}
	names := func(change func(parameters string) string) map[string]bool {
		e := all[at]
		e.Cluster = e.Cluster.DeepCopy()
		e.Cluster.Spec.Template.Parameters.Raw = []byte(change(string(e.Cluster.Spec.Template.Parameters.Raw)))
		out := map[string]bool{}
		for _, u := range e.render(t) {
			if u.GetKind() == "VSphereMachineTemplate" || u.GetKind() == "KubeadmConfigTemplate" {
				out[u.GetKind()+"/"+u.GetName()] = true
			}
		}
		return out
	}
	before := names(func(p string) string { return p })
	for _, row := range []struct {
		name, reason, from, to string
		renamed                int
	}{
		{"memory of one group", "its machines only", `"memoryMiB":65536`, `"memoryMiB":131072`, 1},
		{"image", "all machines have it", "ubuntu-2404-kube-v1.34.2", "ubuntu-2404-kube-v1.34.3", 4},
		{"labels of one group", "its machines only", `"work":"storage"`, `"work":"disks"`, 1},
		{"size", "no machine is another for it", `"size":3`, `"size":5`, 0},
	} {
		after := names(func(p string) string {
			if !strings.Contains(p, row.from) {
				t.Fatalf("%s: no %s in %s", row.name, row.from, p)
			}
			return strings.Replace(p, row.from, row.to, 1)
		})
		renamed := 0
		for name := range after {
			if !before[name] {
				renamed++
			}
		}
		if renamed != row.renamed || len(after) != len(before) {
			t.Errorf("%s: %d renamed, want %d: %s", row.name, renamed, row.renamed, row.reason)
		}
	}
}

// Many clusters are rendered at the same time, and each is the same each time.
func TestRenderAtTheSameTime(t *testing.T) {
	t.Parallel()
	all := shippedExamples(t)
	var wg sync.WaitGroup
	for range 3 {
		for _, e := range all {
			wg.Go(func() {
				objects, err := e.compiler.Render(t.Context(), e.Template, e.Cluster)
				if err != nil {
					t.Errorf("%s: %v", e.File, err)
					return
				}
				golden(t, "shipped-"+e.Name+".yaml", asYAML(t, objects))
			})
		}
	}
	wg.Wait()
}

// BenchmarkRender renders an EKS cluster of ten objects: with a template that was not seen before, and then as one of
// many.
func BenchmarkRender(b *testing.B) {
	var e example
	for _, candidate := range shippedExamples(b) {
		if candidate.Name == "eks-mixed" {
			e = candidate
		}
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			e.compiler = NewCompiler()
			e.render(b)
		}
	})
	c := NewCompiler()
	b.Run("next", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Render(b.Context(), e.Template, e.Cluster); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkExpandUnits expands what a Placement of 20 units holds for a thousand clusters.
func BenchmarkExpandUnits(b *testing.B) {
	c := NewCompiler()
	unit := map[string]any{
		"interval": "10m", "path": "apps/${cluster.labels.zone}", "prune": true,
		"sourceRef": map[string]any{"kind": "GitRepository", "name": "fleet"},
		"postBuild": map[string]any{"substitute": map[string]any{"cluster": "${cluster.name}", "size": "${string(parameters.size)}"}},
	}
	for b.Loop() {
		for range 1000 * 20 {
			if _, err := c.Expand(b.Context(), "spec.units[0].kustomization", unit, variables()); err != nil {
				b.Fatal(err)
			}
		}
	}
}

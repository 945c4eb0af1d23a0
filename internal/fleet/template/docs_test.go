package template

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// What docs/cluster-templates.md shows is so: its example can be used, and mistakes are told in the words that
// stand there.
func TestDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(repository, "docs", "cluster-templates.md"))
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "```yaml\n")
	if len(blocks) < 3 {
		t.Fatal("the example is gone")
	}
	tmpl, cluster := &fleetv1.ClusterTemplate{}, &fleetv1.FleetCluster{}
	for i, into := range []any{tmpl, cluster} {
		text, _, _ := strings.Cut(blocks[i+1], "```")
		if err := yaml.UnmarshalStrict([]byte(text), into); err != nil {
			t.Fatal(err)
		}
	}
	c := NewCompiler()
	objects, err := c.Render(t.Context(), tmpl, cluster)
	if err != nil || len(objects) != 2 || objects[1].GetName() != "blue-work" {
		t.Errorf("got %s, %v", asYAML(t, objects), err)
	}
	cluster.Spec.Template.Parameters = rawJSON(t, "{region: east, spools: [], pools: [{name: a}, {name: b, size: many}]}")
	_, err = c.Render(t.Context(), tmpl, cluster)
	if lines := strings.Join(problemsOf(t, err), "\n"); !strings.Contains(string(page), "```\n"+lines+"\n```") {
		t.Errorf("the page does not show:\n%s", lines)
	}
	misspelt := tmpl.DeepCopy()
	misspelt.Spec.Objects[1].Template.Raw = []byte(strings.ReplaceAll(string(misspelt.Spec.Objects[1].Template.Raw), "item.size", "item.sise"))
	if !json.Valid(misspelt.Spec.Objects[1].Template.Raw) {
		t.Fatal("no JSON")
	}
	if lines := strings.Join(problemsOf(t, c.CheckTemplate(t.Context(), misspelt)), "\n"); !strings.Contains(string(page), "```\n"+lines+"\n```") {
		t.Errorf("the page does not show:\n%s", lines)
	}
}

// The cluster with which docs/clusters.md begins can be made from the template that it names.
func TestDocumentedCluster(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join(repository, "docs", "clusters.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```yaml\n")
	text, _, _ := strings.Cut(rest, "```")
	cluster := &fleetv1.FleetCluster{}
	if err := yaml.UnmarshalStrict([]byte(text), cluster); err != nil {
		t.Fatal(err)
	}
	all := shippedExamples(t)
	at := slices.IndexFunc(all, func(e example) bool { return e.Template.Name == cluster.Spec.Template.Name })
	if at < 0 {
		t.Fatalf("no template %q ships", cluster.Spec.Template.Name)
	}
	if objects, err := all[at].compiler.Render(t.Context(), all[at].Template, cluster); err != nil || len(objects) == 0 {
		t.Errorf("%d objects, %v", len(objects), err)
	}
}

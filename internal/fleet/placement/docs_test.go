package placement_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/placement"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// documented reads the n-th YAML example of a page.
func documented(t *testing.T, page string, n int, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", page))
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(text), "```yaml\n")
	if len(blocks) <= n {
		t.Fatalf("docs/%s has no example %d any more", page, n)
	}
	example, _, _ := strings.Cut(blocks[n], "```")
	if err := yaml.UnmarshalStrict([]byte(example), into); err != nil {
		t.Fatalf("docs/%s, example %d: %v", page, n, err)
	}
}

// What the pages about Placements and clusters show can be used, and does what they say.
func TestDocumented(t *testing.T) {
	t.Parallel()
	p, blue := &v1alpha1.Placement{}, &v1alpha1.FleetCluster{}
	documented(t, "placements.md", 1, p)
	documented(t, "clusters.md", 2, blue)
	for i := range blue.Spec.Sync {
		blue.Spec.Sync[i].Source.Kind = sourcev1.GitRepositoryKind // as the definition has it by default
	}
	all := sources(git())
	all[placement.SourceKey{Kind: "GitRepository", Name: "apps"}] = git()
	all[placement.SourceKey{Kind: "HelmRepository", Name: "charts"}] = placement.Source{Spec: &sourcev1.HelmRepositorySpec{URL: "https://charts.example.org"}}
	f := placement.New([]*v1alpha1.Placement{p}, all, template.NewCompiler())
	if problems := f.Check(p.Name); len(problems) > 0 {
		t.Errorf("the example of a Placement: %v", problems)
	}
	for _, tc := range []struct {
		name, reason string
		cluster      *v1alpha1.FleetCluster
		want, not    []string
	}{
		{
			name: "production", reason: "both units, the overrides of its zone and of its name",
			cluster: cluster("green", "environment=production zone=north"),
			want:    []string{"monitoring/production", `"cluster":"green"`, "north.example.com", `"replicas":3`, "HelmRepository/bowline-system/charts"},
		},
		{
			name: "staging", reason: "no chart where the condition is false, and no override of another zone",
			cluster: cluster("red", "environment=staging zone=south"),
			want:    []string{"monitoring/staging", `"cluster":"red"`}, not: []string{"dashboards", "north.example.com"},
		},
		{name: "neither", reason: "the selector does not match", cluster: cluster("grey", "environment=lab"), not: []string{"monitoring"}},
		{
			name: "what a cluster syncs", reason: "a folder of all, and a branch of its environment in the namespace of its team",
			cluster: blue,
			want:    []string{"./common", "env/staging", `"serviceAccountName":"deployer"`, "Kustomization/shop/apps", "sync Kustomization/bowline-system/common"},
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := assign(t, f, tc.cluster, nil)
			if len(r.Problems) > 0 {
				t.Fatalf("%v", r.Problems)
			}
			got := shown(r.Spec)
			for _, want := range tc.want {
				if !strings.Contains(got, want) {
					t.Errorf("%s: %q is missing in\n%s", tc.reason, want, got)
				}
			}
			for _, not := range tc.not {
				if strings.Contains(got, not) {
					t.Errorf("%s: %q is in\n%s", tc.reason, not, got)
				}
			}
		})
	}
}

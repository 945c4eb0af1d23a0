package hub

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/testkit"
)

// What the API server refuses by the definitions, with which words, and what it fills in.
func TestDefinitions(t *testing.T) {
	t.Parallel()
	c, err := client.New(install(t), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	namespace := testkit.Namespace(t)
	const kustomization = `kustomization: {interval: 1m, prune: true, sourceRef: {kind: GitRepository, name: fleet}}`
	long := strings.Repeat("a", 54)
	for _, tc := range []struct {
		name, reason, kind, as, spec string
		// refused is in the error; "" where the object is taken. want are values at paths.
		refused string
		want    map[string]any
	}{
		{"join", "a cluster that joins", "FleetCluster", "", "{join: {}}", "", map[string]any{"spec.agent.mode": "Pull", "spec.deletionPolicy": "Delete"}},
		{"kubeConfig", "a cluster that somebody made", "FleetCluster", "", "{kubeConfig: {secretRef: {name: a}}, agent: {mode: Push}}", "", map[string]any{"spec.agent.mode": "Push"}},
		{"template", "a cluster that is made; parameters are as they are", "FleetCluster", "", "{template: {name: eks, parameters: {size: 3, nested: {any: thing}}}}", "",
			map[string]any{"spec.template.parameters.nested.any": "thing"}},
		{"nothing", "it has to come from somewhere", "FleetCluster", "", "{}", "exactly one of template, kubeConfig and join", nil},
		{"two", "it comes from one place", "FleetCluster", "", "{join: {}, template: {name: eks}}", "exactly one of template, kubeConfig and join", nil},
		{"three", "it comes from one place", "FleetCluster", "", "{join: {}, template: {name: eks}, kubeConfig: {secretRef: {name: a}}}", "exactly one of template, kubeConfig and join", nil},
		{"join and push", "the hub cannot reach it", "FleetCluster", "", "{join: {}, agent: {mode: Push}}", "agent.mode has to be Pull", nil},
		{"unknown mode", "there are two", "FleetCluster", "", "{join: {}, agent: {mode: Both}}", "spec.agent.mode", nil},
		{"unknown policy", "there are two", "FleetCluster", "", "{join: {}, deletionPolicy: Keep}", "spec.deletionPolicy", nil},
		{"template without a name", "it names one", "FleetCluster", "", "{template: {name: ''}}", "spec.template.name", nil},
		{"long name", "it is a value of labels", "FleetCluster", strings.Repeat("a", 64), "{join: {}}", "at most 63 characters", nil},
		{"longest name", "just short enough", "FleetCluster", strings.Repeat("a", 63), "{join: {}}", "", nil},
		{"sync", "a line is enough", "FleetCluster", "", "{join: {}, sync: [{source: {name: fleet}}]}", "", map[string]any{
			"spec.sync.0.name": "sync", "spec.sync.0.path": "clusters/${cluster.name}", "spec.sync.0.namespace": "bowline-system",
			"spec.sync.0.interval": "10m", "spec.sync.0.prune": true, "spec.sync.0.source.kind": "GitRepository",
		}},
		{"sync twice", "names tell them apart", "FleetCluster", "", "{join: {}, sync: [{source: {name: fleet}}, {source: {name: other}}]}", "Duplicate value", nil},
		{"sync from a chart", "a Kustomization needs files", "FleetCluster", "", "{join: {}, sync: [{source: {kind: HelmChart, name: a}}]}", "spec.sync[0].source.kind", nil},
		{"sync by a wrong name", "it is the name of an object", "FleetCluster", "", "{join: {}, sync: [{name: A_B, source: {name: fleet}}]}", "spec.sync[0].name", nil},

		{"placement", "a Placement", "Placement", "", "{clusters: {}, units: [{name: web, " + kustomization + "}]}", "", map[string]any{
			"spec.namespace": "bowline-system", "spec.units.0.kustomization.prune": true,
		}},
		{"release", "the other kind", "Placement", "", "{clusters: {}, units: [{name: web, helmRelease: {interval: 1m, values: {any: [thing]}}}]}", "", nil},
		{"no clusters", "all clusters is said and not assumed", "Placement", "", "{units: [{name: web, " + kustomization + "}]}", "spec.clusters", nil},
		{"no units", "it has to place something", "Placement", "", "{clusters: {}, units: []}", "spec.units", nil},
		{"both kinds", "a unit is one", "Placement", "", "{clusters: {}, units: [{name: web, " + kustomization + ", helmRelease: {interval: 1m}}]}", "a unit is either a kustomization or a helmRelease", nil},
		{"neither kind", "a unit is one", "Placement", "", "{clusters: {}, units: [{name: web}]}", "a unit is either a kustomization or a helmRelease", nil},
		{"no object", "a spec is one", "Placement", "", "{clusters: {}, units: [{name: web, kustomization: text}]}", "spec.units[0].kustomization", nil},
		{"same unit twice", "names tell them apart", "Placement", "", "{clusters: {}, units: [{name: web, " + kustomization + "}, {name: web, " + kustomization + "}]}", "Duplicate value", nil},
		{"long unit", "the name is part of others", "Placement", "", "{clusters: {}, units: [{name: " + long + ", " + kustomization + "}]}", "spec.units[0].name", nil},
		{"long placement", "the name is part of others", "Placement", long, "{clusters: {}, units: [{name: web, " + kustomization + "}]}", "at most 53 characters", nil},
		{"override of nobody", "it says for whom", "Placement", "", "{clusters: {}, units: [{name: web, " + kustomization + "}], overrides: [{unit: web, patch: {}}]}", "an override names clusters", nil},
		{"override", "by name", "Placement", "", "{clusters: {}, units: [{name: web, " + kustomization + "}], overrides: [{clusterNames: [a], unit: web, patch: {timeout: 1m}}]}", "",
			map[string]any{"spec.overrides.0.patch.timeout": "1m"}},
		{"dependency without a name", "it names one", "Placement", "", "{clusters: {}, units: [{name: web, " + kustomization + "}], dependsOn: [{name: ''}]}", "spec.dependsOn[0].name", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte("{apiVersion: fleet.bowline.dev/v1alpha1, kind: "+tc.kind+", spec: "+tc.spec+"}"), &u.Object); err != nil {
				t.Fatal(err)
			}
			u.SetNamespace(namespace)
			u.SetName(tc.as)
			if tc.as == "" {
				u.SetGenerateName("case-")
			}
			err := c.Create(t.Context(), u, client.FieldValidation("Strict"))
			switch {
			case tc.refused == "" && err != nil:
				t.Fatalf("refused: %v: %s", err, tc.reason)
			case tc.refused != "" && (err == nil || !strings.Contains(err.Error(), tc.refused)):
				t.Fatalf("got %v, want %q: %s", err, tc.refused, tc.reason)
			}
			for path, want := range tc.want {
				if got := at(u.Object, strings.Split(path, ".")); got != want {
					t.Errorf("%s is %v, want %v: %s", path, got, want, tc.reason)
				}
			}
		})
	}
}

// at returns the value at a path; a number is a place in a list.
func at(value any, path []string) any {
	for _, p := range path {
		switch v := value.(type) {
		case map[string]any:
			value = v[p]
		case []any:
			if len(p) != 1 || int(p[0]-'0') >= len(v) {
				return nil
			}
			value = v[p[0]-'0']
		default:
			return nil
		}
	}
	return value
}

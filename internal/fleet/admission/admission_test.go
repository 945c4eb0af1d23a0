package admission

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

const (
	small = `{kind: ClusterTemplate, metadata: {name: small}, spec: {
  parameters: {type: object, required: [region], properties: {region: {type: string}, size: {type: integer, default: 1, maximum: 9}}},
  objects: [{when: parameters.size > 0, template: {apiVersion: v1, kind: ConfigMap, metadata: {name: "${cluster.name}"}, data: {region: "${parameters.region}"}}}]}}`
	// fine is the rest of a Kustomization.
	fine = "interval: 1m, prune: true, sourceRef: {kind: GitRepository, name: fleet}"
)

func cluster(name, spec string) string {
	return "{kind: FleetCluster, metadata: {name: " + name + "}, spec: " + spec + "}"
}

func place(name, spec string) string {
	return "{kind: Placement, metadata: {name: " + name + "}, spec: {" + spec + "}}"
}

func units(kustomization string) string {
	return "clusters: {}, units: [{name: web, kustomization: {" + kustomization + "}}]"
}

// wrong are objects with what is said of them: field by field, and how it ends.
var wrong = []struct {
	name, reason, object string
	want                 []string
	remedy               string
}{
	{"parameter of the wrong type", "the schema wants a number", cluster("a", "{template: {name: small, parameters: {region: here, size: many}}}"),
		[]string{"spec.template.parameters.size: must be of type integer: \"string\""}, "see ClusterTemplate small"},
	{"several parameters", "all is told at once", cluster("a", "{template: {name: small, parameters: {size: 10, sise: 1}}}"),
		[]string{"spec.template.parameters.region: is required", "spec.template.parameters.sise: the template has no such parameter", "spec.template.parameters.size: should be less than or equal to 9"}, "see ClusterTemplate small"},
	{"nothing rendered", "the cluster would never be", cluster("a", "{template: {name: small, parameters: {region: here, size: 0}}}"),
		[]string{"spec.template: ClusterTemplate small does not take these parameters: spec.objects: every object is left out by its when or forEach"}, "see ClusterTemplate small"},
	{"sync", "the path is an expression", cluster("a", "{join: {}, sync: [{source: {name: fleet}, path: \"${cluster.nam}/x\"}, {name: b, source: {name: fleet}, namespace: \"${cluster.name}_x\"}]}"),
		[]string{"spec.sync[0].path: ${cluster.nam} has no answer: no such key: nam; write a.?b.orValue('…') where a field can be missing", "spec.sync[1].namespace: \"a_x\" is no name of a namespace"}, ""},
	{"sync of a cluster whose template is not there", "it compiles or not", cluster("a", "{template: {name: later}, sync: [{source: {name: fleet}, branch: \"${cluster.}\"}]}"),
		[]string{"spec.sync[0].branch: ${cluster.} does not compile: line 1, column 9: Syntax error: no viable alternative at input '.'; the variables are cluster, parameters"}, ""},

	{"template", "its expressions ask for what there is", strings.ReplaceAll(small, "parameters.size > 0", "parameters.sise > 0"),
		[]string{"spec.objects[0].when: ${parameters.sise > 0}: there is no parameter sise: there are region, size"}, ""},
	{"template with two mistakes", "both are told", strings.NewReplacer("type: string", "type: text", "kind: ConfigMap, ", "").Replace(small),
		[]string{`spec.parameters.properties[region].type: "text" is none of array, boolean, integer, number, object, string`, "spec.objects[0].template.kind: is missing"}, ""},

	{"selector", "it does not parse", place("a", "clusters: {matchExpressions: [{key: env, operator: Like, values: [prod]}]}, units: [{name: web, kustomization: {"+fine+"}}]"),
		[]string{`spec.clusters: "Like" is not a valid label selector operator; correct the selector`}, ""},
	{"override selector", "it does not parse", place("a", units(fine)+", overrides: [{clusters: {matchLabels: {\"a b\": c}}, unit: web, patch: {}}]"),
		[]string{`spec.overrides[0].clusters: key: Invalid value: "a b": ` + labelRule + "; correct the selector"}, ""},
	{"override of no unit", "it does nothing", place("a", units(fine)+", overrides: [{clusterNames: [x], unit: wep, patch: {}}]"),
		[]string{`spec.overrides[0].unit: there is no unit "wep"; name one of spec.units`}, ""},
	{"override with a field that there is not", "the unit is wrong on some clusters", place("a", units(fine)+", overrides: [{clusterNames: [x], unit: web, patch: {pathh: x}}]"),
		[]string{"spec.overrides[0].patch.pathh: a Kustomization has no such field"}, ""},
	{"override that takes a field away", "the unit is wrong on some clusters", place("a", units(fine)+", overrides: [{clusterNames: [x], unit: web, patch: {interval: null}}]"),
		[]string{"spec.overrides[0].patch.interval: is required"}, ""},
	{"waits for itself", "it would never begin", place("a", units(fine)+", dependsOn: [{name: a}]"),
		[]string{"spec.dependsOn: these Placements wait for each other: a → a; take one of the Placements out of the circle"}, ""},
	{"circle", "neither would begin", place("a", units(fine)+", dependsOn: [{name: b}]"),
		[]string{"spec.dependsOn: these Placements wait for each other: a → b → c → a; take one of the Placements out of the circle"}, ""},
	{"fields that are missing", "it is no Kustomization", place("a", units("path: x")),
		[]string{"spec.units[0].kustomization.interval: is required", "spec.units[0].kustomization.prune: is required", "spec.units[0].kustomization.sourceRef: is required"}, ""},
	{"field that there is not", "it would do nothing", place("a", units(fine+", pathh: \"${cluster.name}\", postBuild: {substitut: {a: b}}")),
		[]string{"spec.units[0].kustomization.postBuild.substitut: a Kustomization has no such field", "spec.units[0].kustomization.pathh: a Kustomization has no such field"}, ""},
	{"field of another type", "it cannot be read", place("a", units(strings.Replace(fine, "1m", "often", 1))),
		[]string{"spec.units[0].kustomization: is no spec of a Kustomization: time: invalid duration \"often\""}, ""},
	{"expression", "it does not compile", place("a", units(fine+", path: \"${clusters.name}\"")),
		[]string{"spec.units[0].kustomization.path: ${clusters.name} does not compile: line 1, column 1: undeclared reference to 'clusters' (in container ''); the variables are cluster, parameters"}, ""},
	{"condition", "it does not compile", place("a", "clusters: {}, units: [{name: web, when: \"${cluster.name == 'a'}\", kustomization: {"+fine+"}}]"),
		[]string{"spec.units[0].when: is an expression already; write it without ${ }"}, ""},
	{"release without a chart", "it installs nothing", place("a", "clusters: {}, units: [{name: web, helmRelease: {interval: 1m}}]"),
		[]string{"spec.units[0].helmRelease: exactly one of chart and chartRef is needed; set one of the two"}, ""},
	{"source of elsewhere", "one namespace is one fleet", place("a", units(strings.Replace(fine, "name: fleet", "name: fleet, namespace: other", 1))),
		[]string{"spec.units[0].kustomization.sourceRef.namespace: the sources of a Placement are those of its own namespace; leave out the namespace, and declare the source beside the Placement"}, ""},
	{"source that stays", "members cannot fetch it", place("a", units(strings.Replace(fine, "GitRepository", "ExternalArtifact", 1))),
		[]string{"spec.units[0].kustomization.sourceRef.kind: sources of this kind stay on the hub; refer to a GitRepository, OCIRepository, Bucket, HelmRepository or HelmChart"}, ""},
	{"namespace", "it is made on the members", place("a", "namespace: A_B, "+units(fine)),
		[]string{`spec.namespace: "A_B" is no name of a namespace; correct it`}, ""},
}

// labelRule is what the library says of names of labels.
const labelRule = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"

func TestAdmission(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.start(clock.RealClock{})
	s.judged()
	namespace := metav1.NamespaceDefault
	for _, text := range []string{small, place("b", units(fine)+", dependsOn: [{name: c}]"), place("c", units(fine)+", dependsOn: [{name: a}]")} {
		if err := s.apply(s.object(namespace, text)); err != nil {
			t.Fatal(err)
		}
	}
	s.warnings.reset()
	s.await("the engine does not see what there is", func() bool {
		return refused(s.apply(s.object(namespace, place("a", units(fine)+", dependsOn: [{name: b}]")), client.DryRunAll))
	})
	for _, tc := range wrong {
		t.Run(tc.name, func(t *testing.T) { s.refuses(t, namespace, tc.object, tc.reason, tc.want, tc.remedy) })
	}
	t.Run("accepts", func(t *testing.T) { testAccepts(t, s) })
	t.Run("changes", func(t *testing.T) { testChanges(t, s) })
	t.Run("templates that clusters use", func(t *testing.T) { testUsers(t, s) })
	t.Run("without the engine", func(t *testing.T) { testWithout(t, s) })
}

// refuses has the API server asked in a dry run, and in earnest.
func (s *stage) refuses(t *testing.T, namespace, object, reason string, want []string, remedy string) {
	t.Helper()
	u := s.object(namespace, object)
	kind := strings.ToLower(u.GetKind())
	message := fmt.Sprintf("admission webhook %q denied the request: %s", kind+"s.fleet.bowline.dev", strings.Join(want, "; "))
	if remedy != "" {
		message += "; " + remedy
	}
	for _, opts := range [][]client.ApplyOption{{client.DryRunAll}, nil} {
		err := s.apply(u, opts...)
		var status apierrors.APIStatus
		if !apierrors.IsInvalid(err) || !errors.As(err, &status) {
			t.Fatalf("got %v: %s", err, reason)
		}
		if got := status.Status(); got.Message != message {
			t.Errorf("got\n%s\nwant\n%s\n%s", got.Message, message, reason)
		} else if len(got.Details.Causes) != len(want) || got.Details.Kind != u.GetKind() {
			t.Errorf("%s of kind %s says %d things, want %d", got.Details.Name, got.Details.Kind, len(got.Details.Causes), len(want))
		}
	}
}

func testAccepts(t *testing.T, s *stage) {
	for _, tc := range []struct {
		name, reason, object string
		warnings             []string
	}{
		{"cluster", "its parameters fit", cluster("ok", "{template: {name: small, parameters: {region: here}}, sync: [{source: {name: fleet}, path: \"${parameters.region}\"}]}"), nil},
		{"cluster before its template", "Git applies in any order", cluster("early", "{template: {name: later, parameters: {any: thing}}}"),
			[]string{"there is no ClusterTemplate later in the namespace default yet: the cluster waits for it, and its parameters are not checked"}},
		{"cluster that joins", "it has no parameters", cluster("joins", "{join: {}}"), nil},
		{"placement", "expressions may give anything", place("ok", "namespace: other, clusters: {matchLabels: {env: prod}}, units: [{name: web, when: cluster.name != 'a', "+
			"kustomization: {interval: \"${parameters.interval}\", prune: \"${true}\", sourceRef: {kind: \"${parameters.kind}\", name: \"${cluster.name}\"}, path: \"a/${cluster.name}\", dependsOn: [{name: \"${cluster.name}\"}], postBuild: {substitute: \"${cluster.labels}\"}}}], dependsOn: [{name: later}]"), nil},
		{"rival", "clusters that both select may be few", place("rival", units(fine)),
			[]string{"Placement b has Kustomization/bowline-system/web as well: a cluster that both select gets it from one of them only", "Placement c has Kustomization/bowline-system/web as well: a cluster that both select gets it from one of them only"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s.warnings.reset()
			u := s.object(metav1.NamespaceDefault, tc.object)
			if err := s.apply(u, client.DryRunAll); err != nil {
				t.Fatalf("%v: %s", err, tc.reason)
			}
			if err := s.Get(t.Context(), client.ObjectKeyFromObject(u), u.DeepCopy()); !apierrors.IsNotFound(err) {
				t.Fatalf("a dry run left something: %v", err)
			}
			s.warnings.reset()
			if err := s.apply(u); err != nil {
				t.Fatalf("%v: %s", err, tc.reason)
			}
			if got := s.warnings.reset(); !slices.Equal(got, tc.warnings) {
				t.Errorf("warns %q, want %q: %s", got, tc.warnings, tc.reason)
			}
		})
	}
}

// testChanges changes objects that are there.
func testChanges(t *testing.T, s *stage) {
	made := s.object(metav1.NamespaceDefault, cluster("made", "{template: {name: small, parameters: {region: here}}}"))
	joined := s.object(metav1.NamespaceDefault, cluster("joined", "{join: {}}"))
	for _, u := range []*unstructured.Unstructured{made, joined} {
		if err := s.apply(u); err != nil {
			t.Fatal(err)
		}
	}
	other := s.object(metav1.NamespaceDefault, cluster("made", "{join: {}}"))
	if err := s.apply(other, client.DryRunAll); err != nil {
		t.Errorf("a cluster that is not there yet may become any: %v", err)
	}
	for _, name := range []string{"made", "joined"} {
		c := &v1alpha1.FleetCluster{}
		if err := s.Get(t.Context(), client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: name}, c); err != nil {
			t.Fatal(err)
		}
		c.Status.Incarnation = "one"
		if err := s.Status().Update(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	s.refuses(t, metav1.NamespaceDefault, cluster("made", "{join: {}}"), "it would be deleted",
		[]string{"spec.template: the cluster was made from ClusterTemplate small and would be deleted without it; keep it, or delete this FleetCluster and declare another"}, "")
	s.refuses(t, metav1.NamespaceDefault, cluster("joined", "{template: {name: small, parameters: {region: here}}}"), "it would get a twin",
		[]string{"spec.template: the cluster is there already and was not made from a template; declare another FleetCluster, with another name"}, "")
	for _, text := range []string{
		cluster("joined", "{kubeConfig: {secretRef: {name: a}}}"),
		cluster("made", "{template: {name: later, parameters: {region: here}}}"),
	} {
		if err := s.apply(s.object(metav1.NamespaceDefault, text), client.DryRunAll); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// testUsers changes a template so that clusters do not fit it any more, and has something written to one.
func testUsers(t *testing.T, s *stage) {
	s.await("the engine does not see the cluster", func() bool {
		s.warnings.reset()
		err := s.apply(s.object(metav1.NamespaceDefault, strings.Replace(small, "[region]", "[region, size, zone]", 1)), client.DryRunAll)
		return err == nil && len(s.warnings.reset()) == 2
	})
	if err := s.apply(s.object(metav1.NamespaceDefault, strings.Replace(small, "required: [region], properties: {region", "required: [zone], properties: {zone: {type: string}, region", 1))); err != nil {
		t.Fatal(err)
	}
	want := "FleetCluster made does not fit it any more, and stays as it is: spec.template.parameters.zone: is required"
	if got := s.warnings.reset(); len(got) != 2 || !slices.Contains(got, want) {
		t.Errorf("warns %q, want %q of two clusters", got, want)
	}
	c := &v1alpha1.FleetCluster{}
	if err := s.Get(t.Context(), client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: "made"}, c); err != nil {
		t.Fatal(err)
	}
	c.Finalizers = append(c.Finalizers, v1alpha1.LeaveFinalizer)
	if err := s.Update(t.Context(), c); err != nil {
		t.Errorf("what is not the spec cannot be written: %v", err)
	}
	c.Spec.Suspend = true
	if err := s.Update(t.Context(), c); !refused(err) {
		t.Errorf("a change of a cluster that does not fit: %v", err)
	}
	if err := s.Delete(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if err := s.Get(t.Context(), client.ObjectKeyFromObject(c), c); err != nil {
		t.Fatal(err)
	}
	c.Finalizers = nil
	if err := s.Update(t.Context(), c); err != nil {
		t.Errorf("it cannot go: %v", err)
	}
}

// testWithout stops the engine: Git goes on.
func testWithout(t *testing.T, s *stage) {
	s.stop()
	for _, tc := range wrong {
		if err := s.apply(s.object(metav1.NamespaceDefault, tc.object), client.DryRunAll); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

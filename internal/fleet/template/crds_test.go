package template

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	schemaobjectmeta "k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kinds "k8s.io/apimachinery/pkg/runtime/schema"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/fleet/template/shipped"
)

// definition is one version of a custom resource, ready to judge objects as the API
// server would without its webhooks.
type definition struct {
	structural *structuralschema.Structural
	values     validation.SchemaValidator
	rules      *cel.Validator
}

// definitions are read when an object of their kind is judged: most folders hold many more.
type definitions struct {
	folders []string
	read    map[kinds.GroupVersionKind]definition
}

// of finds the definition of a kind; ok is false where no folder has it.
func (d *definitions) of(t *testing.T, gvk kinds.GroupVersionKind) (found definition, ok bool) {
	t.Helper()
	if found, ok = d.read[gvk]; ok {
		return found, true
	}
	for _, folder := range d.folders {
		file := filepath.Join(folder, gvk.Group+"_"+strings.ToLower(gvk.Kind)+"s.yaml")
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var external apiextensionsv1.CustomResourceDefinition
		if err := yaml.Unmarshal(text, &external); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		var crd apiextensions.CustomResourceDefinition
		if err := apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(&external, &crd, nil); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		found = compileDefinition(t, file, &crd, gvk)
		if d.read == nil {
			d.read = map[kinds.GroupVersionKind]definition{}
		}
		d.read[gvk] = found
		return found, true
	}
	return definition{}, false
}

func compileDefinition(t *testing.T, file string, crd *apiextensions.CustomResourceDefinition, gvk kinds.GroupVersionKind) definition {
	t.Helper()
	served := slices.ContainsFunc(crd.Spec.Versions, func(v apiextensions.CustomResourceDefinitionVersion) bool { return v.Name == gvk.Version && v.Served })
	if crd.Spec.Names.Kind != gvk.Kind || !served {
		t.Fatalf("%s: does not serve %s", file, gvk)
	}
	props, err := apiextensions.GetSchemaForVersion(crd, gvk.Version)
	if err != nil || props == nil {
		t.Fatalf("%s: no schema for %s: %v", file, gvk.Version, err)
	}
	structural, err := structuralschema.NewStructural(props.OpenAPIV3Schema)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	values, _, err := validation.NewSchemaValidator(props.OpenAPIV3Schema)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return definition{structural: structural, values: values, rules: cel.NewValidator(structural, true, celconfig.PerCallLimit)}
}

// judge returns what the API server would refuse or drop.
func (d definition) judge(ctx context.Context, u *unstructured.Unstructured) []string {
	var wrong []string
	object := u.DeepCopy().Object
	for _, path := range pruning.PruneWithOptions(object, d.structural, true, structuralschema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true}) {
		wrong = append(wrong, "unknown field "+path)
	}
	defaulting.PruneNonNullableNullsWithoutDefaults(object, d.structural)
	defaulting.Default(object, d.structural)
	list := validation.ValidateCustomResource(nil, object, d.values)
	list = append(list, schemaobjectmeta.Validate(ctx, nil, object, d.structural, true)...)
	list = append(list, listtype.ValidateListSetsAndMaps(nil, d.structural, object)...)
	if d.rules != nil {
		broken, _ := d.rules.Validate(ctx, nil, d.structural, object, nil, celconfig.RuntimeCELCostBudget)
		list = append(list, broken...)
	}
	for _, err := range list {
		wrong = append(wrong, err.Error())
	}
	return wrong
}

// findDefinitions finds those of Cluster API and of the providers; missing says which are not here.
func findDefinitions(t *testing.T) (all *definitions, missing []string) {
	t.Helper()
	all = &definitions{}
	for _, d := range shipped.Find(t.Context(), repository) {
		all.folders = append(all.folders, d.Folders...)
		if d.Missing != "" {
			missing = append(missing, d.Provider+": "+d.Missing)
		}
	}
	return all, missing
}

// TestShippedTemplatesFitTheirProviders judges every object of every example by the definition of its kind.
func TestShippedTemplatesFitTheirProviders(t *testing.T) {
	t.Parallel()
	all, missing := findDefinitions(t)
	for _, what := range missing {
		t.Logf("NOT CHECKED: %s", what)
	}
	judged, unjudged := 0, map[string]bool{}
	for _, example := range shippedExamples(t) {
		for _, u := range example.render(t) {
			d, ok := all.of(t, u.GroupVersionKind())
			if !ok {
				unjudged[u.GroupVersionKind().String()] = true
				continue
			}
			judged++
			for _, line := range d.judge(t.Context(), u) {
				t.Errorf("%s: %s/%s: %s", example.File, u.GetKind(), u.GetName(), line)
			}
		}
	}
	if len(unjudged) > 0 && len(missing) == 0 {
		t.Errorf("no definition of %v", unjudged)
	}
	t.Logf("judged %d objects", judged)
	if len(missing) > 0 {
		t.Skipf("%d objects judged; %d sorts of definitions are not here: %s", judged, len(missing), strings.Join(missing, "; "))
	}
}

// The files that ship are what the API takes.
func TestShippedFilesFitTheAPI(t *testing.T) {
	t.Parallel()
	all := &definitions{folders: []string{filepath.Join("..", "..", "crds", "fleet")}}
	top := filepath.Join(repository, "templates", "*")
	examples, err := filepath.Glob(filepath.Join(top, "examples", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	templates, err := filepath.Glob(filepath.Join(top, "template.yaml"))
	if err != nil || len(templates) == 0 || len(examples) == 0 {
		t.Fatalf("found %v and %v: %v", templates, examples, err)
	}
	for _, file := range append(templates, examples...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text, err = yaml.YAMLToJSONStrict(text)
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(text); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		d, ok := all.of(t, u.GroupVersionKind())
		if !ok {
			t.Fatalf("%s: no definition of %s", file, u.GroupVersionKind())
		}
		for _, line := range d.judge(t.Context(), u) {
			t.Errorf("%s: %s", file, line)
		}
	}
}

// What is wrong is found: the definitions are read as the API server reads them.
func TestDefinitionsJudge(t *testing.T) {
	t.Parallel()
	all, _ := findDefinitions(t)
	d, ok := all.of(t, kinds.GroupVersionKind{Group: "cluster.x-k8s.io", Version: "v1beta2", Kind: "MachinePool"})
	if !ok {
		t.Skip("the definitions of Cluster API are not here: run `go mod download` in tools/capi")
	}
	for _, row := range []struct{ name, reason, from, to, want string }{
		{"right", "nothing is wrong with it", "", "", ""},
		{"unknown field", "it would be dropped", "replicas: 1", "replica: 1", "unknown field spec.replica"},
		{"wrong type", "it would be refused", "replicas: 1", "replicas: one", "spec.replicas: Invalid value"},
		{"missing", "it would be refused", "kind: A, ", "", "spec.template.spec.infrastructureRef.kind: Required value"},
		{"pattern", "it would be refused", "name: a}", "name: A_}", "spec.template.spec.infrastructureRef.name: Invalid value"},
	} {
		text := `{apiVersion: cluster.x-k8s.io/v1beta2, kind: MachinePool, metadata: {name: a, namespace: b},
spec: {replicas: 1, clusterName: a, template: {spec: {clusterName: a, bootstrap: {dataSecretName: ""}, infrastructureRef: {apiGroup: b.example.com, kind: A, name: a}}}}}`
		converted, err := yaml.YAMLToJSONStrict([]byte(strings.Replace(text, row.from, row.to, 1)))
		if err != nil {
			t.Fatal(err)
		}
		u := &unstructured.Unstructured{}
		if err := u.UnmarshalJSON(converted); err != nil {
			t.Fatal(err)
		}
		got := strings.Join(d.judge(t.Context(), u), "\n")
		if !strings.Contains(got, row.want) || (row.want == "") != (got == "") {
			t.Errorf("%s: got %q, want %q: %s", row.name, got, row.want, row.reason)
		}
	}
}

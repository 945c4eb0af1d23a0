package ignore

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
)

func read(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	data, err := yaml.YAMLToJSON([]byte(text))
	if err == nil {
		err = u.UnmarshalJSON(data)
	}
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func rules(t *testing.T, target *kustomize.Selector, paths ...string) *Rules {
	t.Helper()
	r, err := New([]kustomizev1.IgnoreRule{{Paths: paths, Target: target}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sameJSON compares with YAML for the reader's sake.
func sameJSON(t *testing.T, got any, want string) bool {
	t.Helper()
	data, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	wanted, err := yaml.YAMLToJSON([]byte(want))
	if err != nil {
		t.Fatal(err)
	}
	normal, err := yaml.YAMLToJSON(data)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(normal, wanted) {
		t.Logf("got  %s\nwant %s", normal, wanted)
	}
	return bytes.Equal(normal, wanted)
}

const deployment = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: apps, labels: {tier: front}, annotations: {a/b: x, fleet.bowline.dev/applied: d}},
  spec: {replicas: 3, template: {spec: {containers: [{name: a, image: i}, {name: b, image: j, args: [x, z], resources: {limits: {cpu: 1}}}]}}}}`

func TestWithout(t *testing.T) {
	t.Parallel()
	const meta = "apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: apps, labels: {tier: front}, annotations: {a/b: x, fleet.bowline.dev/applied: d}}"
	for _, row := range []struct {
		name, reason string
		paths        []string
		want         string // "" as it was
	}{
		{name: "field", reason: "the usual one", paths: []string{"/spec/replicas"},
			want: "{" + meta + ", spec: {template: {spec: {containers: [{name: a, image: i}, {name: b, image: j, args: [x, z], resources: {limits: {cpu: 1}}}]}}}}"},
		{name: "in a list, and what held it alone", reason: "a map that holds nothing else is gone from the owned fields too", paths: []string{"/spec/template/spec/containers/1/resources/limits/cpu"},
			want: "{" + meta + ", spec: {replicas: 3, template: {spec: {containers: [{name: a, image: i}, {name: b, image: j, args: [x, z]}]}}}}"},
		{name: "two items", reason: "indexes are those of the object as it was", paths: []string{"/spec/template/spec/containers/0", "/spec/template/spec/containers/1/args/0"},
			want: "{" + meta + ", spec: {replicas: 3, template: {spec: {containers: [{name: b, image: j, args: [z], resources: {limits: {cpu: 1}}}]}}}}"},
		{name: "escaped", reason: "a slash in a name", paths: []string{"/metadata/annotations/a~1b", "/spec"},
			want: "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: apps, labels: {tier: front}, annotations: {fleet.bowline.dev/applied: d}}}"},
		{name: "all annotations", reason: "but for ours", paths: []string{"/metadata/annotations", "/metadata/labels", "/spec"},
			want: "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: apps, annotations: {fleet.bowline.dev/applied: d}}}"},
		{name: "missing", reason: "what is not desired is not sent anyway", paths: []string{"/spec/paused", "/spec/template/spec/containers/7/args", "/spec/replicas/x", "/spec/template/spec/containers/first"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			u := read(t, deployment)
			want := row.want
			if want == "" {
				want = deployment
			}
			if got := rules(t, nil, row.paths...).Of(u).Without(u); !sameJSON(t, got.Object, want) {
				t.Error(row.reason)
			}
			if !sameJSON(t, u.Object, deployment) {
				t.Error("the object itself was changed")
			}
		})
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, reason string
		target       *kustomize.Selector
		want         bool
	}{
		{name: "none", reason: "all objects", want: true},
		{name: "empty", reason: "all objects", target: &kustomize.Selector{}, want: true},
		{name: "kind", reason: "it is one", target: &kustomize.Selector{Kind: "Deployment"}, want: true},
		{name: "part of a kind", reason: "patterns are about the whole", target: &kustomize.Selector{Kind: "Deploy"}},
		{name: "pattern", reason: "either", target: &kustomize.Selector{Kind: "StatefulSet|Deployment", Name: "w.*", Namespace: "apps", Group: "apps", Version: "v1"}, want: true},
		{name: "other name", reason: "all have to fit", target: &kustomize.Selector{Kind: "Deployment", Name: "api"}},
		{name: "other group", reason: "all have to fit", target: &kustomize.Selector{Group: "batch"}},
		{name: "labels", reason: "it has it", target: &kustomize.Selector{LabelSelector: "tier in (front, back)"}, want: true},
		{name: "other labels", reason: "it lacks it", target: &kustomize.Selector{LabelSelector: "tier=back"}},
		{name: "annotations", reason: "it has it", target: &kustomize.Selector{AnnotationSelector: "a/b=x"}, want: true},
		{name: "other annotations", reason: "it has it", target: &kustomize.Selector{AnnotationSelector: "!a/b"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if got := rules(t, row.target, "/spec/replicas").Of(read(t, deployment)) != nil; got != row.want {
				t.Errorf("matches: %t: %s", got, row.reason)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	good := kustomizev1.IgnoreRule{Paths: []string{"/spec/replicas"}}
	bad := func(path string) []kustomizev1.IgnoreRule {
		return []kustomizev1.IgnoreRule{good, {Paths: []string{"/a", path}}}
	}
	for _, row := range []struct {
		name, reason, want string
		spec               []kustomizev1.IgnoreRule
	}{
		{name: "dots", reason: "that is another language", spec: bad("spec.replicas"), want: `spec.ignore[1].paths[1]: "spec.replicas" does not begin with a slash; write it as a JSON pointer`},
		{name: "whole", reason: "there is an annotation for it", spec: bad(""), want: "reconcile: disabled"},
		{name: "escape", reason: "a typing error", spec: bad("/a~2b"), want: "~ that is neither"},
		{name: "escape at the end", reason: "a typing error", spec: bad("/a~"), want: "~ that is neither"},
		{name: "name", reason: "it would be another object", spec: bad("/metadata/name"), want: "says which object this is"},
		{name: "metadata", reason: "the name is in it", spec: bad("/metadata"), want: "says which object this is"},
		{name: "owner", reason: "nobody would know whose it is", spec: bad("/metadata/labels/kustomize.toolkit.fluxcd.io~1name"), want: "or whose"},
		{name: "digest", reason: "it would never be up to date", spec: bad("/metadata/annotations/fleet.bowline.dev~1applied"), want: "or whose"},
		{name: "pattern", reason: "it is none", spec: []kustomizev1.IgnoreRule{{Paths: []string{"/a"}, Target: &kustomize.Selector{Kind: "("}}}, want: "spec.ignore[0].target.kind"},
		{name: "selector", reason: "it is none", spec: []kustomizev1.IgnoreRule{{Paths: []string{"/a"}, Target: &kustomize.Selector{LabelSelector: "a=b=c"}}}, want: "spec.ignore[0].target.labelSelector"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := New(row.spec)
			if !errors.Is(err, failure.Of(failure.Invalid)) || !strings.Contains(err.Error(), row.want) {
				t.Errorf("got %v, want %q: %s", err, row.want, row.reason)
			}
		})
	}
}

// A field set is the same whoever owns what is left to others.
func TestCut(t *testing.T) {
	t.Parallel()
	inContainers := func(second string) string {
		return `{f:spec: {f:template: {f:spec: {f:containers: {k:{"name":"a"}: {.: {}, f:name: {}}, k:{"name":"b"}: {.: {}, f:name: {` + second + "}}}}}}"
	}
	for _, row := range []struct {
		name, reason, path, before, after string
	}{
		{name: "field", reason: "the usual one", path: "/spec/replicas", before: "{f:spec: {f:replicas: {}, f:paused: {}}}", after: "{f:spec: {f:paused: {}}}"},
		{name: "the only one", reason: "its parents go with it", path: "/spec/replicas", before: "{f:spec: {f:replicas: {}}}", after: "{}"},
		{name: "the only one of an owned map", reason: "the map is still owned", path: "/metadata/annotations/a~1b",
			before: "{f:metadata: {f:annotations: {.: {}, f:a/b: {}}}}", after: "{f:metadata: {f:annotations: {}}}"},
		{name: "taken already", reason: "nothing is left to cut", path: "/spec/replicas", before: "{f:spec: {f:paused: {}}}", after: "{f:spec: {f:paused: {}}}"},
		{name: "item", reason: "items have keys, not indexes", path: "/spec/template/spec/containers/1/resources",
			before: inContainers("}, f:resources: {f:limits: {f:cpu: {}}}"), after: inContainers("}")},
		{name: "item of one value", reason: "the list has one owner", path: "/spec/template/spec/containers/1/args/0",
			before: inContainers("}, f:args: {}"), after: inContainers("}")},
		{name: "member of a set", reason: "its value is its key", path: "/spec/template/spec/containers/1/args/0",
			before: inContainers(`}, f:args: {v:"x": {}, v:"z": {}}`), after: inContainers(`}, f:args: {v:"z": {}}`)},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			// Keys such as k:{"name":"a"} are not YAML's.
			quote := strings.NewReplacer(`k:{"name":"a"}`, `"k:{\"name\":\"a\"}"`, `k:{"name":"b"}`, `"k:{\"name\":\"b\"}"`, `v:"x"`, `"v:\"x\""`, `v:"z"`, `"v:\"z\""`, ".:", `".":`)
			before, err := yaml.YAMLToJSON([]byte(quote.Replace(row.before)))
			if err != nil {
				t.Fatal(err)
			}
			var got map[string]any
			if err := json.Unmarshal(rules(t, nil, row.path).Of(read(t, deployment)).Cut(before), &got); err != nil {
				t.Fatal(err)
			}
			if !sameJSON(t, got, quote.Replace(row.after)) {
				t.Error(row.reason)
			}
		})
	}
}

// owned returns a live object with owners.
func owned(t *testing.T, text string, entries map[string]string) *unstructured.Unstructured {
	t.Helper()
	u := read(t, text)
	var fields []metav1.ManagedFieldsEntry
	for manager, set := range entries {
		name, operation, _ := strings.Cut(manager, " ")
		data, err := yaml.YAMLToJSON([]byte(set))
		if err != nil {
			t.Fatal(err)
		}
		fields = append(fields, metav1.ManagedFieldsEntry{Manager: name, Operation: metav1.ManagedFieldsOperationType(operation), FieldsV1: metav1.NewFieldsV1(string(data))})
	}
	u.SetManagedFields(fields)
	return u
}

func TestYield(t *testing.T) {
	t.Parallel()
	const head = "apiVersion: x/v1, kind: X, metadata: {name: x}"
	for _, row := range []struct {
		name, reason, path, desired, live, want string
		owners                                  map[string]string
	}{
		{name: "changed", reason: "it was updated: the value stays, and stays ours", path: "/spec/num", desired: "spec: {num: 1, m: 1}", live: "spec: {num: 5, m: 2}",
			owners: map[string]string{"us Apply": "{f:spec: {f:num: {}}}", "hpa Update": "{f:spec: {f:num: {}}}"}, want: "spec: {num: 5, m: 1}"},
		{name: "applied by another", reason: "who applies it keeps it alone", path: "/spec/num", desired: "spec: {num: 1, m: 1}", live: "spec: {num: 5, m: 1}",
			owners: map[string]string{"us Apply": "{f:spec: {f:m: {}}}", "vpa Apply": "{f:spec: {f:num: {}}}"}, want: "spec: {m: 1}"},
		{name: "partly applied by another", reason: "what nobody else has would be removed", path: "/spec", desired: "spec: {num: 1, m: 1}", live: "spec: {num: 5, m: 2}",
			owners: map[string]string{"us Apply": "{f:spec: {f:m: {}}}", "vpa Apply": "{f:spec: {f:num: {}}}"}, want: "spec: {m: 2}"},
		{name: "applied by kubectl", reason: "its fields become ours, and would be removed", path: "/spec/num", desired: "spec: {num: 1, m: 1}", live: "spec: {num: 5, m: 1}",
			owners: map[string]string{"us Apply": "{f:spec: {f:m: {}}}", "kubectl Apply": "{f:spec: {f:num: {}}}"}, want: "spec: {num: 5, m: 1}"},
		{name: "removed", reason: "that is a change as well", path: "/spec/num", desired: "spec: {num: 1, m: 1}", live: "spec: {m: 1}",
			owners: map[string]string{"us Apply": "{f:spec: {f:m: {}}}"}, want: "spec: {m: 1}"},
		{name: "not in Git, others'", reason: "it is none of ours", path: "/spec/num", desired: "spec: {m: 1}", live: "spec: {num: 5, m: 1}",
			owners: map[string]string{"us Apply": "{f:spec: {f:m: {}}}", "hpa Update": "{f:spec: {f:num: {}}}"}, want: "spec: {m: 1}"},
		{name: "not in Git, kubectl's", reason: "its fields become ours, and would be removed", path: "/spec/num", desired: "spec: {m: 1}", live: "spec: {num: 5, m: 1}",
			owners: map[string]string{"us Apply": "{f:spec: {f:m: {}}}", "kubectl-edit Update": "{f:spec: {f:num: {}}}"}, want: "spec: {num: 5, m: 1}"},
		{name: "item by key", reason: "others put an item before ours", path: "/spec/items/0/num", desired: "spec: {items: [{id: a, num: 1}]}",
			live: "spec: {items: [{id: z, num: 9}, {id: a, num: 5}]}", owners: map[string]string{"us Apply": `{f:spec: {f:items: {"k:{\"id\":\"a\"}": {f:id: {}}}}}`},
			want: "spec: {items: [{id: a, num: 5}]}"},
		{name: "item by name", reason: "nobody says what the keys are", path: "/spec/items/0/num", desired: "spec: {items: [{name: a, num: 1}]}",
			live: "spec: {items: [{name: z, num: 9}, {name: a, num: 5}]}", want: "spec: {items: [{name: a, num: 5}]}"},
		{name: "item by place", reason: "the list is one value", path: "/spec/items/1", desired: "spec: {items: [x, w]}", live: "spec: {items: [x, z]}",
			owners: map[string]string{"us Apply": "{f:spec: {f:items: {}}}"}, want: "spec: {items: [x, z]}"},
		{name: "item that is gone", reason: "others removed it", path: "/spec/items/0/num", desired: "spec: {items: [{name: a, num: 1}]}", live: "spec: {items: []}", want: "spec: {items: [{name: a}]}"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			desired := read(t, "{"+head+", "+row.desired+"}")
			live := owned(t, "{"+head+", "+row.live+"}", row.owners)
			got := rules(t, nil, row.path).Of(desired).Yield(desired, live, "us", func(e metav1.ManagedFieldsEntry) bool { return strings.HasPrefix(e.Manager, "kubectl") })
			if !sameJSON(t, got.Object, "{"+head+", "+row.want+"}") {
				t.Error(row.reason)
			}
		})
	}
	desired := read(t, deployment)
	if rules(t, nil, "/spec/replicas").Of(desired).Yield(desired, nil, "us", nil) != desired {
		t.Error("an object that is not there is not sent as it is desired")
	}
}

package helm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/kustomize"
	release "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/failure"
)

const simple = `
-- web/Chart.yaml --
apiVersion: v2
name: web
version: 1.2.3
-- web/values.yaml --
replicas: 2
image: nginx
-- web/templates/_helpers.tpl --
{{- define "web.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}
-- web/templates/deployment.yaml --
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}
  labels:
    {{- include "web.labels" . | nindent 4 }}
spec:
  replicas: {{ .Values.replicas }}
  template:
    spec:
      containers:
        - name: web
          image: {{ .Values.image | quote }}
-- web/templates/service.yaml --
# a comment
apiVersion: v1
kind: Service
metadata:
  name: {{ .Release.Name }}
---
apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}-test
  annotations:
    helm.sh/hook: test
-- web/templates/NOTES.txt --
Hello {{ .Release.Name }}
`

func wholeChart(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile("testdata/whole.txtar")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// shown prints a rendering for people.
func shown(r Rendering) string {
	var b strings.Builder
	b.WriteString(r.Manifest + "=== hooks\n")
	for _, h := range r.Hooks {
		fmt.Fprintf(&b, "%s %s of %s: %v, weight %d, delete %v, log %v\n%s\n", h.Kind, h.Name, h.Path, h.Events, h.Weight, h.DeletePolicies, h.OutputLogPolicies, h.Manifest)
	}
	b.WriteString("=== notes\n" + r.Notes + "=== definitions\n")
	for _, d := range r.Definitions {
		fmt.Fprintf(&b, "%s %s %v\n", d.GetKind(), d.GetName(), d.GetLabels())
	}
	return b.String()
}

func TestRenderGolden(t *testing.T) {
	origin := types.NamespacedName{Namespace: "flux-system", Name: "hr"}
	tests := []struct {
		name, reason string
		change       func(*Request)
	}{
		{"plain", "as helm install makes it", func(*Request) {}},
		{"values", "conditions, tags, globals, imports and an alias follow the values", func(r *Request) {
			r.Values = Of(map[string]any{
				"cache": map[string]any{"enabled": false}, "tags": map[string]any{"observe": true},
				"second": map[string]any{"port": 1}, "global": map[string]any{"team": "apps"}, "imported": map[string]any{"number": 2},
			})
		}},
		{"upgrade", "templates see the revision and whether they upgrade", func(r *Request) { r.Release.Revision, r.Release.IsUpgrade = 7, true }},
		{"definitions", "templates see what the chart itself defines", func(r *Request) { r.DefinitionsFirst = true }},
		{"origin", "every object is labelled, hooks and definitions too", func(r *Request) { r.PostRender.Origin = origin }},
		{"postrender", "images, patches, metadata and labels, in this order", func(r *Request) {
			r.PostRender = patching(origin)
		}},
		{"separate", "hooks go through the renderers by themselves", func(r *Request) {
			r.PostRender = patching(origin)
			r.PostRender.Strategy = helmv2.PostRenderStrategySeparate
			// A patch without a target has to find its object in each stream.
			renderer := r.PostRender.Renderers[1].Kustomize
			renderer.Patches = renderer.Patches[:1]
		}},
		{"nohooks", "hooks stay as they are", func(r *Request) {
			r.PostRender = patching(origin)
			r.PostRender.Strategy = helmv2.PostRenderStrategyNoHooks
		}},
	}
	text := wholeChart(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := request(t, text)
			tt.change(&req)
			r, err := Render(t.Context(), req)
			if err != nil {
				t.Fatalf("%s: %v", tt.reason, err)
			}
			golden(t, tt.name+".golden", shown(r))
			if r.UsedLookup {
				t.Error("nothing was looked up")
			}
			if _, err := Objects(r.Manifest); err != nil {
				t.Error(err)
			}
		})
	}
}

func patching(origin types.NamespacedName) PostRender {
	return PostRender{
		Renderers: []helmv2.PostRenderer{{}, {Kustomize: &helmv2.Kustomize{
			Images: []kustomize.Image{{Name: "nginx", NewTag: "9"}},
			Patches: []kustomize.Patch{{
				Patch:  "- op: add\n  path: /spec/replicas\n  value: 5\n",
				Target: &kustomize.Selector{Kind: "Deployment"},
			}, {
				Patch: "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: demo-whole\ndata:\n  patched: \"true\"\n",
			}},
		}}},
		CommonMetadata: &helmv2.CommonMetadata{
			Labels:      map[string]string{"team": "web", "helm.toolkit.fluxcd.io/name": "not this"},
			Annotations: map[string]string{"note": "n"},
		},
		Origin: origin,
	}
}

func TestRenderNothing(t *testing.T) {
	for _, origin := range []string{"", "hr"} {
		req := request(t, "-- c/Chart.yaml --\nname: c\nversion: 1.0.0\napiVersion: v2\n-- c/templates/x.yaml --\n{{- if .Values.x }}\na: b\n{{- end }}\n")
		req.PostRender.Origin.Name = origin
		r, err := Render(t.Context(), req)
		if err != nil || r.Manifest != "" || len(r.Hooks) > 0 {
			t.Errorf("%+v, %v: a chart may make nothing", r, err)
		}
		objects, err := Objects(r.Manifest)
		if err != nil || len(objects) > 0 {
			t.Errorf("%v, %v", objects, err)
		}
	}
}

// TestRenderTwice shows that rendering leaves the chart and the values as they were.
func TestRenderTwice(t *testing.T) {
	req := request(t, wholeChart(t)+"-- whole/templates/mutate.yaml --\n"+
		`{{- $_ := set .Values "replicas" 9 }}{{- $_ := set .Values.second "port" 9 }}{{- $_ := set .Chart "Name" "other" }}`+"\n")
	req.Values = Of(map[string]any{"second": map[string]any{"port": float64(1)}})
	first, err := Render(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	digest := req.Digest()
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			again, err := Render(context.Background(), req)
			if err != nil || shown(again) != shown(first) {
				t.Errorf("%v\n%s\nwant\n%s", err, shown(again), shown(first))
			}
		})
	}
	group.Wait()
	if req.Digest() != digest {
		t.Error("the digest changed with rendering")
	}
}

// answers is a Lookup of a table.
type answers map[string]map[string]any

var errDown = errors.New("the server is down")

func (a answers) Lookup(_ context.Context, kind schema.GroupVersionKind, namespace, name string) (map[string]any, error) {
	if name == "down" {
		return nil, errDown
	}
	found := a[kind.GroupVersion().String()+"/"+kind.Kind+"/"+namespace+"/"+name]
	if found == nil {
		found = map[string]any{}
	}
	return found, nil
}

func TestLookup(t *testing.T) {
	const chart = "-- c/Chart.yaml --\nname: c\nversion: 1.0.0\napiVersion: v2\n-- c/templates/x.yaml --\n"
	cluster := answers{
		"v1/Secret/apps/s": {"data": map[string]any{"password": "aHVudGVyMg=="}},
		"apps/v1/Deployment//": {"items": []any{
			map[string]any{"metadata": map[string]any{"name": "one"}},
		}},
		"v1/Secret/apps/": {"items": []any{map[string]any{"data": map[string]any{"password": "aHVudGVyMg=="}}}},
	}
	const object = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: "
	tests := []struct {
		name, reason, template string
		lookup                 Lookup
		want                   string // in the manifest, or in the error if kind is set
		kind                   failure.Kind
	}{
		{"one", "an object is found by its name", object + `{{ (lookup "v1" "Secret" "apps" "s").data.password | b64dec }}`, cluster, "name: hunter2", ""},
		{"list", "no name asks for all", object + `{{ (index (lookup "apps/v1" "Deployment" "" "").items 0).metadata.name }}`, cluster, "name: one", ""},
		{"nothing", "what is not there is empty", object + `{{ if lookup "v1" "Secret" "apps" "other" }}yes{{ else }}none{{ end }}`, cluster, "name: none", ""},
		{"no cluster", "as helm template does", object + `{{ if lookup "v1" "Secret" "apps" "s" }}yes{{ else }}none{{ end }}`, NoCluster{}, "name: none", ""},
		{"refused", "nobody said that there is nothing", object + `{{ lookup "v1" "Secret" "apps" "s" }}`, nil, "c/templates/x.yaml:4: look up Secret: there is no cluster to ask", failure.Unsupported},
		{"down", "it may answer later", object + "\n" + `    {{ lookup "v1" "ConfigMap" "apps" "down" }}`, cluster, "c/templates/x.yaml:5: look up ConfigMap/apps/down: the server is down", failure.Unavailable},
		{"secret in a message", "what a Secret holds is not told", `{{ fail (lookup "v1" "Secret" "apps" "s").data.password }}`, cluster, "*****", failure.Invalid},
		{"secret of a list", "nor that of a list", `{{ fail (index (lookup "v1" "Secret" "apps" "").items 0).data.password }}`, cluster, "*****", failure.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := request(t, chart+tt.template+"\n")
			req.Lookup = tt.lookup
			r, err := Render(t.Context(), req)
			if tt.kind != "" {
				if failure.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "aHVudGVyMg") {
					t.Errorf("%s: %v, want %s %q", tt.reason, err, tt.kind, tt.want)
				}
				return
			}
			if err != nil || !strings.Contains(r.Manifest, tt.want) || !r.UsedLookup {
				t.Errorf("%s: %s, %v, looked up %t, want %q", tt.reason, r.Manifest, err, r.UsedLookup, tt.want)
			}
		})
	}
}

func TestRenderEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	req := request(t, "-- c/Chart.yaml --\nname: c\nversion: 1.0.0\napiVersion: v2\n-- c/templates/x.yaml --\n{{ lookup \"v1\" \"Pod\" \"\" \"\" }}\n")
	release, ended := make(chan struct{}), make(chan struct{})
	req.Lookup, req.Ended = hanging{cancel, release}, func() { close(ended) }
	_, err := Render(ctx, req)
	if !errors.Is(err, failure.Of(failure.Timeout)) || !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want a timeout", err)
	}
	select {
	case <-ended:
		t.Error("it is said to have ended while a template is under way")
	default:
	}
	close(release)
	<-ended
}

// hanging is a Lookup that cancels the rendering and does not end with it.
type hanging struct {
	cancel  context.CancelFunc
	release chan struct{}
}

func (h hanging) Lookup(context.Context, schema.GroupVersionKind, string, string) (map[string]any, error) {
	h.cancel()
	<-h.release
	return nil, errDown
}

func TestReuse(t *testing.T) {
	old := request(t, simple)
	old.Values = Of(map[string]any{"image": "old", "replicas": float64(3)})
	before, err := Render(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	req := request(t, strings.Replace(simple, "replicas: 2", "replicas: 1", 1))
	req.Values = Of(map[string]any{"image": "new"})
	req.Reuse = &release.Release{Version: 4, Chart: before.Chart, Config: before.Config}
	after, err := Render(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if after.Config["image"] != "new" || after.Config["replicas"] != float64(3) || !strings.Contains(after.Manifest, "replicas: 3") {
		t.Errorf("config %v: what was given before is kept where nothing else is given", after.Config)
	}
	if before.Config["image"] != "old" {
		t.Error("the release that is reused was changed")
	}
}

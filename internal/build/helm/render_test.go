package helm

import (
	"testing"

	"k8s.io/apimachinery/pkg/types"
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

func request(t testing.TB, text string) Request {
	return Request{
		Chart: chartOf(t, text), Release: Release{Name: "demo", Namespace: "apps", Revision: 1},
		Capabilities: DefaultCapabilities(),
	}
}

func TestRenderLabelsAndSplits(t *testing.T) {
	req := request(t, simple)
	req.PostRender.Origin = types.NamespacedName{Namespace: "ns", Name: "hr"}
	r, err := Render(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	objects, err := Objects(r.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	if len(objects) != 2 || objects[0].GetKind() != "Service" || objects[1].GetKind() != "Deployment" {
		t.Errorf("objects %v, want the Service before the Deployment", objects)
	}
	for _, o := range objects {
		if o.GetLabels()["helm.toolkit.fluxcd.io/name"] != "hr" || o.GetLabels()["helm.toolkit.fluxcd.io/namespace"] != "ns" {
			t.Errorf("%s has labels %v", o.GetName(), o.GetLabels())
		}
	}
	if len(r.Hooks) != 1 || r.Hooks[0].Name != "demo-test" || r.Notes != "Hello demo\n" {
		t.Errorf("hooks %v, notes %q", r.Hooks, r.Notes)
	}
}

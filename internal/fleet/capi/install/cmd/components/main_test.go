package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// written is a module as a provider publishes it, as far as it is read.
var written = map[string]string{
	"kustomization.yaml": "namePrefix: p-\nlabels: [{pairs: {cluster.x-k8s.io/provider: p}}]\nresources: [all.yaml]\n",
	"all.yaml": `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: hooks, annotations: {cert-manager.io/inject-ca-from: a/b, kept: "yes"}}
---
apiVersion: v1
kind: Namespace
metadata: {name: left-out}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.com}
spec:
  conversion: {strategy: Webhook}
  versions:
  - {name: v1beta1, storage: false, schema: {openAPIV3Schema: {type: object}}}
  - name: v1beta2
    storage: true
    schema:
      openAPIV3Schema:
        description: prose
        properties:
          description: {type: string, description: prose, maxLength: 10000000}
          list: {items: {description: prose, anyOf: [{description: prose}]}}
          any: {additionalProperties: true}
`,
}

func TestGenerate(t *testing.T) {
	dir := t.TempDir()
	config := filepath.Join(dir, "config", "default")
	if err := os.MkdirAll(config, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range written {
		if err := os.WriteFile(filepath.Join(config, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := run([]string{dir}, &out); err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"prose", "v1beta1", "conversion", "left-out", "cert-manager"} {
		if strings.Contains(out.String(), word) {
			t.Errorf("%q is still there:\n%s", word, out.String())
		}
	}
	_, docs, _ := strings.Cut(out.String(), "---\n")
	definition, hooks, _ := strings.Cut(docs, "---\n")
	if !strings.Contains(hooks, "name: p-hooks") || !strings.Contains(hooks, `kept: "yes"`) {
		t.Errorf("the webhooks come second, by the names of the kustomization:\n%s", hooks)
	}
	var u unstructured.Unstructured
	if err := yaml.Unmarshal([]byte(definition), &u.Object); err != nil {
		t.Fatal(err)
	}
	for _, label := range []string{"cluster.x-k8s.io/provider", "clusterctl.cluster.x-k8s.io"} {
		if _, ok := u.GetLabels()[label]; !ok {
			t.Errorf("no label %s:\n%s", label, definition)
		}
	}
	if !strings.Contains(definition, "description:\n") || !strings.Contains(definition, "maxLength: 10000000\n") {
		t.Errorf("a property called description, or a large number, is not what it was:\n%s", definition)
	}
}

func TestGenerateRefuses(t *testing.T) {
	for _, tc := range []struct {
		name, reason string
		args         []string
	}{
		{"no folder", "it reads one module", nil},
		{"no module", "there is no kustomization", []string{t.TempDir()}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if err := run(tc.args, &bytes.Buffer{}); err == nil {
				t.Error(tc.reason)
			}
		})
	}
}

package shipped_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/fleet/template/shipped"
)

// testChanges shows that what people change in a FleetCluster is taken of a cluster that is there, also by the
// webhooks that say which fields cannot be changed; what their READMEs say cannot be is refused.
func (h *hub) testChanges(t *testing.T, examples map[string]shipped.Example) {
	for _, row := range []struct{ name, reason, example, from, to, refused string }{
		{"eks: nothing", "an apply of the same changes nothing", "eks-production", `"v1.34"`, `"v1.34"`, ""},
		{"eks: version", "an upgrade is one commit", "eks-production", `"v1.34"`, `"v1.35"`, ""},
		{"eks: version down", "EKS never goes down", "eks-production", `"v1.34"`, `"v1.33"`, "new version less than old version"},
		{"eks: size", "groups are scaled", "eks-production", `"max":6`, `"max":9`, ""},
		{"eks: machines", "a group of others has another name", "eks-production", `BOTTLEROCKET_ARM_64`, `AL2023_ARM_64_STANDARD`, "field is immutable"},
		{"eks: key", "it stays", "eks-production", `key/0a1b2c3d-1111`, `key/0a1b2c3d-9999`, "changing EKS encryption is not allowed"},
		{"eks: add-on", "add-ons are upgraded", "eks-production", `v1.34.0-eksbuild.2`, `v1.34.1-eksbuild.1`, ""},
		{"eks: tags", "tags may change", "eks-production", `"4711"`, `"4712"`, ""},
		{"eks: labels", "labels of nodes may change", "eks-production", `"role":"system"`, `"role":"base"`, ""},
		{"eks: admins", "people come and go", "eks-production", `role/platform-admin`, `role/platform-owner`, ""},
		{"eks: endpoint", "it may be opened", "eks-production", `"public":false`, `"public":true`, ""},
		{"vsphere: version and image", "an upgrade is one commit", "vsphere-production", `v1.34.2`, `v1.35.0`, ""},
		{"vsphere: machines", "they are replaced", "vsphere-production", `"memoryMiB":32768`, `"memoryMiB":65536`, ""},
		{"vsphere: labels", "machines with others replace them", "vsphere-production", `"work":"storage"`, `"work":"disks"`, ""},
		{"vsphere: health", "it may be tuned", "vsphere-production", `"mostPercent":40`, `"mostPercent":60`, ""},
		{"aks: version", "an upgrade is one commit", "aks-production", `v1.33.2`, `v1.34.1`, ""},
		{"local: version", "an upgrade is one commit", "local-previous", `v1.35.0`, `v1.36.0`, ""},
		{"local: size", "groups are scaled", "local-zones", `"size":2`, `"size":3`, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			e := examples[row.example]
			h.deliver(t, e)
			parameters := e.Cluster.Spec.Template.Parameters.Raw
			if !bytes.Contains(parameters, []byte(row.from)) {
				t.Fatalf("no %s in %s", row.from, parameters)
			}
			e.Cluster = e.Cluster.DeepCopy()
			e.Cluster.Spec.Template.Parameters = &apiextensionsv1.JSON{Raw: bytes.ReplaceAll(parameters, []byte(row.from), []byte(row.to))}
			if !json.Valid(e.Cluster.Spec.Template.Parameters.Raw) {
				t.Fatalf("%s is no JSON", e.Cluster.Spec.Template.Parameters.Raw)
			}
			var refusals []string
			for _, u := range h.render(t, e) {
				if h.unjudged(u) != "" {
					continue
				}
				if err := h.apply(t, u, client.DryRunAll); err != nil {
					refusals = append(refusals, u.GetKind()+"/"+u.GetName()+": "+err.Error())
				}
			}
			text := strings.Join(refusals, "\n")
			if !strings.Contains(text, row.refused) || (row.refused == "") != (text == "") {
				t.Errorf("got %q, want %q: %s", text, row.refused, row.reason)
			}
		})
	}
}

// deliver makes the objects of an example.
func (h *hub) deliver(t *testing.T, e shipped.Example) {
	t.Helper()
	for _, u := range h.render(t, e) {
		if h.unjudged(u) != "" {
			continue
		}
		if err := h.apply(t, u); err != nil {
			t.Fatalf("%s: %s/%s: %v", e.File, u.GetKind(), u.GetName(), err)
		}
	}
}

// apply is what delivers the objects of a cluster.
func (h *hub) apply(t *testing.T, u *unstructured.Unstructured, opts ...client.ApplyOption) error {
	t.Helper()
	opts = append(opts, client.FieldOwner("bowline"), client.ForceOwnership)
	return h.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(u.DeepCopy()), opts...)
}

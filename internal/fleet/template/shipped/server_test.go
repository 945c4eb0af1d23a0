package shipped_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/fleet/template/shipped"
)

// TestShippedTemplatesPassTheirWebhooks has a real API server, with the webhooks of the real managers, judge all that
// is made from the templates that ship.
func TestShippedTemplatesPassTheirWebhooks(t *testing.T) {
	h := newHub(t)
	examples, err := shipped.Examples(repository)
	if err != nil {
		t.Fatal(err)
	}
	byName := map[string]shipped.Example{}
	for _, e := range examples {
		byName[e.Name] = e
		t.Run(e.Name, func(t *testing.T) {
			unjudged := map[string]int{}
			objects := h.render(t, e)
			for _, u := range objects {
				wrong, why := h.judge(t.Context(), u)
				if why != "" {
					unjudged[why]++
				}
				for _, line := range wrong {
					t.Errorf("%s: %s/%s: %s", e.File, u.GetKind(), u.GetName(), line)
				}
			}
			if len(unjudged) > 0 {
				t.Skipf("SKIPPED: of %d objects there were not judged %v", len(objects), unjudged)
			}
			t.Logf("judged %d objects", len(objects))
		})
	}
	t.Run("what is shown", h.testReadMes)
	t.Run("what is wrong", func(t *testing.T) { h.testRefusals(t, byName) })
	t.Run("what changes", func(t *testing.T) { h.testChanges(t, byName) })
}

// testRefusals shows, for each provider, that an object that is wrong is seen to be.
func (h *hub) testRefusals(t *testing.T, examples map[string]shipped.Example) {
	for _, row := range []struct {
		name, reason  string
		example, kind string
		field         string // with dots, below the object
		value         any
		want          string // of the words of the API server or of a webhook
	}{
		{"core", "the webhook of Cluster API asks for all three numbers", "eks-development", "MachinePool",
			"spec.template.spec.version", "v1.34", "must be a valid semantic version"},
		{"core, strictly", "a field that nobody knows would be dropped", "local-development", "MachineDeployment",
			"spec.size", int64(3), `unknown field "spec.size"`},
		{"health checks", "their webhook looks at the times", "vsphere-production", "MachineHealthCheck",
			"spec.checks.nodeStartupTimeoutSeconds", int64(5), "must be at least 30s"},
		{"aws", "EKS takes ranges of /16 to /28", "eks-production", "AWSManagedControlPlane",
			"spec.secondaryCidrBlock", "100.64.0.0/10", "CIDR block sizes must be between a /16 netmask and /28 netmask"},
		{"aws, node groups", "the most is less than the least", "eks-mixed", "AWSManagedMachinePool",
			"spec.scaling.maxSize", int64(-1), "must be greater"},
		{"aws, Fargate", "a profile is of a cluster", "eks-mixed", "AWSFargateProfile",
			"spec.clusterName", "", "should be at least 1 chars long"},
		{"kubeadm", "the definition has a pattern", "vsphere-development", "KubeadmControlPlane",
			"spec.version", "", "should be at least 1 chars long"},
		{"kubeadm, node groups", "the definition has two formats", "vsphere-edge", "KubeadmConfigTemplate",
			"spec.template.spec.format", "text", "Unsupported value"},
		{"azure", "the definition wants to know what is made", "aks-production", "AzureASOManagedControlPlane",
			"spec.resources", "none", "must be of type array"},
		{"vsphere", "the definition says how a machine is turned off", "vsphere-production", "VSphereMachineTemplate",
			"spec.template.spec.powerOffMode", "pull", "Unsupported value"},
		{"local", "the definition wants text", "local-zones", "LocalMachineTemplate",
			"spec.template.spec.memory", int64(64), "must be of type string"},
		{"put right", "the webhook of Cluster API adds the v, and Git never says so", "aks-mixed", "MachinePool",
			"spec.template.spec.version", "1.33.2", ".spec.template.spec.version: 1.33.2 became v1.33.2"},
		{"warned of", "what is taken with a warning is not as it should be", "eks-development", "AWSManagedCluster",
			"metadata.finalizers", []any{"mine"}, "warning: metadata.finalizers"},
	} {
		t.Run(row.name, func(t *testing.T) {
			u := first(t, h.render(t, examples[row.example]), row.kind)
			if err := unstructured.SetNestedField(u.Object, row.value, strings.Split(row.field, ".")...); err != nil {
				t.Fatal(err)
			}
			wrong, why := h.judge(t.Context(), u)
			if why != "" {
				t.Skipf("SKIPPED: %s", why)
			}
			if text := strings.Join(wrong, "\n"); !strings.Contains(text, row.want) {
				t.Errorf("got %q, want %q: %s", text, row.want, row.reason)
			}
		})
	}
}

func first(t *testing.T, objects []*unstructured.Unstructured, kind string) *unstructured.Unstructured {
	t.Helper()
	for _, u := range objects {
		if u.GetKind() == kind {
			return u
		}
	}
	t.Fatalf("the example makes no %s", kind)
	return nil
}

package install_test

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/bowline-dev/bowline/internal/testkit"
)

var (
	controlPlanes = schema.GroupVersionResource{Group: "controlplane.cluster.x-k8s.io", Version: "v1beta2", Resource: "awsmanagedcontrolplanes"}
	nodeGroups    = schema.GroupVersionResource{Group: "infrastructure.cluster.x-k8s.io", Version: "v1beta2", Resource: "awsmanagedmachinepools"}
	profiles      = schema.GroupVersionResource{Group: "infrastructure.cluster.x-k8s.io", Version: "v1beta2", Resource: "awsfargateprofiles"}
)

// TestAWSManagerJudges has the webhooks of the real provider judge what clusters of EKS are made of.
func TestAWSManagerJudges(t *testing.T) {
	testkit.NewClusterAPI(t, testkit.Kubeconfig(t))
	manager := testkit.NewClusterAPIProviderAWS(t, testkit.Kubeconfig(t))
	namespace := testkit.Namespace(t)
	for _, tc := range []struct {
		name, reason string
		resource     schema.GroupVersionResource
		kind, spec   string
		want         string // of the webhook's words; "" where it is accepted
	}{
		{"control plane", "the least that EKS takes", controlPlanes, "AWSManagedControlPlane", `{region: eu-central-1, version: v1.33.0}`, ""},
		{"control plane with a range too large", "EKS takes /16 to /28", controlPlanes, "AWSManagedControlPlane",
			`{region: eu-central-1, secondaryCidrBlock: 10.0.0.0/8}`, "CIDR block sizes must be between a /16 netmask and /28 netmask"},
		{"control plane with a tag of AWS's own", "the prefix is reserved", controlPlanes, "AWSManagedControlPlane",
			`{region: eu-central-1, additionalTags: {"aws:owner": us}}`, "user created tag's key cannot have prefix aws:"},
		{"node group", "groups of nodes are among its features", nodeGroups, "AWSManagedMachinePool", `{scaling: {minSize: 1, maxSize: 3}}`, ""},
		{"node group upside down", "the least is more than the most", nodeGroups, "AWSManagedMachinePool", `{scaling: {minSize: 3, maxSize: 1}}`, "must be greater than field spec.scaling.minSize"},
		{"profile", "Fargate is among its features", profiles, "AWSFargateProfile", `{clusterName: made, selectors: [{namespace: default}]}`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			made, err := create(t, tc.resource, namespace,
				"{apiVersion: "+tc.resource.GroupVersion().String()+", kind: "+tc.kind+", metadata: {generateName: made-}, spec: "+tc.spec+"}")
			switch {
			case tc.want == "" && err != nil:
				t.Fatalf("%s: %v\n%s", tc.reason, err, manager.Log())
			case tc.want != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tc.want)):
				t.Errorf("%s: %v", tc.reason, err)
			case tc.want == "" && tc.kind == "AWSManagedControlPlane":
				if name, _, _ := unstructured.NestedString(made.Object, "spec", "eksClusterName"); name == "" {
					t.Error("the webhook has set no name of a cluster")
				}
			}
		})
	}
}

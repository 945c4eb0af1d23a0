package install_test

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/testkit"
)

const topology = `
apiVersion: cluster.x-k8s.io/v1beta2
kind: Cluster
metadata: {generateName: made-}
spec:
  topology: {classRef: {name: small}, version: VERSION}
`

// TestCoreManager has Cluster API's own manager work on a hub that got nothing but what is
// installed here.
func TestCoreManager(t *testing.T) {
	t.Run("with the manager", testCoreManager)
	t.Run("after it was withdrawn", func(t *testing.T) {
		if _, err := create(t, clusters, testkit.Namespace(t), strings.Replace(topology, "VERSION", "v1.36.3", 1)); err != nil {
			t.Errorf("its webhooks stand in the way of other tests: %v", err)
		}
	})
}

func testCoreManager(t *testing.T) {
	manager := testkit.NewClusterAPI(t, testkit.Kubeconfig(t))
	namespace := testkit.Namespace(t)

	t.Run("its controllers report", func(t *testing.T) {
		made, err := create(t, clusters, namespace, `
apiVersion: cluster.x-k8s.io/v1beta2
kind: Cluster
metadata: {name: nowhere}
spec:
  infrastructureRef: {apiGroup: infrastructure.example.com, kind: Nowhere, name: nowhere}
`)
		if err != nil {
			t.Fatalf("%v\n%s", err, manager.Log())
		}
		got := await(t, clusters, made, func(u *unstructured.Unstructured) bool { return condition(u, "InfrastructureReady") != "" })
		for kind, want := range map[string]string{
			"Available": "False NotAvailable", "InfrastructureReady": "Unknown InternalError", "ControlPlaneInitialized": "False NotInitialized",
		} {
			if c := condition(got, kind); c != want {
				t.Errorf("condition %s is %q, want %q", kind, c, want)
			}
		}
	})

	t.Run("its webhooks set defaults", func(t *testing.T) {
		made, err := create(t, clusters, namespace, strings.Replace(topology, "VERSION", "1.36.3", 1))
		if err != nil {
			t.Fatalf("%v\n%s", err, manager.Log())
		}
		if got, _, _ := unstructured.NestedString(made.Object, "spec", "topology", "version"); got != "v1.36.3" {
			t.Errorf("the version is %q, want the prefix that the webhook adds", got)
		}
	})

	t.Run("its webhooks refuse", func(t *testing.T) {
		_, err := create(t, clusters, namespace, strings.Replace(topology, "VERSION", "latest", 1))
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "version must be a valid semantic version") {
			t.Errorf("a topology with a version that is none: %v", err)
		}
	})

	t.Run("nothing is written unchecked", func(t *testing.T) {
		manager.Kill()
		fine := strings.Replace(topology, "VERSION", "v1.36.3", 1)
		if _, err := create(t, clusters, namespace, fine); !apierrors.IsInternalError(err) {
			t.Errorf("without the manager: %v", err)
		}
		manager.Start()
		if _, err := create(t, clusters, namespace, fine); err != nil {
			t.Errorf("with the manager at another address: %v", err)
		}
	})
}

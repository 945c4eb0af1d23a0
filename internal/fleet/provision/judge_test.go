package provision

import (
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// TestWithoutClusterAPI: a hub on which Cluster API is not installed says so, and takes nothing back.
func TestWithoutClusterAPI(t *testing.T) {
	if err := crds.Apply(t.Context(), testkit.Cluster(t)); err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := kustomizev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(testkit.Cluster(t), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	b := &clusterBuilder{room: &room{client: c, Options: Options{}.withDefaults()}, clusters: &clusters{mapper: apimeta.NewDefaultRESTMapper(nil)}}
	tests := []struct {
		name, reason string
		before       []metav1.Condition
		status       metav1.ConditionStatus
		says         string
	}{
		{"new", "people have to install something", nil, metav1.ConditionFalse, "install Cluster API"},
		{"provisioned before", "the kind may be served in a moment", []metav1.Condition{{Type: v1alpha1.ProvisionedCondition, Status: metav1.ConditionTrue, Message: "it is"}}, metav1.ConditionTrue, "it is"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cluster := &v1alpha1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Namespace: testkit.Namespace(t), Name: "blue"}, Status: v1alpha1.FleetClusterStatus{Conditions: tt.before}}
			v, err := b.judge(t.Context(), cluster, nil)
			if err != nil || v.status != tt.status || !strings.Contains(v.message, tt.says) || v.again == 0 {
				t.Errorf("got %+v, %v; want %s: %s", v, err, tt.status, tt.reason)
			}
		})
	}
}

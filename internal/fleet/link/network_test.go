package link_test

import (
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// A network that is cut, that swallows what it is given, and that flaps: the member goes on, the hub says since when nobody has
// been heard of, and each of them is told once.
func TestNetwork(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.push(map[string]string{"app/config.yaml": configMap("app", "one")})
	c := h.cluster("a")
	h.place()
	network, by := through(t, h.endpoint)
	m := joined(h, c, by)
	m.has("app", "one")
	h.says(c, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason)
	for _, broken := range []struct {
		name, value string
		how         func()
	}{{"cut", "two", network.Cut}, {"silent", "three", network.Silence}} {
		broken.how()
		h.push(map[string]string{"app/config.yaml": configMap("app", broken.value)})
		away := h.says(c, v1alpha1.ReachableCondition, metav1.ConditionFalse, v1alpha1.LeaseExpiredReason, "has not renewed its Lease since 20")
		if c.Status.Phase != v1alpha1.PhaseUnreachable && !eventuallyPhase(h, c, v1alpha1.PhaseUnreachable) {
			t.Errorf("%s: the phase is %s", broken.name, c.Status.Phase)
		}
		h.must(m.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "app"}}))
		eventually(t, "healed while "+broken.name, func() (bool, string) {
			return m.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "app"}, &corev1.ConfigMap{}) == nil, m.log.String()
		})
		network.Mend()
		back := h.says(c, v1alpha1.ReachableCondition, metav1.ConditionTrue, v1alpha1.LeaseRenewedReason)
		if !back.LastTransitionTime.After(away.LastTransitionTime.Time) && back.LastTransitionTime != away.LastTransitionTime {
			t.Errorf("%s: back at %s, away at %s", broken.name, back.LastTransitionTime, away.LastTransitionTime)
		}
		m.has("app", broken.value)
		h.says(c, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason)
	}
	flapping(t, h, network, c)
}

func eventuallyPhase(h *theHub, c *v1alpha1.FleetCluster, phase v1alpha1.Phase) bool {
	h.Helper()
	h.eventually("the phase "+string(phase), func() (bool, string) {
		h.must(h.Get(h.Context(), client.ObjectKeyFromObject(c), c))
		return c.Status.Phase == phase, string(c.Status.Phase)
	})
	return true
}

// flapping: a network that breaks again and again and is there for a while each time breaks nothing. What counts is the hub's
// clock, which stands still when the machine does.
func flapping(t *testing.T, h *theHub, network *testkit.Network, c *v1alpha1.FleetCluster) {
	t.Helper()
	end := h.watch.Now().Add(2 * lost)
	for h.watch.Now().Before(end) {
		network.Cut()
		<-time.After(100 * time.Millisecond)
		network.Mend()
		<-time.After(900 * time.Millisecond)
		h.must(h.Get(t.Context(), client.ObjectKeyFromObject(c), c))
		if !apimeta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.ReachableCondition) {
			t.Fatalf("a network that flaps makes the cluster unreachable: %+v", c.Status.Conditions)
		}
	}
}

// A hub that is down: what it assigned is healed, an agent that is started meanwhile has all that it needs, and what changed is
// reported when it is back.
func TestHubDown(t *testing.T) {
	t.Parallel()
	instance := testkit.Start(t, testkit.WithControllers())
	h := newHubOn(t, instance.Config)
	h.push(map[string]string{"app/config.yaml": configMap("app", "one")})
	c := h.cluster("a")
	h.place()
	m := joined(h, c, h.endpoint)
	m.has("app", "one")
	h.says(c, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason)
	h.stop()
	instance.Stop()
	app := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "app"}}
	h.must(m.Delete(t.Context(), app))
	m.has("app", "one")
	m.stop()
	h.must(m.Delete(t.Context(), app))
	m.run()
	m.has("app", "one")
	// Something that the hub will have to be told.
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "new"}}
	h.must(m.Create(t.Context(), node))
	instance.Start()
	h.run()
	h.report("a", "a node more", func(s v1alpha1.ClusterReportStatus) bool { return s.Cluster.Nodes == 1 && s.Units.Ready == 1 })
	h.push(map[string]string{"app/config.yaml": configMap("app", "two")})
	m.has("app", "two")
	h.says(c, v1alpha1.ReachableCondition, metav1.ConditionTrue, v1alpha1.LeaseRenewedReason)
}

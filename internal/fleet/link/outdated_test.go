package link_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/link"
)

// A hub that was restored from a backup tells what was assigned long ago. What runs goes on until the hub has caught up, or has had the
// time for it.
func TestRestoredHub(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	first := h.push(map[string]string{"app/config.yaml": configMap("app", "one")})
	c := h.cluster("a")
	h.place()
	m := joined(h, c, h.endpoint)
	h.carriedOut("a", first)
	told := h.assignment("a")
	heard := func(generation int64) string { return fmt.Sprintf("%s/%d", told.UID, generation) }
	note := func(generation int64) {
		own := &v1alpha1.ClusterAssignment{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MemberNamespace, Name: "a"}}
		h.must(m.Patch(t.Context(), own, client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.HeardAnnotation, heard(generation)))))
	}
	m.own("noted", func(a *v1alpha1.ClusterAssignment) bool {
		return a.Annotations[v1alpha1.HeardAnnotation] == heard(told.Generation)
	})

	// No API server gives a generation back: the one that was heard is made a later one instead.
	note(told.Generation + 100)
	second := h.push(map[string]string{"app/config.yaml": configMap("app", "two")})
	h.report("a", "what the hub tells is old", func(s v1alpha1.ClusterReportStatus) bool {
		return strings.Contains(s.Problem, "older than the one that runs here")
	})
	h.says(c, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.UnitsFailedReason, "restored from a backup")
	own := m.own("as it was", func(*v1alpha1.ClusterAssignment) bool { return true })
	runs := &corev1.ConfigMap{}
	h.must(m.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "app"}, runs))
	if own.Spec.Digest != told.Spec.Digest || runs.Data["value"] != "one" {
		t.Errorf("what is older was carried out: %s instead of %s, and %v", own.Spec.Digest, told.Spec.Digest, runs.Data)
	}

	note(told.Generation)
	h.carriedOut("a", second)
	h.says(c, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason)

	// A hub that never catches up counts in the end.
	m.stop()
	note(told.Generation + 100)
	m.run(func(s *link.Membership) { s.Timing.Restored = time.Second })
	h.carriedOut("a", h.push(map[string]string{"app/config.yaml": configMap("app", "three")}))
	m.own("noted again", func(a *v1alpha1.ClusterAssignment) bool {
		return a.Annotations[v1alpha1.HeardAnnotation] == heard(h.assignment("a").Generation)
	})
}

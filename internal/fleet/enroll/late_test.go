package enroll_test

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/feed"
	"github.com/bowline-dev/bowline/internal/fleet/enroll"
)

// A kubeconfig that is written or changed counts when that is told, however long it would be until the next try.
func TestKubeconfigThatComesLate(t *testing.T) {
	t.Parallel()
	changed := &feed.Feed{}
	h := newHub(t, enroll.Options{Changed: changed, Retry: workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](time.Hour, time.Hour)})
	c := h.declare("edge", byKubeconfig("edge"))
	h.condition(c, v1alpha1.ProvisionedCondition, metav1.ConditionTrue)
	before := h.says(c, metav1.ConditionFalse, v1alpha1.InstallFailedReason)
	for _, text := range []string{"no kubeconfig", "{apiVersion: v1, kind: Config, current-context: none}"} {
		h.reachable("edge", []byte(text))
		changed.Add(types.NamespacedName{Namespace: c.Namespace, Name: c.Name})
		h.eventually("it says something else of a Secret with "+text, func() (bool, string) {
			now := h.says(c, metav1.ConditionFalse, v1alpha1.InstallFailedReason)
			return now != before, now
		})
		before = h.says(c, metav1.ConditionFalse, v1alpha1.InstallFailedReason)
	}
}

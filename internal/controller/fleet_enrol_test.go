package controller

import (
	"testing"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/bowline-dev/bowline/internal/feed"
	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// The address that pods of a cluster have is told from one that was given.
func TestInside(t *testing.T) {
	for _, tt := range []struct {
		name, reason, host, server string
		want                       bool
	}{
		{"in a pod", "no other cluster has that address", "10.96.0.1", "https://10.96.0.1:443", true},
		{"in a pod of IPv6", "as in one of IPv4", "fd00::1", "https://[fd00::1]:443", true},
		{"given", "it is where members find it", "10.96.0.1", "https://hub.example.com", false},
		{"in no pod", "the address is that of a kubeconfig", "", "https://10.96.0.1:443", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("KUBERNETES_SERVICE_HOST", tt.host)
			t.Setenv("KUBERNETES_SERVICE_PORT", "443")
			e := &engine{log: logr.Discard()}
			if got := e.inside(join.Endpoint{Server: tt.server}); got != tt.want {
				t.Errorf("inside is %t: %s", got, tt.reason)
			}
		})
	}
}

// Who installs an agent is told when the kubeconfig comes and when it changes, and of nothing once it is not read any more.
func TestEnrolmentsAreToldOfKubeconfigs(t *testing.T) {
	t.Parallel()
	r := newRoom(t, testkit.Cluster(t))
	e := &engine{references: r.references, enrolments: &feed.Feed{}}
	r.references.wake = e.wake
	queue := workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]())
	defer queue.ShutDown()
	if err := e.enrolments.Start(t.Context(), queue); err != nil {
		t.Fatal(err)
	}
	cluster := r.key("edge")
	read := func() error {
		secrets, done := e.enrolSecrets(cluster)
		defer done()
		return secrets.Get(t.Context(), r.key("edge-kubeconfig"), &corev1.Secret{})
	}
	told := func(what string) {
		t.Helper()
		r.poll(what, func() bool { return queue.Len() > 0 })
		if request, _ := queue.Get(); request.NamespacedName != cluster {
			t.Errorf("%s: %s was woken", what, request)
		} else {
			queue.Done(request)
		}
	}
	if err := read(); !apierrors.IsNotFound(err) {
		t.Fatalf("reading a Secret that is not there: %v", err)
	}
	r.settled(kindSecret)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "edge-kubeconfig"}, StringData: map[string]string{"value": "1"}}
	r.create(secret)
	told("its coming")
	if err := read(); err != nil {
		t.Fatal(err)
	}
	edit(r.stage, secret, func(s *corev1.Secret) { s.StringData = map[string]string{"value": "2"} })
	told("its change")
	_, done := e.enrolSecrets(cluster) // as when the FleetCluster is gone
	done()
	r.references.mu.Lock()
	defer r.references.mu.Unlock()
	if len(r.entries) != 0 || len(r.uses) != 0 {
		t.Errorf("%d Secrets of %d readers are held", len(r.entries), len(r.uses))
	}
}

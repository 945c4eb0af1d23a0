package link_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/fleet/link"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// theMember is a cluster of its own that has joined a hub, with an engine in this process.
type theMember struct {
	testing.TB
	client.Client
	instance *testkit.Instance
	dir      string
	who      *join.Credentials
	asked    *asked
	log      *book
	left     atomic.Bool
	stop     func()
}

// asked counts the requests to the hub.
type asked struct {
	mu  sync.Mutex
	all map[string]int // guarded by mu
}

func (a *asked) wrap(next http.RoundTripper) http.RoundTripper {
	return tripper(func(r *http.Request) (*http.Response, error) {
		what := r.Method + " " + r.URL.Path
		if strings.Contains(r.URL.RawQuery, "watch=") {
			what = "WATCH " + r.URL.Path
		}
		a.mu.Lock()
		a.all[what]++
		a.mu.Unlock()
		return next.RoundTrip(r)
	})
}

func (a *asked) reset() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.all
	a.all = map[string]int{}
	return all
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// book is a log.
type book struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (b *book) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *book) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// newMember is a cluster on which nothing runs yet.
func newMember(t testing.TB) *theMember {
	t.Helper()
	m := &theMember{TB: t, instance: testkit.Start(t), dir: t.TempDir(), asked: &asked{all: map[string]int{}}, log: &book{}}
	m.Client = install(t, m.instance.Config)
	if err := m.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.MemberNamespace}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the member's log:\n%s", m.log)
		}
	})
	return m
}

// joined is a member that has joined as a FleetCluster, on the way that the endpoint says, with its engine.
func joined(h *theHub, c *v1alpha1.FleetCluster, by join.Endpoint, change ...func(*link.Membership)) *theMember {
	h.Helper()
	m := newMember(h.TB)
	uid, err := join.Member(h.Context(), m.Client)
	h.must(err)
	m.who, err = join.Join(h.Context(), join.Store{Client: m.Client}, h.invite(c, by), uid)
	h.must(err)
	m.run(change...)
	return m
}

// run runs an engine until the test ends, or stop is called.
func (m *theMember) run(change ...func(*link.Membership)) {
	m.Helper()
	cfg := m.who.Config()
	cfg.Wrap(m.asked.wrap)
	ship := &link.Membership{
		Cluster: types.NamespacedName{Namespace: m.who.Namespace, Name: m.who.Name}, Incarnation: m.who.Incarnation(),
		Hub: func() *rest.Config { return cfg }, AgentVersion: "v1.2.3", Timing: soon,
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(m.Context()))
	ship.Left = func() { m.left.Store(true); cancel() }
	for _, f := range change {
		f(ship)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- controller.Run(ctx, controller.Options{
			RestConfig: rest.CopyConfig(m.instance.Config), DataDir: m.dir, Registry: prometheus.NewRegistry(), AuditInterval: -1,
			Tenancy: controller.Tenancy{Open: true}, Membership: ship,
			Logger: logr.FromSlogHandler(slog.NewTextHandler(m.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
		})
	}()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			m.Errorf("the engine ended: %v", err)
		}
	})
	m.Cleanup(m.stop)
}

// has waits until a ConfigMap of the member has a value.
func (m *theMember) has(name, value string) {
	m.Helper()
	c := &corev1.ConfigMap{}
	eventually(m, "ConfigMap "+name+" with "+value, func() (bool, string) {
		err := m.Get(m.Context(), client.ObjectKey{Namespace: "default", Name: name}, c)
		return err == nil && c.Data["value"] == value, fmt.Sprintf("%v %v", err, c.Data)
	})
}

// own waits until the member's copy is as it should be.
func (m *theMember) own(what string, is func(*v1alpha1.ClusterAssignment) bool) *v1alpha1.ClusterAssignment {
	m.Helper()
	a := &v1alpha1.ClusterAssignment{}
	eventually(m, "a copy: "+what, func() (bool, string) {
		*a = v1alpha1.ClusterAssignment{}
		err := m.Get(m.Context(), client.ObjectKey{Namespace: v1alpha1.MemberNamespace, Name: m.who.Name}, a)
		return err == nil && is(a), fmt.Sprintf("%v %+v", err, a)
	})
	return a
}

// uids are those of what is delivered to the member, and of what delivers it.
func (m *theMember) uids() map[string]types.UID {
	m.Helper()
	all := map[string]types.UID{}
	for _, list := range []client.ObjectList{&kustomizev1.KustomizationList{}, &sourcev1.ExternalArtifactList{}, &sourcev1.GitRepositoryList{}, &corev1.ConfigMapList{}} {
		if err := m.List(m.Context(), list); err != nil {
			m.Fatal(err)
		}
		err := apimeta.EachListItem(list, func(o runtime.Object) error {
			it, err := apimeta.Accessor(o)
			if err == nil && it.GetNamespace() != metav1.NamespaceSystem {
				all[fmt.Sprintf("%T %s/%s", o, it.GetNamespace(), it.GetName())] = it.GetUID()
			}
			return err
		})
		if err != nil {
			m.Fatal(err)
		}
	}
	return all
}

func configMap(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\n  namespace: default\ndata:\n  value: %q\n", name, value)
}

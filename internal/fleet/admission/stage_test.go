package admission

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// patience is for everything that takes the API server: the machine may be busy.
const patience = time.Minute

func TestMain(m *testing.M) { testkit.Main(m) }

// stage is an API server with engines that judge for it, one at a time.
type stage struct {
	testing.TB
	client.Client
	config   *rest.Config
	warnings *warnings
	stop     func()
}

// warnings keeps what the API server warns of.
type warnings struct {
	mu  sync.Mutex
	all []string // guarded by mu
}

func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, text)
}

// reset returns what was warned of, and begins anew.
func (w *warnings) reset() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.all
	w.all = nil
	return all
}

func newStage(t testing.TB) *stage {
	t.Helper()
	s := &stage{TB: t, config: testkit.Start(t).Config, warnings: &warnings{}}
	fleet, err := crds.Fleet()
	if err == nil {
		err = crds.Install(t.Context(), s.config, fleet)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.config.QPS = -1
	warned := rest.CopyConfig(s.config)
	warned.WarningHandler = s.warnings
	if s.Client, err = client.New(warned, client.Options{Scheme: scheme(t)}); err != nil {
		t.Fatal(err)
	}
	return s
}

func scheme(t testing.TB) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	if err := AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	return s
}

// start runs an engine until the test ends, or stop is called, and returns its server.
func (s *stage) start(c clock.WithTicker) *Server {
	s.Helper()
	server, err := Listen(s.Context(), Address{Listen: "127.0.0.1:0"})
	if err != nil {
		s.Fatal(err)
	}
	s.startAt(server, c)
	return server
}

func (s *stage) startAt(webhooks *Server, c clock.WithTicker) {
	s.Helper()
	mgr, err := ctrl.NewManager(rest.CopyConfig(s.config), ctrl.Options{
		Scheme: scheme(s), Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
		WebhookServer: webhooks, Cache: cache.Options{ByObject: CacheOptions()},
	})
	if err == nil {
		err = Register(mgr, Options{Clock: c})
	}
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.Context()))
	done := make(chan error, 1)
	go func() { done <- mgr.Start(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			s.Error(err)
		}
	})
	s.Cleanup(s.stop)
}

// object reads an object, which is put into the namespace.
func (s *stage) object(namespace, text string) *unstructured.Unstructured {
	s.Helper()
	u := &unstructured.Unstructured{}
	if err := yaml.Unmarshal([]byte(text), &u.Object); err != nil {
		s.Fatal(err)
	}
	u.SetAPIVersion("fleet.bowline.dev/v1alpha1")
	u.SetNamespace(namespace)
	return u
}

// apply applies an object as Git does.
func (s *stage) apply(o *unstructured.Unstructured, opts ...client.ApplyOption) error {
	s.Helper()
	o = o.DeepCopy()
	o.SetManagedFields(nil)
	o.SetResourceVersion("")
	return s.Apply(s.Context(), client.ApplyConfigurationFromUnstructured(o), append(opts, client.FieldOwner("git"), client.ForceOwnership)...)
}

// judged waits until the API server asks.
func (s *stage) judged() {
	s.Helper()
	wrong := s.object(metav1.NamespaceDefault, "{kind: Placement, metadata: {name: probe}, spec: {clusters: {}, units: [{name: a, kustomization: {}}]}}")
	s.await("the webhooks are not asked", func() bool { return refused(s.apply(wrong, client.DryRunAll)) })
}

func (s *stage) await(what string, done func() bool) {
	s.Helper()
	err := wait.PollUntilContextTimeout(s.Context(), 20*time.Millisecond, patience, true, func(context.Context) (bool, error) { return done(), nil })
	if err != nil {
		s.Fatalf("%s: %v", what, err)
	}
}

func refused(err error) bool {
	return apierrors.IsInvalid(err) && strings.Contains(err.Error(), "denied the request")
}

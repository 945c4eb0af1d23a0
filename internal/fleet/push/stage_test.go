package push

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/fleet/link"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	testkit.Main(m)
}

// patience is for everything that takes an API server: the machine may be busy.
const patience = time.Minute

// stage is a namespace of the hub with a controller that serves it alone. What the engines would do is not the
// matter here: they say that they run, and end as they are told.
type stage struct {
	testing.TB
	client.Client
	namespace string
	pusher    *Pusher
	engines   chan *engine
	config    *rest.Config
	// end ends the hub, and kept is what it finds of earlier ones when it begins.
	end  func()
	kept []string

	mu        sync.Mutex
	forgotten []string // guarded by mu
}

// engine is one that runs.
type engine struct {
	config     *rest.Config
	membership link.Membership
	ctx        context.Context //nolint:containedctx // that of its run
	fail       chan error
}

func testScheme(t testing.TB) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{AddToScheme, join.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func connect(t testing.TB, cfg *rest.Config) client.Client {
	t.Helper()
	c, err := client.New(cfg, client.Options{Scheme: testScheme(t)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newStage(t testing.TB) *stage {
	t.Helper()
	cfg := testkit.Cluster(t)
	definitions, err := crds.Fleet()
	if err == nil {
		err = crds.Install(t.Context(), cfg, definitions)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{TB: t, Client: connect(t, cfg), namespace: testkit.Namespace(t), engines: make(chan *engine, 100)}
	s.config = cfg
	s.begin()
	return s
}

// begin begins with the hub, which ends with the test or end.
func (s *stage) begin() {
	s.Helper()
	mgr, err := ctrl.NewManager(s.config, ctrl.Options{
		Scheme: testScheme(s), Logger: logr.Discard(), Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
		Cache: cache.Options{DefaultNamespaces: map[string]cache.Config{s.namespace: {}}},
	})
	s.must(err)
	events := record.NewBroadcaster(record.WithContext(s.Context()))
	s.Cleanup(events.Shutdown)
	events.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: kubernetes.NewForConfigOrDie(s.config).CoreV1().Events("")})
	s.pusher, err = Register(mgr, Options{
		Run: s.run, Forget: s.forget, Kept: func() []string { return s.kept }, Events: events.NewRecorder(mgr.GetScheme(), corev1.EventSource{Component: "bowline"}),
		Secrets: func(types.NamespacedName) (client.Reader, func()) { return mgr.GetAPIReader(), func() {} },
		Pause:   20 * time.Millisecond, LongestPause: 200 * time.Millisecond,
	})
	s.must(err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.Context()))
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	s.end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			s.Errorf("the hub ended: %v", err)
		}
	})
	s.Cleanup(s.end)
}

func (s *stage) run(ctx context.Context, cfg *rest.Config, m link.Membership) error {
	e := &engine{config: cfg, membership: m, ctx: ctx, fail: make(chan error)}
	s.engines <- e
	select {
	case <-ctx.Done():
		return nil
	case err := <-e.fail:
		return err
	}
}

func (s *stage) forget(incarnation string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forgotten = append(s.forgotten, incarnation)
}

// started waits for an engine that is started.
func (s *stage) started() *engine {
	s.Helper()
	select {
	case e := <-s.engines:
		return e
	case <-time.After(patience):
		s.Fatal("no engine is started")
		return nil
	}
}

// stopped waits for the end of an engine.
func (s *stage) stopped(e *engine) {
	s.Helper()
	select {
	case <-e.ctx.Done():
	case <-time.After(patience):
		s.Fatal("the engine is not stopped")
	}
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// secret puts a kubeconfig into a Secret; note makes it another one that leads to the same place.
func (s *stage) secret(name string, cfg *rest.Config, note string) {
	s.Helper()
	text := kubeconfigOf(s, cfg, note)
	o := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}, Data: map[string][]byte{"value": text}}
	err := s.Create(s.Context(), o)
	if client.IgnoreAlreadyExists(err) == nil && err != nil {
		err = s.Update(s.Context(), o)
	}
	s.must(err)
}

func kubeconfigOf(t testing.TB, cfg *rest.Config, note string) []byte {
	t.Helper()
	text, err := clientcmd.Write(api.Config{
		CurrentContext: note, Contexts: map[string]*api.Context{note: {Cluster: "c", AuthInfo: "u"}},
		Clusters:  map[string]*api.Cluster{"c": {Server: cfg.Host, CertificateAuthorityData: cfg.CAData}},
		AuthInfos: map[string]*api.AuthInfo{"u": {Token: cfg.BearerToken, ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// cluster makes a FleetCluster that is pushed to, with the Secret of its name, as its control plane answers.
func (s *stage) cluster(name string, cfg *rest.Config, change ...func(*v1alpha1.FleetCluster)) *v1alpha1.FleetCluster {
	s.Helper()
	s.secret(name, cfg, "first")
	c := &v1alpha1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}, Spec: v1alpha1.FleetClusterSpec{
		KubeConfig: &v1alpha1.KubeConfigReference{SecretRef: meta.SecretKeyReference{Name: name}}, Agent: v1alpha1.AgentSpec{Mode: v1alpha1.AgentPush},
	}}
	for _, f := range change {
		f(c)
	}
	s.must(s.Create(s.Context(), c))
	s.provisioned(c)
	s.Cleanup(func() {
		var left v1alpha1.FleetCluster
		if s.Get(context.Background(), client.ObjectKeyFromObject(c), &left) == nil {
			left.Finalizers = nil
			_ = s.Update(context.Background(), &left)
			_ = s.Delete(context.Background(), &left)
		}
	})
	return c
}

func (s *stage) provisioned(c *v1alpha1.FleetCluster) {
	s.Helper()
	before := c.DeepCopy()
	apimeta.SetStatusCondition(&c.Status.Conditions, metav1.Condition{Type: v1alpha1.ProvisionedCondition, Status: metav1.ConditionTrue, Reason: v1alpha1.ProvisionedReason})
	s.must(s.Status().Patch(s.Context(), c, client.MergeFrom(before)))
}

// change changes a FleetCluster from what it is now.
func (s *stage) change(c *v1alpha1.FleetCluster, f func(*v1alpha1.FleetCluster)) {
	s.Helper()
	s.must(s.Get(s.Context(), client.ObjectKeyFromObject(c), c))
	before := c.DeepCopy()
	f(c)
	s.must(s.Patch(s.Context(), c, client.MergeFrom(before)))
}

// joined waits for a Joined condition.
func (s *stage) joined(c *v1alpha1.FleetCluster, status metav1.ConditionStatus, reason string, words ...string) {
	s.Helper()
	s.eventually(fmt.Sprintf("%s is Joined=%s %s %q", c.Name, status, reason, words), func() (bool, string) {
		if err := s.Get(s.Context(), client.ObjectKeyFromObject(c), c); err != nil {
			return false, err.Error()
		}
		is := condition(c, v1alpha1.JoinedCondition)
		ok := is.status == string(status) && is.reason == reason
		for _, w := range words {
			ok = ok && strings.Contains(is.message, w)
		}
		return ok, fmt.Sprintf("%+v", is)
	})
}

func (s *stage) eventually(what string, is func() (bool, string)) {
	s.Helper()
	var got string
	err := wait.PollUntilContextTimeout(s.Context(), 20*time.Millisecond, patience, true, func(context.Context) (ok bool, _ error) {
		ok, got = is()
		return ok, nil
	})
	if err != nil {
		s.Fatalf("not so: %s: %v; it is %s", what, err, got)
	}
}

// identity is who the member of a FleetCluster is.
func (s *stage) identity(c *v1alpha1.FleetCluster, member client.Reader) join.Identity {
	s.Helper()
	uid, err := join.Member(s.Context(), member)
	s.must(err)
	return join.Identity{Namespace: c.Namespace, Name: c.Name, UID: c.UID, Member: uid}
}

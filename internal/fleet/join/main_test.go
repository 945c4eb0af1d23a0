package join_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	testkit.Main(m, testkit.WithControllers())
}

// patience is how long something may take that the API server and its controllers do at once.
const patience = 30 * time.Second

// hub is a hub of one test, on the cluster of the package, in a namespace of its own.
type hub struct {
	testing.TB
	client.Client
	config    *rest.Config
	endpoint  join.Endpoint
	namespace string
}

// newHub runs the room's controllers until the test ends.
func newHub(t testing.TB, o join.Options) *hub {
	t.Helper()
	h := newQuietHub(t)
	h.run(o)
	return h
}

// run runs the room's controllers until the test ends, or until it is told to stop.
func (h *hub) run(o join.Options) (end func()) {
	h.Helper()
	twice := true // other tests have controllers of these names
	mgr, err := ctrl.NewManager(h.config, ctrl.Options{Scheme: h.Scheme(), Logger: logr.Discard(), Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: &twice}})
	if err == nil {
		o.Events = h.recorder()
		err = join.Register(mgr, o)
	}
	if err != nil {
		h.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.Context()))
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			h.Errorf("the hub ended: %v", err)
		}
	})
	h.Cleanup(end)
	return end
}

// newQuietHub runs nothing.
func newQuietHub(t testing.TB) *hub {
	t.Helper()
	cfg := testkit.Cluster(t)
	definitions, err := crds.Fleet()
	if err == nil {
		err = crds.Install(t.Context(), cfg, definitions)
	}
	if err != nil {
		t.Fatal(err)
	}
	endpoint, err := join.EndpointOf(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &hub{TB: t, Client: connect(t, cfg), config: cfg, endpoint: endpoint, namespace: testkit.Namespace(t)}
}

func scheme(t testing.TB) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	if err := join.AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	return s
}

func connect(t testing.TB, cfg *rest.Config) client.Client {
	t.Helper()
	c, err := client.New(cfg, client.Options{Scheme: scheme(t)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (h *hub) recorder() record.EventRecorder {
	broadcaster := record.NewBroadcaster(record.WithContext(h.Context()))
	h.Cleanup(broadcaster.Shutdown)
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: typedcorev1.NewForConfigOrDie(h.config).Events("")})
	return broadcaster.NewRecorder(h.Scheme(), corev1.EventSource{Component: "bowline"})
}

// cluster declares a cluster with what is exchanged with it.
func (h *hub) cluster(name string) *v1alpha1.FleetCluster {
	h.Helper()
	meta := metav1.ObjectMeta{Namespace: h.namespace, Name: name}
	c := &v1alpha1.FleetCluster{ObjectMeta: meta, Spec: v1alpha1.FleetClusterSpec{Join: &v1alpha1.JoinSpec{}}}
	for _, o := range []client.Object{c,
		&v1alpha1.ClusterAssignment{ObjectMeta: meta, Spec: v1alpha1.ClusterAssignmentSpec{Digest: "none"}},
		&v1alpha1.ClusterReport{ObjectMeta: meta}} {
		if err := h.Create(h.Context(), o); err != nil && client.IgnoreAlreadyExists(err) != nil {
			h.Fatal(err)
		}
	}
	if err := h.Get(h.Context(), client.ObjectKeyFromObject(c), c); err != nil {
		h.Fatal(err)
	}
	return c
}

func (h *hub) invite(c *v1alpha1.FleetCluster) join.Invitation {
	h.Helper()
	i, _, err := join.Invite(h.Context(), h.Client, c, h.endpoint)
	if err != nil {
		h.Fatal(err)
	}
	// As a member gets it.
	data, err := i.Kubeconfig()
	if err == nil {
		i, err = join.ParseInvitation(data, "the test")
	}
	if err != nil {
		h.Fatal(err)
	}
	return i
}

// join has a cluster of that identity join, in so far as the hub can see it.
func (h *hub) join(i join.Invitation, member types.UID) (*join.Credentials, error) {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), patience)
	defer cancel()
	return join.Request(ctx, i, member, key(h))
}

// joined is a cluster that has joined.
func (h *hub) joined(name string, member types.UID) (*v1alpha1.FleetCluster, *join.Credentials) {
	h.Helper()
	c := h.cluster(name)
	credentials, err := h.join(h.invite(c), member)
	if err != nil {
		h.Fatalf("%s cannot join: %v", name, err)
	}
	h.until(c, "its agent has rights", func() bool { return h.may(credentials, c) })
	return c, credentials
}

// may reports whether an agent may read the assignment of a cluster.
func (h *hub) may(c *join.Credentials, of *v1alpha1.FleetCluster) bool {
	h.Helper()
	return connect(h, c.Config()).Get(h.Context(), client.ObjectKeyFromObject(of), &v1alpha1.ClusterAssignment{}) == nil
}

// until waits until an object, which is read anew each time, is as it is to be.
func (h *hub) until(o client.Object, what string, is func() bool) {
	h.Helper()
	k := client.ObjectKeyFromObject(o)
	err := wait.PollUntilContextTimeout(h.Context(), 20*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := h.Get(ctx, k, o)
		return client.IgnoreNotFound(err) == nil && is(), client.IgnoreNotFound(err)
	})
	if err != nil {
		h.Fatalf("%T %s never says that %s: %v\n%+v", o, k, what, err, o)
	}
}

// gone waits until an object is not there.
func (h *hub) gone(o client.Object) {
	h.Helper()
	k := client.ObjectKeyFromObject(o)
	err := wait.PollUntilContextTimeout(h.Context(), 20*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := h.Get(ctx, k, o)
		return err != nil && client.IgnoreNotFound(err) == nil, client.IgnoreNotFound(err)
	})
	if err != nil {
		h.Fatalf("%T %s is still there: %v", o, k, err)
	}
}

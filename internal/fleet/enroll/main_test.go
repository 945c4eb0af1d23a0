package enroll_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
	"github.com/bowline-dev/bowline/internal/fleet/enroll"
	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) {
	ctrllog.SetLogger(logr.Discard())
	testkit.Main(m, testkit.WithControllers())
}

// patience is how long something may take that the API servers and controllers do at once.
const patience = 30 * time.Second

// hub is a hub of one test, in a namespace of its own.
type hub struct {
	testing.TB
	client.Client
	config    *rest.Config
	namespace string
	end       func()
}

func connect(t testing.TB, config *rest.Config) client.Client {
	t.Helper()
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{join.AddToScheme, agent.AddToScheme} {
		if err := add(s); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(config, client.Options{Scheme: s})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newHub(t testing.TB, o enroll.Options) *hub {
	t.Helper()
	config := testkit.Cluster(t)
	definitions, err := crds.Fleet()
	if err == nil {
		err = crds.Install(t.Context(), config, definitions)
	}
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{TB: t, Client: connect(t, config), config: config, namespace: testkit.Namespace(t)}
	h.run(o)
	return h
}

// run runs the room's controller, and the one that decides on requests, until the test ends or end is called.
func (h *hub) run(o enroll.Options) {
	h.Helper()
	var err error
	if o.Hub, err = join.EndpointOf(h.config); err != nil {
		h.Fatal(err)
	}
	if o.Image == "" {
		o.Image = "registry.example.com/bowline:v1"
	}
	o.Events = h.recorder()
	if o.Retry == nil {
		o.Retry = workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](50*time.Millisecond, 200*time.Millisecond)
	}
	twice := true // other tests have controllers of these names
	mgr, err := ctrl.NewManager(h.config, ctrl.Options{Scheme: h.Scheme(), Logger: logr.Discard(), Metrics: server.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: &twice}, Cache: cache.Options{ByObject: map[client.Object]cache.ByObject{
			&v1alpha1.FleetCluster{}: {Namespaces: map[string]cache.Config{h.namespace: {}}}}}})
	if err == nil {
		err = errors.Join(join.Register(mgr, join.Options{Events: o.Events}), enroll.Register(mgr, o))
	}
	if err != nil {
		h.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.Context()))
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	h.end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			h.Errorf("the hub ended: %v", err)
		}
	})
	h.Cleanup(h.end)
}

func (h *hub) recorder() record.EventRecorder {
	broadcaster := record.NewBroadcaster(record.WithContext(h.Context()))
	h.Cleanup(broadcaster.Shutdown)
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: typedcorev1.NewForConfigOrDie(h.config).Events("")})
	return broadcaster.NewRecorder(h.Scheme(), corev1.EventSource{Component: "bowline"})
}

func (h *hub) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *hub) eventually(what string, is func() (bool, string)) {
	h.Helper()
	said := ""
	err := wait.PollUntilContextTimeout(h.Context(), 20*time.Millisecond, patience, true, func(context.Context) (ok bool, _ error) {
		ok, said = is()
		return ok, nil
	})
	if err != nil {
		h.Fatalf("%s: %v; it is: %s", what, err, said)
	}
}

// declare makes a FleetCluster with what the hub exchanges with it.
func (h *hub) declare(name string, spec v1alpha1.FleetClusterSpec) *v1alpha1.FleetCluster {
	h.Helper()
	named := metav1.ObjectMeta{Namespace: h.namespace, Name: name}
	c := &v1alpha1.FleetCluster{ObjectMeta: named, Spec: spec}
	h.must(h.Create(h.Context(), c))
	h.must(h.Create(h.Context(), &v1alpha1.ClusterAssignment{ObjectMeta: named, Spec: v1alpha1.ClusterAssignmentSpec{Digest: "none"}}))
	return c
}

func byKubeconfig(secret string) v1alpha1.FleetClusterSpec {
	return v1alpha1.FleetClusterSpec{KubeConfig: &v1alpha1.KubeConfigReference{SecretRef: meta.SecretKeyReference{Name: secret}}}
}

func byTemplate() v1alpha1.FleetClusterSpec {
	return v1alpha1.FleetClusterSpec{Template: &v1alpha1.TemplateReference{Name: "local"}}
}

// reachable puts the kubeconfig of a member where the hub looks for it.
func (h *hub) reachable(secret string, kubeconfig []byte) {
	h.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: secret}, Data: map[string][]byte{"value": kubeconfig}}
	err := h.Create(h.Context(), s)
	if err != nil {
		err = h.Update(h.Context(), s)
	}
	h.must(err)
}

// condition sets a condition that another controller writes. When it is the same as before it counts as a transition all the same.
func (h *hub) condition(c *v1alpha1.FleetCluster, kind string, status metav1.ConditionStatus) {
	h.Helper()
	h.eventually("write "+kind, func() (bool, string) {
		h.must(h.Get(h.Context(), client.ObjectKeyFromObject(c), c))
		before := c.DeepCopy()
		apimeta.SetStatusCondition(&c.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: "Test", Message: "for the test"})
		err := h.Status().Patch(h.Context(), c, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}))
		return err == nil, fmt.Sprint(err)
	})
}

// says waits until the condition Joined is as it should be.
func (h *hub) says(c *v1alpha1.FleetCluster, status metav1.ConditionStatus, reason string) string {
	h.Helper()
	message := ""
	h.eventually(c.Name+" says "+reason, func() (bool, string) {
		h.must(h.Get(h.Context(), client.ObjectKeyFromObject(c), c))
		joined := apimeta.FindStatusCondition(c.Status.Conditions, v1alpha1.JoinedCondition)
		if joined == nil {
			return false, "nothing"
		}
		message = joined.Message
		return joined.Status == status && joined.Reason == reason, fmt.Sprintf("%s %s: %s", joined.Status, joined.Reason, joined.Message)
	})
	return message
}

// nudge has a cluster looked at, and returns when it was.
func (h *hub) nudge(c *v1alpha1.FleetCluster) {
	h.Helper()
	h.must(h.Get(h.Context(), client.ObjectKeyFromObject(c), c))
	before := c.DeepCopy()
	metav1.SetMetaDataAnnotation(&c.ObjectMeta, "test", time.Now().String())
	h.must(h.Patch(h.Context(), c, client.MergeFrom(before)))
}

// member is another cluster.
type member struct {
	testing.TB
	client.Client
	*testkit.Instance
	id types.UID
}

func newMember(t testing.TB) *member {
	t.Helper()
	instance := testkit.Start(t)
	m := &member{TB: t, Client: connect(t, instance.Config), Instance: instance}
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		var err error
		m.id, err = join.Member(ctx, m)
		return err == nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *member) kubeconfig() []byte {
	m.Helper()
	data, err := os.ReadFile(m.Instance.Kubeconfig)
	if err != nil {
		m.Fatal(err)
	}
	return data
}

// invited returns the invitation that was installed, when there is another than that one.
func (m *member) invited(h *hub, than join.Invitation) join.Invitation {
	m.Helper()
	var i join.Invitation
	h.eventually("an invitation is installed", func() (bool, string) {
		secret := &corev1.Secret{}
		if err := m.Get(h.Context(), client.ObjectKey{Namespace: v1alpha1.MemberNamespace, Name: agent.InvitationName}, secret); err != nil {
			return false, err.Error()
		}
		var err error
		i, err = join.ParseInvitation(secret.Data[agent.InvitationKey], "the Secret")
		return err == nil && i.RequestName != than.RequestName, fmt.Sprint(err)
	})
	return i
}

// join does what the agent does first.
func (m *member) join(ctx context.Context, i join.Invitation) (*join.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	// Whoever installs an agent makes its namespace.
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: join.StoreNamespace}}
	if err := client.IgnoreAlreadyExists(m.Create(ctx, namespace)); err != nil {
		return nil, err
	}
	return join.Join(ctx, join.Store{Client: m}, i, m.id)
}

func (m *member) joins(h *hub, i join.Invitation) *join.Credentials {
	m.Helper()
	c, err := m.join(h.Context(), i)
	if err != nil {
		m.Fatal(err)
	}
	return c
}

// image is what the agent's Deployment runs; empty where there is none.
func (m *member) image(ctx context.Context) string {
	d := &appsv1.Deployment{}
	if err := m.Get(ctx, client.ObjectKey{Namespace: v1alpha1.MemberNamespace, Name: agent.Name}, d); err != nil {
		return ""
	}
	return d.Spec.Template.Spec.Containers[0].Image
}

// rights waits until an agent may read its assignment, or may not.
func (h *hub) rights(c *join.Credentials, has bool) {
	h.Helper()
	as := connect(h, c.Config())
	h.eventually(fmt.Sprintf("the agent has rights: %t", has), func() (bool, string) {
		err := as.Get(h.Context(), client.ObjectKey{Namespace: c.Namespace, Name: c.Name}, &v1alpha1.ClusterAssignment{})
		return (err == nil) == has, fmt.Sprint(err)
	})
}

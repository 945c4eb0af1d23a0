package link_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/fleet/hub"
	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/fleet/link"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// patience is for everything that takes API servers: the machine may be busy.
const patience = time.Minute

// soon is what members of tests do by themselves, and lost is when their hubs give them up.
var soon = link.Timing{Renew: 200 * time.Millisecond, Report: 100 * time.Millisecond, Retry: 500 * time.Millisecond}

const lost = 4 * time.Second

// theHub is a namespace of an API server with the hub's controllers.
type theHub struct {
	testing.TB
	client.Client
	config    *rest.Config
	endpoint  join.Endpoint
	namespace string
	repo      *testkit.Repo
	watch     *stopwatch
	// stop ends the hub's controllers.
	stop func()
}

func newScheme(t testing.TB) *runtime.Scheme {
	t.Helper()
	s, err := controller.NewScheme()
	if err == nil {
		err = rbacv1.AddToScheme(s)
	}
	if err == nil {
		err = coordinationv1.AddToScheme(s)
	}
	if err == nil {
		err = apiextensionsv1.AddToScheme(s)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func install(t testing.TB, cfg *rest.Config) client.Client {
	t.Helper()
	fleet, err := crds.Fleet()
	if err == nil {
		err = crds.Apply(t.Context(), cfg)
	}
	if err == nil {
		err = crds.Install(t.Context(), cfg, fleet)
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{Scheme: newScheme(t)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newHub is a hub on the cluster of the package.
func newHub(t testing.TB) *theHub {
	t.Helper()
	return newHubOn(t, testkit.Cluster(t))
}

func newHubOn(t testing.TB, cfg *rest.Config) *theHub {
	t.Helper()
	h := &theHub{TB: t, Client: install(t, cfg), config: cfg, watch: newStopwatch(t.Context())}
	made, err := kubernetes.NewForConfigOrDie(cfg).CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	h.must(err)
	h.namespace = made.Name
	h.endpoint, err = join.EndpointOf(cfg)
	h.must(err)
	h.repo = testkit.NewGitServer(t).Repo("fleet")
	h.run()
	return h
}

// run runs the hub's controllers until the test ends, or stop is called.
func (h *theHub) run() {
	h.Helper()
	cfg := rest.CopyConfig(h.config)
	cfg.QPS = -1
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: newScheme(h), Logger: logr.Discard(), Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
		Cache: cache.Options{DefaultNamespaces: map[string]cache.Config{h.namespace: {}}}, // other tests have hubs of their own
	})
	if err == nil {
		err = hub.Register(mgr, hub.Options{
			Sources: []string{sourcev1.GitRepositoryKind}, Settle: 100 * time.Millisecond, StatusInterval: 50 * time.Millisecond, Grace: 100 * time.Millisecond, Lease: lost, Clock: h.watch,
		})
	}
	if err == nil {
		err = join.Register(mgr, join.Options{Events: &record.FakeRecorder{}})
	}
	h.must(err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.Context()))
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	h.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			h.Errorf("the hub ended: %v", err)
		}
	})
	h.Cleanup(h.stop)
}

func (h *theHub) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

func (h *theHub) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: h.namespace, Name: name}
}

// push commits files and has the hub know of it, and returns the revision.
func (h *theHub) push(files map[string]string) string {
	h.Helper()
	revision := "main@sha1:" + h.repo.Commit(files)
	g := &sourcev1.GitRepository{ObjectMeta: h.meta("fleet"), Spec: sourcev1.GitRepositorySpec{
		URL: h.repo.URL(), Interval: metav1.Duration{Duration: time.Hour}, Reference: &sourcev1.GitRepositoryRef{Branch: "main"}}}
	h.must(client.IgnoreAlreadyExists(h.Create(h.Context(), g)))
	h.must(h.Get(h.Context(), client.ObjectKeyFromObject(g), g))
	before := g.DeepCopy()
	g.Status.ObservedGeneration = g.Generation
	g.Status.Artifact = &meta.Artifact{Path: "a", URL: "http://a", Revision: revision, Digest: "sha256:" + strings.Repeat("0", 64), LastUpdateTime: metav1.Now()}
	apimeta.SetStatusCondition(&g.Status.Conditions, metav1.Condition{Type: meta.ReadyCondition, Status: metav1.ConditionTrue, Reason: "Succeeded", Message: "stored"})
	h.must(h.Status().Patch(h.Context(), g, client.MergeFrom(before)))
	return revision
}

// cluster declares a cluster on which the Placement "apps" runs.
func (h *theHub) cluster(name string) *v1alpha1.FleetCluster {
	h.Helper()
	c := &v1alpha1.FleetCluster{ObjectMeta: h.meta(name), Spec: v1alpha1.FleetClusterSpec{Join: &v1alpha1.JoinSpec{}}}
	c.Labels = map[string]string{"env": "prod"}
	h.must(h.Create(h.Context(), c))
	return c
}

// place makes the Placement "apps" of the repository's folder "app".
func (h *theHub) place() *v1alpha1.Placement {
	h.Helper()
	p := &v1alpha1.Placement{ObjectMeta: h.meta("apps"), Spec: v1alpha1.PlacementSpec{
		Clusters: metav1.LabelSelector{MatchLabels: map[string]string{"env": "prod"}},
		Units: []v1alpha1.PlacementUnit{{Name: "app", Kustomization: &apiextensionsv1.JSON{Raw: []byte(
			`{"interval":"10h","prune":true,"path":"./app","sourceRef":{"kind":"GitRepository","name":"fleet"}}`)}}},
	}}
	h.must(h.Create(h.Context(), p))
	return p
}

func (h *theHub) invite(c *v1alpha1.FleetCluster, by join.Endpoint) join.Invitation {
	h.Helper()
	i, _, err := join.Invite(h.Context(), h.Client, c, by)
	h.must(err)
	return i
}

// says waits for a condition of a FleetCluster.
func (h *theHub) says(c *v1alpha1.FleetCluster, condition string, status metav1.ConditionStatus, reason string, words ...string) *metav1.Condition {
	h.Helper()
	var found *metav1.Condition
	h.eventually(fmt.Sprintf("%s %s=%s %s %q", c.Name, condition, status, reason, words), func() (bool, string) {
		if err := h.Get(h.Context(), client.ObjectKeyFromObject(c), c); err != nil {
			return false, err.Error()
		}
		found = apimeta.FindStatusCondition(c.Status.Conditions, condition)
		if found == nil || found.Status != status || found.Reason != reason {
			return false, fmt.Sprintf("%+v", c.Status)
		}
		for _, w := range words {
			if !strings.Contains(found.Message, w) {
				return false, found.Message
			}
		}
		return true, ""
	})
	return found
}

func (h *theHub) eventually(what string, is func() (bool, string)) {
	h.Helper()
	eventually(h, what, is)
}

// eventually waits until a question has the answer that it should have.
func eventually(t testing.TB, what string, is func() (bool, string)) {
	t.Helper()
	var got string
	err := wait.PollUntilContextTimeout(t.Context(), 20*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		var ok bool
		ok, got = is()
		return ok, nil
	})
	if err != nil {
		t.Fatalf("not %s: %v; it is %s", what, err, got)
	}
}

// report waits for a report that is as it should be.
func (h *theHub) report(name, what string, is func(v1alpha1.ClusterReportStatus) bool) v1alpha1.ClusterReportStatus {
	h.Helper()
	r := &v1alpha1.ClusterReport{}
	h.eventually("a report of "+name+": "+what, func() (bool, string) {
		*r = v1alpha1.ClusterReport{}
		err := h.Get(h.Context(), types.NamespacedName{Namespace: h.namespace, Name: name}, r)
		return err == nil && is(r.Status), fmt.Sprintf("%v %+v", err, r.Status)
	})
	return r.Status
}

// carriedOut waits for a report that the assignment with a revision of the repository runs. The assignment is read once for each
// look, and first: it changes whenever the hub wants.
func (h *theHub) carriedOut(name, revision string) {
	h.Helper()
	r := &v1alpha1.ClusterReport{}
	h.eventually("a report that "+revision+" runs", func() (bool, string) {
		a := h.assignment(name)
		*r = v1alpha1.ClusterReport{}
		h.must(h.Get(h.Context(), types.NamespacedName{Namespace: h.namespace, Name: name}, r))
		s := &r.Status
		ready := s.Assignment == a.Spec.Digest && a.Spec.Sources[0].Revision == revision && len(s.Assigned) == 1 && s.Assigned[0].State == v1alpha1.UnitReady
		return ready && s.Units.Ready == 1, fmt.Sprintf("%+v; wanted is %s", r.Status, a.Spec.Digest)
	})
}

func (h *theHub) assignment(name string) *v1alpha1.ClusterAssignment {
	h.Helper()
	a := &v1alpha1.ClusterAssignment{}
	h.must(h.Get(h.Context(), types.NamespacedName{Namespace: h.namespace, Name: name}, a))
	return a
}

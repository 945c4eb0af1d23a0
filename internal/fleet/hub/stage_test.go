package hub

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// patience is for everything that takes the API server: the machine may be busy.
const patience = time.Minute

// stage is a namespace of the API server with a hub that serves it alone.
type stage struct {
	testing.TB
	client.Client
	namespace string
	asked     *asked
	stop      func()
}

// asked counts the requests of the hub.
type asked struct {
	mu   sync.Mutex
	all  map[string]int // guarded by mu
	next http.RoundTripper
}

func (a *asked) RoundTrip(r *http.Request) (*http.Response, error) {
	// What markers take is not counted, and their two creations do not have their name.
	if !strings.Contains(r.URL.RawQuery, "watch=") && !strings.Contains(r.URL.Path, "/settled-") {
		_, what, _ := strings.Cut(r.URL.Path, "/namespaces/")
		a.mu.Lock()
		a.all[r.Method+" "+what]++
		a.mu.Unlock()
	}
	return a.next.RoundTrip(r)
}

// reset returns what was counted, and begins anew.
func (a *asked) reset() map[string]int {
	a.mu.Lock()
	defer a.mu.Unlock()
	all := a.all
	a.all = map[string]int{}
	return all
}

func scheme(t testing.TB) *runtime.Scheme {
	t.Helper()
	s := runtime.NewScheme()
	if err := AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	return s
}

func install(t testing.TB) *rest.Config {
	t.Helper()
	cfg := testkit.Cluster(t)
	if err := crds.Apply(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	fleet, err := crds.Fleet()
	if err == nil {
		err = crds.Install(t.Context(), cfg, fleet)
	}
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	return cfg
}

func newStage(t testing.TB, o Options) *stage {
	t.Helper()
	cfg := install(t)
	c, err := client.New(cfg, client.Options{Scheme: scheme(t)})
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{TB: t, Client: c, namespace: testkit.Namespace(t), asked: &asked{all: map[string]int{}}}
	s.start(o)
	return s
}

// start runs a hub until the test ends, or stop is called.
func (s *stage) start(o Options) {
	s.Helper()
	cfg := testkit.Cluster(s)
	cfg.QPS = -1
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		s.asked.next = next
		return s.asked
	})
	for kind := range sourceKinds() {
		o.Sources = append(o.Sources, kind)
	}
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme(s), Metrics: server.Options{BindAddress: "0"}, Controller: config.Controller{SkipNameValidation: new(true)},
		Cache: cache.Options{DefaultNamespaces: map[string]cache.Config{s.namespace: {}}},
	})
	if err == nil {
		err = Register(mgr, o)
	}
	if err != nil {
		s.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.Context()))
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			s.Errorf("the hub ended: %v", err)
		}
	})
	s.Cleanup(s.stop)
}

func (s *stage) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// eventually waits until a question has the answer that it should have.
func (s *stage) eventually(what string, is func() (bool, string)) {
	s.Helper()
	var got string
	err := wait.PollUntilContextTimeout(s.Context(), 20*time.Millisecond, patience, true, func(context.Context) (bool, error) {
		var ok bool
		ok, got = is()
		return ok, nil
	})
	if err != nil {
		s.Fatalf("not %s: %v; it is %s", what, err, got)
	}
}

func (s *stage) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: s.namespace}
}

// source makes a GitRepository, as fetched at a revision; an empty one says that it could not be.
func (s *stage) source(name, revision string) {
	s.Helper()
	repo := &sourcev1.GitRepository{ObjectMeta: s.meta(name), Spec: sourcev1.GitRepositorySpec{URL: "https://git.example.org/" + name, Interval: metav1.Duration{Duration: time.Minute}}}
	s.must(client.IgnoreAlreadyExists(s.Create(s.Context(), repo)))
	s.fetched(name, revision)
}

func (s *stage) fetched(name, revision string) {
	s.Helper()
	repo := &sourcev1.GitRepository{}
	s.must(s.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, repo))
	before := repo.DeepCopy()
	repo.Status.ObservedGeneration = repo.Generation
	if revision == "" {
		apimeta.SetStatusCondition(&repo.Status.Conditions, metav1.Condition{Type: meta.ReadyCondition, Status: metav1.ConditionFalse, Reason: "Failed", Message: "the server says no"})
	} else {
		repo.Status.Artifact = &meta.Artifact{Path: "a", URL: "http://a", Revision: revision, Digest: "sha256:" + strings.Repeat("0", 64), LastUpdateTime: metav1.Now()}
		apimeta.SetStatusCondition(&repo.Status.Conditions, metav1.Condition{Type: meta.ReadyCondition, Status: metav1.ConditionTrue, Reason: "Succeeded", Message: "stored"})
	}
	s.must(s.Status().Patch(s.Context(), repo, client.MergeFrom(before)))
}

// cluster makes a FleetCluster that joins by itself.
func (s *stage) cluster(name string, labels map[string]string, change ...func(*v1alpha1.FleetCluster)) *v1alpha1.FleetCluster {
	s.Helper()
	c := &v1alpha1.FleetCluster{ObjectMeta: s.meta(name), Spec: v1alpha1.FleetClusterSpec{Join: &v1alpha1.JoinSpec{}}}
	c.Labels = labels
	for _, f := range change {
		f(c)
	}
	s.must(s.Create(s.Context(), c))
	return c
}

// unit is a Kustomization from the GitRepository fleet.
func unit(name string) v1alpha1.PlacementUnit {
	return v1alpha1.PlacementUnit{Name: name, Kustomization: &apiextensionsv1.JSON{Raw: fmt.Appendf(nil,
		`{"interval":"1m","prune":true,"path":"./%s/${cluster.name}","sourceRef":{"kind":"GitRepository","name":"fleet"}}`, name)}}
}

func (s *stage) place(name string, labels map[string]string, units ...v1alpha1.PlacementUnit) *v1alpha1.Placement {
	s.Helper()
	p := &v1alpha1.Placement{ObjectMeta: s.meta(name), Spec: v1alpha1.PlacementSpec{Clusters: metav1.LabelSelector{MatchLabels: labels}, Units: units}}
	s.must(s.Create(s.Context(), p))
	return p
}

// change changes an object, from what it is now.
func change[T client.Object](s *stage, o T, f func(T)) {
	s.Helper()
	s.must(s.Get(s.Context(), client.ObjectKeyFromObject(o), o))
	before, ok := o.DeepCopyObject().(T)
	if !ok {
		s.Fatal("a copy has another type")
	}
	f(o)
	s.must(s.Patch(s.Context(), o, client.MergeFrom(before)))
}

// assignment waits for an assignment that is as it should be.
func (s *stage) assignment(name, what string, is func(v1alpha1.ClusterAssignmentSpec) bool) *v1alpha1.ClusterAssignment {
	s.Helper()
	a := &v1alpha1.ClusterAssignment{}
	s.eventually("assigned to "+name+": "+what, func() (bool, string) {
		*a = v1alpha1.ClusterAssignment{}
		err := s.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, a)
		return err == nil && is(a.Spec), fmt.Sprintf("%v %+v", err, a.Spec)
	})
	return a
}

// placements says what an assignment has.
func placements(names ...string) func(v1alpha1.ClusterAssignmentSpec) bool {
	return func(spec v1alpha1.ClusterAssignmentSpec) bool {
		var all []string
		for _, p := range spec.Placements {
			all = append(all, p.Name)
		}
		return strings.Join(all, " ") == strings.Join(names, " ")
	}
}

// report writes the report as the cluster's agent would, with all units in a state.
func (s *stage) report(name string, state v1alpha1.UnitState, change ...func(*v1alpha1.ClusterReportStatus)) {
	s.Helper()
	a := &v1alpha1.ClusterAssignment{}
	s.must(s.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, a))
	r := &v1alpha1.ClusterReport{}
	s.eventually("a report", func() (bool, string) {
		err := s.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: name}, r)
		return err == nil, fmt.Sprint(err)
	})
	r.Status = v1alpha1.ClusterReportStatus{
		Assignment: a.Spec.Digest, ReportedAt: metav1.Now(),
		Cluster: v1alpha1.ClusterFacts{ID: "id-" + name, KubernetesVersion: "v1.36.0", AgentVersion: "v0.1.0", Nodes: 3},
	}
	for _, p := range a.Spec.Placements {
		for _, u := range p.Units {
			r.Status.Assigned = append(r.Status.Assigned, v1alpha1.UnitReport{Placement: p.Name, Kind: u.Kind, Namespace: u.Namespace, Name: u.Name, State: state, Message: "because"})
			r.Status.Units.Total++
			switch state {
			case v1alpha1.UnitReady:
				r.Status.Units.Ready++
			case v1alpha1.UnitFailed:
				r.Status.Units.Failed++
			default:
				r.Status.Units.Progressing++
			}
		}
	}
	for _, f := range change {
		f(&r.Status)
	}
	s.must(s.Status().Update(s.Context(), r))
}

// says waits for a condition of an object.
func says[T interface {
	client.Object
	GetConditions() []metav1.Condition
}](s *stage, o T, condition string, status metav1.ConditionStatus, reason string, words ...string) {
	s.Helper()
	s.eventually(fmt.Sprintf("%s %s=%s %s %q", o.GetName(), condition, status, reason, words), func() (bool, string) {
		if err := s.Get(s.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			return false, err.Error()
		}
		c := apimeta.FindStatusCondition(o.GetConditions(), condition)
		if c == nil || c.Status != status || c.Reason != reason || c.ObservedGeneration != o.GetGeneration() {
			return false, fmt.Sprintf("%+v at %d", o.GetConditions(), o.GetGeneration())
		}
		for _, w := range words {
			if !strings.Contains(c.Message, w) {
				return false, c.Message
			}
		}
		return true, ""
	})
}

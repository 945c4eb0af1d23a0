package join

import (
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// counted counts requests: verbs and resources, without names.
type counted struct {
	mu  sync.Mutex
	all map[string]int // guarded by mu
}

func (c *counted) see(r *http.Request) {
	p := r.URL.Path
	if r.Method != http.MethodPost {
		p = path.Dir(p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all[r.Method+" "+path.Base(p)]++
}

// take returns what was counted since it was last asked, a line for each.
func (c *counted) take() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for _, what := range slices.Sorted(maps.Keys(c.all)) {
		all = append(all, slices.Repeat([]string{what}, c.all[what])...)
	}
	c.all = map[string]int{}
	return strings.Join(all, "\n")
}

// seen shows requests to somebody before they are sent.
type seen struct {
	http.RoundTripper
	by func(*http.Request)
}

func (s seen) RoundTrip(r *http.Request) (*http.Response, error) {
	s.by(r)
	return s.RoundTripper.RoundTrip(r)
}

// incarnated is a FleetCluster that has an incarnation, which has no rights yet, and a client whose requests are counted.
func incarnated(t *testing.T) (client.Client, *counted, *v1alpha1.FleetCluster) {
	t.Helper()
	cfg := testkit.Cluster(t)
	definitions, err := crds.Fleet()
	if err == nil {
		err = crds.Install(t.Context(), cfg, definitions)
	}
	if err != nil {
		t.Fatal(err)
	}
	requests := &counted{all: map[string]int{}}
	cfg = rest.CopyConfig(cfg)
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { return seen{rt, requests.see} })
	s := runtime.NewScheme()
	if err := AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{Scheme: s})
	if err != nil {
		t.Fatal(err)
	}
	cluster := &v1alpha1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Namespace: testkit.Namespace(t), Name: "berlin"}, Spec: v1alpha1.FleetClusterSpec{Join: &v1alpha1.JoinSpec{}}}
	if err := c.Create(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	cluster.Status.Incarnation = "first"
	if err := c.Status().Update(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	for _, o := range []client.Object{&rbacv1.ClusterRoleBinding{}, &rbacv1.Role{}, &coordinationv1.Lease{}} { // the client learns where these are
		if _, err := found(c.Get(t.Context(), client.ObjectKeyFromObject(cluster), o)); err != nil {
			t.Fatal(err)
		}
	}
	requests.take()
	return c, requests, cluster
}

// written once: five objects, and the mark that all are there.
const once = "POST clusterrolebindings\nPOST clusterroles\nPOST leases\nPOST rolebindings\nPOST roles\nPUT clusterrolebindings"

// A hub lets in a thousand clusters: for one that is new nobody asks first what is there. Where it is there all the same, it becomes what it is to be.
func TestRightsOfNewClustersAreNotAskedFor(t *testing.T) {
	c, requests, cluster := incarnated(t)
	if err := grant(t.Context(), c, cluster, true); err != nil {
		t.Fatal(err)
	}
	if got := requests.take(); got != once {
		t.Errorf("asked\n%s\nwant\n%s", got, once)
	}
	k := &keeperOfRights{cached: c, direct: c, grants: newGrants()}
	key := client.ObjectKeyFromObject(cluster)
	cluster.Status.Incarnation = "second"
	if err := c.Status().Update(t.Context(), cluster); err != nil {
		t.Fatal(err)
	}
	if right, _, err := k.holds(t.Context(), c, key); err != nil || right {
		t.Fatalf("the rights are those of another incarnation, and it says %v, %v", right, err)
	}
	if err := grant(t.Context(), c, cluster, true); err != nil {
		t.Fatal(err)
	}
	if right, _, err := k.holds(t.Context(), c, key); err != nil || !right {
		t.Errorf("the rights are those of the new incarnation, and it says %v, %v", right, err)
	}
	binding := &rbacv1.RoleBinding{}
	if err := c.Get(t.Context(), client.ObjectKey{Namespace: key.Namespace, Name: rolePrefix + key.Name}, binding); err != nil {
		t.Fatal(err)
	}
	if want := user(key.Namespace, key.Name, "second"); len(binding.Subjects) != 1 || binding.Subjects[0].Name != want {
		t.Errorf("rights are with %v, want %s", binding.Subjects, want)
	}
}

// What is being granted is left to whoever grants it: two at once would only be in each other's way. When nobody does any more, it is granted.
func TestGrantsUnderWayAreLeft(t *testing.T) {
	c, requests, cluster := incarnated(t)
	k := &keeperOfRights{cached: c, direct: c, grants: newGrants()}
	key := client.ObjectKeyFromObject(cluster)
	first, second := k.grants.begin(key), k.grants.begin(key)
	look := func() ctrl.Result {
		t.Helper()
		requests.take()
		result, err := k.Reconcile(t.Context(), ctrl.Request{NamespacedName: key})
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	for _, end := range []func(){first, second} {
		if result := look(); result.RequeueAfter != meanwhile {
			t.Errorf("comes back after %s", result.RequeueAfter)
		}
		if got, want := requests.take(), "GET clusterrolebindings\nGET fleetclusters"; got != want {
			t.Errorf("asked\n%s\nwant\n%s", got, want)
		}
		end()
	}
	if result := look(); result.RequeueAfter != 0 {
		t.Errorf("comes back after %s when nobody grants any more", result.RequeueAfter)
	}
	if got := requests.take(); !strings.HasSuffix(got, once) {
		t.Errorf("asked\n%s\nwant at last\n%s", got, once)
	}
	look()
	if got, want := requests.take(), "GET clusterrolebindings\nGET fleetclusters"; got != want {
		t.Errorf("asked\n%s\nwant\n%s", got, want)
	}
	if k.grants.underWay(types.NamespacedName{Namespace: key.Namespace, Name: "paris"}) || len(k.grants.all) > 0 {
		t.Error("what is over is remembered")
	}
}

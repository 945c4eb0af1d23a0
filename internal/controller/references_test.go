package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// room is a room of references on the cluster of the package, with what it asked for
// and whom it woke.
type room struct {
	*stage
	*references
	gets atomic.Int64

	mu    sync.Mutex
	woken map[user]int // guarded by mu
}

// Get implements client.Reader and counts.
func (r *room) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	r.gets.Add(1)
	return r.client.Get(ctx, key, o, opts...)
}

// List implements client.Reader.
func (r *room) List(ctx context.Context, list client.ObjectList, opts ...client.ListOption) error {
	return r.client.List(ctx, list, opts...)
}

func newRoom(t *testing.T, config *rest.Config) *room {
	t.Helper()
	cluster, err := kube.NewCluster(config)
	if err != nil {
		t.Fatal(err)
	}
	r := &room{stage: stageOn(t, testkit.Cluster(t)), woken: map[user]int{}}
	r.references = newReferences(t.Context(), r, cluster.Metadata, clock.RealClock{}, func(u user) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.woken[u]++
	})
	return r
}

func (r *room) wakings(u user) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.woken[u]
}

// settled waits until the watch of a kind vouches for the values.
func (r *room) settled(kind string) {
	r.Helper()
	r.poll("watching "+kind, func() bool {
		r.references.mu.Lock()
		defer r.references.mu.Unlock()
		return r.shelves[kind] != nil && r.shelves[kind].live()
	})
}

func (r *room) key(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: r.namespace, Name: name}
}

func (r *room) has(u user, kind, name, key, want string) {
	r.Helper()
	data, version, err := r.references.read(r.Context(), u, kind, r.key(name))
	if err != nil || version == "" || string(data[key]) != want {
		r.Fatalf("%s reads %q at %q: %v; want %q", u.Name, data[key], version, err, want)
	}
}

func (r *room) config(name, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: name}, Data: map[string]string{"v": value}}
}

func reading(name string) user {
	return user{"Kustomization", types.NamespacedName{Namespace: "apps", Name: name}}
}

// Many who read one object cost one request per change, and a change wakes them
// all and nobody else.
func TestReferencesAreReadOncePerChange(t *testing.T) {
	t.Parallel()
	r := newRoom(t, testkit.Cluster(t))
	shared, other := r.config("shared", "1"), r.config("other", "1")
	r.create(shared)
	r.create(other)
	const many = 100
	users := make([]user, many)
	for i := range users {
		users[i] = reading(fmt.Sprint("u", i))
		r.has(users[i], kindConfigMap, "shared", "v", "1")
	}
	bystander := reading("bystander")
	r.has(bystander, kindConfigMap, "other", "v", "1")
	r.settled(kindConfigMap)
	if got := r.gets.Load(); got != 2 {
		t.Errorf("%d requests for two objects", got)
	}
	woken := r.wakings(users[0])
	edit(r.stage, shared, func(c *corev1.ConfigMap) { c.Data["v"] = "2" })
	r.poll("woken", func() bool { return r.wakings(users[0]) > woken })
	var all sync.WaitGroup
	for _, u := range users {
		all.Go(func() {
			if data, _, err := r.references.read(t.Context(), u, kindConfigMap, r.key("shared")); err != nil || string(data["v"]) != "2" {
				t.Errorf("%s reads %q: %v", u.Name, data["v"], err)
			}
		})
	}
	all.Wait()
	for _, u := range users {
		r.poll(u.Name+" woken", func() bool { return r.wakings(u) > 0 })
	}
	if got := r.gets.Load(); got != 3 {
		t.Errorf("%d requests for two objects and one change", got)
	}
	if got := r.wakings(bystander); got != 0 {
		t.Errorf("who reads another object was woken %d times", got)
	}
}

// An object that is not there wakes those who want it when it comes, and when it
// goes again. Its absence is asked for once, too.
func TestReferencesOfWhatIsAbsent(t *testing.T) {
	t.Parallel()
	r := newRoom(t, testkit.Cluster(t))
	u := reading("u")
	wants := func() error {
		_, _, err := r.references.read(t.Context(), u, kindSecret, r.key("late"))
		return err
	}
	if err := wants(); !errors.Is(err, failure.Of(failure.NotFound)) {
		t.Fatalf("reading an absent Secret: %v", err)
	}
	r.settled(kindSecret)
	_ = wants()
	if got := r.gets.Load(); got != 1 {
		t.Errorf("%d requests for one absent object", got)
	}
	late := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "late"}, StringData: map[string]string{"v": "1"}}
	r.create(late)
	r.poll("woken by its coming", func() bool { return r.wakings(u) > 0 })
	r.has(u, kindSecret, "late", "v", "1")
	woken := r.wakings(u)
	if err := r.client.Delete(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	r.poll("woken by its going", func() bool { return r.wakings(u) > woken })
	if err := wants(); !errors.Is(err, failure.Of(failure.NotFound)) {
		t.Fatalf("reading a deleted Secret: %v", err)
	}
}

// What the engine wrote is read again at once, whatever the watch has told so far.
func TestReferencesAreNeverOlderThanOurOwnWrites(t *testing.T) {
	t.Parallel()
	r := newRoom(t, testkit.Cluster(t))
	u, c := reading("u"), r.config("c", "0")
	r.create(c)
	r.has(u, kindConfigMap, "c", "v", "0")
	r.settled(kindConfigMap)
	for i := range 20 {
		want := fmt.Sprint("w", i)
		edit(r.stage, c, func(c *corev1.ConfigMap) { c.Data["v"] = want })
		r.wrote([]object.ID{{Kind: kindConfigMap, Namespace: r.namespace, Name: "c"}})
		r.has(u, kindConfigMap, "c", "v", want)
	}
	if r.wakings(u) == 0 {
		t.Error("the reader was not woken")
	}
}

// Nothing is held that nobody refers to any more.
func TestReferencesEnd(t *testing.T) {
	t.Parallel()
	r := newRoom(t, testkit.Cluster(t))
	u, v := reading("u"), reading("v")
	for _, name := range []string{"a", "b"} {
		r.create(r.config(name, "1"))
		r.has(u, kindConfigMap, name, "v", "1")
	}
	r.has(v, kindConfigMap, "b", "v", "1")
	held := func(what string, want ...string) {
		t.Helper()
		r.references.mu.Lock()
		defer r.references.mu.Unlock()
		if len(r.entries) != len(want) {
			t.Errorf("%s: %d objects are held, want %v", what, len(r.entries), want)
		}
		for _, name := range want {
			if r.entries[reference{kindConfigMap, r.key(name)}] == nil {
				t.Errorf("%s: %s is not held", what, name)
			}
		}
	}
	held("all read", "a", "b")
	r.begin(u)
	r.has(u, kindConfigMap, "b", "v", "1")
	r.end(u)
	held("one not read again", "b")
	r.begin(u)
	r.end(u)
	held("the other has a reader left", "b")
	r.forget(v)
	held("all gone")
	if len(r.uses) != 0 {
		t.Errorf("%d users are held", len(r.uses))
	}
	r.forget(v)
}

// An engine that may not watch Secrets says so to whoever wants to read one, and
// wakes them when it may.
func TestReferencesDenied(t *testing.T) {
	t.Parallel()
	config := testkit.Cluster(t)
	admin := stageOn(t, config)
	name := admin.namespace
	limited := rest.CopyConfig(config)
	limited.Impersonate = rest.ImpersonationConfig{UserName: name}
	r := newRoom(t, limited)
	r.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: "s"}, StringData: map[string]string{"v": "1"}})
	u := reading("u")
	read := func() error {
		_, _, err := r.references.read(t.Context(), u, kindSecret, r.key("s"))
		return err
	}
	_ = read() // the watch begins with it
	r.poll("woken by the refusal", func() bool { return r.wakings(u) > 0 })
	if err := read(); !errors.Is(err, failure.Of(failure.Denied)) {
		t.Fatalf("reading without the right to watch: %v", err)
	}
	woken := r.wakings(u)
	allow(t, config, name)
	r.poll("woken by the permission", func() bool { return r.wakings(u) > woken })
	r.settled(kindSecret)
	r.has(u, kindSecret, "s", "v", "1")
}

// allow lets a user list and watch the Secrets of all namespaces.
func allow(t *testing.T, config *rest.Config, name string) {
	t.Helper()
	c, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []client.Object{
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get", "list", "watch"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}}},
	} {
		if err := c.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Delete(context.Background(), o) })
	}
}

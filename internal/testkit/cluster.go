package testkit

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Option chooses what a cluster is made of.
type Option func(*options)

type options struct {
	components string
	nodes      int
	atEnd      []func()
}

func newOptions(opts []Option) options {
	chosen := options{components: "apiserver"}
	for _, opt := range opts {
		opt(&chosen)
	}
	return chosen
}

// WithControllers adds the controllers, the scheduler and one simulated node: namespaces are
// really deleted, deployments get pods, and pods become ready. Without it there is the API
// server alone, which starts faster and where nothing happens by itself; there, pods are
// admitted without a service account.
func WithControllers() Option { return func(o *options) { o.components = "all" } }

// WithNodes adds the controllers, the scheduler and count simulated nodes.
func WithNodes(count int) Option {
	return func(o *options) { o.components, o.nodes = "all", count }
}

// AtEnd has Main call f after the tests and before the cluster stops. It is for what the tests
// of a package share besides the cluster.
func AtEnd(f func()) Option { return func(o *options) { o.atEnd = append(o.atEnd, f) } }

// shared is the cluster of the tests of this process, from Main to its end. The functions that
// tests call get no more than a testing.TB, so it has to live here.
var shared struct {
	sync.Mutex
	inMain bool
	options
	first, other sharedCluster
}

// sharedCluster is a cluster that is made when the first test asks for it.
type sharedCluster struct {
	instance *Instance
	root     string
	err      error // of the one attempt to start
}

func (c *sharedCluster) start(executable string, chosen options) error {
	if c.instance == nil && c.err == nil {
		c.root, c.err = os.MkdirTemp("", "bowline-test-")
		if c.err == nil {
			c.instance, c.err = newInstance(executable, c.root, chosen)
		}
	}
	return c.err
}

func (c *sharedCluster) end() {
	if c.instance != nil {
		if err := c.instance.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "testkit: stop the cluster:", err)
		}
	}
	if c.root != "" {
		_ = os.RemoveAll(c.root)
	}
}

// Main runs the tests of a package with one cluster for all of them, made when the first test
// asks for it and gone at the end. It is all that a TestMain has to hold. It exits.
func Main(m *testing.M, opts ...Option) {
	shared.inMain, shared.options = true, newOptions(opts)
	code := m.Run()
	for _, f := range shared.options.atEnd {
		f()
	}
	endShared()
	os.Exit(code)
}

// AfterTests has Main call f after the tests and before the cluster stops. It is for what the first test that
// needs it makes for all.
func AfterTests(t testing.TB, f func()) {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if !shared.inMain {
		t.Fatal("testkit: this package shares nothing: give it a TestMain that calls testkit.Main")
	}
	AtEnd(f)(&shared.options)
}

// endShared stops the clusters of this package that tests asked for.
func endShared() {
	shared.Lock()
	defer shared.Unlock()
	shared.first.end()
	shared.other.end()
}

// Cluster returns how to talk to the cluster of this package as its administrator, unthrottled.
// The configuration is the caller's own to change.
func Cluster(t testing.TB) *rest.Config {
	t.Helper()
	return rest.CopyConfig(sharedInstance(t).Config)
}

// Kubeconfig returns the path of the administrator's kubeconfig of the cluster of this package.
func Kubeconfig(t testing.TB) string {
	t.Helper()
	return sharedInstance(t).Kubeconfig
}

func sharedInstance(t testing.TB) *Instance {
	t.Helper()
	executable := Localkube(t)
	shared.Lock()
	defer shared.Unlock()
	if !shared.inMain {
		t.Fatal("testkit: this package has no cluster: give it a TestMain that calls testkit.Main")
	}
	if err := shared.first.start(executable, shared.options); err != nil {
		t.Fatalf("testkit: %v", err)
	}
	return shared.first.instance
}

// Other returns how to talk, as its administrator, to a second cluster of this package,
// which is an API server alone. It is made when the first test asks for it, and gone at
// the end.
func Other(t testing.TB) *rest.Config {
	t.Helper()
	executable := Localkube(t)
	shared.Lock()
	defer shared.Unlock()
	if !shared.inMain {
		t.Fatal("testkit: this package has no cluster: give it a TestMain that calls testkit.Main")
	}
	if err := shared.other.start(executable, newOptions(nil)); err != nil {
		t.Fatalf("testkit: %v", err)
	}
	return rest.CopyConfig(shared.other.instance.Config)
}

// namespaceDeletion bounds the request that deletes a namespace after its test.
const namespaceDeletion = 10 * time.Second

// Namespace makes a namespace for this test in the cluster of the package and returns its name.
// It is deleted when the test ends, without waiting for what is in it.
func Namespace(t testing.TB) string {
	t.Helper()
	namespaces := kubernetes.NewForConfigOrDie(Cluster(t)).CoreV1().Namespaces()
	made, err := namespaces.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("testkit: make a namespace: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), namespaceDeletion)
		defer cancel()
		if err := namespaces.Delete(ctx, made.Name, metav1.DeleteOptions{}); err != nil {
			t.Logf("testkit: delete namespace %s: %v", made.Name, err)
		}
	})
	return made.Name
}

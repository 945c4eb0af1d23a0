package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/testkit"
)

const (
	// patience is for what takes several processes and API servers: the machine may be busy.
	patience = time.Minute
	// memberLease is when the hub of the tests gives a member up.
	memberLease = 4 * time.Second
	fleetNS     = "fleet"
)

// program is a process of the program.
type program struct {
	testing.TB
	cmd   *exec.Cmd
	said  logbook
	ended chan struct{}
	err   error // read after ended
}

// logbook keeps what a process says.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// kill ends a process as a power cut would.
func (p *program) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

func (p *program) signal(s os.Signal) {
	p.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.Fatal(err)
	}
}

// fails waits for the end of a process, which is to say why.
func (p *program) fails(words ...string) {
	p.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.Fatalf("it runs on; it says\n%s", &p.said)
	}
	for _, word := range words {
		if p.err == nil || !strings.Contains(p.said.String(), word) {
			p.Errorf("it ended with %v and without %q:\n%s", p.err, word, &p.said)
		}
	}
}

// says waits until a process has said something.
func (p *program) says(word string) {
	p.Helper()
	eventually(p, "said "+word, func() (bool, string) { return strings.Contains(p.said.String(), word), p.said.String() })
}

// fleet is a hub with its members, all of them processes.
type fleet struct {
	testing.TB
	client.Client
	root    testing.TB // what is started ends with it
	bin     string
	hub     *testkit.Instance
	network *testkit.Network
	engine  *program
	repo    *testkit.Repo
	dir     string
}

func newFleet(t testing.TB, bin string) *fleet {
	t.Helper()
	f := &fleet{TB: t, root: t, bin: bin, hub: testkit.Start(t, testkit.WithControllers()), dir: t.TempDir(), repo: testkit.NewGitServer(t).Repo("fleet")}
	f.Client = connectTo(t, f.hub.Config)
	f.network = testkit.NewNetwork(t, f.hub.Config.Host)
	f.must(f.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: fleetNS}}))
	f.serve()
	return f
}

// connectTo installs the APIs on a cluster.
func connectTo(t testing.TB, config *rest.Config) client.Client {
	t.Helper()
	s, err := controller.NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	definitions, err := crds.Fleet()
	if err == nil {
		err = errors.Join(crds.Apply(t.Context(), config), crds.Install(t.Context(), config, definitions))
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: s})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// run starts the program.
func (f *fleet) run(arguments ...string) *program {
	f.Helper()
	p := &program{TB: f.TB, ended: make(chan struct{})}
	p.cmd = exec.Command(filepath.Join(f.bin, "bowline"), arguments...)
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	f.must(p.cmd.Start())
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	f.root.Cleanup(func() {
		p.kill()
		if f.root.Failed() {
			f.root.Logf("bowline %s said:\n%s", arguments[0], &p.said)
		}
	})
	return p
}

// serve starts the hub's engine.
func (f *fleet) serve() {
	f.Helper()
	f.engine = f.run("controller", "--kubeconfig", f.hub.Kubeconfig, "--data-dir", filepath.Join(f.dir, "hub"), "--tenancy", "open", "--log-format", "text",
		"--metrics-addr", "0", "--health-addr", "0", "--storage-addr", "0", "--hub-url", f.network.URL(), "--member-lease", memberLease.String())
}

// command runs a command of the program on the hub, and returns what it prints.
func (f *fleet) command(arguments ...string) string {
	f.Helper()
	cmd := exec.Command(filepath.Join(f.bin, "bowline"), append(arguments, "--kubeconfig", f.hub.Kubeconfig, "-n", fleetNS)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		f.Fatalf("bowline %s: %v\n%s", strings.Join(arguments, " "), err, out)
	}
	return string(out)
}

func (f *fleet) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// in is the fleet as one of its tests sees it.
func (f *fleet) in(t testing.TB) *fleet {
	other := *f
	other.TB = t
	return &other
}

// eventually waits until a question has the answer that it should have.
func eventually(t testing.TB, what string, is func() (bool, string)) {
	t.Helper()
	var got string
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, patience, true, func(context.Context) (ok bool, _ error) {
		ok, got = is()
		return ok, nil
	})
	if err != nil {
		t.Fatalf("not %s: %v; it is %s", what, err, got)
	}
}

// make makes an object of the fleet from JSON.
func (f *fleet) make(o client.Object, name, spec string, labels map[string]string) {
	f.Helper()
	f.must(json.Unmarshal([]byte(spec), o))
	o.SetNamespace(fleetNS)
	o.SetName(name)
	o.SetLabels(labels)
	f.must(f.Create(f.Context(), o))
}

func (f *fleet) change(o client.Object, change func()) {
	f.Helper()
	f.must(f.Get(f.Context(), client.ObjectKeyFromObject(o), o))
	before, ok := o.DeepCopyObject().(client.Object)
	if !ok {
		f.Fatalf("%T is no object", o)
	}
	change()
	f.must(f.Patch(f.Context(), o, client.MergeFrom(before)))
}

// push commits the ConfigMap "app" with a value, and has the hub fetch it.
func (f *fleet) push(value string) {
	f.Helper()
	f.repo.Commit(map[string]string{"app/config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app, namespace: default}\ndata: {value: " + value + "}\n"})
	g := &sourcev1.GitRepository{ObjectMeta: metav1.ObjectMeta{Namespace: fleetNS, Name: "fleet"}}
	f.change(g, func() { metav1.SetMetaDataAnnotation(&g.ObjectMeta, meta.ReconcileRequestAnnotation, value) })
}

// cluster reads a FleetCluster.
func (f *fleet) cluster(name string) *fleetv1.FleetCluster {
	f.Helper()
	c := &fleetv1.FleetCluster{}
	f.must(f.Get(f.Context(), types.NamespacedName{Namespace: fleetNS, Name: name}, c))
	return c
}

// says waits for a condition of a FleetCluster, with words in its message.
func (f *fleet) says(name, condition, reason string, words ...string) *metav1.Condition {
	f.Helper()
	var found *metav1.Condition
	eventually(f, fmt.Sprintf("FleetCluster %s: %s %s %q", name, condition, reason, words), func() (bool, string) {
		c := f.cluster(name)
		found = apimeta.FindStatusCondition(c.Status.Conditions, condition)
		if found == nil || found.Reason != reason {
			return false, fmt.Sprintf("%+v", c.Status)
		}
		for _, word := range words {
			if !strings.Contains(found.Message, word) {
				return false, found.Message
			}
		}
		return true, ""
	})
	return found
}

// phase waits for the phase of a FleetCluster.
func (f *fleet) phase(name string, phase fleetv1.Phase) {
	f.Helper()
	eventually(f, name+" "+string(phase), func() (bool, string) {
		c := f.cluster(name)
		return c.Status.Phase == phase, fmt.Sprintf("%+v", c.Status)
	})
}

// kubeconfig puts a kubeconfig where the hub looks for that of a cluster.
func (f *fleet) kubeconfig(name, text string) {
	f.Helper()
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: fleetNS, Name: name + "-kubeconfig"}, Data: map[string][]byte{"value": []byte(text)}}
	err := f.Create(f.Context(), s)
	if err != nil {
		err = f.Update(f.Context(), s)
	}
	f.must(err)
}

// site is a cluster that is, or becomes, a member.
type site struct {
	*fleet
	client.Client
	name     string
	instance *testkit.Instance
	agent    *program
}

func (f *fleet) site(name string) *site {
	f.Helper()
	s := &site{fleet: f, name: name, instance: testkit.Start(f.root)}
	s.Client = connectTo(f, s.instance.Config)
	return s
}

func (s *site) text() string {
	s.Helper()
	text, err := os.ReadFile(s.instance.Kubeconfig)
	s.must(err)
	return string(text)
}

// start starts the agent.
func (s *site) start(flags ...string) *program {
	s.Helper()
	s.agent = s.run(append([]string{"agent", "--kubeconfig", s.instance.Kubeconfig, "--data-dir", filepath.Join(s.dir, s.name), "--tenancy", "open", "--log-format", "text",
		"--metrics-addr", "0", "--health-addr", "0", "--storage-addr", "0", "--lease-interval", "200ms", "--report-interval", "100ms", "--hub-retry", "500ms"}, flags...)...)
	return s.agent
}

// app is the ConfigMap that the Placement delivers.
func (s *site) app() *corev1.ConfigMap {
	c := &corev1.ConfigMap{}
	_ = s.Client.Get(s.Context(), types.NamespacedName{Namespace: "default", Name: "app"}, c)
	return c
}

// has waits until the application has a value.
func (s *site) has(value string) {
	s.Helper()
	eventually(s, s.name+" has "+value, func() (bool, string) {
		got := s.app().Data["value"]
		return got == value, fmt.Sprintf("%q; the agent says:\n%s", got, &s.agent.said)
	})
}

// heals takes the application away, and waits until it is there again.
func (s *site) heals(value string) {
	s.Helper()
	s.loses()
	s.has(value)
}

func (s *site) loses() {
	s.Helper()
	s.must(s.Client.Delete(s.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "app"}}))
}

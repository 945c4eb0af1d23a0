package localprovider_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/fleet/capi/install"
	"github.com/bowline-dev/bowline/internal/fleet/localprovider"
	"github.com/bowline-dev/bowline/internal/localkube"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// newManagement is a control plane that is to be one of a management cluster.
func newManagement(t *testing.T) (*manned, localprovider.Hub) {
	t.Helper()
	t.Setenv("BOWLINE_CAPI_MANAGER", testkit.Tool(t, "capi-manager"))
	m := newManned(t)
	m.agents.Localkube = testkit.Localkube(t)
	t.Cleanup(func() {
		// Other tests write Cluster API's kinds as well.
		core, err := install.Core()
		m.do(err)
		m.do(core.Withdraw(context.WithoutCancel(t.Context()), testkit.Cluster(t)))
	})
	return m, localprovider.HubOf(m.agents.Root, edge)
}

func (m *manned) ensureManagement() {
	m.Helper()
	if _, err := m.agents.Ensure(m.Context(), edge, localprovider.Wanted{Management: true}); err != nil {
		m.Fatal(err)
	}
}

// runs waits until a process runs that is another than the one of before, and returns it.
func (m *manned) runs(s background.Service, before int) (pid int) {
	m.Helper()
	m.await(s.Name+" runs", func() bool {
		pid, _ = s.Running()
		return pid != 0 && pid != before
	})
	return pid
}

// says waits until the process that was started last was told words, and others not.
func (m *manned) says(words, others string) {
	m.Helper()
	m.await("one that is told "+words, func() bool {
		said, _ := os.ReadFile(m.said)
		return strings.Contains(string(said), words) && (others == "" || !strings.Contains(string(said), others))
	})
}

func (m *manned) ended(s background.Service) {
	m.Helper()
	if pid, running := s.Running(); running {
		m.Errorf("%s runs still, as process %d", s.Name, pid)
	}
}

// killed ends a process as a power cut would, and sees it started again after a pause.
func (m *manned) killed(s background.Service) {
	m.Helper()
	before := m.runs(s, 0)
	m.do(syscall.Kill(before, syscall.SIGKILL))
	m.await("a pause", m.clock.HasWaiters)
	m.ended(s)
	m.clock.Step(time.Second)
	m.runs(s, before)
}

// A control plane of a management cluster has what makes clusters, as long as it is one.
func TestManagementClusterHasItsOwnProcesses(t *testing.T) {
	m, hub := newManagement(t)
	m.ensureManagement()
	m.runs(hub.Provider, 0)
	m.says("local-provider --root="+hub.Root()+" --kubeconfig="+filepath.Join(hub.Dir, "kubeconfig"), "")
	scheme := runtime.NewScheme()
	m.do(apiextensionsv1.AddToScheme(scheme))
	c, err := client.New(testkit.Cluster(t), client.Options{Scheme: scheme})
	m.do(err)
	for _, name := range []string{"clusters.cluster.x-k8s.io", "localcontrolplanes.infrastructure.cluster.x-k8s.io"} {
		m.do(c.Get(t.Context(), client.ObjectKey{Name: name}, &apiextensionsv1.CustomResourceDefinition{}))
	}
	pid, _ := hub.Provider.Running()
	m.ensureManagement()
	if now, _ := hub.Provider.Running(); now != pid {
		t.Error("another look at its control plane started another provider")
	}
	m.killed(hub.Provider)
	m.killed(hub.ClusterAPI)

	// The agent of one checks what is written of the fleet's kinds, as that of the machine's own hub does.
	m.do(m.Create(t.Context(), m.deployment("agent", "--log-level=debug")))
	m.says("--webhook-addr=127.0.0.1:0", "")

	m.ensure() // it is none any more
	m.says("--log-level=debug", "--webhook-addr")
	m.ended(hub.Provider)
	m.ended(hub.ClusterAPI)
	m.ensureManagement()
	m.runs(hub.Provider, 0)
	m.agents.Close()
	m.ended(hub.Provider)
	m.ended(hub.ClusterAPI)
}

// Whatever became of providers, nothing is left of a management cluster that is deleted: no process, and no cluster that it made.
func TestManagementClusterLeavesNothing(t *testing.T) {
	m, hub := newManagement(t)
	// What providers left which were killed.
	m.do(os.MkdirAll(hub.Root(), 0o700))
	tenant := localkube.ControlPlane{Executable: m.agents.Localkube, Root: hub.Root(), Name: "tenant"}
	_, err := tenant.Start(t.Context(), localkube.Options{Unsynced: true})
	m.do(err)
	t.Cleanup(func() { _ = tenant.Delete(context.WithoutCancel(t.Context())) })
	agent := localprovider.AgentOf(hub.Root(), "tenant")
	m.do(os.MkdirAll(agent.Dir, 0o700))
	for _, s := range []background.Service{hub.Provider, hub.ClusterAPI, agent} {
		_, err := s.Start(m.agents.Executable, []string{"--left"}, nil)
		m.do(err)
	}
	if n, err := localprovider.Stop(t.Context(), m.agents.Localkube, m.agents.Root, true); err != nil || n != 2 {
		t.Errorf("stopped %d control planes, %v; there is one, and one below it", n, err)
	}
	for _, s := range []background.Service{hub.Provider, hub.ClusterAPI, agent} {
		m.ended(s)
	}
	if now, err := tenant.State(t.Context()); err != nil || now.Running() || !tenant.Exists() {
		t.Errorf("a cluster that is kept is %+v, %v", now, err)
	}
	_, err = tenant.Start(t.Context(), localkube.Options{Unsynced: true})
	m.do(err)
	m.do(m.agents.Delete(t.Context(), edge))
	if tenant.Exists() {
		t.Error("a cluster outlives the one that made it")
	}
	if n, err := localprovider.Stop(t.Context(), m.agents.Localkube, m.agents.Root, false); err != nil || n != 1 {
		t.Errorf("stopped %d control planes, %v", n, err)
	}
	if entries, err := os.ReadDir(m.agents.Root); err != nil || len(entries) > 0 {
		t.Errorf("%v is left behind, %v", entries, err)
	}
}

// Without Cluster API's manager there is no management cluster, and the control plane says why.
func TestManagementClusterWithoutClusterAPI(t *testing.T) {
	m := newManned(t)
	t.Setenv("BOWLINE_CAPI_MANAGER", "")
	t.Setenv("PATH", t.TempDir())
	if _, err := m.agents.Ensure(t.Context(), edge, localprovider.Wanted{Management: true}); err == nil || !strings.Contains(err.Error(), "capi-manager") {
		t.Errorf("Ensure: %v", err)
	}
}

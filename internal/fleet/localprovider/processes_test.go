package localprovider_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/fleet/localprovider"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// given is a control plane that somebody else runs.
type given struct{ kubeconfig []byte }

func (g given) Ensure(context.Context, string, localprovider.Wanted) (localprovider.ControlPlane, error) {
	return localprovider.ControlPlane{Kubeconfig: g.kubeconfig}, nil
}

func (given) Delete(context.Context, string) error { return nil }

// manned is a control plane, and those who run its agent: a program that writes down what it was told.
type manned struct {
	testing.TB
	client.Client
	agents *localprovider.Processes
	clock  *clocktesting.FakeClock
	said   string
}

const edge = "edge"

func newManned(t *testing.T) *manned {
	t.Helper()
	c, err := client.New(testkit.Cluster(t), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := os.ReadFile(testkit.Kubeconfig(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bowline-system"}}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	m := &manned{TB: t, Client: c, clock: clocktesting.NewFakeClock(time.Now()), said: filepath.Join(t.TempDir(), "said")}
	program := filepath.Join(t.TempDir(), "program")
	script := "#!/bin/sh\necho \"$RUNTIME_NAMESPACE $*\" >" + m.said + ".new && mv " + m.said + ".new " + m.said + "\nexec sleep 600\n"
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	m.agents = &localprovider.Processes{ControlPlanes: given{kubeconfig}, Executable: program, Root: t.TempDir(), Clock: m.clock}
	t.Cleanup(func() {
		m.agents.Close()
		_ = c.Delete(context.WithoutCancel(t.Context()), m.deployment())
	})
	return m
}

func (m *manned) deployment(arguments ...string) *appsv1.Deployment {
	labels := map[string]string{"app": "agent"}
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: "bowline-system", Name: "bowline-agent"},
		Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels},
			Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "agent", Image: "example.com/agent", Args: arguments}}},
		}},
	}
}

func (m *manned) ensure() {
	m.Helper()
	if _, err := m.agents.Ensure(m.Context(), edge, localprovider.Wanted{}); err != nil {
		m.Fatal(err)
	}
}

func (m *manned) do(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

func (m *manned) pid() int {
	pid, running := localprovider.AgentOf(m.agents.Root, edge).Running()
	if !running {
		return 0
	}
	return pid
}

func (m *manned) await(what string, is func() bool) {
	m.Helper()
	err := wait.PollUntilContextTimeout(m.Context(), 5*time.Millisecond, patience, true, func(context.Context) (bool, error) { return is(), nil })
	if err != nil {
		m.Fatalf("not in time: %s", what)
	}
}

// told waits until an agent was told so, and returns its process.
func (m *manned) told(words string) (pid int) {
	m.Helper()
	m.await("an agent that is told "+words, func() bool {
		said, _ := os.ReadFile(m.said)
		pid = m.pid()
		return pid != 0 && strings.Contains(string(said), words)
	})
	return pid
}

// change patches the Deployment.
func (m *manned) change(patch string) {
	m.Helper()
	m.do(m.Patch(m.Context(), m.deployment(), client.RawPatch(types.JSONPatchType, []byte(patch))))
}

// The agent runs as long as its Deployment is there, as that says, and again when it ends.
func TestAgentRunsAsItsDeploymentSays(t *testing.T) {
	m := newManned(t)
	m.ensure()
	m.do(m.Create(t.Context(), m.deployment("agent", "--data-dir=/data", "--log-level=debug")))
	dir := filepath.Join(m.agents.Root, edge, "agent")
	first := m.told("bowline-system agent --data-dir=/data --log-level=debug --kubeconfig=" + dir + "/kubeconfig --data-dir=" + dir + "/data --metrics-addr=0 --health-addr=0")
	m.ensure()
	if m.pid() != first {
		t.Error("another look at its control plane started another agent")
	}

	m.do(syscall.Kill(first, syscall.SIGKILL))
	m.await("a pause", m.clock.HasWaiters)
	if m.pid() != 0 {
		t.Error("an agent that ended is started again without a pause")
	}
	m.clock.Step(time.Second)
	m.await("the agent again", func() bool { return m.pid() != 0 && m.pid() != first })

	m.change(`[{"op": "replace", "path": "/spec/template/spec/containers/0/args", "value": ["agent", "--log-level=error"]}]`)
	m.told("bowline-system agent --log-level=error ")
	m.change(`[{"op": "replace", "path": "/spec/replicas", "value": 0}]`)
	m.await("none for no replicas", func() bool { return m.pid() == 0 })
	m.change(`[{"op": "replace", "path": "/spec/replicas", "value": 1}]`)
	m.await("one for one", func() bool { return m.pid() != 0 })
	m.do(m.Delete(t.Context(), m.deployment()))
	m.await("none without a Deployment", func() bool { return m.pid() == 0 })
}

// Nobody runs an agent twice, or for a control plane that is gone, whatever became of the provider.
func TestAgentEndsWithItsProvider(t *testing.T) {
	m := newManned(t)
	m.do(m.Create(t.Context(), m.deployment("agent", "--log-level=debug")))
	// A provider that was killed leaves its agents to the next one.
	left := localprovider.AgentOf(m.agents.Root, edge)
	m.do(os.MkdirAll(left.Dir, 0o700))
	ended, err := left.Start(m.agents.Executable, []string{"agent", "--left"}, nil)
	m.do(err)
	m.told("--left")
	m.ensure()
	<-ended
	m.told("--log-level=debug")
	m.do(m.agents.Delete(t.Context(), edge))
	if pid := m.pid(); pid != 0 {
		t.Errorf("process %d is the agent of a control plane that was deleted", pid)
	}
	m.ensure()
	m.await("an agent", func() bool { return m.pid() != 0 })
	m.agents.Close()
	m.agents.Close()
	if pid := m.pid(); pid != 0 {
		t.Errorf("process %d outlives its provider", pid)
	}
	m.ensure()
	if pid := m.pid(); pid != 0 {
		t.Errorf("process %d was started by a provider that was closed", pid)
	}
}

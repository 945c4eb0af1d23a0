package link_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// process is `bowline agent`.
type process struct {
	testing.TB
	cmd    *exec.Cmd
	ended  chan struct{}
	out    bytes.Buffer // read after ended
	errors book
	err    error // read after ended
}

// agent starts `bowline agent` for a member.
func agent(m *theMember, flags ...string) *process {
	m.Helper()
	p := &process{TB: m.TB, ended: make(chan struct{})}
	arguments := append([]string{"agent", "--kubeconfig", m.instance.Kubeconfig, "--data-dir", m.dir, "--tenancy", "open", "--log-format", "text",
		"--metrics-addr", "0", "--health-addr", "0", "--storage-addr", "0", "--lease-interval", "200ms", "--report-interval", "100ms", "--hub-retry", "500ms"}, flags...)
	p.cmd = exec.Command(os.Args[0], arguments...)
	p.cmd.Env = append(os.Environ(), asProgram+"=1")
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.errors
	if err := p.cmd.Start(); err != nil {
		m.Fatal(err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	m.Cleanup(func() {
		p.kill()
		if m.Failed() {
			m.Logf("the agent said:\n%s", &p.errors)
		}
	})
	return p
}

func (p *process) signal(s os.Signal) {
	p.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.Fatal(err)
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// An agent that joins with an invitation, is killed and started again, is frozen and goes on, and leaves.
func TestAgentProcess(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	h.push(map[string]string{"app/config.yaml": configMap("app", "one")})
	c := h.cluster("a")
	h.place()
	m := newMember(t)
	lonely := agent(m)
	<-lonely.ended
	if said := lonely.errors.String(); lonely.err == nil || !strings.Contains(said, "there is no invitation") || !strings.Contains(said, "`bowline join`") {
		t.Errorf("without an invitation it ends with %v: %s", lonely.err, said)
	}
	data, err := h.invite(c, h.endpoint).Kubeconfig()
	h.must(err)
	invitation := filepath.Join(m.dir, "invitation")
	h.must(os.WriteFile(invitation, data, 0o600))

	p := agent(m, "--invitation", invitation)
	m.has("app", "one")
	h.says(c, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason)
	if c.Status.AgentVersion != "v0.0.0-test" || c.Status.LastSeen == nil {
		t.Errorf("the status is %+v", c.Status)
	}
	p.kill()
	away := h.says(c, v1alpha1.ReachableCondition, metav1.ConditionFalse, v1alpha1.LeaseExpiredReason, "has not renewed its Lease since 20")
	h.must(m.Delete(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "app"}}))
	p = agent(m)
	m.has("app", "one")
	h.says(c, v1alpha1.ReachableCondition, metav1.ConditionTrue, v1alpha1.LeaseRenewedReason)

	p.signal(syscall.SIGSTOP)
	frozen := h.says(c, v1alpha1.ReachableCondition, metav1.ConditionFalse, v1alpha1.LeaseExpiredReason, "has not renewed its Lease since 20")
	if frozen.Message == away.Message {
		t.Errorf("it is told since when it was killed: %s", frozen.Message)
	}
	p.signal(syscall.SIGCONT)
	h.says(c, v1alpha1.ReachableCondition, metav1.ConditionTrue, v1alpha1.LeaseRenewedReason)
	h.says(c, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason)

	// It is let go of, and invited again while it runs.
	h.must(join.Replace(t.Context(), h.Client, client.ObjectKeyFromObject(c)))
	eventually(t, "told that it is refused", func() (bool, string) {
		return strings.Contains(p.errors.String(), "to join again: bowline join"), p.errors.String()
	})
	h.must(h.Get(t.Context(), client.ObjectKeyFromObject(c), c))
	data, err = h.invite(c, h.endpoint).Kubeconfig()
	h.must(err)
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: join.StoreNamespace, Name: "bowline-invitation"}, Data: map[string][]byte{"invitation": data}}
	h.must(m.Create(t.Context(), secret))
	h.says(c, v1alpha1.JoinedCondition, metav1.ConditionTrue, v1alpha1.JoinedReason)
	h.push(map[string]string{"app/config.yaml": configMap("app", "two")})
	m.has("app", "two")
	h.says(c, meta.ReadyCondition, metav1.ConditionTrue, meta.SucceededReason)

	h.must(h.Delete(t.Context(), c))
	<-p.ended
	if p.err != nil || !strings.Contains(p.out.String(), "The cluster has left the fleet: it was FleetCluster "+h.namespace+"/a") {
		t.Errorf("it has left with %v: %s", p.err, p.out.String())
	}
	if err := m.Get(t.Context(), client.ObjectKey{Namespace: join.StoreNamespace, Name: join.StoreName}, &corev1.Secret{}); !apierrors.IsNotFound(err) {
		t.Errorf("it has left, and its credentials are there: %v", err)
	}
}

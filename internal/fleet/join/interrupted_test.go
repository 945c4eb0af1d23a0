package join_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// network is what is between an agent and its hub.
type network struct {
	net.Listener
	to    string
	mu    sync.Mutex
	conns []net.Conn
	made  chan struct{}
}

func (h *hub) network() *network {
	h.Helper()
	u, err := url.Parse(h.config.Host)
	if err != nil {
		h.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.Fatal(err)
	}
	n := &network{Listener: l, to: u.Host, made: make(chan struct{}, 100)}
	go n.run()
	h.Cleanup(func() { _ = l.Close(); n.cut() })
	return n
}

func (n *network) run() {
	for {
		from, err := n.Accept()
		if err != nil {
			return
		}
		to, err := net.Dial("tcp", n.to)
		if err != nil {
			_ = from.Close()
			continue
		}
		n.mu.Lock()
		n.conns = append(n.conns, from, to)
		n.mu.Unlock()
		go func() { _, _ = io.Copy(to, from); _ = to.Close() }()
		go func() { _, _ = io.Copy(from, to); _ = from.Close() }()
		n.made <- struct{}{}
	}
}

// cut breaks all connections.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		_ = c.Close()
	}
	n.conns = nil
}

// TestNetworkBreaks cuts an agent off while it waits for the answer.
func TestNetworkBreaks(t *testing.T) {
	h := newQuietHub(t)
	n := h.network()
	h.endpoint.Server = "https://" + n.Addr().String()
	c := h.cluster("berlin")
	i := h.invite(c)
	got := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		_, err := join.Request(ctx, i, "member-1", key(t))
		got <- err
	}()
	r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: i.RequestName}}
	h.until(r, "it was made", func() bool { return r.UID != "" })
	for range 2 {
		<-n.made
		n.cut()
	}
	h.run(join.Options{})
	if err := <-got; err != nil {
		t.Errorf("it does not get its certificate: %v", err)
	}
}

// TestRequestGoesMissing deletes a request while its answer is waited for.
func TestRequestGoesMissing(t *testing.T) {
	h := newQuietHub(t)
	i := h.invite(h.cluster("berlin"))
	got := make(chan error, 1)
	go func() {
		_, err := join.Request(t.Context(), i, "member-1", key(t))
		got <- err
	}()
	r := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: i.RequestName}}
	h.until(r, "it was made", func() bool { return r.UID != "" })
	if err := h.Delete(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-got:
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it says %v", err)
		}
	case <-time.After(patience):
		t.Error("it waits for ever")
	}
}

// TestHubRestarts stops the hub after it answered, and while things were deleted.
func TestHubRestarts(t *testing.T) {
	h := newQuietHub(t)
	end := h.run(join.Options{Linger: time.Hour})
	used, gone := h.cluster("used"), h.cluster("gone")
	i := h.invite(used)
	if _, err := h.join(i, "member-1"); err != nil {
		t.Fatal(err)
	}
	_, credentials := h.joined("gone", "member-2")
	end()
	if err := h.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	h.gone(gone)
	h.run(join.Options{Linger: -1})
	h.gone(h.named(&corev1.Secret{}, i.RequestName))
	h.gone(&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "bowline-agent:" + h.namespace + ":gone"}})
	agent := connect(t, credentials.Config())
	request := &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: "bowline-agent-" + credentials.Incarnation()}}
	h.until(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: h.namespace}}, "the agent of what is gone may do nothing", func() bool {
		return !h.may(credentials, gone) && client.IgnoreNotFound(agent.Get(t.Context(), client.ObjectKeyFromObject(request), request)) != nil
	})
}

// TestRightsFollowTheIncarnation stops letting go of a cluster after its first step: the hub takes the other.
func TestRightsFollowTheIncarnation(t *testing.T) {
	h := newHub(t, join.Options{})
	c, credentials := h.joined("berlin", "member-1")
	if err := h.Status().Patch(t.Context(), c, client.RawPatch(types.MergePatchType, []byte(`{"status":{"incarnation":null}}`))); err != nil {
		t.Fatal(err)
	}
	h.gone(&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "bowline-agent:" + h.namespace + ":berlin"}})
	h.until(c, "its agent may do nothing", func() bool { return !h.may(credentials, c) })
}

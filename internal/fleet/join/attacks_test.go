package join_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/keyutil"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// wish is a request for a certificate as somebody makes it who does not keep to the rules.
type wish struct {
	name, user    string
	organizations []string
	member        types.UID
	signer        string
	usages        []certificatesv1.KeyUsage
	key           crypto.Signer
	hosts         []string
	seconds       *int32
}

func (h *hub) wish(id join.Identity, name string) wish {
	return wish{name: name, user: id.User(), organizations: []string{join.AgentGroup}, member: id.Member, key: key(h),
		signer: certificatesv1.KubeAPIServerClientSignerName,
		usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature}}
}

// make makes a request in somebody's name.
func (h *hub) make(who *rest.Config, w wish) *certificatesv1.CertificateSigningRequest {
	h.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: w.hosts,
		Subject: pkix.Name{CommonName: w.user, Organization: w.organizations}}, w.key)
	if err != nil {
		h.Fatal(err)
	}
	r := &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: w.name, Annotations: map[string]string{"fleet.bowline.dev/member": string(w.member)}},
		Spec: certificatesv1.CertificateSigningRequestSpec{SignerName: w.signer, Usages: w.usages, ExpirationSeconds: w.seconds,
			Request: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})},
	}
	as := connect(h, who)
	// The API server may not know of rights at once that were just given.
	made := false
	h.until(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: h.namespace}}, "the request is made", func() bool {
		err := as.Create(h.Context(), r)
		made = made || err == nil
		return made
	})
	h.Cleanup(func() {
		_ = h.Delete(context.WithoutCancel(h.Context()), &certificatesv1.CertificateSigningRequest{ObjectMeta: metav1.ObjectMeta{Name: w.name}})
	})
	return r
}

// ask makes a request in somebody's name and returns it when it is decided on.
func (h *hub) ask(who *rest.Config, w wish) *certificatesv1.CertificateSigningRequest {
	h.Helper()
	r := h.make(who, w)
	h.until(r, "it is decided on", func() bool { return len(r.Status.Conditions) > 0 })
	return r
}

// credentials are those that an agent makes of a certificate.
func (h *hub) credentials(w wish, i join.Invitation, certificate []byte) *join.Credentials {
	h.Helper()
	key, err := keyutil.MarshalPrivateKeyToPEM(w.key)
	if err != nil {
		h.Fatal(err)
	}
	encode := base64.StdEncoding.EncodeToString
	c, err := join.ParseCredentials(fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"hub",`+
		`"clusters":[{"name":"hub","cluster":{"server":%q,"certificate-authority-data":%q}}],`+
		`"users":[{"name":"hub","user":{"client-certificate-data":%q,"client-key-data":%q}}],`+
		`"contexts":[{"name":"hub","context":{"cluster":"hub","user":"hub","extensions":[{"name":"fleet.bowline.dev",`+
		`"extension":{"namespace":%q,"name":%q,"uid":%q,"member":%q}}]}}]}`,
		i.Server, encode(i.CA), encode(certificate), encode(key), i.Namespace, i.Name, i.UID, w.member), "the test")
	if err != nil {
		h.Fatal(err)
	}
	return c
}

// decided asserts what was decided.
func decided(t testing.TB, r *certificatesv1.CertificateSigningRequest, kind certificatesv1.RequestConditionType, reason string) {
	t.Helper()
	if c := r.Status.Conditions[0]; c.Type != kind || c.Reason != reason {
		t.Errorf("the request is %s for %s, %q; want %s for %s", c.Type, c.Reason, c.Message, kind, reason)
	}
	if kind == certificatesv1.CertificateDenied && len(r.Status.Certificate) > 0 {
		t.Error("there is a certificate for a request that was denied")
	}
}

// as is how to talk to the hub with an invitation.
func (h *hub) as(i join.Invitation) *rest.Config {
	h.Helper()
	data, err := i.Kubeconfig()
	if err != nil {
		h.Fatal(err)
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		h.Fatal(err)
	}
	return cfg
}

func TestRequestsThatAreWrong(t *testing.T) {
	h := newHub(t, join.Options{Linger: time.Hour})
	c := h.cluster("berlin")
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	wide, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other := h.cluster("paris")
	tests := []struct {
		name, reason string
		change       func(*wish)
		want         string
	}{
		{"another's name", "an invitation is for one FleetCluster", func(w *wish) {
			w.user = join.Identity{Namespace: h.namespace, Name: "paris", UID: other.UID, Member: w.member}.User()
		}, join.NotInvitedReason},
		{"a name in another namespace", "as for another FleetCluster", func(w *wish) {
			w.user = join.Identity{Namespace: "default", Name: "berlin", UID: c.UID, Member: w.member}.User()
		}, join.NotInvitedReason},
		{"a FleetCluster that is not there", "it would be there one day", func(w *wish) {
			w.user = join.Identity{Namespace: h.namespace, Name: "rome", UID: c.UID, Member: w.member}.User()
		}, join.FleetClusterNotFoundReason},
		{"no agent's name", "only agents are invited", func(w *wish) { w.user = "kubernetes-admin" }, join.InvalidRequestReason},
		{"a path for a name", "the name is looked up", func(w *wish) { w.user = "bowline:agent:" + h.namespace + ":../x:" + strings.Repeat("a", 32) }, join.InvalidRequestReason},
		{"another incarnation", "it has to be that of the member", func(w *wish) { w.user = w.user[:len(w.user)-32] + strings.Repeat("a", 32) }, join.InvalidRequestReason},
		{"no member", "the incarnation cannot be checked", func(w *wish) { w.member = "" }, join.InvalidRequestReason},
		{"one group more", "groups give rights", func(w *wish) { w.organizations = append(w.organizations, "admins") }, join.InvalidRequestReason},
		{"another group", "groups give rights", func(w *wish) { w.organizations = []string{"admins"} }, join.InvalidRequestReason},
		{"one usage more", "a server's certificate could pass for the hub", func(w *wish) { w.usages = append(w.usages, certificatesv1.UsageServerAuth) }, join.InvalidRequestReason},
		{"one usage less", "not what agents ask for", func(w *wish) { w.usages = w.usages[:1] }, join.InvalidRequestReason},
		{"host names", "a client has none", func(w *wish) { w.hosts = []string{"kubernetes"} }, join.InvalidRequestReason},
		{"a key of RSA", "one kind of key is enough", func(w *wish) { w.key = big }, join.InvalidRequestReason},
		{"a key on P-384", "as one of RSA", func(w *wish) { w.key = wide }, join.InvalidRequestReason},
		{"another signer", "agents are clients", func(w *wish) {
			w.signer = certificatesv1.KubeletServingSignerName
			w.usages = []certificatesv1.KeyUsage{certificatesv1.UsageServerAuth, certificatesv1.UsageDigitalSignature}
		}, join.InvalidRequestReason},
		{"a name of its own choice", "an invitation is good for one request", func(w *wish) { w.name = "chosen-" + h.namespace }, join.NotInvitedReason},
	}
	i := h.invite(c)
	id := join.Identity{Namespace: h.namespace, Name: "berlin", UID: c.UID, Member: "member-1"}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := &hub{TB: t, Client: h.Client, config: h.config, namespace: h.namespace}
			w := h.wish(id, i.RequestName)
			tt.change(&w)
			decided(t, h.ask(h.as(i), w), certificatesv1.CertificateDenied, tt.want)
		})
	}
	if err := h.Get(t.Context(), client.ObjectKeyFromObject(c), c); err != nil || c.Status.Incarnation != "" {
		t.Errorf("what was denied left the incarnation %q, %v", c.Status.Incarnation, err)
	}
	events := &corev1.EventList{}
	h.until(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: h.namespace}}, "the FleetCluster that somebody else asked for is told", func() bool {
		return h.List(t.Context(), events, client.InNamespace(h.namespace)) == nil && warned(events, "paris", join.NotInvitedReason)
	})
	// What was denied used nothing up.
	decided(t, h.ask(h.as(i), h.wish(id, i.RequestName)), certificatesv1.CertificateApproved, "Invited")
}

func warned(all *corev1.EventList, name, reason string) bool {
	for _, e := range all.Items {
		if e.InvolvedObject.Name == name && e.Reason == reason && e.Type == corev1.EventTypeWarning {
			return true
		}
	}
	return false
}

// TestStrangersAreDenied has somebody ask who may make requests and was never invited: the administrator.
func TestStrangersAreDenied(t *testing.T) {
	h := newHub(t, join.Options{})
	c := h.cluster("berlin")
	id := join.Identity{Namespace: h.namespace, Name: "berlin", UID: c.UID, Member: "member-1"}
	decided(t, h.ask(h.config, h.wish(id, "stranger-"+h.namespace)), certificatesv1.CertificateDenied, join.NotInvitedReason)
}

// TestOthersRequestsAreLeft asks for what is not of agents: somebody else decides on that.
func TestOthersRequestsAreLeft(t *testing.T) {
	h := newHub(t, join.Options{Workers: 1})
	w := h.wish(join.Identity{}, "person-"+h.namespace)
	w.user, w.organizations = "person", []string{"people"}
	left := h.make(h.config, w)
	// One that is made after it is decided on, so the other has been seen and was left.
	h.ask(h.config, h.wish(join.Identity{Namespace: h.namespace, Name: "berlin"}, "later-"+h.namespace))
	if err := h.Get(t.Context(), client.ObjectKeyFromObject(left), left); err != nil || len(left.Status.Conditions) > 0 {
		t.Errorf("it is decided on: %v, %v", left.Status.Conditions, err)
	}
}

// TestAgentsAskForThemselves has an agent with a good certificate ask for somebody else's.
func TestAgentsAskForThemselves(t *testing.T) {
	h := newHub(t, join.Options{})
	_, mine := h.joined("mine", "member-1")
	yours, theirs := h.joined("yours", "member-2")
	id := join.Identity{Namespace: h.namespace, Name: "yours", UID: yours.UID, Member: "member-2"}
	decided(t, h.ask(mine.Config(), h.wish(id, "taken-"+h.namespace)), certificatesv1.CertificateDenied, join.NotInvitedReason)
	t.Run("a name that another will use", func(t *testing.T) {
		// The name of another's request is taken; that one asks for its own all the same.
		decided(t, h.ask(mine.Config(), h.wish(id, "bowline-agent-"+id.Incarnation())), certificatesv1.CertificateDenied, join.NotInvitedReason)
		if _, err := join.Renew(t.Context(), theirs); err != nil {
			t.Errorf("it cannot renew: %v", err)
		}
	})
}

func TestTwoClustersClaimOneName(t *testing.T) {
	h := newHub(t, join.Options{})
	c, first := h.joined("berlin", "member-1")
	_, err := h.join(h.invite(c), "member-2")
	refused(t, err, "bowline join berlin -n "+h.namespace+" --replace")
	h.until(c, "two claim the name", func() bool {
		joined := apimeta.FindStatusCondition(c.Status.Conditions, v1alpha1.JoinedCondition)
		return joined != nil && joined.Reason == v1alpha1.IdentityConflictReason
	})
	if !h.may(first, c) {
		t.Error("the first one has lost its rights to somebody who was denied")
	}
	if err := join.Replace(t.Context(), h.Client, client.ObjectKeyFromObject(c)); err != nil {
		t.Fatal(err)
	}
	second, err := h.join(h.invite(c), "member-2")
	if err != nil {
		t.Fatalf("it cannot join when the first one was let go: %v", err)
	}
	h.until(c, "the second one has rights", func() bool { return h.may(second, c) })
	h.until(c, "the first one has none", func() bool { return !h.may(first, c) })
	_, err = join.Renew(t.Context(), first)
	refused(t, err, "forbidden")
	if !apimeta.IsStatusConditionTrue(c.Status.Conditions, v1alpha1.JoinedCondition) {
		t.Error("it has joined and does not say so")
	}
}

// TestRebuiltCluster has a cluster of the same name take the place of one: its FleetCluster or the cluster itself is new.
func TestRebuiltCluster(t *testing.T) {
	t.Run("a new FleetCluster", func(t *testing.T) {
		h := newHub(t, join.Options{})
		old, before := h.joined("berlin", "member-1")
		if err := h.Delete(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		h.gone(old)
		h.until(&v1alpha1.ClusterAssignment{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "berlin"}}, "the old one has no rights",
			func() bool { return !h.may(before, old) })
		now, after := h.joined("berlin", "member-1")
		if before.Incarnation() == after.Incarnation() {
			t.Error("the incarnation is the same")
		}
		if h.may(before, now) {
			t.Error("the old certificate has rights at the new one")
		}
	})
	t.Run("a new cluster", func(t *testing.T) {
		h := newHub(t, join.Options{})
		c, _ := h.joined("berlin", "member-1")
		_, err := h.join(h.invite(c), "member-1-built-anew")
		refused(t, err, "bowline join berlin -n "+h.namespace+" --replace")
	})
	t.Run("being deleted", func(t *testing.T) {
		h := newHub(t, join.Options{})
		c := h.cluster("berlin")
		c.Finalizers = []string{"test.bowline.dev/wait"}
		if err := h.Update(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		i := h.invite(c)
		if err := h.Delete(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		_, err := h.join(i, "member-1")
		refused(t, err, join.FleetClusterDeletedReason)
		c.Finalizers = nil
		if err := h.Patch(t.Context(), c, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`))); err != nil {
			t.Fatal(err)
		}
	})
}

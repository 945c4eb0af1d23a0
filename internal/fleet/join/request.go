package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	typed "k8s.io/client-go/kubernetes/typed/certificates/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/bowline-dev/bowline/internal/failure"
)

// CertificateLife is how long a certificate is asked to be good for. A member may be cut off from
// its hub for a third of it and still come back by itself.
const CertificateLife = 90 * 24 * time.Hour

// Request asks the hub for a certificate with an invitation, and waits for it. The same key, of P-256, may be
// used again after an interruption: then the answer to the request before is waited for.
func Request(ctx context.Context, i Invitation, member types.UID, key *ecdsa.PrivateKey) (*Credentials, error) {
	id := i.identity(member)
	return exchange{hub: i.Endpoint, config: i.config(), id: id, name: i.RequestName, key: key,
		remedy: "invite the cluster again: " + i.identity(member).joinAgain()}.run(ctx)
}

// Renew asks for a new certificate with the one there is, for a new key. The old one stays good
// until it ends.
func Renew(ctx context.Context, c *Credentials) (*Credentials, error) {
	key, err := newKey()
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return exchange{hub: c.Endpoint, config: c.Config(), id: c.Identity, name: renewalName(c.Incarnation()), key: key, replace: true,
		remedy: "another cluster may have taken its place, or its certificate has ended: " + c.Identity.joinAgain()}.run(ctx)
}

// renewalName is that of all requests of an agent for renewal.
func renewalName(incarnation string) string { return rolePrefix + incarnation }

// exchange is one request for a certificate.
type exchange struct {
	hub    Endpoint
	config *rest.Config
	id     Identity
	name   string
	key    *ecdsa.PrivateKey
	// replace deletes what there is of that name first.
	replace bool
	remedy  string
}

func (x exchange) run(ctx context.Context) (*Credentials, error) {
	client, err := typed.NewForConfig(x.config)
	if err != nil {
		return nil, x.failed(err)
	}
	request, err := x.request()
	if err != nil {
		return nil, x.failed(err)
	}
	certificate, err := x.certificate(ctx, client.CertificateSigningRequests(), request)
	if err != nil {
		return nil, err
	}
	key, err := encodeKey(x.key)
	if err != nil {
		return nil, x.failed(err)
	}
	return newCredentials(x.hub, x.id, certificate, key, "the hub "+x.hub.Server)
}

// request is what is asked for.
func (x exchange) request() (*certificatesv1.CertificateSigningRequest, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{CommonName: x.id.User(), Organization: []string{AgentGroup}}}, x.key)
	if err != nil {
		return nil, fmt.Errorf("make the request: %w", err)
	}
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: x.name, Annotations: map[string]string{annotationMember: string(x.id.Member)}},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:           pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName:        certificatesv1.KubeAPIServerClientSignerName,
			Usages:            []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
			ExpirationSeconds: ptr.To(int32(CertificateLife.Seconds())),
		},
	}, nil
}

// certificate makes the request and waits for the answer. It watches before it asks: the token of an invitation ends soon after
// the answer, and what was being watched then still comes.
func (x exchange) certificate(ctx context.Context, client typed.CertificateSigningRequestInterface, request *certificatesv1.CertificateSigningRequest) ([]byte, error) {
	if x.replace {
		if err := client.Delete(ctx, x.name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return nil, x.failed(err)
		}
	}
	a := &answers{client: client, name: x.name}
	if err := a.open(ctx); err != nil {
		return nil, x.failed(err)
	}
	defer a.close()
	made, err := client.Create(ctx, request, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		made, err = x.adopt(ctx, client)
	}
	if err != nil {
		return nil, x.failed(err)
	}
	for {
		now, err := a.next(ctx, made.UID)
		if err != nil {
			return nil, x.failed(err)
		}
		if certificate, err := x.judge(now); certificate != nil || err != nil {
			return certificate, err
		}
	}
}

// adopt takes up a request of that name if it is for the same key, that is, this agent's own from before.
func (x exchange) adopt(ctx context.Context, client typed.CertificateSigningRequestInterface) (*certificatesv1.CertificateSigningRequest, error) {
	there, err := client.Get(ctx, x.name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(there.Spec.Request); block != nil {
		asked, err := x509.ParseCertificateRequest(block.Bytes)
		if err == nil && x.key.PublicKey.Equal(asked.PublicKey) && asked.Subject.CommonName == x.id.User() {
			return there, nil
		}
	}
	return nil, &failure.Error{Op: "use the request", Kind: failure.Denied, Object: x.name, Err: errUsed, Remedy: x.remedy}
}

// judge returns the certificate when there is one, and an error when there will be none.
func (x exchange) judge(r *certificatesv1.CertificateSigningRequest) ([]byte, error) {
	for _, c := range r.Status.Conditions {
		if c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed {
			return nil, &failure.Error{Op: "ask for a certificate at", Kind: failure.Denied, Object: x.hub.Server,
				Err: fmt.Errorf("the hub says %s: %s", c.Reason, c.Message), Remedy: x.remedy}
		}
	}
	if len(r.Status.Certificate) == 0 {
		return nil, nil
	}
	return r.Status.Certificate, nil
}

func (x exchange) failed(err error) error {
	f := &failure.Error{Op: "ask for a certificate at", Object: x.hub.Server, Kind: failure.Unavailable, Err: err}
	switch {
	case failure.KindOf(err) != "":
		return err
	case apierrors.IsUnauthorized(err):
		f.Kind, f.Err, f.Remedy = failure.Denied, fmt.Errorf("the hub does not accept who is asking: %w", err), x.remedy
	case apierrors.IsForbidden(err):
		f.Kind, f.Remedy = failure.Denied, x.remedy
	}
	return f
}

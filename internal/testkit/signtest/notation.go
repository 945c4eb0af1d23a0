package signtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/notaryproject/notation-core-go/signature"
	"github.com/notaryproject/notation-go"
	"github.com/notaryproject/notation-go/registry"
	"github.com/notaryproject/notation-go/signer"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bowline-dev/bowline/internal/testkit/front"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
)

// NotationCA is an authority whose certificates sign in notation's way.
type NotationCA struct {
	// Certificate is the authority's own, in PEM.
	Certificate []byte
	parent      *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewNotationCA makes an authority.
func NewNotationCA(t testing.TB, name string) *NotationCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	front.Must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name, Organization: []string{"Bowline"}, Country: []string{"DE"}, Province: []string{"HH"}},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	front.Must(t, err)
	parent, err := x509.ParseCertificate(der)
	front.Must(t, err)
	return &NotationCA{Certificate: []byte(pemOf(der)), parent: parent, key: key}
}

// NotationSignature says how to sign.
type NotationSignature struct {
	// Name is the common name of the signer.
	Name string
	// Ended says that the signer's certificate is no longer valid, and was when it was used; Lapsed, that the
	// signature was made for a while that is over.
	Ended, Lapsed bool
	// Target is signed instead of the artifact, when its digest is set.
	Target ocispec.Descriptor
	// COSE asks for that format of envelope, instead of JWS.
	COSE bool
	// RevokedAt is a server that tells whether the certificate was revoked.
	RevokedAt string
	// Tampered changes the envelope after it was signed.
	Tampered bool
}

// Sign signs an artifact.
func (c *NotationCA) Sign(t testing.TB, a ocitest.Artifact, how NotationSignature) {
	t.Helper()
	key, chain := c.issue(t, how)
	subject, err := remote.Head(a.Repository.Digest(a.Digest.String()), a.Options...)
	front.Must(t, err)
	target := how.Target
	if target.Digest == "" {
		target = ocispec.Descriptor{MediaType: string(subject.MediaType), Digest: digest.Digest(subject.Digest.String()), Size: subject.Size}
	}
	mediaType := "application/jose+json"
	if how.COSE {
		mediaType = "application/cose"
	}
	var envelope []byte
	if how.Ended || how.Lapsed {
		envelope = signBefore(t, key, chain, target, mediaType, how)
	} else {
		made, err := signer.NewGenericSigner(key, chain)
		front.Must(t, err)
		envelope, _, err = made.Sign(t.Context(), target, notation.SignerSignOptions{SignatureMediaType: mediaType})
		front.Must(t, err)
	}
	if how.Tampered {
		envelope = []byte(strings.Replace(string(envelope), `"payload":"`, `"payload":"e30`, 1))
	}
	attach(t, a, signedBy{
		artifactType: registry.ArtifactTypeNotation, mediaType: mediaType, content: envelope,
		told: map[string]string{"io.cncf.notary.x509chain.thumbprint#S256": "[]"},
	})
}

// signBefore signs two hours ago, which notation's own signer cannot.
func signBefore(t testing.TB, key *ecdsa.PrivateKey, chain []*x509.Certificate, target ocispec.Descriptor, mediaType string, how NotationSignature) []byte {
	t.Helper()
	local, err := signature.NewLocalSigner(chain, key)
	front.Must(t, err)
	payload, err := json.Marshal(map[string]any{"targetArtifact": target})
	front.Must(t, err)
	req := &signature.SignRequest{
		Payload: signature.Payload{ContentType: "application/vnd.cncf.notary.payload.v1+json", Content: payload},
		Signer:  local, SigningTime: time.Now().Add(-2 * time.Hour), SigningScheme: signature.SigningSchemeX509,
	}
	if how.Lapsed {
		req.Expiry = time.Now().Add(-time.Hour)
	}
	envelope, err := signature.NewEnvelope(mediaType)
	front.Must(t, err)
	signed, err := envelope.Sign(req)
	front.Must(t, err)
	return signed
}

// issue makes a signer's certificate. One that has ended was valid until an hour ago.
func (c *NotationCA) issue(t testing.TB, how NotationSignature) (*ecdsa.PrivateKey, []*x509.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	front.Must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: how.Name, Organization: []string{"Bowline"}, Country: []string{"DE"}, Province: []string{"HH"}},
		NotBefore:    time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, BasicConstraintsValid: true,
	}
	if how.Ended {
		template.NotAfter = time.Now().Add(-time.Hour)
	}
	if how.RevokedAt != "" {
		template.OCSPServer = []string{how.RevokedAt}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.parent, key.Public(), c.key)
	front.Must(t, err)
	leaf, err := x509.ParseCertificate(der)
	front.Must(t, err)
	return key, []*x509.Certificate{leaf, c.parent}
}

// NotationPolicy is a trust policy that trusts one signer, or with "*" anybody with a certificate.
func NotationPolicy(scope, level, signer string) []byte {
	identity := signer
	if signer != "*" {
		identity = fmt.Sprintf("x509.subject: C=DE, ST=HH, O=Bowline, CN=%s", signer)
	}
	return fmt.Appendf(nil, `{"version":"1.0","trustPolicies":[{"name":"apps","registryScopes":[%q],
		"signatureVerification":{"level":%q},"trustStores":["ca:apps"],"trustedIdentities":[%q]}]}`, scope, level, identity)
}

package join

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/keyutil"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Credentials are an agent's key and certificate, and the way to the hub.
type Credentials struct {
	Endpoint
	Identity
	// NotBefore and NotAfter are the certificate's, by the hub's clock.
	NotBefore, NotAfter time.Time

	certificate, key []byte // PEM
}

// String keeps the key out of messages and logs.
func (c Credentials) String() string { return "credentials of " + c.User() }

// GoString is String.
func (c Credentials) GoString() string { return c.String() }

// Config talks to the hub as the agent.
func (c Credentials) Config() *rest.Config {
	config := c.rest()
	config.CertData, config.KeyData = c.certificate, c.key
	return config
}

// Kubeconfig is the credentials as a file. It holds the key.
func (c Credentials) Kubeconfig() ([]byte, error) {
	return write(c.Endpoint, said{Namespace: c.Namespace, Name: c.Name, UID: c.UID, Member: c.Member},
		&api.AuthInfo{ClientCertificateData: c.certificate, ClientKeyData: c.key})
}

// ParseCredentials reads what Kubeconfig wrote; from says in errors where it is from. That the certificate is of that
// identity is checked, and whether it is good now is not: the hub knows, and the clock here may not.
func ParseCredentials(data []byte, from string) (*Credentials, error) {
	config, s, err := read(data, from)
	if err != nil {
		return nil, err
	}
	return newCredentials(endpoint(config), Identity{Namespace: s.Namespace, Name: s.Name, UID: s.UID, Member: s.Member}, config.CertData, config.KeyData, from)
}

func newCredentials(hub Endpoint, id Identity, certificate, key []byte, from string) (*Credentials, error) {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil { // what it says may quote the key
		return nil, notOurs(from, "its certificate and key cannot be used together", "join again: bowline join")
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		return nil, notOurs(from, "its certificate cannot be read", "join again: bowline join")
	}
	if leaf.Subject.CommonName != id.User() {
		return nil, notOurs(from, "its certificate is of somebody else", "join again: bowline join")
	}
	return &Credentials{Endpoint: hub, Identity: id, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, certificate: certificate, key: key}, nil
}

// RenewIn is after how long a certificate of that age is to be renewed: at two thirds of its life.
func (c Credentials) RenewIn(age time.Duration) time.Duration {
	return max(0, c.NotAfter.Sub(c.NotBefore)*2/3-age)
}

// Of checks that credentials are those of this member, and not of one that it was copied from.
func (c Credentials) Of(member types.UID) error {
	if c.Member == member {
		return nil
	}
	return &failure.Error{Op: "use the credentials for", Kind: failure.Conflict, Object: c.Server,
		Err:    errors.New("they are those of another cluster, with another kube-system"),
		Remedy: "a cluster that was copied or built anew joins for itself: bowline join"}
}

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyutil.ECPrivateKeyBlockType, Bytes: der}), nil
}

// decodeKey returns nil for what is no key.
func decodeKey(data []byte) *ecdsa.PrivateKey {
	key, err := keyutil.ParsePrivateKeyPEM(data)
	if err != nil {
		return nil
	}
	of, _ := key.(*ecdsa.PrivateKey)
	return of
}

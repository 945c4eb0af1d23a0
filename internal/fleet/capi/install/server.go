package install

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
)

// validity is how long the certificate of a server lasts. One is made whenever a manager is
// started, so it is only to outlast the manager.
const validity = 10 * 365 * 24 * time.Hour

// Server is where the manager of a provider serves its webhooks.
type Server struct {
	// Addr is the address and port, both numbers.
	Addr string
	// Dir is the folder with the certificate, tls.crt, and its key, tls.key.
	Dir string

	certificate []byte // PEM; it is its own authority
}

// NewServer makes a certificate for addr, which is valid from a little before now, and writes it
// with its key to the folder dir, which it makes, for nobody but the owner to read.
func NewServer(dir, addr string, now time.Time) (Server, error) {
	ip, err := netip.ParseAddrPort(addr)
	if err != nil {
		return Server{}, &failure.Error{Op: "serve webhooks at", Kind: failure.Invalid, Object: addr, Err: err}
	}
	certificate, key, err := selfSigned(ip.Addr(), now)
	if err != nil {
		return Server{}, &failure.Error{Op: "make a certificate for", Kind: failure.Invalid, Object: addr, Err: err}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Server{}, &failure.Error{Op: "make", Kind: failure.Denied, Object: dir, Err: err}
	}
	for name, data := range map[string][]byte{"tls.crt": certificate, "tls.key": key} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			return Server{}, &failure.Error{Op: "write", Kind: failure.Denied, Object: path, Err: err}
		}
	}
	return Server{Addr: addr, Dir: dir, certificate: certificate}, nil
}

// selfSigned returns a PEM certificate for ip that is its own authority, and its key.
func selfSigned(ip netip.Addr, now time.Time) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "bowline webhooks of Cluster API"},
		// A hub on another machine may have a clock that is behind.
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(validity),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{ip.AsSlice()},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}

// bundle is the authority of the server's certificate as objects of the API hold it.
func (s Server) bundle() string { return base64.StdEncoding.EncodeToString(s.certificate) }

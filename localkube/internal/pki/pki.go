// Package pki is the key cabinet of one local cluster: its certificate authorities, the
// certificates that the control plane serves and calls with, and the key that signs
// service account tokens. Everything is made on the machine, kept in one folder with
// mode 0700, and renewed at start when it is about to expire.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Names of the key pairs in the folder; NAME.crt and NAME.key.
const (
	CA                = "ca"                 // signs server and client certificates of the cluster
	FrontProxyCA      = "front-proxy-ca"     // signs what the API server shows to aggregated API servers
	APIServer         = "apiserver"          // what the API server serves
	Admin             = "admin"              // the user of the kubeconfig
	ControllerManager = "controller-manager" // kube-controller-manager as a client
	Scheduler         = "scheduler"          // kube-scheduler as a client
	Nodes             = "nodes"              // the simulated nodes as a client
	FrontProxy        = "front-proxy-client" // the API server as an aggregator
	ServiceAccountKey = "service-account"    // signs service account tokens; NAME.key and NAME.pub
)

const authorityKeyBits = 2048

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 365 * 24 * time.Hour
	// renewBefore is how much life a leaf must have left at start. A control plane that
	// runs on for longer than that without a restart is not what this program is for.
	renewBefore = 90 * 24 * time.Hour
)

// ServiceIP is the cluster address of the `kubernetes` Service, which the certificate
// of the API server has to carry. It is the first address of the service range.
const ServiceIP = "10.96.0.1"

// Folder is a folder of key pairs.
type Folder struct {
	dir string
	now func() time.Time
}

// Cert returns the path of the named certificate.
func (f Folder) Cert(name string) string { return filepath.Join(f.dir, name+".crt") }

// Key returns the path of the named private key.
func (f Folder) Key(name string) string { return filepath.Join(f.dir, name+".key") }

// PublicKey returns the path of the named public key, of ServiceAccountKey only.
func (f Folder) PublicKey(name string) string { return filepath.Join(f.dir, name+".pub") }

// leaf says what a certificate is for.
type leaf struct {
	name, authority string
	subject         pkix.Name
	usage           x509.ExtKeyUsage
	dnsNames        []string
	ips             []net.IP
}

func leaves() []leaf {
	client := func(name, user string, groups ...string) leaf {
		return leaf{name: name, authority: CA, usage: x509.ExtKeyUsageClientAuth,
			subject: pkix.Name{CommonName: user, Organization: groups}}
	}
	const masters = "system:masters"
	proxy := client(FrontProxy, "front-proxy-client")
	proxy.authority = FrontProxyCA
	return []leaf{
		{name: APIServer, authority: CA, usage: x509.ExtKeyUsageServerAuth,
			subject: pkix.Name{CommonName: "kube-apiserver"},
			dnsNames: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
				"kubernetes.default.svc.cluster.local"},
			ips: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback, net.ParseIP(ServiceIP)}},
		client(Admin, "kubernetes-admin", masters),
		// The controllers run with one identity rather than a service account each: it saves
		// thirty token requests at start and changes nothing that a user of the API can see.
		client(ControllerManager, "system:kube-controller-manager", masters),
		client(Scheduler, "system:kube-scheduler"),
		client(Nodes, "system:localkube-nodes", masters),
		proxy,
	}
}

// Ensure makes what is missing in dir, renews what expires soon, and leaves the rest as
// it is, so that kubeconfigs and service account tokens stay valid over restarts.
func Ensure(dir string, now func() time.Time) (Folder, error) {
	f := Folder{dir: dir, now: now}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return f, fmt.Errorf("make certificate folder: %w", err)
	}
	for _, name := range []string{CA, FrontProxyCA} {
		if err := f.ensureAuthority(name); err != nil {
			return f, fmt.Errorf("certificate authority %s: %w", name, err)
		}
	}
	for _, l := range leaves() {
		if err := f.ensureLeaf(l); err != nil {
			return f, fmt.Errorf("certificate %s: %w", l.name, err)
		}
	}
	if err := f.ensureServiceAccountKey(); err != nil {
		return f, fmt.Errorf("service account key: %w", err)
	}
	return f, nil
}

func (f Folder) ensureServiceAccountKey() error {
	key, err := f.loadKey(ServiceAccountKey)
	if errors.Is(err, fs.ErrNotExist) {
		key, err = f.newKey(ServiceAccountKey, newLeafKey)
	}
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("encode public key: %w", err)
	}
	return writeFile(f.PublicKey(ServiceAccountKey), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func (f Folder) ensureAuthority(name string) error {
	if _, _, err := f.load(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	key, err := f.newKey(name, newAuthorityKey)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "localkube-" + name},
		NotBefore:             f.now().Add(-time.Minute),
		NotAfter:              f.now().Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	return f.sign(name, template, template, key.Public(), key)
}

func (f Folder) ensureLeaf(l leaf) error {
	authority, authorityKey, err := f.load(l.authority)
	if err != nil {
		return err
	}
	switch existing, _, err := f.load(l.name); {
	case err == nil && f.stillGood(existing, authority, l):
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return err
	}
	key, err := f.newKey(l.name, newLeafKey)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject:     l.subject,
		NotBefore:   f.now().Add(-time.Minute),
		NotAfter:    f.now().Add(leafLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{l.usage},
		DNSNames:    l.dnsNames,
		IPAddresses: l.ips,
	}
	return f.sign(l.name, template, authority, key.Public(), authorityKey)
}

func (f Folder) stillGood(cert, authority *x509.Certificate, l leaf) bool {
	return cert.CheckSignatureFrom(authority) == nil &&
		cert.NotAfter.After(f.now().Add(renewBefore)) &&
		slices.Equal(cert.DNSNames, l.dnsNames) &&
		slices.EqualFunc(cert.IPAddresses, l.ips, net.IP.Equal)
}

func (f Folder) sign(name string, template, parent *x509.Certificate, public, signer any) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return fmt.Errorf("make serial number: %w", err)
	}
	template.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	return writeFile(f.Cert(name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// newAuthorityKey makes an RSA key: the API server checks the signature on the certificate of its
// client at every request, and to check one takes less than half of the time that ECDSA takes.
func newAuthorityKey() (crypto.Signer, error) { return rsa.GenerateKey(rand.Reader, authorityKeyBits) }

// newLeafKey makes an ECDSA key, which is quick to make and to sign with.
func newLeafKey() (crypto.Signer, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func (f Folder) newKey(name string, generate func() (crypto.Signer, error)) (crypto.Signer, error) {
	key, err := generate()
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode key: %w", err)
	}
	return key, writeFile(f.Key(name), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// load reads a key pair. A pair of which half is missing counts as missing: the key is
// written first, so a process that died between the two leaves such a half.
func (f Folder) load(name string) (*x509.Certificate, crypto.Signer, error) {
	block, err := readPEM(f.Cert(name))
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(block)
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", f.Cert(name), err)
	}
	key, err := f.loadKey(name)
	if err != nil {
		return nil, nil, err
	}
	if public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(cert.PublicKey) {
		// The key was renewed and the process died before the certificate was.
		return nil, nil, fmt.Errorf("certificate %s belongs to another key: %w", f.Cert(name), fs.ErrNotExist)
	}
	return cert, key, nil
}

func (f Folder) loadKey(name string) (crypto.Signer, error) {
	block, err := readPEM(f.Key(name))
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Key(name), err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("read %s: a key of type %T cannot sign", f.Key(name), parsed)
	}
	return key, nil
}

func readPEM(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%s holds no PEM data; restore the file, or delete the cluster", path)
	}
	return block.Bytes, nil
}

// writeFile replaces a file as a whole or not at all.
func writeFile(path string, data []byte) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, data, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

package admission

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"time"
)

// The life of a certificate. It is renewed at two thirds of it; the last third is for engines that stand by, and take
// the new one when they come to look.
const (
	life  = 365 * 24 * time.Hour
	fresh = life * 2 / 3
	// skew is how far the clock of an API server may be behind.
	skew = time.Hour
	// trusted is how many older ones are trusted still: there is one, unless the server's name changes over and over.
	trusted = 2
)

// issue returns a PEM certificate for a host that is its own authority, and its key.
func issue(host string, now time.Time) (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, nil, err
	}
	// Authorities are found by their name: two that are trusted at one time have different ones.
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "bowline admission " + serial.Text(16)},
		NotBefore: now.Add(-skew), NotAfter: now.Add(life),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}

// read returns a certificate that is good for the host now. That the bundle holds it is part of that: else the
// API server would not know it.
func read(certificate, key, bundle []byte, host string, now time.Time) (*tls.Certificate, error) {
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, err
	}
	if err := pair.Leaf.VerifyHostname(host); err != nil {
		return nil, err
	}
	if now.After(pair.Leaf.NotAfter) {
		return nil, errors.New("it is over")
	}
	for _, c := range certificates(bundle) {
		if c.Equal(pair.Leaf) {
			return &pair, nil
		}
	}
	return nil, errors.New("nobody trusts it")
}

// certificates returns those of a bundle, and passes over what is none.
func certificates(bundle []byte) []*x509.Certificate {
	var all []*x509.Certificate
	for {
		var block *pem.Block
		if block, bundle = pem.Decode(bundle); block == nil {
			return all
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			all = append(all, c)
		}
	}
}

// trust returns a bundle with a new certificate first, and those of the old one that are not over: engines may still be serving with
// them.
func trust(certificate, old []byte, now time.Time) []byte {
	bundle := bytes.Clone(certificate)
	for i, c := range certificates(old) {
		if i < trusted && now.Before(c.NotAfter) {
			bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
		}
	}
	return bundle
}

// renewal is when a certificate is to be replaced.
func renewal(c *tls.Certificate) time.Time { return c.Leaf.NotBefore.Add(skew + fresh) }

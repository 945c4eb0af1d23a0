package reach

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/bowline-dev/bowline/internal/failure"
)

// TLS is how to know a server, and how to show who we are, in PEM. The zero value is the system's.
type TLS struct {
	// CA holds certificates of authorities to trust beside the system's.
	CA []byte
	// Cert and Key are a client certificate and its key.
	Cert, Key []byte
}

// TLSIn reads the keys ca.crt, tls.crt and tls.key of a Secret's data, also under their old names caFile, certFile
// and keyFile. Whether they are of use, Config says.
func TLSIn(data map[string][]byte) TLS {
	either := func(name, old string) []byte {
		if len(data[name]) > 0 {
			return data[name]
		}
		return data[old]
	}
	return TLS{CA: either("ca.crt", "caFile"), Cert: either("tls.crt", "certFile"), Key: either("tls.key", "keyFile")}
}

// TLSFromSecret is TLSIn of a Secret that is there for nothing else, and is named by a field. Mistakes are of kind
// failure.Invalid and name the key; none shows any of its value.
func TLSFromSecret(field string, data map[string][]byte) (TLS, error) {
	t := TLSIn(data)
	if t.Empty() {
		return t, BadKey(field, "ca.crt", errors.New("it is missing, and so are tls.crt and tls.key"))
	}
	_, err := t.Config(field)
	return t, err
}

// Empty reports whether there is nothing beside the system's settings.
func (t TLS) Empty() bool { return len(t.CA)+len(t.Cert)+len(t.Key) == 0 }

// Config returns the settings for a connection; errors are as TLSFromSecret has them.
func (t TLS) Config(field string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(t.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(t.CA) {
			return nil, BadKey(field, "ca.crt", errors.New("it holds no certificate in PEM"))
		}
		cfg.RootCAs = pool
	}
	if len(t.Cert)+len(t.Key) == 0 {
		return cfg, nil
	}
	if len(t.Cert) == 0 || len(t.Key) == 0 {
		return nil, BadKey(field, "tls.crt", errors.New("tls.crt and tls.key are needed together"))
	}
	pair, err := tls.X509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, BadKey(field, "tls.crt", fmt.Errorf("it and tls.key are no pair: %w", err))
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

// proxyField names the Secret of a proxy, with all kinds of sources.
const proxyField = "spec.proxySecretRef"

// ProxyFromSecret reads the address of a proxy for http, https or socks5, and optionally username and password.
func ProxyFromSecret(data map[string][]byte) (*url.URL, error) {
	bad := func(why string) error { return BadKey(proxyField, "address", errors.New(why)) }
	text := strings.TrimSpace(string(data["address"]))
	if text == "" {
		return nil, bad("it is missing: the proxy's URL")
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		return nil, bad("it is no URL") // and may hold a password
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return nil, bad("the scheme must be http, https or socks5")
	}
	if user := string(data["username"]); user != "" {
		u.User = url.UserPassword(user, string(data["password"]))
	}
	return u, nil
}

// BadKey says what is wrong with a key of the Secret that a field names; the field may be "" where several do.
func BadKey(field, key string, err error) error {
	remedy := "correct the Secret"
	if field != "" {
		remedy += " that " + field + " names"
	}
	return &failure.Error{Op: "read secret key", Object: key, Kind: failure.Invalid, Err: err, Remedy: remedy}
}

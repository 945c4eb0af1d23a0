package registry

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Access says how to get to a registry. The zero value is anybody's access to a registry with a
// certificate that the system trusts.
type Access struct {
	// Insecure allows plain HTTP and, where TLS names no authority, certificates that nobody vouches for.
	Insecure bool
	TLS      TLS
	// Proxy is the URL of a proxy, with credentials where it wants them; nil for what the
	// environment of the process says.
	Proxy *url.URL
	// Keychain holds the credentials; nil for none.
	Keychain authn.Keychain
}

// TLS is how to know the server, and how to show who we are, in PEM.
type TLS struct {
	// CA holds certificates of authorities to trust beside the system's.
	CA []byte
	// Cert and Key are a client certificate and its key.
	Cert, Key []byte
}

// TLSFromSecret reads the keys of a Secret of type Opaque or kubernetes.io/tls: ca.crt, or tls.crt
// with tls.key, or all three; also under their old names caFile, certFile and keyFile. Mistakes are of kind
// failure.Invalid and name the key; none shows any of its value.
func TLSFromSecret(data map[string][]byte) (TLS, error) {
	t := TLS{CA: first(data, "ca.crt", "caFile"), Cert: first(data, "tls.crt", "certFile"), Key: first(data, "tls.key", "keyFile")}
	if len(t.CA)+len(t.Cert)+len(t.Key) == 0 {
		return TLS{}, badSecret("ca.crt", "neither it nor tls.crt and tls.key are there")
	}
	_, err := t.config(false)
	return t, err
}

func first(data map[string][]byte, keys ...string) []byte {
	for _, k := range keys {
		if len(data[k]) > 0 {
			return data[k]
		}
	}
	return nil
}

func badSecret(key, why string) error {
	return &failure.Error{Op: "read key", Object: key, Kind: failure.Invalid, Err: errors.New(why), Remedy: "correct the Secret"}
}

func (t TLS) config(insecure bool) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(t.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(t.CA) {
			return nil, badSecret("ca.crt", "it holds no certificate in PEM")
		}
		cfg.RootCAs = pool
	}
	// spec.insecure says so, as long as nobody names an authority that could tell.
	cfg.InsecureSkipVerify = insecure && len(t.CA)+len(t.Cert) == 0
	if len(t.Cert) == 0 && len(t.Key) == 0 {
		return cfg, nil
	}
	if len(t.Cert) == 0 || len(t.Key) == 0 {
		return nil, badSecret("tls.crt", "tls.crt and tls.key are needed together")
	}
	pair, err := tls.X509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, badSecret("tls.crt", "it and tls.key are no pair in PEM")
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

// ProxyFromSecret reads the address of a proxy, and optionally username and password.
func ProxyFromSecret(data map[string][]byte) (*url.URL, error) {
	text := strings.TrimSpace(string(data["address"]))
	if text == "" {
		return nil, badSecret("address", "it is missing")
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "socks5" {
		return nil, badSecret("address", "it is no URL of a proxy for http, https or socks5") // which may hold a password
	}
	if user := string(data["username"]); user != "" {
		u.User = url.UserPassword(user, string(data["password"]))
	}
	return u, nil
}

// maxTransports bounds the connections' settings that are kept.
const maxTransports = 64

// transport returns what requests with this access go through, shared by all who have the same.
func (c *Client) transport(reg name.Registry, a Access) (http.RoundTripper, error) {
	cfg, err := a.TLS.config(a.Insecure)
	if err != nil {
		return nil, err
	}
	key := a.key()
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.transports[key]
	if t == nil {
		if len(c.transports) >= maxTransports {
			for _, old := range c.transports {
				old.CloseIdleConnections()
			}
			clear(c.transports)
		}
		t = &http.Transport{
			TLSClientConfig: cfg, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment,
			// Every visit has a context with a deadline; no step has one of its own.
			DialContext:         (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 8, IdleConnTimeout: 90 * time.Second,
		}
		if a.Proxy != nil {
			t.Proxy = http.ProxyURL(a.Proxy)
		}
		c.transports[key] = t
	}
	return &guard{next: t, open: a.Insecure || loopback(reg.RegistryStr())}, nil
}

// key names what a transport is made of, without showing any of it.
func (a Access) key() string {
	h := sha256.New()
	proxy := ""
	if a.Proxy != nil {
		proxy = a.Proxy.String()
	}
	_, _ = fmt.Fprintf(h, "%t %q %q %q %q", a.Insecure, a.TLS.CA, a.TLS.Cert, a.TLS.Key, proxy)
	return hex.EncodeToString(h.Sum(nil))
}

// way tells those who find a registry by an authority, a proxy or a trust of their own from those who find it as
// everybody does, for whom it is "": who answers them may be somebody else by the same name, who knows of a layer
// no more than its digest. No secret is in it.
func (a Access) way() string {
	proxy := ""
	if a.Proxy != nil {
		proxy = a.Proxy.Scheme + "://" + a.Proxy.Host
	}
	if !a.Insecure && len(a.TLS.CA) == 0 && proxy == "" {
		return ""
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%t %q %q", a.Insecure, a.TLS.CA, proxy))
	return " by " + hex.EncodeToString(sum[:])
}

func loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

// guard lets nothing out without encryption that nobody allowed to: the library below takes
// private addresses for registries without it, whatever the user said.
type guard struct {
	next *http.Transport
	open bool
}

var errUnencrypted = errors.New("the registry is not to be reached without encryption")

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !g.open {
		return nil, errUnencrypted
	}
	return g.next.RoundTrip(r)
}

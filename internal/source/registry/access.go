package registry

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/bowline-dev/bowline/internal/source/reach"
)

// Access says how to get to a registry. The zero value is anybody's access to a registry with a
// certificate that the system trusts.
type Access struct {
	// Insecure allows plain HTTP and, where TLS names no authority, certificates that nobody vouches for.
	Insecure bool
	TLS      reach.TLS
	// Proxy is the URL of a proxy, with credentials where it wants them; nil for what the
	// environment of the process says.
	Proxy *url.URL
	// Keychain holds the credentials; nil for none.
	Keychain authn.Keychain
}

// certsField names the Secret with certificates.
const certsField = "spec.certSecretRef"

// maxTransports bounds the connections' settings that are kept.
const maxTransports = 64

// transport returns what requests with this access go through, shared by all who have the same.
func (c *Client) transport(reg name.Registry, a Access) (http.RoundTripper, error) {
	cfg, err := a.TLS.Config(certsField)
	if err != nil {
		return nil, err
	}
	// spec.insecure says so, as long as nobody names an authority that could tell.
	cfg.InsecureSkipVerify = a.Insecure && a.TLS.Empty()
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
		t = reach.Transport(cfg, a.Proxy, 8)
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

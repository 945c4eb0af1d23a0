package bucket

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/url"
	"time"
)

// TLS is how to know the server, and how to be known to it, beside the system's authorities. All
// of it is PEM; the zero value is the system's.
type TLS struct{ CA, Cert, Key []byte }

// TLSFromSecret reads the keys ca.crt, tls.crt and tls.key of the Secret that a field names.
func TLSFromSecret(field string, data map[string][]byte) (TLS, error) {
	t := TLS{CA: data["ca.crt"], Cert: data["tls.crt"], Key: data["tls.key"]}
	if len(t.CA)+len(t.Cert)+len(t.Key) == 0 {
		return t, secretError(field, "ca.crt", "it is missing, and so are tls.crt and tls.key")
	}
	_, err := t.config(field)
	return t, err
}

// config returns the settings for a connection.
func (t TLS) config(field string) (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(t.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(t.CA) {
			return nil, secretError(field, "ca.crt", "it holds no certificate in PEM")
		}
		cfg.RootCAs = pool
	}
	if len(t.Cert)+len(t.Key) == 0 {
		return cfg, nil
	}
	if len(t.Cert) == 0 || len(t.Key) == 0 {
		return nil, secretError(field, "tls.crt", "tls.crt and tls.key are needed together")
	}
	pair, err := tls.X509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, secretError(field, "tls.crt", "it and tls.key are no pair in PEM")
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

// Proxy is a proxy to go through: http, https or socks5.
type Proxy struct {
	// Address is a URL without credentials; "" for the proxy that the environment names.
	Address            string
	Username, Password string
}

// ProxyFromSecret reads the keys address, username and password.
func ProxyFromSecret(data map[string][]byte) (Proxy, error) {
	p := Proxy{Address: string(data["address"]), Username: string(data["username"]), Password: string(data["password"])}
	if p.Address == "" {
		return p, secretError(refProxy, "address", "it is missing: the proxy's URL")
	}
	_, err := p.URL()
	return p, err
}

const refProxy = "spec.proxySecretRef"

// URL returns the address with the credentials, and nil for no proxy.
func (p Proxy) URL() (*url.URL, error) {
	if p.Address == "" {
		return nil, nil
	}
	u, err := url.Parse(p.Address)
	if err != nil || u.Host == "" {
		return nil, secretError(refProxy, "address", "it is no URL")
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return nil, secretError(refProxy, "address", "the scheme must be http, https or socks5")
	}
	if p.Username != "" {
		u.User = url.UserPassword(p.Username, p.Password)
	}
	return u, nil
}

// downloads is how many objects of one bucket are downloaded at one time.
const downloads = 8

// transport returns a way to servers.
func transport(t TLS, field string, p Proxy) (*http.Transport, error) {
	cfg, err := t.config(field)
	if err != nil {
		return nil, err
	}
	proxy, err := p.URL()
	if err != nil {
		return nil, err
	}
	way := &http.Transport{
		TLSClientConfig: cfg, ForceAttemptHTTP2: true, Proxy: http.ProxyFromEnvironment,
		// Every request has a context with a deadline; no step has one of its own.
		DialContext:         (&net.Dialer{KeepAlive: 30 * time.Second}).DialContext,
		MaxIdleConnsPerHost: downloads, IdleConnTimeout: 90 * time.Second,
	}
	if proxy != nil {
		way.Proxy = http.ProxyURL(proxy)
	}
	return way, nil
}

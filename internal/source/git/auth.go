package git

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"

	"golang.org/x/crypto/ssh"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Auth is how to show who we are, and how to know the server. The zero value
// is for a public repository over HTTP.
type Auth struct {
	// Username and Password are for HTTP basic authentication.
	Username, Password string
	// BearerToken is for HTTP and goes before a user name.
	BearerToken string
	// CA holds PEM certificates of authorities to trust beside the system's.
	CA []byte
	// ClientCert and ClientKey are a PEM certificate and its key.
	ClientCert, ClientKey []byte
	// Identity is a private key for SSH in PEM, Passphrase what decrypts it.
	Identity   []byte
	Passphrase string
	// KnownHosts holds the lines of known_hosts; without it no SSH server is trusted.
	KnownHosts []byte
}

// Proxy is a proxy to go through: http, https or socks5.
type Proxy struct {
	// Address is a URL without credentials; "" for no proxy.
	Address            string
	Username, Password string
}

// AuthFromSecret reads the keys of a Secret as the source controller of Flux
// does, for a repository at url. For http and https, all are optional:
// username and password, or bearerToken; ca.crt (or caFile); tls.crt and tls.key (or
// certFile and keyFile). For ssh: identity and known_hosts are needed, password
// decrypts the identity. Mistakes are of kind failure.Invalid and name the key.
func AuthFromSecret(repository string, data map[string][]byte) (Auth, error) {
	u, err := parseURL(repository)
	if err != nil {
		return Auth{}, err
	}
	if u.Scheme == "ssh" {
		return sshAuth(data)
	}
	a := Auth{
		CA:         first(data, "ca.crt", "caFile"),
		ClientCert: first(data, "tls.crt", "certFile"),
		ClientKey:  first(data, "tls.key", "keyFile"),
	}
	if token, ok := data["bearerToken"]; ok {
		a.BearerToken = string(token)
	} else {
		a.Username, a.Password = string(data["username"]), string(data["password"])
	}
	_, userInURL := u.User.Password()
	if a.Password != "" && a.Username == "" && u.User.Username() == "" && !userInURL {
		return Auth{}, secretError("username", errors.New("it is missing while there is a password"))
	}
	_, err = a.TLS()
	return a, err
}

func first(data map[string][]byte, keys ...string) []byte {
	for _, k := range keys {
		if len(data[k]) > 0 {
			return data[k]
		}
	}
	return nil
}

func secretError(key string, err error) error {
	return &failure.Error{
		Op: "read secret key", Object: key, Kind: failure.Invalid, Err: err,
		Remedy: "correct the Secret that spec.secretRef names",
	}
}

func sshAuth(data map[string][]byte) (Auth, error) {
	a := Auth{Identity: data["identity"], KnownHosts: data["known_hosts"], Passphrase: string(data["password"])}
	if len(a.Identity) == 0 {
		return Auth{}, secretError("identity", errors.New("it is missing: SSH needs a private key"))
	}
	if len(a.KnownHosts) == 0 {
		return Auth{}, secretError("known_hosts", errors.New("it is missing: SSH needs the host keys of servers to trust, as ssh-keyscan prints them"))
	}
	if _, err := a.signer(); err != nil {
		return Auth{}, err
	}
	if _, _, _, _, _, err := ssh.ParseKnownHosts(a.KnownHosts); err != nil {
		return Auth{}, secretError("known_hosts", fmt.Errorf("it has no line that can be read: %w", err))
	}
	return a, nil
}

// signer reads the identity.
func (a Auth) signer() (ssh.Signer, error) {
	var missing *ssh.PassphraseMissingError
	s, err := ssh.ParsePrivateKey(a.Identity)
	if errors.As(err, &missing) {
		if a.Passphrase == "" {
			return nil, secretError("identity", errors.New("the private key is encrypted; add its passphrase as key password"))
		}
		s, err = ssh.ParsePrivateKeyWithPassphrase(a.Identity, []byte(a.Passphrase))
	}
	if errors.Is(err, x509.IncorrectPasswordError) {
		return nil, secretError("password", errors.New("it does not decrypt the private key"))
	}
	if err != nil {
		// The parser's own words may hold parts of the key.
		return nil, secretError("identity", errors.New("it is no private key in PEM"))
	}
	return s, nil
}

// TLS returns the settings for a connection, and nil when there is nothing beside the system's defaults.
func (a Auth) TLS() (*tls.Config, error) {
	if len(a.CA)+len(a.ClientCert)+len(a.ClientKey) == 0 {
		return nil, nil
	}
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if len(a.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(a.CA) {
			return nil, secretError("ca.crt", errors.New("it holds no certificate in PEM"))
		}
		cfg.RootCAs = pool
	}
	if len(a.ClientCert) == 0 && len(a.ClientKey) == 0 {
		return cfg, nil
	}
	if len(a.ClientCert) == 0 || len(a.ClientKey) == 0 {
		return nil, secretError("tls.crt", errors.New("tls.crt and tls.key are needed together"))
	}
	pair, err := tls.X509KeyPair(a.ClientCert, a.ClientKey)
	if err != nil {
		return nil, secretError("tls.crt", fmt.Errorf("it and tls.key are no pair: %w", err))
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

// ProxyFromSecret reads the keys address, username and password.
func ProxyFromSecret(data map[string][]byte) (Proxy, error) {
	p := Proxy{Address: string(data["address"]), Username: string(data["username"]), Password: string(data["password"])}
	_, err := p.URL()
	return p, err
}

// URL returns the address with the credentials, and nil for no proxy.
func (p Proxy) URL() (*url.URL, error) {
	if p == (Proxy{}) {
		return nil, nil
	}
	bad := func(why string) error {
		return &failure.Error{
			Op: "read secret key", Object: "address", Kind: failure.Invalid, Err: errors.New(why),
			Remedy: "correct the Secret that spec.proxySecretRef names",
		}
	}
	if p.Address == "" {
		return nil, bad("it is missing: the proxy's URL")
	}
	u, err := url.Parse(p.Address)
	if err != nil || u.Host == "" {
		return nil, bad("it is no URL")
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return nil, bad("the scheme must be http, https or socks5")
	}
	if p.Username != "" {
		u.User = url.UserPassword(p.Username, p.Password)
	}
	return u, nil
}

// fingerprint tells one set of credentials and proxy from another without giving them away.
func fingerprint(a Auth, p Proxy) string {
	h := sha256.New()
	for _, part := range []string{
		a.Username, a.Password, a.BearerToken, string(a.CA), string(a.ClientCert), string(a.ClientKey),
		string(a.Identity), a.Passphrase, string(a.KnownHosts), p.Address, p.Username, p.Password,
	} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

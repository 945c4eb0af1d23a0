package git

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"

	"golang.org/x/crypto/ssh"

	"github.com/bowline-dev/bowline/internal/source/reach"
)

// Auth is how to show who we are, and how to know the server. The zero value
// is for a public repository over HTTP.
type Auth struct {
	// Username and Password are for HTTP basic authentication.
	Username, Password string
	// BearerToken is for HTTP and goes before a user name.
	BearerToken string
	TLS         reach.TLS
	// Identity is a private key for SSH in PEM, Passphrase what decrypts it.
	Identity   []byte
	Passphrase string
	// KnownHosts holds the lines of known_hosts; without it no SSH server is trusted.
	KnownHosts []byte
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
	a := Auth{TLS: reach.TLSIn(data)}
	if token, ok := data["bearerToken"]; ok {
		a.BearerToken = string(token)
	} else {
		a.Username, a.Password = string(data["username"]), string(data["password"])
	}
	_, userInURL := u.User.Password()
	if a.Password != "" && a.Username == "" && u.User.Username() == "" && !userInURL {
		return Auth{}, secretError("username", errors.New("it is missing while there is a password"))
	}
	_, err = a.TLS.Config(secretField)
	return a, err
}

// secretField names the Secret with all that a GitRepository shows and trusts.
const secretField = "spec.secretRef" //nolint:gosec // the name of a field

func secretError(key string, err error) error { return reach.BadKey(secretField, key, err) }

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

// fingerprint tells one set of credentials and proxy from another without giving them away.
func fingerprint(a Auth, proxy *url.URL) string {
	by := ""
	if proxy != nil {
		by = proxy.String()
	}
	h := sha256.New()
	for _, part := range []string{
		a.Username, a.Password, a.BearerToken, string(a.TLS.CA), string(a.TLS.Cert), string(a.TLS.Key),
		string(a.Identity), a.Passphrase, string(a.KnownHosts), by,
	} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

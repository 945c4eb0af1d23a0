package helmrepo

import (
	"errors"

	"github.com/bowline-dev/bowline/internal/source/reach"
)

// Auth is how to show who we are, and how to know the server. The zero value is for a
// public repository.
type Auth struct {
	// Username and Password are for HTTP basic authentication.
	Username, Password string
	TLS                reach.TLS
}

func (a Auth) empty() bool {
	return a.Username == "" && a.Password == "" && a.TLS.Empty()
}

// AuthFromSecrets reads the data of the Secrets that spec.secretRef and spec.certSecretRef name, each of
// which may be nil. The former has username and password, and may have certificates where there is
// no latter: ca.crt (or caFile); tls.crt and tls.key (or certFile and keyFile). Mistakes are of kind
// failure.Invalid and name the key.
func AuthFromSecrets(secret, certs map[string][]byte) (Auth, error) {
	a := Auth{Username: string(secret["username"]), Password: string(secret["password"])}
	if (a.Username == "") != (a.Password == "") {
		return Auth{}, reach.BadKey("spec.secretRef", "username", errors.New("it is needed together with password"))
	}
	field := certsField
	if certs == nil {
		certs, field = secret, "spec.secretRef"
	}
	a.TLS = reach.TLSIn(certs)
	_, err := a.TLS.Config(field)
	return a, err
}

// certsField names the Secret with certificates.
const certsField = "spec.certSecretRef"

package helmrepo

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Auth is how to show who we are, and how to know the server. The zero value is for a
// public repository.
type Auth struct {
	// Username and Password are for HTTP basic authentication.
	Username, Password string
	// CA holds PEM certificates of authorities to trust beside the system's.
	CA []byte
	// ClientCert and ClientKey are a PEM certificate and its key.
	ClientCert, ClientKey []byte
}

func (a Auth) empty() bool {
	return a.Username == "" && a.Password == "" && len(a.CA)+len(a.ClientCert)+len(a.ClientKey) == 0
}

// AuthFromSecrets reads the data of the Secrets that spec.secretRef and spec.certSecretRef name, each of
// which may be nil. The former has username and password, and may have certificates where there is
// no latter: ca.crt (or caFile); tls.crt and tls.key (or certFile and keyFile). Mistakes are of kind
// failure.Invalid and name the key.
func AuthFromSecrets(secret, certs map[string][]byte) (Auth, error) {
	a := Auth{Username: string(secret["username"]), Password: string(secret["password"])}
	if (a.Username == "") != (a.Password == "") {
		return Auth{}, secretError("username", "spec.secretRef", errors.New("it is needed together with password"))
	}
	field := "spec.certSecretRef"
	if certs == nil {
		certs, field = secret, "spec.secretRef"
	}
	a.CA = first(certs, "ca.crt", "caFile")
	a.ClientCert, a.ClientKey = first(certs, "tls.crt", "certFile"), first(certs, "tls.key", "keyFile")
	_, err := a.tls(field)
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

func secretError(key, field string, err error) error {
	return &failure.Error{Op: "read secret key", Object: key, Kind: failure.Invalid, Err: err, Remedy: "correct the Secret that " + field + " names"}
}

// TLS returns the settings for a connection, and nil when there is nothing beside the system's defaults.
func (a Auth) TLS() (*tls.Config, error) { return a.tls("spec.certSecretRef") }

func (a Auth) tls(field string) (*tls.Config, error) {
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
			return nil, secretError("ca.crt", field, errors.New("it holds no certificate in PEM"))
		}
		cfg.RootCAs = pool
	}
	if len(a.ClientCert) == 0 && len(a.ClientKey) == 0 {
		return cfg, nil
	}
	if len(a.ClientCert) == 0 || len(a.ClientKey) == 0 {
		return nil, secretError("tls.crt", field, errors.New("tls.crt and tls.key are needed together"))
	}
	pair, err := tls.X509KeyPair(a.ClientCert, a.ClientKey)
	if err != nil {
		return nil, secretError("tls.crt", field, fmt.Errorf("it and tls.key are no pair: %w", err))
	}
	cfg.Certificates = []tls.Certificate{pair}
	return cfg, nil
}

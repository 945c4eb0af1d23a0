package bucket

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"

	"github.com/bowline-dev/bowline/internal/source/reach"
)

// Login says who we are. The zero value is for a bucket that everybody may read.
type Login struct {
	// AccessKey and SecretKey are for S3, with the SessionToken of keys that last a while.
	AccessKey, SecretKey, SessionToken string
	// LDAP, when set, is where keys for S3 are got.
	LDAP *LDAP
	// Token is a bearer token, for Google and Azure.
	Token string
	// Issued says that a cloud has issued these just now, and no Secret holds them.
	Issued bool
	// ServiceAccount is the key of a service account of Google, as it is downloaded: JSON.
	ServiceAccount []byte
	// Azure is how to show who we are there.
	Azure AzureLogin
}

// LDAP is a security token service that gives keys to users of a directory.
type LDAP struct {
	// Endpoint is its URL.
	Endpoint           string
	Username, Password string
	TLS                reach.TLS
}

// AzureLogin has the fields of a Secret as the toolkit documents them: those of one way are set.
type AzureLogin struct {
	// TenantID and ClientID name an application, which shows a secret or a certificate (PEM or PKCS #12).
	TenantID, ClientID, ClientSecret string
	Certificate                      []byte
	CertificatePassword              string
	SendChain                        bool
	AuthorityHost                    string
	// AccountKey is that of the account that the endpoint names, SAS a signature that it has made.
	AccountKey, SAS string
}

// ManagedIdentity reports whether it is the machine's identity that is shown: a client ID without a tenant.
func (a AzureLogin) ManagedIdentity() bool {
	return a.ClientID != "" && (a.TenantID == "" || a.ClientSecret == "" && len(a.Certificate) == 0) && a.AccountKey == "" && a.SAS == ""
}

func (l Login) parts() []string {
	a := l.Azure
	parts := []string{l.AccessKey, l.SecretKey, l.SessionToken, l.Token, string(l.ServiceAccount), a.TenantID, a.ClientID, a.ClientSecret,
		string(a.Certificate), a.CertificatePassword, fmt.Sprint(a.SendChain), a.AuthorityHost, a.AccountKey, a.SAS}
	if d := l.LDAP; d != nil {
		parts = append(parts, d.Endpoint, d.Username, d.Password, string(d.TLS.CA), string(d.TLS.Cert), string(d.TLS.Key))
	}
	return parts
}

// LoginFromSecret reads the keys of a Secret as the toolkit documents them for a provider:
// accesskey and secretkey for S3; serviceaccount for Google; for Azure tenantId, clientId and
// clientSecret or clientCertificate, or clientId, accountKey or sasKey alone. Mistakes are of
// kind failure.Invalid and name the key.
func LoginFromSecret(provider string, data map[string][]byte) (Login, error) {
	switch provider {
	case Google:
		if len(data["serviceaccount"]) == 0 {
			return Login{}, secretError(refSecret, "serviceaccount", "it is missing: the key of a service account, as JSON")
		}
		login := Login{ServiceAccount: data["serviceaccount"]}
		_, err := login.serviceAccount()
		return login, err
	case Azure:
		return azureLogin(data)
	default:
		for _, key := range []string{"accesskey", "secretkey"} {
			if len(data[key]) == 0 {
				return Login{}, secretError(refSecret, key, "it is missing: accesskey and secretkey are needed")
			}
		}
		return Login{AccessKey: string(data["accesskey"]), SecretKey: string(data["secretkey"])}, nil
	}
}

func azureLogin(data map[string][]byte) (Login, error) {
	a := AzureLogin{
		TenantID: string(data["tenantId"]), ClientID: string(data["clientId"]), ClientSecret: string(data["clientSecret"]),
		Certificate: data["clientCertificate"], CertificatePassword: string(data["clientCertificatePassword"]),
		AuthorityHost: string(data["authorityHost"]), AccountKey: string(data["accountKey"]), SAS: string(data["sasKey"]),
	}
	chain := strings.ToLower(string(data["clientCertificateSendChain"]))
	a.SendChain = chain == "1" || chain == "true"
	if a.ClientID == "" && a.AccountKey == "" && a.SAS == "" {
		return Login{}, secretError(refSecret, "clientId", "it is missing: a set of tenantId, clientId and clientSecret or clientCertificate, or one of clientId, accountKey and sasKey is needed")
	}
	if _, err := base64.StdEncoding.DecodeString(a.AccountKey); err != nil {
		return Login{}, badAccountKey()
	}
	_, err := a.token("", azcore.ClientOptions{})
	return Login{Azure: a}, err
}

func badAccountKey() error {
	return secretError(refSecret, "accountKey", "it is no key of an account: base64 is expected")
}

// LDAPFromSecret reads the keys username and password.
func LDAPFromSecret(endpoint string, data map[string][]byte) (*LDAP, error) {
	for _, key := range []string{"username", "password"} {
		if len(data[key]) == 0 {
			return nil, secretError("spec.sts.secretRef", key, "it is missing: username and password are needed")
		}
	}
	return &LDAP{Endpoint: endpoint, Username: string(data["username"]), Password: string(data["password"])}, nil
}

func secretError(field, key, why string) error { return reach.BadKey(field, key, errors.New(why)) }

package sops

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"unicode/utf16"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"sigs.k8s.io/yaml"
)

// addAWS reads static credentials.
func (k *Keys) addAWS(value []byte) error {
	var c struct {
		ID      string `json:"aws_access_key_id"`
		Secret  string `json:"aws_secret_access_key"`
		Session string `json:"aws_session_token"`
	}
	if yaml.Unmarshal(value, &c) != nil {
		return errors.New("it is not the YAML of AWS credentials")
	}
	if c.ID == "" || c.Secret == "" {
		return errors.New("it lacks aws_access_key_id or aws_secret_access_key")
	}
	k.secrets = append(k.secrets, c.Secret, c.Session)
	static := credentials.NewStaticCredentialsProvider(c.ID, c.Secret, c.Session)
	k.cloud.AWS = func(string) aws.CredentialsProvider { return static }
	return nil
}

// azureFile holds the fields of an Azure authentication file in the forms that the
// toolkit accepts: its own, and what `az ad sp create-for-rbac` prints.
type azureFile struct {
	AppID                      string `json:"appId"`
	Tenant                     string `json:"tenant"`
	Password                   string `json:"password"`
	TenantID                   string `json:"tenantId"`
	ClientID                   string `json:"clientId"`
	ClientSecret               string `json:"clientSecret"`
	ClientCertificate          string `json:"clientCertificate"`
	ClientCertificatePassword  string `json:"clientCertificatePassword"`
	ClientCertificateSendChain bool   `json:"clientCertificateSendChain"`
	AuthorityHost              string `json:"authorityHost"`
}

func (k *Keys) addAzure(value []byte) error {
	var f azureFile
	if yaml.Unmarshal(utf8Of(value), &f) != nil {
		return errors.New("it is not the YAML or JSON of an Azure authentication file")
	}
	k.secrets = append(k.secrets, f.Password, f.ClientSecret, f.ClientCertificatePassword)
	token, err := f.credential(k.http, k.cloud.OwnIdentity)
	if err != nil {
		return err
	}
	k.cloud.Azure = token
	return nil
}

// credential is what the file logs in with. ownIdentity: see Cloud.OwnIdentity.
func (f *azureFile) credential(client *http.Client, ownIdentity bool) (azcore.TokenCredential, error) {
	options := azcore.ClientOptions{Cloud: cloud.AzurePublic}
	if client != nil {
		options.Transport = client
	}
	if f.AuthorityHost != "" {
		options.Cloud = cloud.Configuration{ActiveDirectoryAuthorityHost: f.AuthorityHost, Services: map[cloud.ServiceName]cloud.ServiceConfiguration{}}
	}
	var token azcore.TokenCredential
	var err error
	switch {
	case f.TenantID != "" && f.ClientID != "" && f.ClientSecret != "":
		token, err = azidentity.NewClientSecretCredential(f.TenantID, f.ClientID, f.ClientSecret,
			&azidentity.ClientSecretCredentialOptions{ClientOptions: options})
	case f.TenantID != "" && f.ClientID != "" && f.ClientCertificate != "":
		certs, key, perr := azidentity.ParseCertificates([]byte(f.ClientCertificate), []byte(f.ClientCertificatePassword))
		if perr != nil {
			return nil, errors.New("clientCertificate cannot be read, or its password is wrong")
		}
		token, err = azidentity.NewClientCertificateCredential(f.TenantID, f.ClientID, certs, key,
			&azidentity.ClientCertificateCredentialOptions{SendCertificateChain: f.ClientCertificateSendChain, ClientOptions: options})
	case f.Tenant != "" && f.AppID != "" && f.Password != "":
		token, err = azidentity.NewClientSecretCredential(f.Tenant, f.AppID, f.Password,
			&azidentity.ClientSecretCredentialOptions{ClientOptions: options})
	case f.ClientID != "" && !ownIdentity:
		return nil, errors.New("it names a managed identity of the engine's machine, which tenancy does not allow; put in tenantId and clientSecret")
	case f.ClientID != "":
		token, err = azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ID: azidentity.ClientID(f.ClientID)})
	default:
		return nil, errors.New("it needs clientId, or tenantId, clientId and clientSecret or clientCertificate")
	}
	if err != nil {
		return nil, errors.New("the Azure SDK does not accept it: tenant, client or authority is malformed")
	}
	return token, nil
}

// utf8Of undoes UTF-16, in which PowerShell writes files.
func utf8Of(b []byte) []byte {
	var order binary.ByteOrder
	switch {
	case bytes.HasPrefix(b, []byte{0xff, 0xfe}):
		order = binary.LittleEndian
	case bytes.HasPrefix(b, []byte{0xfe, 0xff}):
		order = binary.BigEndian
	default:
		return bytes.TrimPrefix(b, []byte{0xef, 0xbb, 0xbf})
	}
	b = b[2:]
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = order.Uint16(b[2*i:])
	}
	return []byte(string(utf16.Decode(units)))
}

// googleTypes are the kinds of credentials that name nothing but themselves. An
// external account may name files of this machine to read and where to send them,
// which is not for whoever can write a Secret to say.
var googleTypes = map[string]google.CredentialsType{
	"service_account": google.ServiceAccount,
	"authorized_user": google.AuthorizedUser,
}

// googleScope is what requests to the key service need.
const googleScope = "https://www.googleapis.com/auth/cloudkms"

func (k *Keys) addGCP(value []byte) error {
	var head struct {
		Type       string `json:"type"`
		PrivateKey string `json:"private_key"`
		Secret     string `json:"client_secret"`
		Refresh    string `json:"refresh_token"`
	}
	if json.Unmarshal(value, &head) != nil {
		return errors.New("it is not the JSON of Google credentials")
	}
	k.secrets = append(k.secrets, head.PrivateKey, head.Secret, head.Refresh)
	kind, ok := googleTypes[head.Type]
	if !ok {
		return fmt.Errorf("credentials of type %.40q are not accepted: only service_account and authorized_user are; for others use the identity of the workload", head.Type)
	}
	ctx := context.Background()
	if k.http != nil {
		ctx = context.WithValue(ctx, oauth2.HTTPClient, k.http)
	}
	c, err := google.CredentialsFromJSONWithType(ctx, value, kind, googleScope)
	if err != nil {
		return errors.New("Google's library cannot read the credentials") //nolint:staticcheck // a name
	}
	k.cloud.GCP = discreet{c.TokenSource}
	return nil
}

package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/cloud"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"
)

// blobStorage is a client of Azure Blob Storage.
type blobStorage struct {
	client    *azblob.Client
	container string
	way       *http.Transport
}

func newAzure(where location, req Request, way *http.Transport) (client, error) {
	b := &blobStorage{container: where.bucket, way: way}
	opts := azcore.ClientOptions{
		Transport: &http.Client{Transport: way},
		// How often a request is made is decided for all clients alike; see again.
		Retry: policy.RetryOptions{MaxRetries: -1},
	}
	var err error
	b.client, err = dialAzure(where, req.Login, opts)
	if err != nil {
		return nil, err
	}
	return b, nil
}

// dialAzure looks for credentials in the order of the toolkit: an application, a managed identity, the
// account's key, a signature, nothing.
func dialAzure(where location, login Login, opts azcore.ClientOptions) (*azblob.Client, error) {
	endpoint := *where.base
	endpoint.RawQuery = where.query
	settings := &azblob.ClientOptions{ClientOptions: opts}
	a := login.Azure
	token, err := a.token(login.Token, opts)
	switch {
	case err != nil:
		return nil, err
	case token != nil:
		return azblob.NewClient(endpoint.String(), token, settings)
	case a.AccountKey != "":
		key, err := azblob.NewSharedKeyCredential(accountOf(where.base), a.AccountKey)
		if err != nil {
			return nil, badAccountKey() // the library's own words hold the key
		}
		return azblob.NewClientWithSharedKeyCredential(endpoint.String(), key, settings)
	case a.SAS != "":
		if endpoint.RawQuery, err = merged(endpoint.RawQuery, strings.TrimPrefix(a.SAS, "?")); err != nil {
			return nil, err
		}
	}
	return azblob.NewClientWithNoCredential(endpoint.String(), settings)
}

// token is what shows who we are in the directory, and nil for who is not in it.
func (a AzureLogin) token(given string, opts azcore.ClientOptions) (azcore.TokenCredential, error) {
	if given != "" {
		return givenToken(given), nil
	}
	if a.AuthorityHost != "" {
		opts.Cloud = cloud.Configuration{ActiveDirectoryAuthorityHost: a.AuthorityHost}
	}
	switch {
	case a.TenantID != "" && a.ClientID != "" && a.ClientSecret != "":
		c, err := azidentity.NewClientSecretCredential(a.TenantID, a.ClientID, a.ClientSecret, &azidentity.ClientSecretCredentialOptions{ClientOptions: opts})
		return c, azureSecretError("tenantId", err)
	case a.TenantID != "" && a.ClientID != "" && len(a.Certificate) > 0:
		certs, key, err := azidentity.ParseCertificates(a.Certificate, []byte(a.CertificatePassword))
		if err != nil {
			return nil, secretError(refSecret, "clientCertificate", "it and clientCertificatePassword give no certificate with a key")
		}
		c, err := azidentity.NewClientCertificateCredential(a.TenantID, a.ClientID, certs, key,
			&azidentity.ClientCertificateCredentialOptions{ClientOptions: opts, SendCertificateChain: a.SendChain})
		return c, azureSecretError("tenantId", err)
	case a.ClientID != "":
		c, err := azidentity.NewManagedIdentityCredential(&azidentity.ManagedIdentityCredentialOptions{ClientOptions: opts, ID: azidentity.ClientID(a.ClientID)})
		return c, azureSecretError("clientId", err)
	default:
		return nil, nil
	}
}

func azureSecretError(key string, err error) error {
	if err == nil {
		return nil
	}
	return secretError(refSecret, key, "it cannot be used: "+err.Error())
}

// givenToken is a token that somebody else has got.
type givenToken string

// GetToken implements azcore.TokenCredential.
func (t givenToken) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: string(t), ExpiresOn: time.Now().Add(time.Hour)}, nil
}

// accountOf is the account that an endpoint names: the first part of the host or, where that
// is an address, of the path.
func accountOf(base *url.URL) string {
	if path := strings.Trim(base.Path, "/"); path != "" {
		account, _, _ := strings.Cut(path, "/")
		return account
	}
	account, _, _ := strings.Cut(base.Hostname(), ".")
	return account
}

// merged adds a signature to the query of an endpoint. Where both have a value, that of the signature counts.
func merged(query, signature string) (string, error) {
	values, err := url.ParseQuery(query)
	if err != nil {
		return "", invalidField("spec.endpoint", "", "its query cannot be read", "correct it")
	}
	more, err := url.ParseQuery(signature)
	if err != nil {
		return "", secretError(refSecret, "sasKey", "it is no signature: the query of a URL is expected")
	}
	for name, v := range more {
		values[name] = v
	}
	return values.Encode(), nil
}

func (b *blobStorage) begin(context.Context) error { return nil }

func (b *blobStorage) list(ctx context.Context, prefix string, visit func(object) error) error {
	opts := &azblob.ListBlobsFlatOptions{}
	if prefix != "" {
		opts.Prefix = &prefix
	}
	for pages := b.client.NewListBlobsFlatPager(b.container, opts); pages.More(); {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return err
		}
		for _, item := range page.Segment.BlobItems {
			o, err := listed(item)
			if err != nil {
				return err
			}
			if err := visit(o); err != nil {
				return err
			}
		}
	}
	return nil
}

func listed(item *container.BlobItem) (object, error) {
	p := item.Properties
	if item.Name == nil || p == nil || p.ETag == nil || p.ContentLength == nil {
		return object{}, errors.New("the server lists a blob without its properties")
	}
	// The list has tags without quotes, and all else with them. The toolkit's revisions are made of the latter.
	tag := `"` + strings.Trim(string(*p.ETag), `"`) + `"`
	return object{key: *item.Name, etag: tag, size: *p.ContentLength}, nil
}

func (b *blobStorage) open(ctx context.Context, o object) (io.ReadCloser, error) {
	tag := azcore.ETag(o.etag)
	got, err := b.client.DownloadStream(ctx, b.container, o.key, &azblob.DownloadStreamOptions{
		AccessConditions: &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: &tag}},
	})
	if r, ok := b.reply(err); ok && (r.status == http.StatusPreconditionFailed || r.status == http.StatusNotFound && r.code != "ContainerNotFound") {
		return nil, errMoved
	}
	if err != nil {
		return nil, err
	}
	return got.Body, nil
}

func (b *blobStorage) reply(err error) (reply, bool) {
	var login *azidentity.AuthenticationFailedError
	var r *azcore.ResponseError
	switch {
	case errors.As(err, &login) && login.RawResponse != nil:
		return reply{status: login.RawResponse.StatusCode, code: codeLogin}, true
	case errors.As(err, &r):
		code := r.ErrorCode
		if code == "" {
			code = fmt.Sprint(r.StatusCode)
		}
		return reply{status: r.StatusCode, code: code}, true
	default:
		return reply{}, false
	}
}

func (b *blobStorage) close() { b.way.CloseIdleConnections() }

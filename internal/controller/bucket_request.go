package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/fluxcd/pkg/auth"
	awsauth "github.com/fluxcd/pkg/auth/aws"
	azureauth "github.com/fluxcd/pkg/auth/azure"
	gcpauth "github.com/fluxcd/pkg/auth/gcp"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/bucket"
	"github.com/bowline-dev/bowline/internal/source/reach"
)

// bucketFetch is what to fetch, and why no credentials are shown, where some would be.
type bucketFetch struct {
	bucket.Request
	without error
}

// bucketRequest is what to fetch for a Bucket, without anything that takes a Secret.
func bucketRequest(b *sourcev1.Bucket) bucket.Request {
	req := bucket.Request{
		Provider: b.Spec.Provider, Bucket: b.Spec.BucketName, Endpoint: b.Spec.Endpoint, Insecure: b.Spec.Insecure,
		Region: b.Spec.Region, Prefix: b.Spec.Prefix, Ignore: b.Spec.Ignore, For: string(b.UID),
	}
	if req.Provider == "" {
		req.Provider = bucket.Generic
	}
	if b.Spec.Timeout != nil {
		req.Timeout = b.Spec.Timeout.Duration
	}
	return req
}

// request says what to fetch for a Bucket, with the credentials that its Secrets hold now, or its
// provider issues.
func (r *buckets) request(ctx context.Context, secrets client.Reader, b *sourcev1.Bucket) (bucketFetch, error) {
	f := bucketFetch{Request: bucketRequest(b)}
	read := secretsIn(ctx, secrets, b.Namespace)
	err := read(b.Spec.SecretRef, "spec.secretRef", func(data map[string][]byte) (err error) {
		f.Login, err = bucket.LoginFromSecret(f.Provider, data)
		return err
	})
	if err == nil {
		err = read(b.Spec.CertSecretRef, "spec.certSecretRef", func(data map[string][]byte) (err error) {
			f.TLS, err = reach.TLSFromSecret("spec.certSecretRef", data)
			return err
		})
	}
	if err == nil {
		err = read(b.Spec.ProxySecretRef, "spec.proxySecretRef", func(data map[string][]byte) (err error) {
			f.Proxy, err = reach.ProxyFromSecret(data)
			return err
		})
	}
	if sts := b.Spec.STS; err == nil && sts != nil && sts.Provider == sourcev1.STSProviderLDAP && b.Spec.SecretRef == nil {
		f.Login.LDAP, err = directoryOf(sts, read)
	}
	if err != nil {
		return f, &loginError{err}
	}
	err = r.identify(ctx, b, &f)
	return f, err
}

// directoryOf is the token service that gives keys to users of a directory.
func directoryOf(sts *sourcev1.BucketSTSSpec, read secretReader) (*bucket.LDAP, error) {
	directory := &bucket.LDAP{Endpoint: sts.Endpoint}
	err := read(sts.SecretRef, "spec.sts.secretRef", func(data map[string][]byte) (err error) {
		directory, err = bucket.LDAPFromSecret(sts.Endpoint, data)
		return err
	})
	if err != nil {
		return nil, err
	}
	err = read(sts.CertSecretRef, "spec.sts.certSecretRef", func(data map[string][]byte) (err error) {
		directory.TLS, err = reach.TLSFromSecret("spec.sts.certSecretRef", data)
		return err
	})
	return directory, err
}

// identify adds the credentials that a cloud issues, where no Secret holds any.
func (r *buckets) identify(ctx context.Context, b *sourcev1.Bucket, f *bucketFetch) error {
	if b.Spec.SecretRef != nil {
		if f.Login.Azure.ManagedIdentity() && !r.identity.Tenancy.ownIdentity(b.Namespace) {
			// The machine's identities are the engine's: a tenant could read with them what is not its own.
			return &loginError{&failure.Error{Op: "use", Object: "the managed identity " + f.Login.Azure.ClientID, Kind: failure.Refused,
				Err: fmt.Errorf("it is that of the engine's machine, and namespace %s is confined to identities of its own", b.Namespace), Remedy: "name a service account with an identity of its own in spec.serviceAccountName"}}
		}
		return nil
	}
	if f.Provider == bucket.Generic {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, orDefault(f.Timeout, bucket.DefaultTimeout))
	defer cancel()
	account := r.identity.accountFor(b.Namespace, b.Spec.ServiceAccountName)
	if err := forGoogleAlone(account, f); err != nil {
		return &loginError{err}
	}
	options, who := r.identity.options(sourceKey{sourcev1.BucketKind, client.ObjectKeyFromObject(b)}, account, f.Proxy)
	if b.Spec.Region != "" {
		options = append(options, auth.WithSTSRegion(b.Spec.Region))
	}
	if b.Spec.STS != nil {
		options = append(options, auth.WithSTSEndpoint(b.Spec.STS.Endpoint))
	}
	err := issue(ctx, f, options)
	if err == nil {
		return nil
	}
	err = &loginError{refusedIdentity(ctx, who+" at "+f.Provider, err, "check the identity and its rights, or name a Secret with credentials in spec.secretRef")}
	if f.Provider == bucket.Azure && b.Spec.ServiceAccountName == "" {
		f.Login, f.without = bucket.Login{}, err // it may be a container that everybody may read
		return nil
	}
	return err
}

// forGoogleAlone keeps the engine's own token of Google from those who would find in spec.endpoint a way to have it
// sent to them: it opens all that the engine may read, wherever it is shown.
func forGoogleAlone(account string, f *bucketFetch) error {
	if account != "" || f.Provider != bucket.Google {
		return nil
	}
	host, _, err := net.SplitHostPort(f.Endpoint)
	if err != nil {
		host = f.Endpoint
	}
	if (host == googleDomain || strings.HasSuffix(host, "."+googleDomain)) && !f.Insecure && len(f.TLS.CA) == 0 {
		return nil
	}
	return &failure.Error{Op: "use", Object: "the engine's own identity at " + f.Provider, Kind: failure.Refused,
		Err:    errors.New("its token is shown over TLS to the servers of " + googleDomain + " alone, by the system's authorities"),
		Remedy: "correct spec.endpoint, leave out spec.insecure and ca.crt, or name a service account or a Secret of the namespace"}
}

// googleDomain is what all of Google's endpoints are in, private ones included.
const googleDomain = "googleapis.com"

// issue asks a cloud for credentials.
func issue(ctx context.Context, f *bucketFetch, options []auth.Option) error {
	f.Login.Issued = true
	switch f.Provider {
	case bucket.AWS:
		keys, err := awsauth.NewCredentialsProvider(ctx, options...).Retrieve(ctx)
		f.Login.AccessKey, f.Login.SecretKey, f.Login.SessionToken = keys.AccessKeyID, keys.SecretAccessKey, keys.SessionToken
		return err
	case bucket.Google:
		token, err := gcpauth.NewTokenSource(ctx, options...).Token()
		if err == nil {
			f.Login.Token = token.AccessToken
		}
		return err
	default:
		token, err := azureauth.NewTokenCredential(ctx, options...).GetToken(ctx, policy.TokenRequestOptions{Scopes: []string{azureStorageScope}})
		f.Login.Token = token.Token
		return err
	}
}

// azureStorageScope is what a token has to be for to be taken by a storage account of any of Azure's clouds.
const azureStorageScope = "https://storage.azure.com/.default"

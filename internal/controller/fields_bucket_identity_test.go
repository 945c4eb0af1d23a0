package controller

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/bucket"
	"github.com/bowline-dev/bowline/internal/source/reach"
	"github.com/bowline-dev/bowline/internal/testkit/buckettest"
)

// Credentials of a service account that has none in the cloud: what is wrong is said on the bucket.
func TestBucketIdentity(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "plain", Namespace: s.namespace}})
	for _, row := range []struct{ provider, account, endpoint, word string }{
		{sourcev1.BucketProviderAmazon, "plain", "127.0.0.1:1", "eks.amazonaws.com/role-arn"},
		{sourcev1.BucketProviderAzure, "plain", "http://127.0.0.1:1/account", "azure.workload.identity/"},
		{sourcev1.BucketProviderGoogle, "nobody", "127.0.0.1:1", "nobody"},
	} {
		s.bucket(&buckettest.Server{Bucket: "x"}, func(b *sourcev1.Bucket) {
			b.Name, b.Spec.Provider, b.Spec.SecretRef, b.Spec.ServiceAccountName = row.provider, row.provider, nil, row.account
			b.Spec.Endpoint, b.Spec.Region = row.endpoint, "eu-west-1"
		})
		await(s, &sourcev1.BucketList{}, row.provider, "refused", func(b *sourcev1.Bucket) bool {
			return says(b, metav1.ConditionFalse, sourcev1.AuthenticationFailedReason, row.word, "ServiceAccount/"+s.namespace+"/"+row.account, "check the identity")
		})
	}
}

// A role is asked for at the token service that the bucket names, and through its proxy.
func TestBucketSTS(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	var mu sync.Mutex
	asked := map[string]bool{}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked[r.Host] = true
		mu.Unlock()
		http.Error(w, "no way", http.StatusBadGateway)
	}))
	t.Cleanup(proxy.Close)
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "proxy", Namespace: s.namespace}, StringData: map[string]string{"address": proxy.URL}})
	s.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{
		Name: "reader", Namespace: s.namespace, Annotations: map[string]string{"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/reader"},
	}})
	s.bucket(&buckettest.Server{Bucket: "x"}, func(b *sourcev1.Bucket) {
		b.Spec.Provider, b.Spec.SecretRef, b.Spec.ServiceAccountName, b.Spec.Region = sourcev1.BucketProviderAmazon, nil, "reader", "eu-west-1"
		b.Spec.Endpoint, b.Spec.ProxySecretRef = "127.0.0.1:1", &meta.LocalObjectReference{Name: "proxy"}
		b.Spec.STS = &sourcev1.BucketSTSSpec{Provider: sourcev1.STSProviderAmazon, Endpoint: "https://sts.eu-central-1.amazonaws.com"}
	})
	s.poll("asked", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return asked["sts.eu-central-1.amazonaws.com:443"]
	})
	s.awaitBucketFailure(sourcev1.AuthenticationFailedReason, "ServiceAccount/"+s.namespace+"/reader")
}

// fetchBucketAs fetches a Bucket in the name of this process.
func fetchBucketAs(t *testing.T, spec sourcev1.BucketSpec) error {
	t.Helper()
	store, err := bucket.New(bucket.Options{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	r := &buckets{store: store, identity: newSourceIdentity(nil, Tenancy{Open: true})}
	f, err := r.request(t.Context(), nil, &sourcev1.Bucket{Spec: spec})
	if err != nil {
		return err
	}
	_, err = store.Fetch(t.Context(), f.Request)
	return err
}

// The keys of AWS that this process has open the bucket: the server checks what they sign.
func TestBucketAWS(t *testing.T) {
	s3 := buckettest.NewS3(t)
	spec := sourcev1.BucketSpec{Provider: sourcev1.BucketProviderAmazon, BucketName: s3.Bucket, Endpoint: s3.Endpoint(), Insecure: true, Region: buckettest.S3Region}
	t.Setenv("AWS_CA_BUNDLE", "")
	t.Setenv("AWS_ACCESS_KEY_ID", buckettest.S3AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", buckettest.S3SecretKey)
	if err := fetchBucketAs(t, spec); err != nil {
		t.Error(err)
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
	if err := fetchBucketAs(t, spec); err == nil || strings.Contains(err.Error(), "wrong-secret") || !strings.Contains(err.Error(), "check the rights of the identity") {
		t.Errorf("wrong keys: %v", err)
	}
}

// A managed identity of Azure gets a token for storage, which the server gets over TLS; where there is no
// identity, nothing is shown.
func TestBucketAzure(t *testing.T) {
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Identity-Header") != "header" || r.URL.Query().Get("resource") != "https://storage.azure.com" {
			http.Error(w, r.URL.String(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{
			"access_token": "azure-token", "expires_on": fmt.Sprint(time.Now().Add(time.Hour).Unix()), "resource": r.URL.Query().Get("resource"), "token_type": "Bearer",
		})
	}))
	t.Cleanup(endpoint.Close)
	t.Setenv("IDENTITY_ENDPOINT", endpoint.URL)
	t.Setenv("IDENTITY_HEADER", "header")
	r := &buckets{identity: newSourceIdentity(nil, Tenancy{Open: true})}
	f, err := r.request(t.Context(), nil, &sourcev1.Bucket{Spec: sourcev1.BucketSpec{Provider: sourcev1.BucketProviderAzure}})
	if err != nil || f.without != nil || f.Login.Token != "azure-token" {
		t.Errorf("token %q, %v, %v", f.Login.Token, f.without, err)
	}
	azure := buckettest.NewAzure(t, func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer azure-token" }, buckettest.TLS())
	azure.Put(map[string]string{"a": "1"})
	store, err := bucket.New(bucket.Options{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	f.Bucket, f.Endpoint, f.TLS = azure.Bucket, azure.Account(), reach.TLS{CA: azure.CA()}
	if _, err := store.Fetch(t.Context(), f.Request); err != nil {
		t.Error(err)
	}
}

// The engine's own token of Google goes to Google: whoever writes a Bucket would have it else.
func TestBucketGoogleIdentity(t *testing.T) {
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", filepath.Join(t.TempDir(), "none.json"))
	for _, row := range []struct {
		name, reason, endpoint string
		insecure, refused      bool
	}{
		{"another", "it would have the token", "storage.example.com", false, true},
		{"alike", "it only ends so", "notgoogleapis.com:443", false, true},
		{"unencrypted", "those in between would have it", "storage.googleapis.com", true, true},
		{"Google", "it is whose token it is", "storage.googleapis.com", false, false},
		{"private", "it is Google's as well", "storage-vpc.p.googleapis.com:443", false, false},
	} {
		r := &buckets{identity: newSourceIdentity(nil, Tenancy{Open: true})}
		_, err := r.request(t.Context(), nil, &sourcev1.Bucket{Spec: sourcev1.BucketSpec{Provider: sourcev1.BucketProviderGoogle, Endpoint: row.endpoint, Insecure: row.insecure}})
		if refused := errors.Is(err, failure.Of(failure.Refused)); err == nil || refused != row.refused {
			t.Errorf("%s: %s: %v", row.name, row.reason, err)
		}
	}
}

// A container with the account's key, and one that everybody may read.
func TestBucketAzureSecret(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	azure := buckettest.NewAzure(t, func(r *http.Request) bool {
		return strings.HasPrefix(r.Header.Get("Authorization"), "SharedKey "+buckettest.AzureAccount+":")
	})
	azure.Put(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "keys", Namespace: s.namespace}, StringData: map[string]string{"accountKey": buckettest.AzureKey}})
	s.bucket(azure.Server, func(b *sourcev1.Bucket) {
		b.Spec.Provider, b.Spec.Endpoint = sourcev1.BucketProviderAzure, azure.Account()
	})
	s.unit("app", fromBucket)
	s.awaitLive("app", s.awaitFetched("").Status.Artifact.Revision)
	edit(s, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "keys", Namespace: s.namespace}}, func(m *corev1.Secret) { m.Data = map[string][]byte{"accountKey": []byte("no base64!")} })
	b := s.awaitBucketFailure(sourcev1.AuthenticationFailedReason, "accountKey", "base64")
	if strings.Contains(standingOf(b), "no base64!") {
		t.Errorf("the key is shown: %s", standingOf(b))
	}
}

package controller

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	"github.com/golang-jwt/jwt/v4"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit/buckettest"
	"github.com/bowline-dev/bowline/internal/testkit/front"
)

// keys is the Secret "keys" for S3.
func (s *stage) s3Keys(secret string) *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "keys", Namespace: s.namespace},
		Data:       map[string][]byte{"accesskey": []byte(buckettest.S3AccessKey), "secretkey": []byte(secret)},
	}
}

// bucket makes a Bucket "objects" for a server, with the Secret "keys".
func (s *stage) bucket(server *buckettest.Server, change ...func(*sourcev1.Bucket)) *sourcev1.Bucket {
	s.Helper()
	b := &sourcev1.Bucket{
		ObjectMeta: metav1.ObjectMeta{Name: "objects", Namespace: s.namespace},
		Spec: sourcev1.BucketSpec{
			Provider: sourcev1.BucketProviderGeneric, BucketName: server.Bucket, Endpoint: server.Endpoint(), Insecure: true,
			SecretRef: &meta.LocalObjectReference{Name: "keys"},
			Interval:  metav1.Duration{Duration: never}, Timeout: &metav1.Duration{Duration: 20 * time.Second},
		},
	}
	for _, c := range change {
		c(b)
	}
	s.create(b)
	return b
}

func (s *stage) objects() *sourcev1.Bucket {
	return &sourcev1.Bucket{ObjectMeta: metav1.ObjectMeta{Name: "objects", Namespace: s.namespace}}
}

func (s *stage) awaitBucket(what string, ok func(*sourcev1.Bucket) bool) *sourcev1.Bucket {
	s.Helper()
	return await(s, &sourcev1.BucketList{}, "objects", what, ok)
}

// awaitFetched waits until the Bucket has handled a request and is ready.
func (s *stage) awaitFetched(request string) *sourcev1.Bucket {
	s.Helper()
	return s.awaitBucket("fetched", func(b *sourcev1.Bucket) bool {
		return b.Status.LastHandledReconcileAt == request && report.IsReady(b, b.Status.ObservedGeneration)
	})
}

func (s *stage) awaitBucketFailure(reason string, words ...string) *sourcev1.Bucket {
	s.Helper()
	return s.awaitBucket(reason, func(b *sourcev1.Bucket) bool { return says(b, metav1.ConditionFalse, reason, words...) })
}

func fromBucket(k *kustomizev1.Kustomization) {
	k.Spec.SourceRef.Kind, k.Spec.SourceRef.Name = sourcev1.BucketKind, "objects"
}

// What is in a bucket is delivered, and so is what changes there.
func TestBucket(t *testing.T) {
	t.Parallel()
	s, s3 := newStage(t), buckettest.NewS3(t)
	s.unit("app", fromBucket)
	s.awaitFailure("app", meta.ArtifactFailedReason, "Bucket", "not found", "spec.sourceRef")
	s3.Put(map[string]string{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1"), "other.txt": "x"})
	s.create(s.s3Keys(buckettest.S3SecretKey))
	s.bucket(s3.Server)
	b := s.awaitFetched("")
	s.awaitLive("app", b.Status.Artifact.Revision)
	if !strings.HasPrefix(b.Status.Artifact.Revision, "sha256:") || b.Status.Artifact.Path != "bucket/"+s.namespace+"/objects" {
		t.Errorf("the artifact is %v", b.Status.Artifact)
	}
	if c := report.Condition(b, sourcev1.ArtifactInStorageCondition); c == nil || c.Status != metav1.ConditionTrue {
		t.Errorf("it is not said that the artifact is here: %s", standingOf(b))
	}
	s3.Put(map[string]string{"app/a.yaml": configMap("a", "2")})
	s3.Delete("app/b.yaml")
	after := s.awaitFetched(s.ask(s.objects()))
	s.awaitLive("app", after.Status.Artifact.Revision)
	if got := s.config("a").Data["value"]; got != "2" || after.Status.Artifact.Revision == b.Status.Artifact.Revision {
		t.Errorf("a has %q at %s", got, after.Status.Artifact.Revision)
	}
	s.poll("pruned", func() bool { return s.names("") == "a" })
	requests := len(s3.Requests())
	s.awaitFetched(s.ask(s.objects()))
	if n := len(s3.Requests()) - requests; n != 1 {
		t.Errorf("%d requests where nothing is new, want one", n)
	}
	if err := s.client.Delete(t.Context(), s.objects()); err != nil {
		t.Fatal(err)
	}
	s.awaitFailure("app", meta.ArtifactFailedReason, "not found")
}

// What is new is found at the interval; a suspended bucket stays as it is.
func TestBucketInterval(t *testing.T) {
	t.Parallel()
	s, s3 := newStage(t), buckettest.NewS3(t)
	s.create(s.s3Keys(buckettest.S3SecretKey))
	s3.Put(map[string]string{"a.yaml": "1"})
	s.bucket(s3.Server, func(b *sourcev1.Bucket) { b.Spec.Interval.Duration = time.Second })
	first := s.awaitFetched("").Status.Artifact.Revision
	s3.Put(map[string]string{"a.yaml": "2"})
	second := s.awaitBucket("at the next state", func(b *sourcev1.Bucket) bool { return b.Status.Artifact.Revision != first }).Status.Artifact.Revision
	edit(s, s.objects(), func(b *sourcev1.Bucket) { b.Spec.Suspend = true })
	s3.Put(map[string]string{"a.yaml": "3"})
	s.ask(s.objects())
	s.bucket(s3.Server, func(b *sourcev1.Bucket) { b.Name = "witness" })
	await(s, &sourcev1.BucketList{}, "witness", "fetched", func(b *sourcev1.Bucket) bool { return report.IsReady(b, b.Status.ObservedGeneration) })
	b := s.objects()
	s.read(b)
	if b.Status.Artifact.Revision != second {
		t.Errorf("suspended, it went on to %s", b.Status.Artifact.Revision)
	}
	edit(s, s.objects(), func(b *sourcev1.Bucket) { b.Spec.Suspend = false })
	s.awaitBucket("at the last state", func(b *sourcev1.Bucket) bool { return b.Status.Artifact.Revision != second })
}

func TestBucketIgnoreAndPrefix(t *testing.T) {
	t.Parallel()
	s, s3 := newStage(t), buckettest.NewS3(t)
	s.create(s.s3Keys(buckettest.S3SecretKey))
	s3.Put(map[string]string{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1"), "app/c.yaml": configMap("c", "1"), ".sourceignore": "b.yaml\n", "large": "x"})
	rules := "c.yaml\n"
	s.bucket(s3.Server, func(b *sourcev1.Bucket) { b.Spec.Prefix, b.Spec.Ignore = "app/", &rules })
	s.unit("app", fromBucket)
	b := s.awaitFetched("")
	s.awaitLive("app", b.Status.Artifact.Revision)
	if got := s.names(""); got != "a" {
		t.Errorf("delivered %s", got)
	}
	if b.Status.ObservedIgnore == nil || *b.Status.ObservedIgnore != rules {
		t.Errorf("observed %v", b.Status.ObservedIgnore)
	}
}

// Credentials come from a Secret, and corrected ones take effect at once.
func TestBucketSecret(t *testing.T) {
	t.Parallel()
	s, s3 := newStage(t), buckettest.NewS3(t)
	s.create(s.s3Keys("wrong-secret"))
	s.bucket(s3.Server)
	b := s.awaitBucketFailure(sourcev1.AuthenticationFailedReason, "SignatureDoesNotMatch", "check the credentials in the Secret that spec.secretRef names")
	if strings.Contains(standingOf(b), "wrong-secret") || s.engine.log.about("wrong-secret") != "" {
		t.Errorf("the secret is shown: %s", standingOf(b))
	}
	edit(s, s.s3Keys(""), func(m *corev1.Secret) { m.Data["secretkey"] = []byte(buckettest.S3SecretKey) })
	s.awaitFetched("")
	edit(s, s.s3Keys(""), func(m *corev1.Secret) { delete(m.Data, "secretkey") })
	s.awaitBucketFailure(sourcev1.AuthenticationFailedReason, "secretkey", s.namespace+"/keys")
}

// A certificate of the server's own authority, and one of the client's.
func TestBucketTLS(t *testing.T) {
	t.Parallel()
	s, s3 := newStage(t), buckettest.NewS3(t, buckettest.ClientCert())
	s.create(s.s3Keys(buckettest.S3SecretKey))
	cert, key := s3.ClientCert()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "certs", Namespace: s.namespace}, Data: map[string][]byte{"tls.crt": cert, "tls.key": key}}
	s.create(secret)
	s.bucket(s3.Server, func(b *sourcev1.Bucket) {
		b.Spec.Insecure, b.Spec.CertSecretRef = false, &meta.LocalObjectReference{Name: "certs"}
	})
	s.awaitBucketFailure(sourcev1.AuthenticationFailedReason, "certificate", "ca.crt", "spec.certSecretRef")
	edit(s, secret, func(m *corev1.Secret) { m.Data = map[string][]byte{"ca.crt": s3.CA()} })
	s.awaitBucketFailure(sourcev1.AuthenticationFailedReason, "client certificate", "tls.crt")
	edit(s, secret, func(m *corev1.Secret) { m.Data = map[string][]byte{"ca.crt": s3.CA(), "tls.crt": cert, "tls.key": key} })
	s.awaitFetched("")
	edit(s, s.objects(), func(b *sourcev1.Bucket) { b.Spec.Insecure = true })
	s.awaitBucketFailure(sourcev1.BucketOperationFailedReason, "spec.insecure")
}

// A proxy is named by a Secret, and all requests go through it.
func TestBucketProxy(t *testing.T) {
	t.Parallel()
	s, s3 := newStage(t), buckettest.NewS3(t)
	var passed atomic.Int64
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) { passed.Add(1) }})
	t.Cleanup(proxy.Close)
	s.create(s.s3Keys(buckettest.S3SecretKey))
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "proxy", Namespace: s.namespace}, StringData: map[string]string{"address": proxy.URL}})
	s3.Put(map[string]string{"a": "1"})
	s.bucket(s3.Server, func(b *sourcev1.Bucket) { b.Spec.ProxySecretRef = &meta.LocalObjectReference{Name: "proxy"} })
	s.awaitFetched("")
	if n := int(passed.Load()); n == 0 || n != len(s3.Requests()) {
		t.Errorf("%d requests went through the proxy, and the server got %d", n, len(s3.Requests()))
	}
}

// Keys from a directory's token service, which wants a user and has a certificate of its own authority.
func TestBucketLDAP(t *testing.T) {
	t.Parallel()
	s, s3 := newStage(t), buckettest.NewS3(t)
	s3.Put(map[string]string{"a": "1"})
	issued := atomic.Int64{}
	service := front.NewTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("Action") != "AssumeRoleWithLDAPIdentity" || r.FormValue("LDAPUsername") != "ann" || r.FormValue("LDAPPassword") != "top-secret" {
			http.Error(w, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Code>AccessDenied</Code></Error></ErrorResponse>`, http.StatusForbidden)
			return
		}
		issued.Add(1)
		_, _ = w.Write([]byte(`<AssumeRoleWithLDAPIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithLDAPIdentityResult><Credentials>` +
			`<AccessKeyId>` + buckettest.S3AccessKey + `</AccessKeyId><SecretAccessKey>` + buckettest.S3SecretKey + `</SecretAccessKey>` +
			`<Expiration>` + time.Now().Add(time.Hour).UTC().Format(time.RFC3339) + `</Expiration></Credentials></AssumeRoleWithLDAPIdentityResult></AssumeRoleWithLDAPIdentityResponse>`))
	}))
	user := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "ann", Namespace: s.namespace}, Data: map[string][]byte{"username": []byte("ann"), "password": []byte("wrong")}}
	s.create(user)
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "directory", Namespace: s.namespace}, Data: map[string][]byte{"ca.crt": service.CA()}})
	s.bucket(s3.Server, func(b *sourcev1.Bucket) {
		b.Spec.SecretRef = nil
		b.Spec.STS = &sourcev1.BucketSTSSpec{
			Provider: sourcev1.STSProviderLDAP, Endpoint: service.URL(), SecretRef: &meta.LocalObjectReference{Name: "ann"},
			CertSecretRef: &meta.LocalObjectReference{Name: "directory"},
		}
	})
	s.awaitBucketFailure(sourcev1.AuthenticationFailedReason, "spec.sts.endpoint", "AccessDenied", "spec.sts.secretRef")
	edit(s, user, func(m *corev1.Secret) { m.Data["password"] = []byte("top-secret") })
	s.awaitFetched("")
	b := s.awaitFetched(s.ask(s.objects()))
	if issued.Load() != 1 || strings.Contains(standingOf(b), "top-secret") {
		t.Errorf("%d keys for one hour: %s", issued.Load(), standingOf(b))
	}
}

// Where spec.region is wrong, the server says which one is right.
func TestBucketRegion(t *testing.T) {
	t.Parallel()
	s, s3 := newStage(t), buckettest.NewS3(t)
	s.create(s.s3Keys(buckettest.S3SecretKey))
	s.bucket(s3.Server, func(b *sourcev1.Bucket) { b.Spec.Region = "eu-west-1" })
	s.awaitBucketFailure(sourcev1.BucketOperationFailedReason, "spec.region")
	edit(s, s.objects(), func(b *sourcev1.Bucket) { b.Spec.Region = buckettest.S3Region })
	s.awaitFetched("")
}

// Google's servers, as far as a stand-in for them goes, which lets everybody in who shows a token.
func TestBucketGoogle(t *testing.T) {
	t.Parallel()
	s, google := newStage(t), buckettest.NewGoogle(t)
	google.Put(map[string]string{"app/a.yaml": configMap("a", "1")})
	account := newGoogleAccount(t)
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "keys", Namespace: s.namespace}, Data: map[string][]byte{"serviceaccount": account.key(t)}})
	s.bucket(google.Server, func(b *sourcev1.Bucket) { b.Spec.Provider = sourcev1.BucketProviderGoogle })
	s.unit("app", fromBucket)
	s.awaitLive("app", s.awaitFetched("").Status.Artifact.Revision)
	for _, r := range google.Requests() {
		if r.Header.Get("Authorization") != "Bearer "+account.token {
			t.Errorf("%s %s: shown %q", r.Method, r.Path, r.Header.Get("Authorization"))
		}
	}
}

// A bucket feeds an ArtifactGenerator.
func TestBucketComposed(t *testing.T) {
	t.Parallel()
	s, s3 := newStage(t), buckettest.NewS3(t)
	s.create(s.s3Keys(buckettest.S3SecretKey))
	s3.Put(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.bucket(s3.Server)
	s.awaitFetched("")
	s.create(&swapi.ArtifactGenerator{
		ObjectMeta: metav1.ObjectMeta{Name: "made", Namespace: s.namespace},
		Spec: swapi.ArtifactGeneratorSpec{
			Sources:         []swapi.SourceReference{{Alias: "b", Kind: sourcev1.BucketKind, Name: "objects"}},
			OutputArtifacts: []swapi.OutputArtifact{{Name: "app", Copy: []swapi.CopyOperation{{From: "@b/app/**", To: "@artifact/app/"}}}},
		},
	})
	s.unit("app", func(k *kustomizev1.Kustomization) {
		k.Spec.SourceRef.Kind, k.Spec.SourceRef.Name = sourcev1.ExternalArtifactKind, "app"
	})
	s.awaitUnit("app", "ready", func(k *kustomizev1.Kustomization) bool { return report.IsReady(k, k.Status.ObservedGeneration) })
	s3.Put(map[string]string{"app/a.yaml": configMap("a", "2")})
	s.ask(s.objects())
	await(s, &corev1.ConfigMapList{}, "a", "changed", func(m *corev1.ConfigMap) bool { return m.Data["value"] == "2" })
}

// googleAccount is a service account with the server that gives out its tokens.
type googleAccount struct {
	*httptest.Server
	private *rsa.PrivateKey
	token   string
}

func newGoogleAccount(t *testing.T) *googleAccount {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	a := &googleAccount{private: private, token: "google-token"}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var claims jwt.RegisteredClaims
		_, err := jwt.ParseWithClaims(r.FormValue("assertion"), &claims, func(*jwt.Token) (any, error) { return &private.PublicKey, nil })
		if err != nil || claims.Issuer != "reader@project.iam.gserviceaccount.com" {
			http.Error(w, `{"error":"invalid_grant"}`, http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": a.token, "token_type": "Bearer", "expires_in": 3600})
	}))
	t.Cleanup(a.Close)
	return a
}

// key is the account's key as it is downloaded.
func (a *googleAccount) key(t *testing.T) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(a.private)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "reader@project.iam.gserviceaccount.com", "token_uri": a.URL,
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return data
}

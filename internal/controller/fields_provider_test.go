package controller

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/golang-jwt/jwt/v4"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/source/reach"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// gitHub is the part of GitHub's API that issues tokens to an app: number 7,
// installed as number 42 by the user acme.
type gitHub struct {
	*httptest.Server
	key     *rsa.PrivateKey
	lasting time.Duration

	mu     sync.Mutex
	tokens map[string]time.Time // until when
}

func newGitHub(t *testing.T, lasting time.Duration) *gitHub {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	g := &gitHub{key: key, lasting: lasting, tokens: map[string]time.Time{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orgs/acme/installation", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, `{"message":"Not Found"}`, http.StatusNotFound)
	})
	mux.HandleFunc("GET /users/acme/installation", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"id":42}`) })
	mux.HandleFunc("POST /app/installations/42/access_tokens", func(w http.ResponseWriter, _ *http.Request) {
		g.mu.Lock()
		defer g.mu.Unlock()
		token := fmt.Sprintf("ghs_%d", len(g.tokens))
		g.tokens[token] = time.Now().Add(g.lasting)
		w.WriteHeader(http.StatusCreated)
		_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_at": g.tokens[token]})
	})
	g.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.signed(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")) {
			http.Error(w, `{"message":"A JSON web token could not be decoded"}`, http.StatusUnauthorized)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(g.Close)
	return g
}

// signed reports whether a token is one that the app has made just now.
func (g *gitHub) signed(text string) bool {
	var claims jwt.RegisteredClaims
	_, err := jwt.ParseWithClaims(text, &claims, func(t *jwt.Token) (any, error) {
		if t.Method != jwt.SigningMethodRS256 {
			return nil, errors.New("not RS256")
		}
		return &g.key.PublicKey, nil
	})
	return err == nil && claims.Issuer == "7" && claims.ExpiresAt.Sub(claims.IssuedAt.Time) <= 10*time.Minute
}

func (g *gitHub) issued() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.tokens)
}

// admits is what the Git server asks.
func (g *gitHub) admits(user, password, _ string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return user == "x-access-token" && time.Now().Before(g.tokens[password])
}

// secret is that of the app. Changes are keys and values in turn; an empty value takes the key out.
func (g *gitHub) secret(namespace, name string, changes ...string) *corev1.Secret {
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(g.key)})
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace}, StringData: map[string]string{
		"githubAppID": "7", "githubAppInstallationID": "42", "githubAppPrivateKey": string(pemKey), "githubAppBaseURL": g.URL,
	}}
	for i := 0; i < len(changes); i += 2 {
		if delete(s.StringData, changes[i]); changes[i+1] != "" {
			s.StringData[changes[i]] = changes[i+1]
		}
	}
	return s
}

func fromGitHub(name string) func(*sourcev1.GitRepository) {
	return func(g *sourcev1.GitRepository) {
		g.Spec.Provider, g.Spec.SecretRef = sourcev1.GitProviderGitHub, &meta.LocalObjectReference{Name: name}
	}
}

// A GitHub App's token opens the repository; it is asked for once, and again before it ends.
func TestGitHubApp(t *testing.T) {
	t.Parallel()
	hub := newGitHub(t, time.Hour)
	s := newStage(t, testkit.GitAdmit(hub.admits))
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.create(hub.secret(s.namespace, "by-id"))
	s.create(hub.secret(s.namespace, "by-owner", "githubAppInstallationID", "", "githubAppInstallationOwner", "acme"))
	s.source(fromGitHub("by-id"))
	s.awaitSource("fetched", atRevision(revision))
	for range 3 {
		request := s.ask(s.fleet())
		s.awaitSource("fetched again", func(g *sourcev1.GitRepository) bool { return g.Status.LastHandledReconcileAt == request })
	}
	if n := hub.issued(); n != 1 {
		t.Errorf("%d tokens for one hour", n)
	}
	s.source(fromGitHub("by-owner"), func(g *sourcev1.GitRepository) { g.Name = "by-owner" })
	s.awaitRepository("by-owner", "fetched", atRevision(revision))
}

func TestGitHubAppRenewsItsToken(t *testing.T) {
	t.Parallel()
	hub := newGitHub(t, 5*time.Second)
	s := newStage(t, testkit.GitAdmit(hub.admits))
	s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.create(hub.secret(s.namespace, "app"))
	s.source(fromGitHub("app"), func(g *sourcev1.GitRepository) { g.Spec.Interval.Duration = time.Second })
	s.poll("a third token", func() bool { return hub.issued() >= 3 })
	last := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "2")})
	g := s.awaitSource("fetched", atRevision(last))
	if strings.Contains(standingOf(g), "ghs_") || s.engine.log.about("ghs_") != "" {
		t.Errorf("a token is shown")
	}
}

func TestGitProviderMistakes(t *testing.T) {
	t.Parallel()
	hub, other := newGitHub(t, time.Hour), newGitHub(t, time.Hour)
	s := newStage(t)
	s.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "plain", Namespace: s.namespace}})
	s.create(hub.secret(s.namespace, "good"))
	s.create(hub.secret(s.namespace, "no-key", "githubAppPrivateKey", ""))
	s.create(hub.secret(s.namespace, "both", "githubAppInstallationOwner", "acme"))
	s.create(hub.secret(s.namespace, "no-number", "githubAppID", "seven"))
	s.create(other.secret(s.namespace, "wrong-key", "githubAppBaseURL", hub.URL))
	s.create(hub.secret(s.namespace, "garbage", "githubAppPrivateKey", "top-secret"))
	cloud := func(provider, account, url string) func(*sourcev1.GitRepository) {
		return func(g *sourcev1.GitRepository) {
			g.Spec.Provider, g.Spec.ServiceAccountName, g.Spec.URL = provider, account, url
		}
	}
	const devOps, codeCommit = "https://dev.azure.com/org/project/_git/app", "https://git-codecommit.eu-west-1.amazonaws.com/v1/repos/app"
	for _, row := range []struct {
		name, reason string
		change       func(*sourcev1.GitRepository)
		want, word   string
	}{
		{"no-secret", "nothing to go by", func(g *sourcev1.GitRepository) { g.Spec.Provider = sourcev1.GitProviderGitHub }, sourcev1.InvalidProviderConfigurationReason, "githubAppID"},
		{"no-key", "half of it", fromGitHub("no-key"), sourcev1.InvalidProviderConfigurationReason, "githubAppPrivateKey"},
		{"both", "one too many", fromGitHub("both"), sourcev1.InvalidProviderConfigurationReason, "not both"},
		{"no-number", "IDs are numbers", fromGitHub("no-number"), sourcev1.InvalidProviderConfigurationReason, "githubAppID is no number"},
		{"generic", "it would be asked without credentials", func(g *sourcev1.GitRepository) {
			g.Spec.SecretRef = &meta.LocalObjectReference{Name: "good"}
		}, sourcev1.InvalidProviderConfigurationReason, "spec.provider to github"},
		{"wrong-key", "the app does not know it", fromGitHub("wrong-key"), sourcev1.AuthenticationFailedReason, "GitHub App 7"},
		{"garbage", "it is no key", fromGitHub("garbage"), sourcev1.AuthenticationFailedReason, "private key"},
		{"no-account", "there is none", cloud("azure", "nobody", devOps), sourcev1.AuthenticationFailedReason, "ServiceAccount/" + s.namespace + "/nobody"},
		{"plain-azure", "it has no identity there", cloud("azure", "plain", devOps), sourcev1.AuthenticationFailedReason, "azure.workload.identity/"},
		{"plain-aws", "it has no identity there", cloud("aws", "plain", codeCommit), sourcev1.AuthenticationFailedReason, "eks.amazonaws.com/role-arn"},
		{"elsewhere", "it is no repository of that cloud", cloud("aws", "plain", "https://git.example.com/app"), sourcev1.AuthenticationFailedReason, "CodeCommit"},
	} {
		s.source(func(g *sourcev1.GitRepository) { g.Name = row.name }, row.change)
		g := s.awaitRepository(row.name, row.reason, func(g *sourcev1.GitRepository) bool { return says(g, "False", row.want, row.word) })
		if strings.Contains(standingOf(g), "top-secret") {
			t.Errorf("%s: the message shows the key: %s", row.name, standingOf(g))
		}
	}
}

// In whose name a cloud is asked.
func TestGitIdentityAccount(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, reason         string
		tenancy              Tenancy
		namespace, own, want string
	}{
		{"named", "it is asked for", Tenancy{}, "team", "deployer", "deployer"},
		{"open", "the engine's own identity", Tenancy{Open: true}, "team", "", ""},
		{"another cluster", "the engine's own identity is that of its host", Tenancy{Open: true, Foreign: true}, "flux-system", "", "default"},
		{"platform", "the engine's own identity", Tenancy{PlatformNamespaces: []string{"platform"}}, "platform", "", ""},
		{"confined", "the engine may read what is not the tenant's", Tenancy{}, "team", "", confinedAccount},
		{"default", "somebody says which", Tenancy{Open: true, DefaultServiceAccount: "git"}, "team", "", "git"},
	} {
		if got := (SourceIdentity{Tenancy: tc.tenancy}).accountFor(tc.namespace, tc.own); got != tc.want {
			t.Errorf("%s: %q, want %q: %s", tc.name, got, tc.want, tc.reason)
		}
	}
}

// fetchAs fetches what a GitRepository names, in the name of this process, from a
// server that stands in for the cloud's.
func fetchAs(t *testing.T, provider, url string, srv *testkit.GitServer) error {
	t.Helper()
	r := srv.Repo("app")
	r.Commit(map[string]string{"f": "x"})
	store, err := git.New(git.Options{DataDir: t.TempDir(), Mirrors: []reach.Mirror{{From: url, To: r.URL()}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(store.Close)
	g := &sourcev1.GitRepository{Spec: sourcev1.GitRepositorySpec{URL: url, Provider: provider, Reference: &sourcev1.GitRepositoryRef{Branch: "main"}}}
	req, err := RequestOf(t.Context(), nil, newSourceIdentity(nil, Tenancy{Open: true}), g)
	if err != nil {
		return err
	}
	_, err = store.Fetch(t.Context(), req)
	return err
}

// A managed identity of Azure gets a token for Azure DevOps, which the server gets as it is.
func TestGitProviderAzure(t *testing.T) {
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Identity-Header") != "header" || r.URL.Query().Get("resource") != "499b84ac-1321-427f-aa17-267ca6975798" {
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
	srv := testkit.NewGitServer(t, testkit.GitBearer("azure-token"))
	if err := fetchAs(t, sourcev1.GitProviderAzure, "https://dev.azure.com/org/project/_git/app", srv); err != nil {
		t.Error(err)
	}
}

// The keys of AWS sign for CodeCommit, whose password is the signature.
func TestGitProviderAWS(t *testing.T) {
	t.Setenv("AWS_CA_BUNDLE", "")
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "top-secret")
	t.Setenv("AWS_SESSION_TOKEN", "session")
	const host = "git-codecommit.eu-west-1.amazonaws.com"
	admits := func(user, password, _ string) bool {
		at, signature, ok := strings.Cut(password, "Z")
		if user != "AKIDEXAMPLE%session" || !ok || len(at) != len("20060102T150405") {
			return false
		}
		scope := at[:8] + "/eu-west-1/codecommit/aws4_request"
		canonical := sha256.Sum256([]byte("GIT\n/v1/repos/app\n\nhost:" + host + "\n\nhost\n"))
		key := []byte("AWS4top-secret")
		for part := range strings.SplitSeq(scope, "/") {
			key = mac(key, part)
		}
		return signature == hex.EncodeToString(mac(key, "AWS4-HMAC-SHA256\n"+at+"\n"+scope+"\n"+hex.EncodeToString(canonical[:])))
	}
	srv := testkit.NewGitServer(t, testkit.GitAdmit(admits))
	if err := fetchAs(t, sourcev1.GitProviderAWS, "https://"+host+"/v1/repos/app", srv); err != nil {
		t.Error(err)
	}
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

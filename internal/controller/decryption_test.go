package controller

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"filippo.io/age"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/getsops/sops/v3/hcvault"
	"github.com/getsops/sops/v3/keys"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/build/sops"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/testkit/sealtest"
)

func newAgeKey(t *testing.T) *age.X25519Identity {
	t.Helper()
	key, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// decrypted makes a unit decrypt with the keys of a Secret.
func decrypted(secret string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) {
		k.Spec.Decryption = &kustomizev1.Decryption{Provider: "sops"}
		if secret != "" {
			k.Spec.Decryption.SecretRef = &meta.LocalObjectReference{Name: secret}
		}
	}
}

// keys makes or replaces a Secret of keys.
func (s *stage) keys(name string, entries map[string]string) *corev1.Secret {
	s.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}, StringData: entries}
	s.create(secret)
	return secret
}

// secret reads a Secret of the stage's namespace.
func (s *stage) secret(name string) *corev1.Secret {
	s.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}}
	s.read(secret)
	return secret
}

// secretManifest is the manifest of a Secret.
func secretManifest(name, password string) string {
	return "apiVersion: v1\nkind: Secret\nmetadata:\n  name: " + name + "\nstringData:\n  password: " + password + "\n"
}

// sealedManifest is a manifest encrypted for the recipients.
func sealedManifest(t *testing.T, plain string, recipients ...string) string {
	t.Helper()
	return string(sealtest.Seal(t, plain, sealtest.Sealing{Only: sealtest.ManifestFields, Groups: sealtest.ForAge(t, recipients...)}))
}

func TestDecryption(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	key := newAgeKey(t)
	to := sealtest.ForAge(t, key.Recipient().String())
	s.keys("sops-age", map[string]string{"identity.agekey": key.String()})
	revision := "main@sha1:" + s.repo.Commit(map[string]string{
		"app/db.yaml":     sealedManifest(t, secretManifest("db", "whole-manifest-pw"), key.Recipient().String()),
		"app/web.yaml":    configMap("web", "plain"),
		"gen/secrets.env": string(sealtest.Seal(t, "TOKEN=from-an-env-file\n", sealtest.Sealing{Format: "dotenv", Groups: to})),
		"gen/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n" +
			"generatorOptions: {disableNameSuffixHash: true}\nsecretGenerator:\n- name: generated\n  envs: [secrets.env]\n",
	})
	s.source()
	s.unit("app", decrypted("sops-age"))
	s.unit("gen", decrypted("sops-age"))
	s.awaitLive("app", revision)
	s.awaitLive("gen", revision)
	if got := string(s.secret("db").Data["password"]); got != "whole-manifest-pw" {
		t.Errorf("the Secret of a manifest holds %q", got)
	}
	if got := string(s.secret("generated").Data["TOKEN"]); got != "from-an-env-file" {
		t.Errorf("the generated Secret holds %q", got)
	}
}

// TestDecryptionKeys has the keys come late, and be the wrong ones first: each change
// of their Secret takes effect at once.
func TestDecryptionKeys(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	key := newAgeKey(t)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{
		"app/db.yaml": sealedManifest(t, secretManifest("db", "behind-a-late-key"), key.Recipient().String()),
	})
	s.source()
	s.unit("app", decrypted("sops-age"))
	s.awaitFailure("app", meta.BuildFailedReason, "Secret/"+s.namespace+"/sops-age (spec.decryption.secretRef)", "there is no such Secret")
	secret := s.keys("sops-age", map[string]string{"identity.agekey": newAgeKey(t).String()})
	s.awaitFailure("app", meta.BuildFailedReason, "Secret/"+s.namespace+"/db", "it is encrypted for age "+key.Recipient().String())
	edit(s, secret, func(secret *corev1.Secret) { secret.Data = map[string][]byte{"password": []byte("x")} })
	s.awaitFailure("app", meta.BuildFailedReason, "Secret/"+s.namespace+"/sops-age holds no key")
	edit(s, secret, func(secret *corev1.Secret) { secret.Data = map[string][]byte{"identity.agekey": []byte("nonsense")} })
	s.awaitFailure("app", meta.BuildFailedReason, "Secret/"+s.namespace+"/sops-age (identity.agekey)")
	edit(s, secret, func(secret *corev1.Secret) { secret.Data = map[string][]byte{"identity.agekey": []byte(key.String())} })
	s.awaitLive("app", revision)
	if got := string(s.secret("db").Data["password"]); got != "behind-a-late-key" {
		t.Errorf("the Secret holds %q", got)
	}
}

// TestDecryptionServiceAccount asks a key service in the name of an account.
func TestDecryptionServiceAccount(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	const arn = "arn:aws:kms:eu-west-1:123456789012:key/612d5f0a-a1b3-45e6-aca6-a5b005693a48"
	s.repo.Commit(map[string]string{"app/db.yaml": secretManifest("db", "ENC[AES256_GCM,data:eA==,iv:eA==,tag:eA==,type:str]") +
		"sops:\n  kms:\n  - arn: " + arn + "\n    created_at: \"2026-01-01T00:00:00Z\"\n    enc: AAAA\n" +
		"  lastmodified: \"2026-01-01T00:00:00Z\"\n  mac: ENC[AES256_GCM,data:eA==,iv:eA==,tag:eA==,type:str]\n  version: 3.13.3\n"})
	s.source()
	k := s.unit("app", decrypted(""), func(k *kustomizev1.Kustomization) { k.Spec.Decryption.ServiceAccountName = "decrypter" })
	s.awaitFailure("app", meta.BuildFailedReason, "AWS KMS "+arn, "decrypter", "not found")
	s.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "decrypter", Namespace: s.namespace}})
	s.ask(k)
	s.awaitFailure("app", meta.BuildFailedReason, "AWS KMS "+arn, "eks.amazonaws.com/role-arn")
}

// vault is a transit engine of HashiCorp Vault that keeps its answers back on demand.
type vault struct {
	*httptest.Server
	decrypts atomic.Int64
	held     atomic.Bool
	release  chan struct{}
	// login holds the role and token of the last login, token that of the last request.
	login, token atomic.Value
}

func newVault(t *testing.T) *vault {
	t.Helper()
	v := &vault{release: make(chan struct{})}
	v.Server = httptest.NewServer(v)
	t.Cleanup(v.Close)
	return v
}

// ServeHTTP implements http.Handler. What it calls encryption is for tests of others.
func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body map[string]string
	_ = json.NewDecoder(r.Body).Decode(&body)
	if strings.HasSuffix(r.URL.Path, "/login") {
		v.login.Store(body["role"] + " " + body["jwt"])
		_ = json.NewEncoder(w).Encode(map[string]any{"auth": map[string]string{"client_token": "hvs.logged-in"}})
		return
	}
	answer := map[string]string{"ciphertext": "vault:v1:" + body["plaintext"]}
	if strings.Contains(r.URL.Path, "/decrypt/") {
		v.decrypts.Add(1)
		v.token.Store(r.Header.Get("X-Vault-Token"))
		if v.held.Load() {
			<-v.release
		}
		answer = map[string]string{"plaintext": strings.TrimPrefix(body["ciphertext"], "vault:v1:")}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"data": answer})
}

func (v *vault) seal(t *testing.T, plain string) string {
	t.Helper()
	key := hcvault.NewMasterKey(v.URL, "transit", "app")
	hcvault.Token("hvs.test").ApplyToMasterKey(key)
	return string(sealtest.Seal(t, plain, sealtest.Sealing{Only: sealtest.ManifestFields, Groups: [][]keys.MasterKey{{key}}}))
}

// TestDecryptionOnce asks a key service once for a file that stays the same.
func TestDecryptionOnce(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	v := newVault(t)
	s.keys("token", map[string]string{"sops.vault-token": "hvs.test"})
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/db.yaml": v.seal(t, secretManifest("db", "in-transit")), "app/web.yaml": configMap("web", "1")})
	s.source()
	k := s.unit("app", decrypted("token"))
	s.awaitLive("app", revision)
	s.awaitLive("app", s.push(map[string]string{"elsewhere/x.yaml": configMap("x", "1")}))
	s.awaitLive("app", s.push(map[string]string{"app/web.yaml": configMap("web", "2")}))
	asked := s.ask(k)
	s.awaitUnit("app", "reconciled", func(k *kustomizev1.Kustomization) bool { return k.Status.LastHandledReconcileAt == asked })
	if got := v.decrypts.Load(); got != 1 {
		t.Errorf("the key service was asked %d times for one file", got)
	}
}

// TestDecryptionHangs has a key service keep its answer back: the unit says so, others
// go on, and the answer brings the unit back although its next attempt is hours away.
func TestDecryptionHangs(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	v := newVault(t)
	s.keys("token", map[string]string{"sops.vault-token": "hvs.test"})
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/db.yaml": v.seal(t, secretManifest("db", "late")), "other/web.yaml": configMap("web", "1")})
	v.held.Store(true)
	s.source()
	s.unit("app", decrypted("token"))
	s.awaitFailure("app", meta.BuildFailedReason, "the key service "+v.URL+" has not answered yet")
	s.unit("other")
	s.awaitLive("other", revision)
	v.held.Store(false)
	close(v.release)
	s.awaitLive("app", revision)
	if got := string(s.secret("db").Data["password"]); got != "late" {
		t.Errorf("the Secret holds %q", got)
	}
}

// TestDecryptionVaultAccount logs an account in at a Vault server that the
// administrator lists, and at no other.
func TestDecryptionVaultAccount(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	v := newVault(t)
	list := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "vault", Namespace: s.namespace},
		Data: map[string]string{"config.yaml": "instances:\n- address: https://elsewhere.example.com\n  loginPath: auth/kubernetes/login\n"}}
	s.create(list)
	s.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "decrypter", Namespace: s.namespace}})
	d := NewDecryption(t.Context(), s.client, sops.Options{Patience: patience})
	d.VaultConfig = client.ObjectKeyFromObject(list)
	unit := unitIn(s.namespace, decrypted(""), func(k *kustomizev1.Kustomization) { k.Spec.Decryption.ServiceAccountName = "decrypter" })
	sealed := v.seal(t, secretManifest("db", "in-transit"))
	attempt := func() (*unstructured.Unstructured, error) {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(sealed), &u.Object); err != nil {
			t.Fatal(err)
		}
		recipe := &build.Recipe{}
		if err := d.Prepare(t.Context(), unit, s.client, recipe, nil); err != nil {
			t.Fatal(err)
		}
		_, err := recipe.Decryption.Object(t.Context(), u)
		return u, err
	}
	if _, err := attempt(); !errors.Is(err, failure.Of(failure.Denied)) || !strings.Contains(err.Error(), "lists no server with this address") || v.login.Load() != nil {
		t.Fatalf("a server that is not listed: %v; it was told %v", err, v.login.Load())
	}
	edit(s, list, func(m *corev1.ConfigMap) {
		m.Data["config.yaml"] = strings.ReplaceAll(m.Data["config.yaml"], "https://elsewhere.example.com", v.URL)
	})
	u, err := attempt()
	if err != nil {
		t.Fatal(err)
	}
	if got, _, _ := unstructured.NestedString(u.Object, "stringData", "password"); got != "in-transit" || v.token.Load() != "hvs.logged-in" {
		t.Errorf("password %q, with token %v", got, v.token.Load())
	}
	login, _ := v.login.Load().(string)
	role, token, _ := strings.Cut(login, " ")
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil || role != s.namespace+"_decrypter" || !strings.Contains(string(payload), v.URL) {
		t.Errorf("logged in as %q with a token for %s (%v)", role, payload, err)
	}
}

// TestDecryptionPolicy says whose identity and keys a unit decrypts with.
func TestDecryptionPolicy(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, reason string
		decryption   Decryption
		unit         *kustomizev1.Kustomization
		account      string
		keys         string // the Secret that is read
	}{
		{"platform", "it is the engine's own", Decryption{}, unitIn("flux-system", decrypted("")), "", ""},
		{"tenant", "with the engine's identity it could have files of others decrypted", Decryption{}, unitIn("dev", decrypted("")), "default", ""},
		{"tenant of an open engine", "nobody is confined", Decryption{Tenancy: Tenancy{Open: true}}, unitIn("dev", decrypted("")), "", ""},
		{"platform of another cluster", "the engine's identity is its host's", Decryption{Tenancy: Tenancy{Open: true, Foreign: true}}, unitIn("flux-system", decrypted("")), "default", ""},
		{"by default", "the administrator chose it", Decryption{DefaultServiceAccount: "kms"}, unitIn("dev", decrypted("")), "kms", ""},
		{"named", "it is asked for", Decryption{DefaultServiceAccount: "kms"}, unitIn("dev", decrypted(""), func(k *kustomizev1.Kustomization) {
			k.Spec.Decryption.ServiceAccountName = "own"
		}), "own", ""},
		{"keys for all", "the platform may use them", Decryption{AgeSecret: types.NamespacedName{Namespace: "flux-system", Name: "age"}}, unitIn("flux-system", decrypted("")), "", "flux-system/age"},
		{"keys for all, and a tenant", "they open the platform's files", Decryption{AgeSecret: types.NamespacedName{Namespace: "flux-system", Name: "age"}}, unitIn("dev", decrypted("")), "default", ""},
		{"keys of its own", "they come first", Decryption{AgeSecret: types.NamespacedName{Namespace: "flux-system", Name: "age"}}, unitIn("dev", decrypted("mine")), "default", "dev/mine"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := tt.decryption.account(tt.unit); got != tt.account {
				t.Errorf("account %q, want %q: %s", got, tt.account, tt.reason)
			}
			read := &noted{}
			from, _, _, err := tt.decryption.keys(t.Context(), tt.unit, read)
			if err != nil || read.key != tt.keys || tt.keys != "" && from != "Secret/"+tt.keys {
				t.Errorf("keys of %q (%s), want %q: %s (%v)", read.key, from, tt.keys, tt.reason, err)
			}
		})
	}
	d := Decryption{Ring: sops.NewRing(t.Context(), sops.Options{})}
	err := d.Prepare(t.Context(), unitIn("dev", func(k *kustomizev1.Kustomization) {
		k.Spec.Decryption = &kustomizev1.Decryption{Provider: "vault"}
	}), nil, &build.Recipe{}, nil)
	if !errors.Is(err, failure.Of(failure.Invalid)) || !strings.Contains(err.Error(), `spec.decryption.provider "vault"`) {
		t.Errorf("an unknown provider: %v", err)
	}
}

// TestDecryptionOwnIdentity has the same entry name the identity of the engine's machine
// for the platform and for a tenant, who must not get it.
func TestDecryptionOwnIdentity(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, reason string
		tenancy      Tenancy
		asks         client.Client
		namespace    string
		refused      bool
	}{
		{"platform", "it is the engine's own", Tenancy{}, uncached{}, "flux-system", false},
		{"platform without clouds", "it is the engine's own", Tenancy{}, nil, "flux-system", false},
		{"tenant", "it could have files of others decrypted", Tenancy{}, uncached{}, "dev", true},
		{"tenant without clouds", "it could have files of others decrypted", Tenancy{}, nil, "dev", true},
		{"tenant of an open engine", "nobody is confined", Tenancy{Open: true}, uncached{}, "dev", false},
		{"platform of another cluster", "the machine is its host's", Tenancy{Open: true, Foreign: true}, uncached{}, "flux-system", true},
	}
	ring := sops.NewRing(t.Context(), sops.Options{})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := Decryption{Ring: ring, Tenancy: tt.tenancy, client: tt.asks, context: t.Context()}
			err := d.Prepare(t.Context(), unitIn(tt.namespace, decrypted("keys")), azureKeys{}, &build.Recipe{}, nil)
			if tt.refused != (err != nil) || tt.refused && !strings.Contains(err.Error(), "(sops.azure-kv): it names a managed identity of the engine's machine, which tenancy does not allow") {
				t.Errorf("the verdict is %v: %s", err, tt.reason)
			}
		})
	}
}

// azureKeys is a reader of Secrets that all name a managed identity.
type azureKeys struct{ client.Reader }

// Get implements client.Reader.
func (azureKeys) Get(_ context.Context, _ client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	if secret, ok := o.(*corev1.Secret); ok {
		secret.Data = map[string][]byte{"sops.azure-kv": []byte("clientId: some-client")}
	}
	return nil
}

// noted is a reader that notes what it is asked for.
type noted struct {
	client.Reader
	key string
}

// Get implements client.Reader.
func (n *noted) Get(_ context.Context, key client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	n.key = key.String()
	return nil
}

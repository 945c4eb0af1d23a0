package controller

import (
	"testing"

	"filippo.io/age"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/testkit"
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
	return string(testkit.Seal(t, plain, testkit.Sealing{Only: testkit.ManifestFields, Groups: testkit.ForAge(t, recipients...)}))
}

func TestDecryption(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	key := newAgeKey(t)
	to := testkit.ForAge(t, key.Recipient().String())
	s.keys("sops-age", map[string]string{"identity.agekey": key.String()})
	revision := "main@sha1:" + s.repo.Commit(map[string]string{
		"app/db.yaml":     sealedManifest(t, secretManifest("db", "whole-manifest-pw"), key.Recipient().String()),
		"app/web.yaml":    configMap("web", "plain"),
		"gen/secrets.env": string(testkit.Seal(t, "TOKEN=from-an-env-file\n", testkit.Sealing{Format: "dotenv", Groups: to})),
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

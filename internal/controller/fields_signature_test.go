package controller

import (
	"net/http"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source/verify"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
	"github.com/bowline-dev/bowline/internal/testkit/signtest"
)

func (s *stage) awaitSigned(name, what string, status metav1.ConditionStatus, reason string, words ...string) *sourcev1.OCIRepository {
	s.Helper()
	return s.awaitOCI(name, what, func(o *sourcev1.OCIRepository) bool { return signedAs(o, status, reason, words...) })
}

// Only what is signed with a trusted key is pulled and delivered, in both formats of cosign; what is not leaves the
// last one that was where it is. A key that is added takes effect at once, and while nothing changes no signature is read again.
func TestOCIVerifyKeys(t *testing.T) {
	t.Parallel()
	s, reg := newStage(t), ocitest.NewRegistry(t)
	alice, bob := signtest.NewCosignKey(t, 0), signtest.NewCosignKey(t, 0)
	push := func(value string) string {
		return reg.PushFiles("app", map[string]string{"app/a.yaml": configMap("a", value)}, nil, "latest")
	}
	first := push("1")
	alice.Sign(t, reg.Signable("app", first), signtest.CosignBundle)
	source := s.ociSource("app", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) {
		o.Verify = &sourcev1.OCIRepositoryVerification{Provider: cosignProvider, SecretRef: &meta.LocalObjectReference{Name: "signers"}}
	})
	s.unit("app", fromOCI("app"))
	o := s.awaitSigned("app", "without keys", metav1.ConditionFalse, sourcev1.VerificationError, "Secret/"+s.namespace+"/signers", "spec.verify.secretRef")
	if o.Status.Artifact != nil || reg.Asked(http.MethodGet, "/blobs/") != 0 {
		t.Errorf("artifact %+v, although nothing can be verified", o.Status.Artifact)
	}
	keys := s.opaque("signers", map[string][]byte{"alice.pub": alice.Public})
	s.awaitSigned("app", "verified", metav1.ConditionTrue, meta.SucceededReason, "verified signature of revision latest@"+first, "alice.pub")
	s.awaitLive("app", "latest@"+first)

	read := reg.Asked(http.MethodGet, "/manifests/sha256-")
	request := s.ask(source)
	s.awaitOCI("app", "asked", func(o *sourcev1.OCIRepository) bool { return o.Status.LastHandledReconcileAt == request })
	if n := reg.Asked(http.MethodGet, "/manifests/sha256-"); n != read || n == 0 {
		t.Errorf("signatures were looked for %d times and then %d times", read, n)
	}

	second := push("2")
	bob.Sign(t, reg.Signable("app", second), signtest.CosignTag)
	s.ask(source)
	o = s.awaitSigned("app", "refused", metav1.ConditionFalse, sourcev1.VerificationError, second, "Secret/"+s.namespace+"/signers")
	if report.Condition(o, sourcev1.FetchFailedCondition) != nil || o.Status.Artifact.Revision != "latest@"+first || !says(o, metav1.ConditionFalse, sourcev1.VerificationError, second) {
		t.Errorf("refused: %s at %s", standingOf(o), o.Status.Artifact.Revision)
	}
	k := s.kustomization("app")
	s.read(k)
	if k.Status.LastAppliedRevision != "latest@"+first || s.config("a").Data["value"] != "1" {
		t.Errorf("delivered %s although nobody vouches for it", k.Status.LastAppliedRevision)
	}
	edit(s, keys, func(m *corev1.Secret) { m.Data["bob.pub"] = bob.Public })
	s.awaitSigned("app", "verified", metav1.ConditionTrue, meta.SucceededReason, second, "bob.pub")
	s.awaitLive("app", "latest@"+second)

	edit(s, keys, func(m *corev1.Secret) { delete(m.Data, "bob.pub") })
	s.awaitSigned("app", "no longer trusted", metav1.ConditionFalse, sourcev1.VerificationError, second)
	edit(s, source, func(o *sourcev1.OCIRepository) { o.Spec.Verify = nil })
	s.awaitOCI("app", "without a word of it", func(o *sourcev1.OCIRepository) bool {
		return report.IsReady(o, o.Generation) && report.Condition(o, sourcev1.SourceVerifiedCondition) == nil
	})
}

// What was pushed first and signed then is taken when it is signed, without being asked for.
func TestOCIVerifySignedLater(t *testing.T) {
	t.Parallel()
	s, reg, alice := newStage(t), ocitest.NewRegistry(t), signtest.NewCosignKey(t, 0)
	digest := reg.PushFiles("app", map[string]string{"app/a.yaml": configMap("a", "1")}, nil, "latest")
	s.opaque("signers", map[string][]byte{"alice.pub": alice.Public})
	s.ociSource("app", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) {
		o.Verify = &sourcev1.OCIRepositoryVerification{Provider: cosignProvider, SecretRef: &meta.LocalObjectReference{Name: "signers"}}
	})
	s.awaitSigned("app", "unsigned", metav1.ConditionFalse, sourcev1.VerificationError, "no signature of cosign")
	alice.Sign(t, reg.Signable("app", digest), signtest.CosignReferring)
	s.awaitSigned("app", "verified", metav1.ConditionTrue, meta.SucceededReason, digest)
}

// A certificate of one's own Sigstore counts for those who are named.
func TestOCIVerifyIdentities(t *testing.T) {
	t.Parallel()
	s, reg, sigstore := newStage(t), ocitest.NewRegistry(t), signtest.NewSigstore(t)
	digest := reg.PushFiles("app", map[string]string{"app/a.yaml": configMap("a", "1")}, nil, "latest")
	sigstore.Sign(t, reg.Signable("app", digest), signtest.CosignBundle, signtest.Signature{Subject: "deploy@example.com", Issuer: "https://issuer.example.com"})
	s.opaque("root", map[string][]byte{verify.RootKey: sigstore.Root(t, signtest.RootParts{})})
	s.opaque("other", map[string][]byte{verify.RootKey: signtest.NewSigstore(t).Root(t, signtest.RootParts{})})
	s.opaque("empty", nil)
	me := sourcev1.OIDCIdentityMatch{Issuer: "^https://issuer.example.com$", Subject: "^deploy@"}
	rows := []struct {
		name, reason, root string
		ids                []sourcev1.OIDCIdentityMatch
		status             metav1.ConditionStatus
		words              []string
	}{
		{"named", "it is signed by one who is named", "root", []sourcev1.OIDCIdentityMatch{me}, metav1.ConditionTrue, []string{"deploy@example.com"}},
		{"anybody", "nobody is named", "root", nil, metav1.ConditionTrue, []string{"deploy@example.com", "names nobody"}},
		{"somebody", "somebody else is named", "root", []sourcev1.OIDCIdentityMatch{{Issuer: me.Issuer, Subject: "^root@"}}, metav1.ConditionFalse, []string{"deploy@example.com", "matchOIDCIdentity"}},
		{"other", "another instance is trusted", "other", []sourcev1.OIDCIdentityMatch{me}, metav1.ConditionFalse, []string{"trustedRootSecretRef"}},
		{"empty", "a Secret without a root is not taken for none", "empty", []sourcev1.OIDCIdentityMatch{me}, metav1.ConditionFalse, []string{"Secret/" + s.namespace + "/empty", verify.RootKey}},
		{"missing", "the Secret is not there", "missing", []sourcev1.OIDCIdentityMatch{me}, metav1.ConditionFalse, []string{"Secret/" + s.namespace + "/missing", "spec.verify.trustedRootSecretRef"}},
		{"broken", "that is no expression", "root", []sourcev1.OIDCIdentityMatch{{Issuer: "(", Subject: "x"}}, metav1.ConditionFalse, []string{"spec.verify.matchOIDCIdentity[0].issuer"}},
	}
	for _, row := range rows {
		s.ociSource(row.name, reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) {
			o.Verify = &sourcev1.OCIRepositoryVerification{Provider: cosignProvider, MatchOIDCIdentity: row.ids, TrustedRootSecretRef: &meta.LocalObjectReference{Name: row.root}}
		})
	}
	for _, row := range rows {
		reason := sourcev1.VerificationError
		if row.status == metav1.ConditionTrue {
			reason = meta.SucceededReason
		}
		o := s.awaitSigned(row.name, row.reason, row.status, reason, row.words...)
		if (o.Status.Artifact != nil) != (row.status == metav1.ConditionTrue) {
			t.Errorf("%s: artifact %+v", row.name, o.Status.Artifact)
		}
	}
}

// A trust policy of notation decides who may sign, and whether anybody has to; the signatures are read with the credentials
// of the source.
func TestOCIVerifyNotation(t *testing.T) {
	t.Parallel()
	s, reg, ca := newStage(t), ocitest.NewRegistry(t, ocitest.BasicAuth("me", "secret")), signtest.NewNotationCA(t, "ours")
	digest := reg.PushFiles("app", map[string]string{"app/a.yaml": configMap("a", "1")}, nil, "latest")
	ca.Sign(t, reg.Signable("app", digest), signtest.NotationSignature{Name: "deploy"})
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "login", Namespace: s.namespace}, Type: corev1.SecretTypeDockerConfigJson,
		Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(reg.DockerConfig("me", "secret"))}})
	scope := strings.TrimPrefix(reg.URL("app"), "oci://")
	rows := []struct {
		name, reason string
		policy       []byte
		status       metav1.ConditionStatus
		words        []string
	}{
		{"good", "it is signed by one whom the policy names", signtest.NotationPolicy(scope, "strict", "deploy"), metav1.ConditionTrue, []string{"CN=deploy"}},
		{"somebody", "the policy names somebody else", signtest.NotationPolicy(scope, "strict", "somebody"), metav1.ConditionFalse, []string{"CN=deploy", "trustedIdentities"}},
		{"elsewhere", "the policy is about another repository", signtest.NotationPolicy("example.com/app", "strict", "deploy"), metav1.ConditionFalse, []string{"no trust policy is about " + scope}},
		{"broken", "it is no policy", []byte("{"), metav1.ConditionFalse, []string{"Secret/" + s.namespace + "/broken, " + verify.PolicyKey}},
		{"skip", "the policy asks for nothing", signtest.NotationPolicy(scope, "skip", "deploy"), metav1.ConditionUnknown, nil},
	}
	for _, row := range rows {
		s.opaque(row.name, map[string][]byte{verify.PolicyKey: row.policy, "ca.crt": ca.Certificate})
		s.ociSource(row.name, reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) {
			o.SecretRef = &meta.LocalObjectReference{Name: "login"}
			o.Verify = &sourcev1.OCIRepositoryVerification{Provider: notationProvider, SecretRef: &meta.LocalObjectReference{Name: row.name}}
		})
	}
	s.ociSource("nothing", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) {
		o.Verify = &sourcev1.OCIRepositoryVerification{Provider: notationProvider}
	})
	for _, row := range rows {
		switch row.status {
		case metav1.ConditionTrue:
			s.awaitSigned(row.name, row.reason, row.status, meta.SucceededReason, row.words...)
		case metav1.ConditionFalse:
			s.awaitSigned(row.name, row.reason, row.status, sourcev1.VerificationError, row.words...)
		default:
			o := s.awaitPulled(row.name, "latest@"+digest)
			if report.Condition(o, sourcev1.SourceVerifiedCondition) != nil {
				t.Errorf("%s: %s: %s", row.name, row.reason, standingOf(o))
			}
		}
	}
	s.awaitSigned("nothing", "no Secret is named", metav1.ConditionFalse, sourcev1.VerificationError, "spec.verify.secretRef")
	s.unit("app", fromOCI("good"), func(k *kustomizev1.Kustomization) { k.Spec.Path = "./app" })
	s.awaitLive("app", "latest@"+digest)
}

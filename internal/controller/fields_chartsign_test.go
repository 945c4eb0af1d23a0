package controller

import (
	"crypto/sha256"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source/verify"
	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/charttest"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
	"github.com/bowline-dev/bowline/internal/testkit/signtest"
)

// signedAs reports whether the condition SourceVerified is as given, and its message has the words.
func signedAs(o report.Conditioned, status metav1.ConditionStatus, reason string, words ...string) bool {
	c := report.Condition(o, sourcev1.SourceVerifiedCondition)
	if c == nil || c.Status != status || c.Reason != reason {
		return false
	}
	for _, w := range words {
		if !strings.Contains(c.Message, w) {
			return false
		}
	}
	return true
}

func (s *stage) awaitChartSigned(name, what string, status metav1.ConditionStatus, reason string, words ...string) *sourcev1.HelmChart {
	s.Helper()
	return s.awaitHelmChart(name, what, func(hc *sourcev1.HelmChart) bool { return signedAs(hc, status, reason, words...) })
}

// pushed is a version of podinfo in a registry that can be signed.
func pushed(t *testing.T, reg *ocitest.Registry, version string) ocitest.Artifact {
	t.Helper()
	digest, err := v1.NewHash(reg.PushChart("charts/podinfo", podinfo(version).Archive(t)))
	if err != nil {
		t.Fatal(err)
	}
	return ocitest.Artifact{Repository: reg.Back("charts/podinfo"), Digest: digest, Options: reg.BackOptions()}
}

func ociCharts(r *sourcev1.HelmRepository) { r.Spec.Type = sourcev1.HelmRepositoryTypeOCI }

func signedBy(secret string) func(*sourcev1.HelmChartSpec) {
	return func(c *sourcev1.HelmChartSpec) {
		c.Verify = &sourcev1.HelmChartVerification{Provider: cosignProvider, SecretRef: &meta.LocalObjectReference{Name: secret}}
	}
}

func chartVersion(version string) func(*sourcev1.HelmChartSpec) {
	return func(c *sourcev1.HelmChartSpec) { c.Version = version }
}

// Only a chart that is signed with a trusted key is brought; what is not leaves the last one. Keys take effect
// at once, also for a version that is held, and while nothing changes no signature is read again.
func TestHelmChartVerify(t *testing.T) {
	t.Parallel()
	s, reg := newStage(t), ocitest.NewRegistry(t)
	alice, bob := signtest.NewCosignKey(t, 0), signtest.NewCosignKey(t, 0)
	alice.Sign(t, pushed(t, reg, "1.0.0"), signtest.CosignTag)
	s.helmRepository(reg.URL("charts"), ociCharts)
	hc := s.helmChart("podinfo", chartVersion("1.0.0"), signedBy("signers"))
	got := s.awaitChartSigned("podinfo", "without keys", metav1.ConditionFalse, sourcev1.VerificationError, "Secret/"+s.namespace+"/signers", "spec.verify.secretRef")
	if got.Status.Artifact != nil || reg.Asked(http.MethodGet, "/blobs/") != 0 {
		t.Errorf("artifact %+v, although nothing can be verified", got.Status.Artifact)
	}
	keys := s.opaque("signers", map[string][]byte{"alice.pub": alice.Public})
	s.awaitChartSigned("podinfo", "verified", metav1.ConditionTrue, meta.SucceededReason, "verified signature of version 1.0.0", "alice.pub")
	s.awaitChartAt("podinfo", "1.0.0")

	read := reg.Asked(http.MethodGet, ".sig")
	request := s.ask(hc)
	s.awaitHelmChart("podinfo", "asked", func(hc *sourcev1.HelmChart) bool { return hc.Status.LastHandledReconcileAt == request })
	if n := reg.Asked(http.MethodGet, ".sig"); n != read || n == 0 {
		t.Errorf("signatures were read %d times and then %d times", read, n)
	}
	edit(s, keys, func(m *corev1.Secret) { m.Data["bob.pub"] = bob.Public })
	edit(s, keys, func(m *corev1.Secret) { delete(m.Data, "alice.pub") })
	s.awaitChartSigned("podinfo", "no longer trusted", metav1.ConditionFalse, sourcev1.VerificationError, "Secret/"+s.namespace+"/signers")
	edit(s, keys, func(m *corev1.Secret) { m.Data["alice.pub"] = alice.Public })
	s.awaitChartSigned("podinfo", "verified again", metav1.ConditionTrue, meta.SucceededReason, "alice.pub")
	layer := fmt.Sprintf("/blobs/sha256:%x", sha256.Sum256(podinfo("1.0.0").Archive(t)))
	if n := reg.Asked(http.MethodGet, layer); n != 1 {
		t.Errorf("the chart was read %d times, want once, whatever is trusted", n)
	}

	bob.SignAs(t, pushed(t, reg, "1.1.0"), signtest.CosignBundle, "sha256:"+strings.Repeat("a", 64))
	edit(s, hc, func(hc *sourcev1.HelmChart) { hc.Spec.Version = "1.1.0" })
	got = s.awaitChartSigned("podinfo", "refused", metav1.ConditionFalse, sourcev1.VerificationError, "another artifact")
	if got.Status.Artifact.Revision != "1.0.0" || !says(got, metav1.ConditionFalse, reasonChartVerification, "another artifact") {
		t.Errorf("refused: %s at %s", standingOf(got), got.Status.Artifact.Revision)
	}
	edit(s, hc, func(hc *sourcev1.HelmChart) { hc.Spec.Verify = nil })
	got = s.awaitChartAt("podinfo", "1.1.0")
	if report.Condition(got, sourcev1.SourceVerifiedCondition) != nil {
		t.Errorf("without a word of it: %s", standingOf(got))
	}
}

// Identities and trust policies decide about charts as well; what bears no signatures is refused, and not taken as it is.
func TestHelmChartVerifyProviders(t *testing.T) {
	t.Parallel()
	s, reg, ca := newStage(t), ocitest.NewRegistry(t), signtest.NewNotationCA(t, "ours")
	ca.Sign(t, pushed(t, reg, "1.0.0"), signtest.NotationSignature{Name: "deploy"})
	scope := strings.TrimPrefix(reg.URL("charts/podinfo"), "oci://")
	s.helmRepository(reg.URL("charts"), ociCharts)
	s.helmRepository(charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")}).URL(), func(r *sourcev1.HelmRepository) { r.Name = "http" })
	s.opaque("good", map[string][]byte{verify.PolicyKey: signtest.NotationPolicy(scope, "strict", "deploy"), "ca.crt": ca.Certificate})
	s.opaque("somebody", map[string][]byte{verify.PolicyKey: signtest.NotationPolicy(scope, "strict", "somebody"), "ca.crt": ca.Certificate})
	notation := func(secret string) func(*sourcev1.HelmChartSpec) {
		return func(c *sourcev1.HelmChartSpec) {
			c.Verify = &sourcev1.HelmChartVerification{Provider: notationProvider, SecretRef: &meta.LocalObjectReference{Name: secret}}
		}
	}
	rows := []struct {
		name, reason string
		change       func(*sourcev1.HelmChartSpec)
		status       metav1.ConditionStatus
		words        []string
	}{
		{"good", "the policy names the signer", notation("good"), metav1.ConditionTrue, []string{"CN=deploy"}},
		{"somebody", "the policy names somebody else", notation("somebody"), metav1.ConditionFalse, []string{"CN=deploy"}},
		{"expression", "that is none", func(c *sourcev1.HelmChartSpec) {
			c.Verify = &sourcev1.HelmChartVerification{Provider: cosignProvider, MatchOIDCIdentity: []sourcev1.OIDCIdentityMatch{{Issuer: "x", Subject: "("}}}
		}, metav1.ConditionFalse, []string{"spec.verify.matchOIDCIdentity[0].subject"}},
		{"http", "nobody signs charts there", func(c *sourcev1.HelmChartSpec) {
			notation("good")(c)
			c.SourceRef.Name = "http"
		}, metav1.ConditionFalse, []string{"only charts in a registry"}},
	}
	for _, row := range rows {
		s.helmChart(row.name, chartVersion("1.0.0"), row.change)
	}
	for _, row := range rows {
		reason := sourcev1.VerificationError
		if row.status == metav1.ConditionTrue {
			reason = meta.SucceededReason
		}
		hc := s.awaitChartSigned(row.name, row.reason, row.status, reason, row.words...)
		if (hc.Status.Artifact != nil) != (row.status == metav1.ConditionTrue) {
			t.Errorf("%s: artifact %+v", row.name, hc.Status.Artifact)
		}
	}
}

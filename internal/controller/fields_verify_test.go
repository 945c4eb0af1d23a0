package controller

import (
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// verifiedAs reports whether the condition SourceVerified is as given.
func verifiedAs(status metav1.ConditionStatus, reason string, words ...string) func(*sourcev1.GitRepository) bool {
	return func(g *sourcev1.GitRepository) bool {
		c := report.Condition(g, sourcev1.SourceVerifiedCondition)
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
}

// Only what is signed by a trusted key is delivered; a commit that is not leaves
// the last one that was where it is, also over a change of the keys, which takes effect at once.
func TestGitVerify(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	alice, bob := testkit.NewPGPSigner(t, time.Now().Add(-time.Hour), 0), testkit.NewSSHSigner(t, "git")
	s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	first := "main@sha1:" + s.repo.SignCommit(alice)
	s.source(func(g *sourcev1.GitRepository) {
		g.Spec.Verification = &sourcev1.GitRepositoryVerification{Mode: "head", SecretRef: meta.LocalObjectReference{Name: "authors"}}
	})
	s.unit("app")
	g := s.awaitSource("without keys", verifiedAs(metav1.ConditionFalse, git.ReasonVerificationError, "Secret/"+s.namespace+"/authors", "spec.verify.secretRef"))
	if g.Status.Artifact != nil {
		t.Fatalf("artifact %+v, although nothing can be verified", g.Status.Artifact)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "authors", Namespace: s.namespace}, Data: map[string][]byte{"alice.asc": alice.Public}}
	s.create(secret)
	g = s.awaitSource("verified", verifiedAs(metav1.ConditionTrue, meta.SucceededReason, "verified signature of", alice.ID))
	if g.Status.SourceVerificationMode == nil || *g.Status.SourceVerificationMode != sourcev1.ModeGitHEAD {
		t.Errorf("mode %v", g.Status.SourceVerificationMode)
	}
	s.awaitLive("app", first)

	s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "2")})
	second := "main@sha1:" + s.repo.SignCommit(bob)
	s.ask(s.fleet())
	g = s.awaitSource("refused", func(g *sourcev1.GitRepository) bool {
		return says(g, metav1.ConditionFalse, git.ReasonInvalidCommit, "holds no SSH key")
	})
	if report.Condition(g, sourcev1.FetchFailedCondition) != nil || g.Status.Artifact.Revision != first {
		t.Errorf("refused: %s at %s", standingOf(g), g.Status.Artifact.Revision)
	}
	k := s.kustomization("app")
	s.read(k)
	if k.Status.LastAppliedRevision != first || s.config("a").Data["value"] != "1" {
		t.Errorf("delivered %s although nobody vouches for it", k.Status.LastAppliedRevision)
	}

	edit(s, secret, func(m *corev1.Secret) { m.Data["bob.sshpub"] = bob.Public })
	s.awaitSource("verified", verifiedAs(metav1.ConditionTrue, meta.SucceededReason, bob.ID))
	s.awaitLive("app", second)

	edit(s, s.fleet(), func(g *sourcev1.GitRepository) { g.Spec.Verification = nil })
	s.awaitSource("without a word of it", func(g *sourcev1.GitRepository) bool {
		return report.Condition(g, sourcev1.SourceVerifiedCondition) == nil && g.Status.SourceVerificationMode == nil
	})
}

// Each mode asks for what it names, and says in the status which it was.
func TestGitVerifyModes(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	alice := testkit.NewPGPSigner(t, time.Now().Add(-time.Hour), 0)
	s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	tagged := s.repo.SignTag("v1.0.0", "main", alice)
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "authors", Namespace: s.namespace}, Data: map[string][]byte{"alice.asc": alice.Public}})
	rows := []struct {
		name, reason string
		mode         sourcev1.GitVerificationMode
		ref          sourcev1.GitRepositoryRef
		status       metav1.ConditionStatus
		want, word   string
	}{
		{"tag", "the tag is signed", sourcev1.ModeGitTag, sourcev1.GitRepositoryRef{Tag: "v1.0.0"}, metav1.ConditionTrue, meta.SucceededReason, "tag 'v1.0.0@" + tagged + "'"},
		{"head", "the commit is not", sourcev1.ModeGitHEAD, sourcev1.GitRepositoryRef{Tag: "v1.0.0"}, metav1.ConditionFalse, git.ReasonInvalidCommit, "not signed"},
		{"both", "one of the two is not", sourcev1.ModeGitTagAndHEAD, sourcev1.GitRepositoryRef{Tag: "v1.0.0"}, metav1.ConditionFalse, git.ReasonInvalidCommit, "not signed"},
		{"branch", "there is no tag", sourcev1.ModeGitTag, sourcev1.GitRepositoryRef{Branch: "main"}, metav1.ConditionFalse, git.ReasonInvalidMode, "spec.verify.mode"},
	}
	for _, row := range rows {
		s.source(func(g *sourcev1.GitRepository) {
			g.Name, g.Spec.Reference = row.name, &row.ref
			g.Spec.Verification = &sourcev1.GitRepositoryVerification{Mode: row.mode, SecretRef: meta.LocalObjectReference{Name: "authors"}}
		})
	}
	for _, row := range rows {
		g := s.awaitRepository(row.name, row.reason, verifiedAs(row.status, row.want, row.word))
		if row.status == metav1.ConditionTrue && *g.Status.SourceVerificationMode != row.mode {
			t.Errorf("%s: mode %s", row.name, *g.Status.SourceVerificationMode)
		}
	}
}

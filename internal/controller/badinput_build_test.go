package controller

import (
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/bowline-dev/bowline/internal/gitserve"
)

// A commit that cannot be delivered leaves what runs as it is and says why; the
// next good one is delivered.
func TestBadCommit(t *testing.T) {
	t.Parallel()
	for _, row := range []badCommit{
		{
			name: "path missing", why: "the folder was moved",
			commit: func(s *stage) string { return s.repo.Delete("app") },
			reason: meta.BuildFailedReason, words: []string{`path "./app"`, "no such folder", "correct spec.path or add the folder"},
		},
		{
			name: "invalid YAML", why: "a typing error",
			commit: func(s *stage) string {
				return s.repo.Commit(map[string]string{"app/b.yaml": configMap("b", "2") + " bad: x\n"})
			},
			reason: meta.BuildFailedReason, words: []string{"app/b.yaml:", "invalid YAML", "correct the file"},
		},
		{
			name: "invalid kustomization", why: "it names a file that is not there",
			commit: func(s *stage) string {
				return s.repo.Commit(map[string]string{"app/kustomization.yaml": "resources: [a.yaml, gone.yaml]\n"})
			},
			reason: meta.BuildFailedReason, words: []string{"app/kustomization.yaml (resources[1]: gone.yaml)", "no such file"},
		},
		{
			name: "one identity twice", why: "a file was copied and not changed",
			commit: func(s *stage) string {
				return s.repo.Commit(map[string]string{"app/c.yaml": configMap("a", "3")})
			},
			reason: meta.BuildFailedReason, words: []string{"app/c.yaml:1", "ConfigMap/a is also in app/a.yaml:1", "keep one of them"},
		},
		{
			name: "path that leaves the repository", why: "nothing outside of it is read",
			commit: func(s *stage) string {
				return s.repo.Commit(map[string]string{"app/kustomization.yaml": "resources: [a.yaml, ../../../etc/passwd]\n"})
			},
			reason: meta.BuildFailedReason, words: []string{"app/kustomization.yaml (resources[1]: ../../../etc/passwd)", "leaves the repository"},
		},
		{
			name: "symbolic link that leaves the repository", why: "nothing outside of it is read",
			commit: func(s *stage) string {
				return s.repo.CommitFiles(map[string]gitserve.File{
					"app/c.yaml":             {Data: []byte("../../../etc/passwd"), Mode: "120000"},
					"app/kustomization.yaml": {Data: []byte("resources: [a.yaml, b.yaml, c.yaml]\n")},
				})
			},
			reason: meta.BuildFailedReason, words: []string{"app/c.yaml", "leads outside"},
		},
		{
			name: "empty build", why: "nothing is wanted by mistake, so nothing is deleted",
			commit: func(s *stage) string {
				s.repo.Commit(map[string]string{"app/README.md": "moved"})
				return s.repo.Delete("app/a.yaml", "app/b.yaml")
			},
			reason: meta.BuildFailedReason, words: []string{`path "./app"`, "the build holds no objects"},
		},
		{
			name: "object that the API server refuses", why: "a key of data may not hold a space",
			commit: func(s *stage) string {
				return s.repo.Commit(map[string]string{"app/c.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {\"a b\": x}\n"})
			},
			reason: meta.ReconciliationFailedReason, words: []string{"ConfigMap/", "/c", "data[a b]", "valid config key"},
		},
		{
			name: "object with an unknown field", why: "it would be lost silently",
			commit: func(s *stage) string {
				return s.repo.Commit(map[string]string{"app/c.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndate: {a: x}\n"})
			},
			reason: meta.ReconciliationFailedReason, words: []string{"ConfigMap/", "/c", "date"},
		},
		{
			name: "a file of 100 MB that is read", why: "it must not take all memory",
			commit: func(s *stage) string {
				return s.repo.Commit(map[string]string{"app/big.yaml": big})
			},
			reason: meta.BuildFailedReason, words: []string{"app/big.yaml", "the file has 104857603 bytes", "10 MiB"},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			row.play(t)
		})
	}
}

type badCommit struct {
	name, why string
	commit    func(*stage) string
	// reason and words are what the Kustomization has to say meanwhile.
	reason string
	words  []string
}

func (row badCommit) play(t *testing.T) {
	s := newStage(t)
	good := map[string]string{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1")}
	first := "main@sha1:" + s.repo.Commit(good)
	s.source()
	s.unit("app")
	s.awaitLive("app", first)
	before := s.deliveredConfigs()

	bad := "main@sha1:" + row.commit(s)
	s.ask(s.fleet())
	k := s.awaitFailure("app", row.reason, row.words...)
	if k.Status.LastAttemptedRevision != bad || k.Status.LastAppliedRevision != first {
		t.Errorf("attempted %s and applied %s, want %s and %s", k.Status.LastAttemptedRevision, k.Status.LastAppliedRevision, bad, first)
	}
	if strings.Contains(k.Status.Conditions[0].Message, "\n") {
		t.Errorf("the message is not one line: %q", k.Status.Conditions[0].Message)
	}
	s.untouched(before)

	// The branch is put right in another commit, as people do.
	good["app/a.yaml"] = configMap("a", "2")
	last := "main@sha1:" + s.repo.ForcePush(good)
	s.ask(s.fleet())
	s.awaitLive("app", last)
	after := s.deliveredConfigs()
	if len(after) != 2 || after["b"] != before["b"] || after["a"].uid != before["a"].uid || after["a"] == before["a"] {
		t.Errorf("after the repair there is %v, before it was %v; only a was to change: %s", after, before, row.why)
	}
}

// big is a manifest of 100 MB.
var big = "# " + strings.Repeat("x", 100<<20) + "\n"

// A big file that no build reads harms nobody.
func TestBigFileBesideIsHarmless(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1"), "models/big.bin": big})
	s.source()
	s.unit("app")
	s.awaitLive("app", first)
	second := s.push(map[string]string{"app/a.yaml": configMap("a", "2")})
	s.awaitLive("app", second)
}

package artifactserve_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/bowline-dev/bowline/internal/artifactserve"
	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// BenchmarkWrite reads a repository of 3,000 files out of the packs of Git, as is done once
// for each commit.
func BenchmarkWrite(b *testing.B) {
	server := testkit.NewGitServer(b)
	repo := server.Repo("fleet")
	files := map[string]string{}
	for i := range 1000 {
		for j := range 3 {
			files[fmt.Sprintf("apps/app-%d/file-%d.yaml", i, j)] = fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c%d-%d\ndata:\n", i, j) + strings.Repeat("  key: value\n", 30)
		}
	}
	repo.Commit(files)
	store, err := git.New(git.Options{DataDir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	a, err := store.Fetch(b.Context(), git.Request{URL: repo.URL(), Ref: git.Ref{Branch: "main"}})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if err := artifactserve.Write(b.Context(), io.Discard, a.Tree); err != nil {
			b.Fatal(err)
		}
	}
}

package helm

import (
	"io/fs"
	"path"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/bowline-dev/bowline/internal/source"
)

// tree is a source.Tree in memory.
type tree struct{ fstest.MapFS }

// Hash implements source.Tree. Charts are known by the digest of their artifact.
func (t tree) Hash(name string) (string, error) {
	_, err := t.Stat(name)
	return name, err
}

// artifactOf returns the artifact of a text archive.
func artifactOf(digest string, text string) source.Artifact {
	files := fstest.MapFS{}
	for _, f := range txtar.Parse([]byte(text)).Files {
		files[f.Name] = &fstest.MapFile{Data: f.Data, Mode: fs.FileMode(0o644)}
	}
	return source.Artifact{Revision: "sha256:" + strings.Repeat("0", 64), Digest: digest, Tree: tree{files}}
}

// chartOf loads the chart in a text archive whose files are named from the chart's folder on.
func chartOf(t testing.TB, text string) *Chart {
	t.Helper()
	chart, err := Load(artifactOf(path.Join(t.Name()), text), "")
	if err != nil {
		t.Fatal(err)
	}
	return chart
}

package helm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"flag"
	"os"
	"path"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/bowline-dev/bowline/internal/source"
)

var update = flag.Bool("update", false, "write the golden files anew")

// tree is a source.Tree in memory.
type tree struct{ fstest.MapFS }

// Hash implements source.Tree. Charts are known by the digest of their artifact.
func (t tree) Hash(name string) (string, error) {
	_, err := t.Stat(name)
	return name, err
}

// artifactOf returns the artifact of a text archive.
func artifactOf(digest, text string) source.Artifact {
	files := fstest.MapFS{}
	for _, f := range txtar.Parse([]byte(text)).Files {
		files[f.Name] = &fstest.MapFile{Data: f.Data, Mode: 0o644}
	}
	return artifactWith(digest, files)
}

func artifactWith(digest string, files fstest.MapFS) source.Artifact {
	return source.Artifact{Revision: "1.2.3@sha256:" + strings.Repeat("ab", 32), Digest: digest, Tree: tree{files}}
}

// packed returns a text archive as a chart archive.
func packed(t testing.TB, text string) []byte {
	t.Helper()
	return packedFiles(t, txtar.Parse([]byte(text)).Files)
}

func packedFiles(t testing.TB, files []txtar.File) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	w := tar.NewWriter(zipped)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.Name, Mode: 0o644, Size: int64(len(f.Data))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.Data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := zipped.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// chartOf loads the chart in a text archive whose files are named from the chart's folder on.
func chartOf(t testing.TB, text string) *Chart {
	t.Helper()
	chart, err := Load(artifactOf(t.Name(), text), "")
	if err != nil {
		t.Fatal(err)
	}
	return chart
}

// request asks for the chart in a text archive, as an installation of "demo".
func request(t testing.TB, text string) Request {
	t.Helper()
	caps, err := NewCapabilities("v1.36.3", []string{"v1", "v1/Pod", "apps/v1", "apps/v1/Deployment"})
	if err != nil {
		t.Fatal(err)
	}
	return Request{
		Chart: chartOf(t, text), Release: Release{Name: "demo", Namespace: "apps", Revision: 1}, Capabilities: caps,
	}
}

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := path.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s", file, got, want)
	}
}

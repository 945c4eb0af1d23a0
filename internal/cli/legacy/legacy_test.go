package legacy_test

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/bowline-dev/bowline/internal/cli/legacy"
)

var update = flag.Bool("update", false, "rewrite the expected trees in testdata")

// Each file of testdata/NAME is one tree: "before/PATH" are its files, "after/PATH" those that change
// ("after/PATH" that is empty: the file goes), and "notes" what is listed. The comment says what it shows;
// what follows "namespace:", "url:" and "path:" in it are options.
func TestHelmOperator(t *testing.T) {
	golden(t, "testdata/helmoperator/*.txtar", func(dir string, option func(string) string) (*legacy.Result, error) {
		return legacy.HelmOperator(dir, legacy.HelmOperatorOptions{Namespace: option("namespace"), Interval: 5 * time.Minute})
	})
}

func TestFluxV1(t *testing.T) {
	golden(t, "testdata/fluxv1/*.txtar", func(dir string, option func(string) string) (*legacy.Result, error) {
		return legacy.FluxV1(dir, legacy.FluxV1Options{Namespace: "flux-system", Name: "flux-system", File: "flux-system/sync.yaml",
			Daemon: legacy.Daemon{URL: option("url"), Paths: strings.Fields(option("path"))}})
	})
}

func golden(t *testing.T, pattern string, translate func(dir string, option func(string) string) (*legacy.Result, error)) {
	t.Helper()
	cases, err := filepath.Glob(pattern)
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			archive := txtar.Parse(want)
			option := func(name string) string {
				_, rest, _ := strings.Cut(string(archive.Comment), name+": ")
				value, _, _ := strings.Cut(rest, "\n")
				return value
			}
			dir := unpack(t, archive)
			first, err := translate(dir, option)
			if err != nil {
				t.Fatal(err)
			}
			if got := txtar.Format(expected(archive, first)); !bytes.Equal(got, want) {
				if *update {
					if err := os.WriteFile(file, got, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				t.Errorf("got\n%s", got)
			}
			if err := legacy.Write(dir, first.Changes); err != nil {
				t.Fatal(err)
			}
			if second, err := translate(dir, option); err != nil || len(second.Changes) > 0 {
				t.Errorf("a second time still changes something (%v):\n%s", err, changes(second))
			}
		})
	}
}

// expected is the archive with the outcome in the place of what was expected.
func expected(a *txtar.Archive, r *legacy.Result) *txtar.Archive {
	out := &txtar.Archive{Comment: a.Comment}
	for _, f := range a.Files {
		if strings.HasPrefix(f.Name, "before/") {
			out.Files = append(out.Files, f)
		}
	}
	for _, c := range r.Changes {
		out.Files = append(out.Files, txtar.File{Name: "after/" + c.Path, Data: c.After})
	}
	var notes strings.Builder
	for _, n := range r.Notes {
		notes.WriteString(n.String() + "\n")
	}
	out.Files = append(out.Files, txtar.File{Name: "notes", Data: []byte(notes.String())})
	return out
}

func changes(r *legacy.Result) string {
	if r == nil {
		return ""
	}
	var b strings.Builder
	for _, c := range r.Changes {
		b.WriteString(c.Path + "\n" + string(c.After))
	}
	return b.String()
}

func unpack(t *testing.T, a *txtar.Archive) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range a.Files {
		name, ok := strings.CutPrefix(f.Name, "before/")
		if !ok {
			continue
		}
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

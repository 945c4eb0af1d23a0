package chart_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v4/pkg/chart/v2/loader"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/chart"
	"github.com/bowline-dev/bowline/internal/source/local"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func folder(t *testing.T, files map[string]string) *local.Tree {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if to, ok := strings.CutPrefix(content, "link:"); ok {
			if err := os.Symlink(to, file); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := local.Open(dir, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tree.Close() })
	return tree
}

func TestPick(t *testing.T) {
	day := func(d int) time.Time { return time.Date(2024, 1, d, 0, 0, 0, 0, time.UTC) }
	versions := []chart.Version{{Version: "1.0.0"}, {Version: "v1.10.0"}, {Version: "1.9.0"}, {Version: "2.0.0-rc.1"}, {Version: "nightly"},
		{Version: "1.9.1+a", Created: day(1)}, {Version: "1.9.1+b", Created: day(2)}}
	tests := []struct {
		name, reason, constraint, want string
		kind                           failure.Kind
	}{
		{"newest", "no prerelease", "", "v1.10.0", ""},
		{"star", "the same", "*", "v1.10.0", ""},
		{"as written", "even what is no version", "nightly", "nightly", ""},
		{"range", "ordered as versions and not as words", "~1", "v1.10.0", ""},
		{"build", "of versions that are equal in order the last one made", "~1.9", "1.9.1+b", ""},
		{"prerelease", "only where it is named", ">=2.0.0-0", "2.0.0-rc.1", ""},
		{"none", "those that there are are said", ">=3", "", failure.NotFound},
		{"no range", "it cannot be read", "a b", "", failure.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := chart.Pick("x", versions, tt.constraint)
			if got.Version != tt.want || failure.KindOf(err) != tt.kind {
				t.Errorf("%s: got %q %v, want %q", tt.reason, got.Version, err, tt.want)
			}
		})
	}
	_, err := chart.Pick("x", versions, ">=3")
	if want := "there are 2.0.0-rc.1, v1.10.0, 1.9.1+b, 1.9.1+a, 1.9.0 and 1 older ones"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// TestFolder packs a folder, has Helm read it, and packs it again to the same bytes.
func TestFolder(t *testing.T) {
	tree := folder(t, map[string]string{
		"a/Chart.yaml": "# of ours\napiVersion: v2\nname: app # here\nversion: 1.0.0\n", "a/values.yaml": "x: 1\n", "a/templates/c.yaml": "kind: X\n",
		"a/.helmignore": "*.md\n/docs\n", "a/README.md": "no", "a/docs/x": "no", "a/templates/.hidden": "no", "a/files/link": "link:../../shared", "shared": "yes",
	})
	files, err := chart.Folder(t.Context(), tree, "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := chart.SetVersion(files, "1.0.0+abc"); err != nil {
		t.Fatal(err)
	}
	data, err := chart.Pack("app", files)
	if err != nil {
		t.Fatal(err)
	}
	again, err := chart.Pack("app", files)
	if err != nil || !bytes.Equal(data, again) {
		t.Errorf("other bytes for the same files: %v", err)
	}
	loaded, err := loader.LoadArchive(bytes.NewReader(data))
	if err != nil || loaded.Validate() != nil || loaded.Metadata.Version != "1.0.0+abc" || len(loaded.Templates) != 1 {
		t.Fatalf("Helm does not read it: %v %+v", err, loaded)
	}
	var names []string
	for _, f := range loaded.Raw {
		names = append(names, f.Name)
	}
	slices.Sort(names)
	if want := []string{".helmignore", "Chart.yaml", "files/link", "templates/c.yaml", "values.yaml"}; !slices.Equal(names, want) {
		t.Errorf("in it are %q, want %q", names, want)
	}
	if text := string(files["Chart.yaml"]); !strings.Contains(text, "# of ours") || !strings.Contains(text, "# here") {
		t.Errorf("comments are gone:\n%s", text)
	}
}

func TestFolderRefused(t *testing.T) {
	tests := []struct {
		name, reason string
		files        map[string]string
		says         string
	}{
		{"circle", "a link makes it endless", map[string]string{"a/Chart.yaml": "", "a/b/c": "link:.."}, "in one another"},
		{"outside", "a link leads away", map[string]string{"a/Chart.yaml": "", "a/b": "link:../../../etc/passwd"}, "b"},
		{"large", "Helm refuses it as well", map[string]string{"a/b": strings.Repeat("x", chart.MaxFile+1)}, "a/b"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := chart.Folder(t.Context(), folder(t, tt.files), "a")
			if !errors.Is(err, failure.Of(failure.Invalid)) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: %v", tt.reason, err)
			}
		})
	}
}

func TestSetValues(t *testing.T) {
	files := map[string][]byte{
		"values.yaml": []byte("a: {b: 1, c: [1, 2]}\nd: 1\n"), "over.yaml": []byte("a: {b: 2, c: [3]}\nd: {e: 1}\n"), "null.yaml": []byte("a: null\n"), "bad.yaml": []byte("a: [\n"), "empty.yaml": nil,
	}
	tests := []struct {
		name, reason string
		names        []string
		ignore       bool
		want         string
		kind         failure.Kind
	}{
		{"merged", "mappings are merged, lists are replaced", []string{"values.yaml", "./over.yaml"}, false, "a:\n  b: 2\n  c:\n  - 3\nd:\n  e: 1\n", ""},
		{"null", "takes a value away when the chart is rendered", []string{"values.yaml", "null.yaml"}, false, "a: null\nd: 1\n", ""},
		{"empty", "says nothing", []string{"empty.yaml"}, false, "", ""},
		{"missing", "is a mistake", []string{"values.yaml", "none.yaml"}, false, "", failure.NotFound},
		{"ignored", "unless told otherwise", []string{"none.yaml", "over.yaml"}, true, "a:\n  b: 2\n  c:\n  - 3\nd:\n  e: 1\n", ""},
		{"bad", "the file is named", []string{"bad.yaml"}, false, "", failure.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			mine := map[string][]byte{}
			for name, data := range files {
				mine[name] = data
			}
			used, err := chart.SetValues(mine, chart.FileIn(mine), tt.names, tt.ignore)
			if failure.KindOf(err) != tt.kind {
				t.Fatalf("%s: %v", tt.reason, err)
			}
			if got := string(mine["values.yaml"]); err == nil && (got != tt.want || slices.Contains(used, "none.yaml")) {
				t.Errorf("%s: got %q of %q, want %q", tt.reason, got, used, tt.want)
			}
		})
	}
}

func TestMissing(t *testing.T) {
	packed := string(testkit.Chart{Name: "packed", Version: "1.0.0"}.Archive(t))
	files := map[string][]byte{"charts/there/Chart.yaml": []byte("name: there\nversion: 1.0.0\n"), "charts/packed-1.0.0.tgz": []byte(packed)}
	m := chart.Metadata{Name: "x", Dependencies: []chart.Dependency{
		{Name: "there"}, {Name: "packed"}, {Name: "gone", Version: "1.x", Repository: "https://a"}, {Name: "other", Version: ">=2", Repository: "https://a"},
	}}
	files["Chart.lock"] = []byte("dependencies:\n- {name: gone, version: 1.4.0, repository: 'https://a'}\n- {name: other, version: 1.0.0, repository: 'https://a'}\n")
	got, err := chart.Missing(files, m)
	if err != nil || len(got) != 2 || got[0].Version != "1.4.0" || got[1].Version != ">=2" {
		t.Errorf("%v %+v", err, got)
	}
	for repository, want := range map[string]string{"file://../common": "charts/common", "": "charts/app/charts/d", "file://../../../x": ""} {
		at, err := chart.Local("charts/app", chart.Dependency{Name: "d", Repository: repository})
		if at != want || (err != nil) != (want == "") {
			t.Errorf("%q: %q %v", repository, at, err)
		}
	}
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	s, err := chart.NewStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	data := testkit.Chart{Name: "app", Version: "1.0.0", Files: map[string]string{"values.yaml": "a: 1\n"}}.Archive(t)
	c, err := s.Put(data)
	if err != nil || c.Name != "app" || c.Size != int64(len(data)) {
		t.Fatalf("%v %+v", err, c.Metadata)
	}
	if _, err := s.Put([]byte("no archive")); !errors.Is(err, failure.Of(failure.Invalid)) {
		t.Errorf("%v", err)
	}
	runtime.GC() // nothing of it is held; the tree reads it again
	if text, err := c.Tree.ReadFile("app/values.yaml"); err != nil || string(text) != "a: 1\n" {
		t.Errorf("%q %v", text, err)
	}
	if err := fs.WalkDir(c.Tree, ".", func(string, fs.DirEntry, error) error { return nil }); err != nil {
		t.Error(err)
	}
	given := chart.Given{Digest: c.Digest, Revision: "1.0.0", Name: "app"}
	if err := s.Give("ann", given); err != nil {
		t.Fatal(err)
	}
	s, err = chart.NewStore(dir) // another process
	if err != nil {
		t.Fatal(err)
	}
	if what, c, err := s.Recall("ann"); err != nil || what.Revision != "1.0.0" || c.Size != int64(len(data)) {
		t.Errorf("%v %+v", err, what)
	}
	if _, _, err := s.Recall("bob"); !errors.Is(err, failure.Of(failure.NotFound)) {
		t.Errorf("recalled for somebody who was given nothing: %v", err)
	}
	if _, err := s.Get("sha256:../../etc/passwd"); !errors.Is(err, failure.Of(failure.Invalid)) {
		t.Errorf("%v", err)
	}
	now := time.Now().Add(time.Hour)
	if err := s.Sweep(now, time.Minute, func(digest string) bool { return digest == c.Digest }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(c.Digest); err != nil {
		t.Errorf("a chart in use was removed: %v", err)
	}
	damaged := filepath.Join(dir, strings.TrimPrefix(c.Digest, "sha256:")+".tgz")
	if err := os.WriteFile(damaged, testkit.Chart{Name: "other", Version: "1.0.0"}.Archive(t), 0o600); err != nil {
		t.Fatal(err)
	}
	s, _ = chart.NewStore(dir)
	if _, err := s.Get(c.Digest); !errors.Is(err, failure.Of(failure.NotFound)) {
		t.Errorf("a damaged copy was handed out: %v", err)
	}
	if _, err := s.Put(data); err != nil { // it is brought anew
		t.Fatal(err)
	}
	if got, err := s.Bytes(c.Digest); err != nil || !bytes.Equal(got, data) {
		t.Errorf("the copy stays damaged: %v", err)
	}
	old := now.Add(-48 * time.Hour)
	if err := os.Chtimes(damaged, old, old); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Put(data); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(time.Now(), time.Minute, func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Bytes(c.Digest); err != nil {
		t.Errorf("a chart that is about to be handed out was removed: %v", err)
	}
	if err := s.Sweep(now, time.Minute, func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Bytes(c.Digest); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a chart that nobody uses stays: %v", err)
	}
}

// However many dependencies a chart names, no more of them is held than an archive may hold.
func TestAddTooMuch(t *testing.T) {
	large := make([]byte, chart.MaxArchive/3)
	for _, tc := range []struct {
		name string
		add  func(files map[string][]byte, name string) error
	}{
		{"folders", func(files map[string][]byte, name string) error {
			return chart.Add(files, name, map[string][]byte{"Chart.yaml": large})
		}},
		{"archives", func(files map[string][]byte, name string) error {
			return chart.AddArchive(files, chart.Metadata{Name: name, Version: "1.0.0"}, large)
		}},
	} {
		files := map[string][]byte{"Chart.yaml": []byte("name: app")}
		for i, name := range []string{"a", "b", "c"} {
			if err := tc.add(files, name); errors.Is(err, failure.Of(failure.Invalid)) != (i == 2) {
				t.Errorf("%s: after %d: %v", tc.name, i+1, err)
			}
		}
	}
}

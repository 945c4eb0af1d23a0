package git_test

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/gitserve"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestSymbolicLinks(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	link := func(to string) gitserve.File { return gitserve.File{Data: []byte(to), Mode: "120000"} }
	files := map[string]gitserve.File{
		"d/file": {Data: []byte("x")}, "run.sh": {Data: []byte("#!"), Mode: "100755"},
		"to-file": link("d/file"), "d/up": link("../d/file"), "to-dir": link("d"), "to-link": link("to-dir/up"),
		"root": link("."), "d/around": link("../../app/d/file"), "passwd": link("/etc/passwd"), "d/far": link("../../../etc/passwd"),
		"a": link("b"), "b": link("a"), "dangling": link("nothing"), "through-file": link("d/file/x"), "empty-target": link(""),
		"long": link(strings.Repeat("./", 3000) + "d"), "module": {Data: []byte(strings.Repeat("12", 20)), Mode: "160000"},
	}
	for i := range 45 {
		files[fmt.Sprintf("c%d", i)] = link(fmt.Sprintf("c%d", i+1))
	}
	files["c45"] = link("d/file")
	r.CommitFiles(files)
	tree := mustFetch(t, newStore(t, git.Options{}), git.Request{URL: r.URL(), Ref: main}).Tree
	for _, tc := range []struct {
		name, reason string
		want         error
	}{
		{"to-file", "a link to a file", nil},
		{"d/up", "a link up and down again, inside", nil},
		{"to-dir/file", "a link to a folder on the way", nil},
		{"to-link", "a link through a link", nil},
		{"root/root/d/up", "a link to the root", nil},
		{"c6", "39 links in a row", nil},
		{"c5", "41 links in a row", failure.Of(failure.Invalid)},
		{"d/around", "leaves the repository, even when it comes back", failure.Of(failure.Invalid)},
		{"passwd", "is absolute", failure.Of(failure.Invalid)},
		{"d/far", "leads out", failure.Of(failure.Invalid)},
		{"a", "leads in a circle", failure.Of(failure.Invalid)},
		{"long", "has an absurd destination", failure.Of(failure.Invalid)},
		{"empty-target", "leads nowhere", failure.Of(failure.Invalid)},
		{"dangling", "leads to nothing", fs.ErrNotExist},
		{"through-file", "leads into a file", fs.ErrNotExist},
		{"module/x", "a submodule is an empty folder", fs.ErrNotExist},
	} {
		t.Run(tc.name, func(t *testing.T) {
			content, err := tree.ReadFile(tc.name)
			_, hashErr := tree.Hash(tc.name)
			_, statErr := tree.Stat(tc.name)
			if tc.want == nil {
				if err := errors.Join(err, hashErr, statErr); err != nil || string(content) != "x" {
					t.Errorf("%s: %q, %v", tc.reason, content, err)
				}
				return
			}
			for _, err := range []error{err, hashErr, statErr} {
				if !errors.Is(err, tc.want) {
					t.Errorf("%s: error = %v, want %v", tc.reason, err, tc.want)
				}
			}
			if errors.Is(err, failure.Of(failure.Invalid)) && !strings.Contains(err.Error(), "symbolic link") {
				t.Errorf("%q does not say that it is about a link", err)
			}
		})
	}
	_, err := tree.ReadFile("d/far")
	wantError(t, err, failure.Invalid, "d/far", "outside")
	if h, err := tree.Hash("to-file"); err != nil || h != mustHash(t, tree, "d/file") {
		t.Errorf("a link has the hash of what it leads to: %s, %v", h, err)
	}
	if fi, err := tree.Stat("run.sh"); err != nil || fi.Mode().Perm() != 0o555 {
		t.Errorf("run.sh: %v, %v", fi, err)
	}
	if entries, err := tree.ReadDir("module"); err != nil || len(entries) != 0 {
		t.Errorf("module holds %v, %v", entries, err)
	}
}

func mustHash(t *testing.T, tree source.Tree, name string) string {
	t.Helper()
	h, err := tree.Hash(name)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// walk lists all files of a tree.
func walk(t *testing.T, tree source.Tree) string {
	t.Helper()
	var names []string
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

func TestIgnore(t *testing.T) {
	srv := testkit.NewGitServer(t)
	base := map[string]string{
		"app/deploy.yaml": "", "app/logo.png": "", "app/docs/readme.md": "", "charts/x/a.tgz": "", "charts/x/b.tar.gz": "",
		".gitignore": "", ".gitmodules": "", ".github/workflows/ci.yaml": "", ".travis.yml": "", "app/.sops.yaml": "", "app/.flux.yaml": "",
	}
	text := func(s string) *string { return &s }
	for i, tc := range []struct {
		name, reason string
		ignore       *string
		files        map[string]string // beside base
		want         string
	}{
		{"default", "no patterns anywhere", nil, nil, "app/deploy.yaml app/docs/readme.md charts/x/a.tgz"},
		{"empty", "an empty field has no patterns", text(""), nil, "app/deploy.yaml app/docs/readme.md charts/x/a.tgz"},
		{"field", "patterns take the place of the defaults, but for those of version control", text("*.md\n# a comment\n"), nil,
			".github/workflows/ci.yaml .travis.yml app/.flux.yaml app/.sops.yaml app/deploy.yaml app/logo.png charts/x/a.tgz charts/x/b.tar.gz"},
		{"only", "exclude all but one folder", text("/*\n!/app\n"), nil, "app/.flux.yaml app/.sops.yaml app/deploy.yaml app/docs/readme.md app/logo.png"},
		{"deep", "take back in from within a folder that is left out", text("/*\n!/app/docs/\n"), nil, "app/docs/readme.md"},
		{"file", "a .sourceignore takes the place of the defaults too", nil, map[string]string{".sourceignore": ".*\n*.png\n!.sourceignore\n"},
			".sourceignore app/deploy.yaml app/docs/readme.md charts/x/a.tgz charts/x/b.tar.gz"},
		{"nested", "the patterns of a file hold for its folder", text(".*\n"), map[string]string{"app/.sourceignore": "/docs\n*.png\n", "docs/x": ""},
			"app/deploy.yaml charts/x/a.tgz charts/x/b.tar.gz docs/x"},
		{"overruled", "the field comes after the files", text("!*.png\n.*\n"), map[string]string{".sourceignore": "*.png\n"},
			"app/deploy.yaml app/docs/readme.md app/logo.png charts/x/a.tgz charts/x/b.tar.gz"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := srv.Repo(fmt.Sprintf("r%d", i))
			r.Commit(base)
			r.Commit(tc.files)
			a := mustFetch(t, newStore(t, git.Options{}), git.Request{URL: r.URL(), Ref: main, Ignore: tc.ignore})
			if got := walk(t, a.Tree); got != tc.want {
				t.Errorf("%s:\n got %s\nwant %s", tc.reason, got, tc.want)
			}
			if err := fstest.TestFS(a.Tree, strings.Fields(tc.want)...); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestDigestFollowsVisibleContent(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	s := newStore(t, git.Options{})
	fetch := func(ignore *string) source.Artifact {
		return mustFetch(t, s, git.Request{URL: r.URL(), Ref: main, Ignore: ignore})
	}
	r.Commit(map[string]string{"a.yaml": "1", "d/b.yaml": "b"})
	first := fetch(nil)
	r.Commit(map[string]string{"d/logo.png": "x", ".github/x": "y"})
	if a := fetch(nil); a.Digest != first.Digest || a.Revision == first.Revision {
		t.Errorf("files that are left out changed the digest")
	} else if mustHash(t, a.Tree, "d") != mustHash(t, first.Tree, "d") {
		t.Errorf("a file that is left out changed the hash of its folder")
	}
	none := "*.nothing"
	if a := fetch(&none); a.Digest == first.Digest {
		t.Error("with the image back in, the digest must change")
	}
	r.Commit(map[string]string{"d/b.yaml": "B"})
	second := fetch(nil)
	if second.Digest == first.Digest {
		t.Error("a change must change the digest")
	}
	if mustHash(t, second.Tree, "d") != mustHash(t, first.Tree, "d") || mustHash(t, second.Tree, "d/b.yaml") == mustHash(t, first.Tree, "d/b.yaml") {
		t.Error("a changed file must change its own hash and not its folder's")
	}
	r.Commit(map[string]string{"d/b.yaml": "b"})
	if a := fetch(nil); a.Digest != first.Digest {
		t.Error("the same content again must have the same digest")
	}
}

func TestLookUpsAreCheap(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	files := map[string]string{}
	for u := range 300 {
		for f := range 14 {
			files[fmt.Sprintf("clusters/one/apps/unit-%d/file-%d.yaml", u, f)] = fmt.Sprint(u, f)
		}
	}
	r.Commit(files)
	s := newStore(t, git.Options{})
	req := git.Request{URL: r.URL(), Ref: main}
	allocations := func() uint64 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.Mallocs
	}
	look := func(tree source.Tree) (time.Duration, uint64) {
		begin, before := time.Now(), allocations()
		for name := range files {
			if _, err := tree.Hash(name); err != nil {
				t.Fatal(err)
			}
		}
		for u := range 300 {
			if _, err := tree.Hash(fmt.Sprintf("clusters/one/apps/unit-%d", u)); err != nil {
				t.Fatal(err)
			}
		}
		return time.Since(begin), allocations() - before
	}
	look(mustFetch(t, s, req).Tree)
	r.Commit(map[string]string{"clusters/one/apps/unit-7/file-7.yaml": "changed"})
	tree := mustFetch(t, s, req).Tree
	took, allocated := look(tree)
	t.Logf("300 units with 15 look-ups each, in a new revision: %s, %d allocations", took, allocated)
	// The goal is 10 ms, which a busy machine misses. What is read and parsed anew is seen here.
	if most := uint64(3 * 300 * 15); allocated > most {
		t.Errorf("look-ups made %d allocations, want at most %d", allocated, most)
	}
}

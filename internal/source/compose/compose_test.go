package compose_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/compose"
	"github.com/bowline-dev/bowline/internal/source/local"
)

// artifact writes files into a folder and opens that. A content that begins with
// "->" makes a symbolic link.
func artifact(t *testing.T, files map[string]string) source.Artifact {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o700); err != nil {
			t.Fatal(err)
		}
		var err error
		if to, ok := strings.CutPrefix(content, "->"); ok {
			err = os.Symlink(to, at)
		} else {
			err = os.WriteFile(at, []byte(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tree, err := local.Open(dir, local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tree.Close() })
	a, err := tree.Artifact()
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// files reads all of a tree.
func files(t *testing.T, tree source.Tree) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := tree.ReadFile(name)
		if err != nil {
			data = []byte("unreadable")
		}
		out[name] = string(data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func digest(t *testing.T, tree *compose.Tree) string {
	t.Helper()
	d, err := tree.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var repository = map[string]string{
	"app.yaml": "app", "notes.md": "notes",
	"config/a.yaml": "a", "config/b.md": "b", "config/deep/c.yaml": "c", "config/deep/tests/t.yaml": "t",
	"base/values.yaml": "x: {p: 1, q: 2}\nlist: [1, 2]\n", "prod/values.yaml": "x: {q: 3}\nlist: [9]\n---\nlast: true\n",
	"link.yaml": "->config/a.yaml", "out.yaml": "->../../etc/passwd", "linked": "->config",
}

func TestCopy(t *testing.T) {
	tests := []struct {
		name, reason string
		copies       []compose.Copy
		want         map[string]string
	}{
		{"file to folder", "a slash at the end names a folder", []compose.Copy{{From: "app.yaml", To: "to/"}}, map[string]string{"to/app.yaml": "app"}},
		{"file to root", "the root is a folder", []compose.Copy{{From: "app.yaml", To: ""}}, map[string]string{"app.yaml": "app"}},
		{"file renamed", "no slash: it is the new name", []compose.Copy{{From: "app.yaml", To: "x/y.yaml"}}, map[string]string{"x/y.yaml": "app"}},
		{"file to folder that is there", "as cp does", []compose.Copy{{From: "config/deep", To: ""}, {From: "app.yaml", To: "deep"}},
			map[string]string{"deep/c.yaml": "c", "deep/tests/t.yaml": "t", "deep/app.yaml": "app"}},
		{"folder", "it comes itself", []compose.Copy{{From: "config/deep/", To: "to"}}, map[string]string{"to/deep/c.yaml": "c", "to/deep/tests/t.yaml": "t"}},
		{"what is in a folder", "/** leaves the folder out", []compose.Copy{{From: "config/deep/**", To: "to/"}}, map[string]string{"to/c.yaml": "c", "to/tests/t.yaml": "t"}},
		{"pattern", "other patterns keep the path", []compose.Copy{{From: "config/*.yaml", To: "to/"}}, map[string]string{"to/config/a.yaml": "a"}},
		{"pattern of folders", "", []compose.Copy{{From: "con*/de*", To: ""}}, map[string]string{"config/deep/c.yaml": "c", "config/deep/tests/t.yaml": "t"}},
		{"everything", "with what is left out", []compose.Copy{{From: "config/", To: "", Exclude: []string{"*.md", "**/tests/**"}}},
			map[string]string{"config/a.yaml": "a", "config/deep/c.yaml": "c"}},
		{"left out below the selection", "paths count from there too", []compose.Copy{{From: "config/**", To: "", Exclude: []string{"deep/**"}}},
			map[string]string{"a.yaml": "a", "b.md": "b"}},
		{"left out by whole path", "", []compose.Copy{{From: "config/**", To: "", Exclude: []string{"config/deep/**", "config/b.md"}}}, map[string]string{"a.yaml": "a"}},
		{"left out where the walk is", "a folder that was not selected is no anchor", []compose.Copy{{From: "config/**", To: "", Exclude: []string{"tests/**"}}},
			map[string]string{"a.yaml": "a", "b.md": "b", "deep/c.yaml": "c", "deep/tests/t.yaml": "t"}},
		{"one file left out", "it is no error, there are other operations", []compose.Copy{{From: "app.yaml", To: "", Exclude: []string{"app.yaml"}}}, map[string]string{}},
		{"the later wins", "files are replaced, folders united", []compose.Copy{{From: "config/deep/**", To: "d"}, {From: "app.yaml", To: "d/c.yaml"}, {From: "config/*.md", To: "d"}},
			map[string]string{"d/c.yaml": "app", "d/tests/t.yaml": "t", "d/config/b.md": "b"}},
		{"merge", "maps are united, lists replaced", []compose.Copy{{From: "base/values.yaml", To: ""}, {From: "prod/values.yaml", To: "values.yaml", Strategy: compose.Merge}},
			map[string]string{"values.yaml": "last: true\nlist:\n- 9\nx:\n  p: 1\n  q: 3\n"}},
		{"merge into nothing", "there is nothing to merge with", []compose.Copy{{From: "prod/values.yaml", To: "", Strategy: compose.Merge}},
			map[string]string{"values.yaml": repository["prod/values.yaml"]}},
		{"link", "a file that a link leads to", []compose.Copy{{From: "link.yaml", To: ""}}, map[string]string{"link.yaml": "a"}},
		{"link to a folder", "", []compose.Copy{{From: "linked/deep/**", To: ""}}, map[string]string{"c.yaml": "c", "tests/t.yaml": "t"}},
		{"links among others", "one that leads outside is not copied by a pattern", []compose.Copy{{From: "*.yaml", To: ""}}, map[string]string{"app.yaml": "app", "link.yaml": "a"}},
	}
	a := artifact(t, repository)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := compose.New()
			for _, c := range tt.copies {
				if err := b.Copy(a, c); err != nil {
					t.Fatal(err)
				}
			}
			tree := b.Tree()
			if got := files(t, tree); !maps.Equal(got, tt.want) {
				t.Errorf("%s: got %v, want %v", tt.reason, got, tt.want)
			}
			digest(t, tree)
			if names := slices.Sorted(maps.Keys(tt.want)); len(names) > 0 {
				if err := fstest.TestFS(tree, names...); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestCopyRefuses(t *testing.T) {
	tests := []struct {
		name, reason string
		copies       []compose.Copy
		kind         failure.Kind
	}{
		{"from above", "a path stays in its source", []compose.Copy{{From: "../x", To: ""}}, failure.Invalid},
		{"from the root of the machine", "", []compose.Copy{{From: "/etc/passwd", To: ""}}, failure.Invalid},
		{"pattern from above", "", []compose.Copy{{From: "config/../../*", To: ""}}, failure.Invalid},
		{"to above", "a path stays in the artifact", []compose.Copy{{From: "app.yaml", To: "../x"}}, failure.Invalid},
		{"to the root of the machine", "", []compose.Copy{{From: "app.yaml", To: "/x"}}, failure.Invalid},
		{"link that leads outside", "named by itself it is no accident", []compose.Copy{{From: "out.yaml", To: ""}}, failure.Invalid},
		{"nothing there", "", []compose.Copy{{From: "gone.yaml", To: ""}}, failure.NotFound},
		{"nothing matches", "", []compose.Copy{{From: "*.gone", To: ""}}, failure.NotFound},
		{"all left out", "", []compose.Copy{{From: "*.md", To: "", Exclude: []string{"*.md"}}}, failure.Invalid},
		{"no pattern", "", []compose.Copy{{From: "[", To: ""}}, failure.Invalid},
		{"no pattern to exclude", "", []compose.Copy{{From: "app.yaml", To: "", Exclude: []string{"[*.md"}}}, failure.Invalid},
		{"file over folder", "neither can be both", []compose.Copy{{From: "config/deep/**", To: "x/app.yaml"}, {From: "app.yaml", To: "x/"}}, failure.Invalid},
		{"folder over file", "neither can be both", []compose.Copy{{From: "app.yaml", To: "config"}, {From: "config", To: ""}}, failure.Invalid},
		{"into a file", "a file is no folder", []compose.Copy{{From: "app.yaml", To: "x"}, {From: "notes.md", To: "x/y"}}, failure.Invalid},
		{"merge of no YAML", "", []compose.Copy{{From: "base/values.yaml", To: ""}, {From: "app.yaml", To: "values.yaml", Strategy: compose.Merge}}, failure.Invalid},
		{"extract a folder", "", []compose.Copy{{From: "config", To: "", Strategy: compose.Extract}}, failure.Invalid},
		{"extract no archive", "", []compose.Copy{{From: "app.yaml", To: "", Strategy: compose.Extract}}, failure.Invalid},
	}
	a := artifact(t, repository)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := compose.New()
			var err error
			for _, c := range tt.copies {
				err = errors.Join(err, b.Copy(a, c))
			}
			if !errors.Is(err, failure.Of(tt.kind)) {
				t.Errorf("%s: %v, want one of kind %s", tt.reason, err, tt.kind)
			}
		})
	}
}

func TestGraft(t *testing.T) {
	a := artifact(t, map[string]string{"own.yaml": "own", "lib/old.yaml": "old"})
	other := artifact(t, map[string]string{"deploy/x.yaml": "x", "deploy/in/y.yaml": "y"})
	b := compose.New()
	for _, err := range []error{b.Graft(a, ".", "."), b.Graft(other, "./deploy", "lib/other"), b.Graft(other, "deploy/x.yaml", "lib/old.yaml")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"own.yaml": "own", "lib/old.yaml": "x", "lib/other/x.yaml": "x", "lib/other/in/y.yaml": "y"}
	if got := files(t, b.Tree()); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for from, kind := range map[string]failure.Kind{"../deploy": failure.Invalid, "none": failure.NotFound} {
		if err := compose.New().Graft(other, from, "."); !errors.Is(err, failure.Of(kind)) {
			t.Errorf("graft %s: %v, want %s", from, err, kind)
		}
	}
}

// TestIncremental: a build that read a composed tree is out of date only when
// something that it read is another one.
func TestIncremental(t *testing.T) {
	compile := func(files map[string]string) *compose.Tree {
		b := compose.New()
		if err := b.Copy(artifact(t, files), compose.Copy{From: "config/**", To: "in/"}); err != nil {
			t.Fatal(err)
		}
		if err := b.Copy(artifact(t, files), compose.Copy{From: "app.yaml", To: ""}); err != nil {
			t.Fatal(err)
		}
		return b.Tree()
	}
	tree := compile(repository)
	reads := build.Reads{"in/none": build.Absent, "in/deep": build.Folder, "in": ""}
	for name := range reads {
		if hash, err := tree.Hash(name); err == nil && reads[name] != build.Folder {
			reads[name] = hash
		}
	}
	for _, name := range []string{"in/a.yaml", ".", "app.yaml"} {
		hash, err := tree.Hash(name)
		if err != nil {
			t.Fatal(err)
		}
		reads[name] = hash
	}
	tests := []struct {
		name, reason, file, content string
		sameReads, sameDigest       bool
	}{
		{"nothing", "put together again it is the same", "app.yaml", "app", true, true},
		{"not copied", "what is not copied is no part of it", "notes.md", "other", true, true},
		{"not read", "the artifact is another one, and the build would be the same", "config/deep/c.yaml", "other", true, false},
		{"read", "", "config/a.yaml", "other", false, false},
		{"listed", "a folder that was listed has one more", "config/new.yaml", "new", false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			changed := maps.Clone(repository)
			changed[tt.file] = tt.content
			now := compile(changed)
			if got := reads.Unchanged(now); got != tt.sameReads {
				t.Errorf("%s: reads unchanged %t", tt.reason, got)
			}
			if got := digest(t, now) == digest(t, tree); got != tt.sameDigest {
				t.Errorf("%s: digest unchanged %t", tt.reason, got)
			}
		})
	}
}

// TestDigestSeesThroughLinks: what a link leads to is content, also where it is
// not copied itself, and links in circles end.
func TestDigestSeesThroughLinks(t *testing.T) {
	compile := func(content string) string {
		b := compose.New()
		err := b.Copy(artifact(t, map[string]string{
			"part/file": "->../far/file.yaml", "part/folder": "->../far", "part/round": "->..", "part/gone": "->nowhere", "far/file.yaml": content,
		}), compose.Copy{From: "part", To: ""})
		if err != nil {
			t.Fatal(err)
		}
		return digest(t, b.Tree())
	}
	one, again, two := compile("1"), compile("1"), compile("2")
	if one != again {
		t.Error("the digest of one content differs")
	}
	if one == two {
		t.Error("the digest does not see what links lead to")
	}
}

// circles has links that lead to more of themselves: 2^40 paths, as far as links are followed.
var circles = map[string]string{"a": "->.", "b": "->.", "f.yaml": "f", "out/of.yaml": "hidden"}

// TestLinksInCircles: a link is a link, whatever it leads to.
func TestLinksInCircles(t *testing.T) {
	a, again := artifact(t, circles), artifact(t, circles)
	hides := func(name string, _ bool) (hidden, all bool) { return name == "x/out" || name == "out", true }
	tests := []struct {
		name, reason string
		lay          func(*compose.Builder) error
		want         string
	}{
		{"include", "rules are about names in the tree, and links are not walked", func(b *compose.Builder) error { return b.Include(a, ".", "x", hides) }, "x/a x/b x/f.yaml"},
		{"union", "a link takes the place of a link", func(b *compose.Builder) error {
			return errors.Join(b.Graft(a, ".", "."), b.Graft(again, ".", "."), b.Graft(a, ".", "."))
		}, "a b f.yaml out/of.yaml"},
		{"include twice", "", func(b *compose.Builder) error {
			return errors.Join(b.Include(a, ".", ".", hides), b.Include(again, ".", ".", hides))
		}, "a b f.yaml"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := compose.New()
			if err := tt.lay(b); err != nil {
				t.Fatalf("%s: %v", tt.reason, err)
			}
			tree := b.Tree()
			if got := strings.Join(slices.Sorted(maps.Keys(files(t, tree))), " "); got != tt.want {
				t.Errorf("%s: got %s, want %s", tt.reason, got, tt.want)
			}
			digest(t, tree)
		})
	}
}

// TestPatternOverCircles: each wildcard would look at twice as much as the one before.
func TestPatternOverCircles(t *testing.T) {
	from := strings.Repeat("*/", 30) + "f.yaml"
	err := compose.New().Copy(artifact(t, circles), compose.Copy{From: from, To: "x/"})
	if !errors.Is(err, failure.Of(failure.Invalid)) {
		t.Errorf("got %v, want an error of kind Invalid: it would never end", err)
	}
}

// TestLinkMeetsFolder: what is copied to where a link is comes to what the link leads to, in
// this tree only, and ends where another link would have to be opened for it.
func TestLinkMeetsFolder(t *testing.T) {
	linked := artifact(t, map[string]string{"x": "->real", "real/old.yaml": "old"})
	folders := artifact(t, map[string]string{"x/new.yaml": "new"})
	want := map[string]string{"x/old.yaml": "old", "x/new.yaml": "new", "real/old.yaml": "old"}
	for name, order := range map[string][]source.Artifact{"folder over link": {linked, folders}, "link over folder": {folders, linked}} {
		b := compose.New()
		for _, a := range order {
			if err := b.Graft(a, ".", "."); err != nil {
				t.Fatal(err)
			}
		}
		if got := files(t, b.Tree()); !maps.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
	// Each has folders where the other has links, without end.
	one := artifact(t, map[string]string{"x/x": "->..", "x/y": "->..", "y/x": "->..", "y/y": "->.."})
	two := artifact(t, map[string]string{"x": "->z", "y": "->z", "z/x/x": "->..", "z/x/y": "->..", "z/y/x": "->..", "z/y/y": "->.."})
	b := compose.New()
	if err := errors.Join(b.Graft(one, ".", "."), b.Graft(two, ".", ".")); !errors.Is(err, failure.Of(failure.Invalid)) || !strings.Contains(err.Error(), "another link") {
		t.Errorf("circles that take turns: %v, want them refused", err)
	}
}

// TestCompositionOfCompositions: a composed tree is a source like any other.
func TestCompositionOfCompositions(t *testing.T) {
	inner := compose.New()
	if err := inner.Copy(artifact(t, repository), compose.Copy{From: "config", To: "x"}); err != nil {
		t.Fatal(err)
	}
	tree := inner.Tree()
	a := source.Artifact{Digest: digest(t, tree), Tree: tree}
	outer := compose.New()
	for _, err := range []error{outer.Graft(a, "x/config/deep", "y"), outer.Graft(a, "x", "z")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{
		"y/c.yaml": "c", "y/tests/t.yaml": "t",
		"z/config/a.yaml": "a", "z/config/b.md": "b", "z/config/deep/c.yaml": "c", "z/config/deep/tests/t.yaml": "t",
	}
	if got := files(t, outer.Tree()); !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	digest(t, outer.Tree())
}

// TestExtract: what an archive holds is copied instead of the archive, each to its place.
func TestExtract(t *testing.T) {
	pack := func(name, content string) string {
		var out bytes.Buffer
		zipped := gzip.NewWriter(&out)
		w := tar.NewWriter(zipped)
		err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg})
		_, err2 := w.Write([]byte(content))
		if err := errors.Join(err, err2, w.Close(), zipped.Close()); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	a := artifact(t, map[string]string{"charts/a.tgz": pack("a/x.yaml", "x"), "charts/deep/b.TGZ": pack("b/y.yaml", "y"), "charts/c.txt": "c", "bad.tgz": pack("../z", "z")})
	b := compose.New()
	if err := b.Copy(a, compose.Copy{From: "charts/**/*", To: "to/", Strategy: compose.Extract}); err != nil {
		t.Fatal(err)
	}
	tree := b.Tree()
	if got, want := files(t, tree), map[string]string{"to/a/x.yaml": "x", "to/b/y.yaml": "y"}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	digest(t, tree)
	if err := compose.New().Copy(a, compose.Copy{From: "bad.tgz", To: "", Strategy: compose.Extract}); !errors.Is(err, failure.Of(failure.Invalid)) {
		t.Errorf("an archive that leads outside: %v", err)
	}
}

func TestWrite(t *testing.T) {
	made := func(content string) *compose.Tree {
		b := compose.New()
		if err := errors.Join(b.Write("apps/a.yaml", []byte(content)), b.Write("./b.yaml", []byte("b"))); err != nil {
			t.Fatal(err)
		}
		return b.Tree()
	}
	one := made("a")
	if got, want := files(t, one), map[string]string{"apps/a.yaml": "a", "b.yaml": "b"}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if digest(t, one) != digest(t, made("a")) || digest(t, one) == digest(t, made("A")) {
		t.Error("the digest is not that of the content")
	}
	b := compose.New()
	for _, to := range []string{"../a", "/a", "."} {
		if err := b.Write(to, nil); failure.KindOf(err) != failure.Invalid {
			t.Errorf("written to %q: %v, want it refused", to, err)
		}
	}
}

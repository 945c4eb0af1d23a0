package kustomize

import (
	"context"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/build"
)

var update = flag.Bool("update", false, "write what was built into the golden files")

// golden is one file of testdata: a line that says why, the files of a tree,
// and among them the recipe and what is to come out.
type golden struct {
	file, reason string
	recipe       build.Recipe
	tree         mapTree
	want         string
}

func goldens(t *testing.T) []golden {
	t.Helper()
	names, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(names) == 0 {
		t.Fatal("no golden files", err)
	}
	var all []golden
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		reason, _, _ := strings.Cut(string(data), "\n")
		files := archive(string(data))
		g := golden{file: name, reason: reason, want: files["want"]}
		if err := yaml.UnmarshalStrict([]byte(files["recipe"]), &g.recipe); err != nil {
			t.Fatal(name, err)
		}
		delete(files, "recipe")
		delete(files, "want")
		g.tree = treeOf(files)
		all = append(all, g)
	}
	return all
}

// printed returns the objects of a result as YAML, or the error.
func printed(t *testing.T, res build.Result, err error) string {
	t.Helper()
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	var docs []string
	for _, u := range res.Objects {
		data, err := yaml.Marshal(u.Object)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, string(data))
	}
	return strings.Join(docs, "---\n")
}

func TestGolden(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(filepath.Base(g.file), func(t *testing.T) {
			res, err := Build(context.Background(), g.tree, g.recipe)
			got := printed(t, res, err)
			if *update {
				data, err := os.ReadFile(g.file)
				if err != nil {
					t.Fatal(err)
				}
				head, _, _ := strings.Cut(string(data), "-- want --\n")
				if err := os.WriteFile(g.file, []byte(head+"-- want --\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != g.want {
				t.Errorf("%s\n got:\n%s\nwant:\n%s", g.reason, got, g.want)
			}
		})
	}
}

// TestReads changes, removes and adds files one at a time. Whenever the recorded
// reads call a tree unchanged, building it must give the same bytes; and whatever
// is recorded must make a difference.
func TestReads(t *testing.T) {
	for _, g := range goldens(t) {
		t.Run(filepath.Base(g.file), func(t *testing.T) {
			res, err := Build(context.Background(), g.tree, g.recipe)
			want := printed(t, res, err)
			if !res.Reads.Unchanged(g.tree) {
				t.Fatal("the tree that was built counts as changed")
			}
			check := func(what string, tree mapTree) {
				t.Helper()
				if !res.Reads.Unchanged(tree) {
					return
				}
				again, err := Build(context.Background(), tree, g.recipe)
				if got := printed(t, again, err); got != want {
					t.Errorf("%s: counts as unchanged, but gives\n%s", what, got)
				}
			}
			unrelated := 0
			for _, name := range slices.Sorted(maps.Keys(g.tree.MapFS)) {
				edited := g.tree.with(name, string(g.tree.MapFS[name].Data)+"# edited\n")
				_, read := res.Reads[name]
				if changed := !res.Reads.Unchanged(edited); changed != read {
					t.Errorf("edit %s: changed %t, recorded %t", name, changed, read)
				}
				if !read {
					unrelated++
				}
				check("edit "+name, g.tree.with(name, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: edited}\n"))
				check("remove "+name, g.tree.without(name))
				dir, _ := filepath.Split(name)
				check("add beside "+name, g.tree.with(dir+"added.yaml", configMap))
				check("add a folder beside "+name, g.tree.with(dir+"added/kustomization.yaml", "namePrefix: x-\n"))
				for _, k := range []string{"kustomization.yaml", "kustomization.yml", "Kustomization"} {
					if _, there := g.tree.MapFS[dir+k]; !there {
						check("add "+dir+k, g.tree.with(dir+k, "namePrefix: x-\n"))
					}
				}
			}
			for name, hash := range res.Reads {
				if hash == build.Absent && res.Reads.Unchanged(g.tree.with(name, "new")) {
					t.Errorf("create %s: counts as unchanged", name)
				}
			}
			check("unrelated", g.tree.with("elsewhere/entirely.yaml", "x: y\n"))
		})
	}
}

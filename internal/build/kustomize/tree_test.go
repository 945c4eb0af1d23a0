package kustomize

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// mapTree is a source.Tree over files in memory.
type mapTree struct{ fstest.MapFS }

func treeOf(files map[string]string) mapTree {
	t := mapTree{fstest.MapFS{}}
	for name, content := range files {
		t.MapFS[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	}
	return t
}

// with returns a copy of the tree in which name holds content.
func (t mapTree) with(name, content string) mapTree {
	c := mapTree{fstest.MapFS{}}
	for n, f := range t.MapFS {
		c.MapFS[n] = f
	}
	c.MapFS[name] = &fstest.MapFile{Data: []byte(content), Mode: 0o644}
	return c
}

// without returns a copy of the tree that lacks name.
func (t mapTree) without(name string) mapTree {
	c := t.with(name, "")
	delete(c.MapFS, name)
	return c
}

func (t mapTree) Hash(name string) (string, error) {
	info, err := t.Stat(name)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if info.IsDir() {
		entries, err := t.ReadDir(name)
		if err != nil {
			return "", err
		}
		for _, e := range entries {
			fmt.Fprintf(h, "%s %t\n", e.Name(), e.IsDir())
		}
	} else {
		data, err := t.ReadFile(name)
		if err != nil {
			return "", err
		}
		h.Write(data)
	}
	return fmt.Sprintf("%x", h.Sum(nil)), nil
}

// archive splits text into files, each after a line "-- name --".
func archive(text string) map[string]string {
	files := map[string]string{}
	name := ""
	for line := range strings.SplitAfterSeq(text, "\n") {
		if n, ok := strings.CutPrefix(line, "-- "); ok && strings.HasSuffix(n, " --\n") {
			name = strings.TrimSuffix(n, " --\n")
			files[name] = ""
		} else if name != "" {
			files[name] += line
		}
	}
	return files
}

// dirTree reads a tree from a folder, without .git.
func dirTree(t *testing.T, dir string) mapTree {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && e.Name() == ".git" {
			return filepath.SkipDir
		}
		if !e.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		rel := strings.TrimPrefix(strings.TrimPrefix(filepath.ToSlash(p), filepath.ToSlash(dir)), "/")
		files[path.Clean(rel)] = string(data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return treeOf(files)
}

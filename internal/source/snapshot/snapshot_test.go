package snapshot_test

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bowline-dev/bowline/internal/source/snapshot"
)

// memory is a backend that names folders by what they hold, as Git does. It
// counts how often folders are listed.
type memory struct {
	mu      sync.Mutex // guards what follows
	folders map[string][]snapshot.Entry
	listed  []string
}

// folder stores a folder and returns its ID.
func (m *memory) folder(entries ...snapshot.Entry) string {
	slices.SortFunc(entries, func(a, b snapshot.Entry) int { return strings.Compare(a.Name, b.Name) })
	id := fmt.Sprint(entries)
	m.folders[id] = entries
	return id
}

func (m *memory) List(id string) ([]snapshot.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listed = append(m.listed, id)
	entries, ok := m.folders[id]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return slices.Clone(entries), nil
}

func (m *memory) Size(id string) (int64, error)  { return int64(len(id)), nil }
func (m *memory) Read(id string) ([]byte, error) { return []byte(id), nil }
func (m *memory) Hash(id string) (string, error) { return id, nil }

func file(name, content string) snapshot.Entry { return snapshot.Entry{Name: name, ID: content} }
func dir(name, id string) snapshot.Entry {
	return snapshot.Entry{Name: name, ID: id, Kind: snapshot.Dir}
}

func (m *memory) tree(t *testing.T, root string, cache *snapshot.Cache) *snapshot.Tree {
	t.Helper()
	tree, err := snapshot.New(m, root, snapshot.Options{Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// TestNewRevisionListsOnlyWhatChanged: with a shared cache, a tree looks only at folders that no tree before it knew.
func TestNewRevisionListsOnlyWhatChanged(t *testing.T) {
	m := &memory{folders: map[string][]snapshot.Entry{}}
	cache := snapshot.NewCache()
	revision := func(content string) string {
		var units []snapshot.Entry
		for i := range 300 {
			c := "same"
			if i == 7 {
				c = content
			}
			units = append(units, dir(fmt.Sprintf("unit-%d", i), m.folder(file("a.yaml", c), file("b.yaml", fmt.Sprint(i)))))
		}
		return m.folder(dir("units", m.folder(units...)), file("x", "x"))
	}
	look := func(tree *snapshot.Tree) string {
		for i := range 300 {
			if _, err := tree.Hash(fmt.Sprintf("units/unit-%d/a.yaml", i)); err != nil {
				t.Fatal(err)
			}
		}
		digest, err := tree.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	before := look(m.tree(t, revision("old"), cache))
	next := revision("new")
	m.listed = nil
	if after := look(m.tree(t, next, cache)); after == before {
		t.Error("the digest has not changed")
	}
	// The root, the folder of units and the changed unit; each for the ignore
	// files, for the names and for the digest.
	if len(m.listed) > 9 {
		t.Errorf("%d folders were listed for a change of one file", len(m.listed))
	}
}

// TestMoreFoldersThanTheCacheHolds: eviction costs time and nothing else.
func TestMoreFoldersThanTheCacheHolds(t *testing.T) {
	m := &memory{folders: map[string][]snapshot.Entry{}}
	var folders []snapshot.Entry
	const n = 5000
	for i := range n {
		folders = append(folders, dir(fmt.Sprintf("d%d", i), m.folder(file("f", fmt.Sprint(i)))))
	}
	root := m.folder(folders...)
	cache := snapshot.NewCache()
	var wg sync.WaitGroup
	for range 3 {
		tree := m.tree(t, root, cache)
		wg.Go(func() {
			for i := range n {
				if got, err := tree.ReadFile(fmt.Sprintf("d%d/f", i)); err != nil || string(got) != fmt.Sprint(i) {
					t.Errorf("d%d/f = %q, %v", i, got, err)
					return
				}
			}
		})
	}
	wg.Wait()
}

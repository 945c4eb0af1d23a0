package snapshot

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"strings"
)

// gather reads the .sourceignore files of a folder and of those below it, the
// outer before the inner.
func (t *Tree) gather(set *ruleSet, path []string, id string) error {
	name := strings.Join(path, "/")
	if !t.view.modulesBelow(name) {
		if has, err := t.hasIgnoreFile(id); err != nil || !has {
			return err
		}
	}
	entries, err := t.list(name, id)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name != IgnoreFile || e.Kind != File {
			continue
		}
		text, err := t.backend.Read(e.ID)
		if err != nil {
			return err
		}
		set.add(string(text), path)
	}
	for _, e := range entries {
		if e.Kind == Dir && e.Name != ".git" {
			if err := t.gather(set, append(path[:len(path):len(path)], e.Name), e.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// hasIgnoreFile reports whether there is a .sourceignore in a folder or below it.
func (t *Tree) hasIgnoreFile(id string) (bool, error) {
	if has, known := t.cache.ignoreFile(id); known {
		return has, nil
	}
	entries, err := t.backend.List(id)
	if err != nil {
		return false, err
	}
	has := false
	for _, e := range entries {
		has = has || (e.Name == IgnoreFile && e.Kind == File)
		if e.Kind == Dir && !has && e.Name != ".git" {
			if has, err = t.hasIgnoreFile(e.ID); err != nil {
				return false, err
			}
		}
	}
	t.cache.putIgnoreFile(id, has)
	return has, nil
}

// visible lists a folder without what the rules leave out. The folder itself
// must be visible.
func (t *Tree) visible(path, id string) ([]Entry, error) {
	entries, err := t.list(path, id)
	if err != nil {
		return nil, err
	}
	var segs []string
	if path != "" {
		segs = strings.Split(path, "/")
	}
	segs = append(segs, "")
	out := entries[:0]
	for _, e := range entries {
		segs[len(segs)-1] = e.Name
		isDir := e.Kind == Dir || e.Kind == Module
		if t.rules.excludes(segs, isDir) {
			if e.Kind != Dir || !t.rules.includes {
				continue
			}
			// A folder that is left out stays when a pattern takes something in it back in.
			sum, err := t.summary(join(path, e.Name), e.ID)
			if err != nil {
				return nil, err
			}
			if sum.empty {
				continue
			}
		}
		out = append(out, e)
	}
	return out, nil
}

func (r *rules) excludes(path []string, isDir bool) bool {
	if r.byName {
		path = path[len(path)-1:]
	}
	return r.matcher.Match(path, isDir)
}

// Filter returns the ignore rules of the tree for paths that are not in it, and nil
// when nobody gave any. It says whether a path is hidden, and whether all that
// may be below it is, too.
func (t *Tree) Filter() func(path string, isDir bool) (hidden, all bool) {
	if t.rules.byName {
		return nil
	}
	return func(path string, isDir bool) (hidden, all bool) {
		segs := strings.Split(path, "/")
		for i := range segs {
			hidden = t.rules.excludes(segs[:i+1], isDir || i < len(segs)-1)
			if hidden && !t.rules.includes {
				return true, true
			}
		}
		return hidden, false
	}
}

// summary says what a folder holds, all the way down.
type summary struct {
	digest [20]byte
	// empty is true when nothing in the folder is visible.
	empty bool
	// links is true when there is a symbolic link in it.
	links bool
}

func (t *Tree) summary(path, id string) (summary, error) {
	key := dirKey{t.rules.id, path, id}
	if s, ok := t.cache.summary(key); ok {
		return s, nil
	}
	entries, err := t.visible(path, id)
	if err != nil {
		return summary{}, err
	}
	h := sha256.New()
	links := false
	for _, e := range entries {
		fmt.Fprintf(h, "%s\x00%d ", e.Name, e.Kind)
		links = links || e.Kind == Link
		switch e.Kind {
		case Dir:
			sub, err := t.summary(join(path, e.Name), e.ID)
			if err != nil {
				return summary{}, err
			}
			links = links || sub.links
			h.Write(sub.digest[:])
		case File, Link:
			content, err := t.backend.Hash(e.ID)
			if err != nil {
				return summary{}, err
			}
			h.Write([]byte(content))
		case Module: // has no content here
		}
		h.Write([]byte{'\n'})
	}
	s := summary{digest: [20]byte(h.Sum(nil)[:20]), empty: len(entries) == 0, links: links}
	t.cache.putSummary(key, s)
	return s, nil
}

// Digest names all that is visible in the tree: it changes when that does, and
// never otherwise. It looks at every folder that no tree before it has looked at.
func (t *Tree) Digest() (string, error) {
	s, err := t.summary("", t.rootID)
	if err != nil {
		return "", err
	}
	return "tree:" + hex.EncodeToString(s.digest[:]), nil
}

// Below names all that is visible in the folder at name, as Digest does for the
// whole tree, and costs no more than the folders that no tree before this one has looked at.
// closed is false when there is a symbolic link in it: what that leads to may be
// elsewhere in the tree, and is not part of the digest.
func (t *Tree) Below(name string) (digest string, closed bool, err error) {
	n, err := t.lookup("digest", name)
	if err != nil {
		return "", false, err
	}
	if n.dir == nil {
		return "", false, &fs.PathError{Op: "digest", Path: name, Err: fmt.Errorf("it is no folder: %w", fs.ErrInvalid)}
	}
	if n.dir == emptyDir {
		return emptyDir.hash, true, nil
	}
	s, err := t.summary(n.dir.path, n.dir.id)
	if err != nil {
		return "", false, pathError("digest", name, err)
	}
	return "tree:" + hex.EncodeToString(s.digest[:]), !s.links, nil
}

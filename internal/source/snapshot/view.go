package snapshot

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/bowline-dev/bowline/internal/failure"
)

// view is what of the backend belongs to the source at all, before any rule.
type view struct {
	only    []string
	modules map[string]string
}

// id names the view: equal ids, equal views.
func (v view) id() string {
	var b strings.Builder
	for _, name := range v.only {
		fmt.Fprintf(&b, "only %q\n", name)
	}
	for _, name := range slices.Sorted(maps.Keys(v.modules)) {
		fmt.Fprintf(&b, "module %q %q\n", name, v.modules[name])
	}
	return b.String()
}

// shows reports whether an entry belongs to the source: what is listed, what is
// below, and the folders on the way.
func (v view) shows(name string, kind Kind) bool {
	if len(v.only) == 0 {
		return true
	}
	for _, o := range v.only {
		if o == "." || below(name, o) || kind != File && kind != Link && below(o, name) {
			return true
		}
	}
	return false
}

// Shows reports whether a folder would be shown, whole or in part, with Options.Only.
func Shows(only []string, folder string) bool { return view{only: only}.shows(folder, Dir) }

// below reports whether a path is that of a folder or of something in it.
func below(name, folder string) bool {
	rest, ok := strings.CutPrefix(name, folder)
	return ok && (rest == "" || rest[0] == '/')
}

// modulesBelow reports whether a module is shown in a folder, or further below.
func (v view) modulesBelow(folder string) bool {
	for name := range v.modules {
		if folder == "" || below(name, folder) {
			return true
		}
	}
	return false
}

// list is the backend's list of a folder as the view has it.
func (t *Tree) list(path, id string) ([]Entry, error) {
	entries, err := t.backend.List(id)
	if err != nil || len(t.view.only)+len(t.view.modules) == 0 {
		return entries, err
	}
	out := entries[:0]
	for _, e := range entries {
		name := join(path, e.Name)
		if !t.view.shows(name, e.Kind) {
			continue
		}
		if suffix, ok := t.view.modules[name]; ok && e.Kind == Module {
			e.Kind, e.ID = Dir, e.ID+suffix
		}
		out = append(out, e)
	}
	return out, nil
}

// checkOnly finds paths of the view that are not there.
func (t *Tree) checkOnly() error {
	for _, name := range t.view.only {
		found, err := t.exists(name)
		if err != nil {
			return err
		}
		if !found {
			return &failure.Error{
				Op: "show", Object: name, Kind: failure.NotFound, Err: errors.New("there is no such directory in the source"),
				Remedy: "correct the list of directories, or add it to the source",
			}
		}
	}
	return nil
}

func (t *Tree) exists(name string) (bool, error) {
	if name == "." {
		return true, nil
	}
	if !fs.ValidPath(name) {
		return false, nil
	}
	path, e := "", Entry{Kind: Dir, ID: t.rootID}
	for seg := range strings.SplitSeq(name, "/") {
		if e.Kind != Dir {
			return false, nil
		}
		entries, err := t.list(path, e.ID)
		if err != nil {
			return false, err
		}
		i := slices.IndexFunc(entries, func(e Entry) bool { return e.Name == seg })
		if i < 0 {
			return false, nil
		}
		path, e = join(path, seg), entries[i]
	}
	return true, nil
}

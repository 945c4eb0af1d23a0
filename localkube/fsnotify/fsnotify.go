// Package fsnotify stands in for the module of this name in the control plane, and never tells of
// a change. The components of Kubernetes watch each of their certificate files through an inotify
// instance of its own, eleven for one cluster, of which a user has 128 by default: a dozen clusters
// on one machine would leave none to anybody else, and programs that need one end with "too many
// open files". Here nobody changes those files while the control plane runs; the components read
// them again when it starts.
package fsnotify

import (
	"errors"
	"strings"
)

// ErrNonExistentWatch is that Remove was called for a path that was not added.
var ErrNonExistentWatch = errors.New("fsnotify: no such watch")

// Op is what happened to a file, as a set of bits.
type Op uint32

// What can happen to a file.
const (
	Create Op = 1 << iota
	Write
	Remove
	Rename
	Chmod
)

// Has reports whether all of the bits are set.
func (o Op) Has(bits Op) bool { return o&bits == bits }

// String names the bits.
func (o Op) String() string {
	var names []string
	for i, name := range []string{"CREATE", "WRITE", "REMOVE", "RENAME", "CHMOD"} {
		if o.Has(1 << i) {
			names = append(names, name)
		}
	}
	return strings.Join(names, "|")
}

// Event is a change of a file.
type Event struct {
	Name string // path
	Op   Op
}

// Has reports whether the event has all of the bits.
func (e Event) Has(bits Op) bool { return e.Op.Has(bits) }

// String says what happened to which file.
func (e Event) String() string { return e.Op.String() + " " + e.Name }

// Watcher never tells of anything.
type Watcher struct {
	Events chan Event
	Errors chan error
}

// NewWatcher returns a watcher, which takes nothing from the operating system.
func NewWatcher() (*Watcher, error) {
	return &Watcher{Events: make(chan Event), Errors: make(chan error)}, nil
}

// Add does nothing.
func (w *Watcher) Add(string) error { return nil }

// Remove does nothing.
func (w *Watcher) Remove(string) error { return nil }

// Close does nothing.
func (w *Watcher) Close() error { return nil }

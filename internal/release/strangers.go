package release

import (
	"helm.sh/helm/v4/pkg/release/common"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Strangers reports whether the cluster may have releases whose objects no ledger knows: those that are
// installed and were not made by the engine for a unit which uses them. Only such a
// release has objects that have to be read to know whose they are. While the storage is
// not known, there may be.
func (w *Watch) Strangers() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.synced {
		return true
	}
	used := make(map[Key]bool, len(w.users))
	for _, release := range w.users {
		used[release] = true
	}
	for release, r := range w.known {
		newest, ok := r.newest()
		if ok && newest.Status != common.StatusUninstalled && !(used[release] && r.marked[newest.Version]) {
			return true
		}
	}
	return false
}

func newRevisions() *revisions {
	return &revisions{stored: map[int]Seen{}, ours: map[int]Seen{}, marked: map[int]bool{}}
}

// newest returns the newest revision; false: there is none.
func (r *revisions) newest() (newest Seen, ok bool) {
	for version, seen := range r.stored {
		if !ok || version > newest.Version {
			newest, ok = seen, true
		}
	}
	return newest, ok
}

// note keeps whether a revision bears the marks of the engine.
func (r *revisions) note(version int, marked bool) {
	if marked {
		r.marked[version] = true
	} else {
		delete(r.marked, version)
	}
}

// marked reports whether the Secret says for which unit the engine wrote it.
func marked(obj any) bool {
	m, ok := obj.(metav1.Object)
	return ok && marksOf(m.GetAnnotations()).Unit != ""
}

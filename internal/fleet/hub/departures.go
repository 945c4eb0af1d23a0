package hub

import (
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/bowline-dev/bowline/internal/fleet/placement"
)

// departures is what one Placement would leave. Nothing leaves that is not released here.
type departures struct {
	// released may leave, and is on its way.
	released sets.Set[string]
	// waiting would leave, since the list is what it is.
	waiting []string
	since   time.Time
	// approval is what has to be approved first; nil where nothing has to.
	approval *placement.Emptying
	// used is the digest of an approval that clusters were released by, as long as the Placement may still name it; it is good for nothing more.
	used string
	// selected is how many clusters the Placement is for.
	selected int
}

// judge takes in what a Placement would leave besides what is released already, and returns what is released now, and
// after what time to ask again. Labels of many clusters change one after the other: only a list that has
// been the same for a while counts, so that they are one step.
func (d *departures) judge(e placement.Emptying, careful bool, approved string, now time.Time, settle time.Duration) (released []string, again time.Duration) {
	if !slices.Equal(e.Clusters, d.waiting) {
		d.waiting, d.since = e.Clusters, now
	}
	if !approves(approved, d.used) {
		d.used = ""
	}
	switch {
	case len(e.Clusters) == 0:
		d.approval = nil
		return nil, 0
	case careful && e.Digest != d.used && approves(approved, e.Digest):
		d.used = e.Digest
	case now.Sub(d.since) < settle:
		if d.approval != nil && careful {
			d.approval = &e
		}
		return nil, settle - now.Sub(d.since)
	case careful:
		d.approval = &e
		return nil, 0
	}
	d.approval, d.waiting = nil, nil
	d.released.Insert(e.Clusters...)
	return e.Clusters, 0
}

// approves reports whether an annotation names a digest.
func approves(annotation, digest string) bool { return slices.Contains(digests(annotation), digest) }

// without returns what an annotation names besides a digest.
func without(annotation, digest string) string {
	return strings.Join(slices.DeleteFunc(digests(annotation), func(d string) bool { return d == digest }), ",")
}

// digests returns the digests that an annotation names, in order.
func digests(annotation string) []string {
	all := strings.FieldsFunc(annotation, func(r rune) bool { return r == ',' || r == ' ' })
	slices.Sort(all)
	return slices.Compact(all)
}

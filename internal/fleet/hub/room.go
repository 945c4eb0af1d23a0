package hub

import (
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/bowline-dev/bowline/internal/fleet/placement"
)

// rooms holds what is remembered, for each namespace.
type rooms struct {
	mu  sync.Mutex
	all map[string]*room // guarded by mu
}

func newRooms() *rooms { return &rooms{all: map[string]*room{}} }

// of returns the room of a namespace, a new one where there was none.
func (r *rooms) of(namespace string) *room {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all[namespace] == nil {
		r.all[namespace] = &room{intents: map[string]intent{}, departures: map[string]*departures{}, clusters: map[string]*state{}}
	}
	return r.all[namespace]
}

// room is what is remembered of one namespace. The zero version means that there was no survey yet.
type room struct {
	mu sync.Mutex
	// All below is guarded by mu.
	fleet *placement.Fleet
	// version counts the fleets, and signature is what the last one was made from.
	version   uint64
	signature string
	sources   map[placement.SourceKey]seen
	// intents says of each Placement since which version it is what it is.
	intents    map[string]intent
	departures map[string]*departures
	clusters   map[string]*state
}

// intent is one generation of a Placement.
type intent struct {
	generation int64
	uid        string
	version    uint64
}

// state is what became of one cluster's assignment.
type state struct {
	// version is that of the fleet that it was made from, and input all that it was made from.
	version uint64
	input   string
	// generation is that of the FleetCluster, and written that of the assignment.
	generation, written int64
	digest              string
	// units says how many units of each Placement there are.
	units map[string]int
	// problems are those of placement.Result, and err is why there is no assignment.
	problems map[string]error
	err      error
	// memo is what its units were made to be. It belongs to the reconcile of the cluster.
	memo *placement.Memo
}

// current returns the fleet and its version; nil before the first survey.
func (r *room) current() (*placement.Fleet, uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fleet, r.version
}

// state returns what is known of a cluster; ok is false where it was not looked at yet.
func (r *room) state(cluster string) (s state, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.clusters[cluster] == nil {
		return state{}, false
	}
	return *r.clusters[cluster], true
}

// note remembers what became of a cluster, and returns the Placements for which that is news: those that it has or had
// where something differs, and those that changed since it was looked at, though it may have nothing of them.
func (r *room) note(cluster string, s state) (news []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.clusters[cluster]
	r.clusters[cluster] = &s
	if before == nil {
		before = &state{}
	}
	names := sets.New[string]()
	if s.digest != before.digest || s.generation != before.generation || !sameProblem(s.err, before.err) || !maps.EqualFunc(s.problems, before.problems, sameProblem) {
		for _, of := range []*state{before, &s} {
			names = names.Union(sets.KeySet(of.units)).Union(sets.KeySet(of.problems))
		}
	}
	for name, i := range r.intents {
		if i.version > before.version && i.version <= s.version {
			names.Insert(name)
		}
	}
	return sets.List(names)
}

func sameProblem(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.Error() == b.Error()
}

// forget forgets a cluster, and returns the Placements that it had.
func (r *room) forget(cluster string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.clusters[cluster]
	if s == nil {
		return nil
	}
	delete(r.clusters, cluster)
	return sets.List(sets.KeySet(s.units).Union(sets.KeySet(s.problems)))
}

// placementsOf returns the Placements that a cluster has.
func (r *room) placementsOf(cluster string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.clusters[cluster]
	if s == nil {
		return nil
	}
	return slices.Collect(maps.Keys(s.units))
}

// keeps says whether a Placement that selects a cluster no more stays on it, and whether the survey knows.
func (r *room) keeps(name, cluster string) (keeps, known bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := r.departures[name]
	if d == nil {
		return true, false
	}
	return !d.released.Has(cluster), slices.Contains(d.waiting, cluster)
}

// used returns the approval of a Placement that is used up and still stands there; "" for none.
func (r *room) used(name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if d := r.departures[name]; d != nil {
		return d.used
	}
	return ""
}

// view is what the status of one Placement is told from.
type view struct {
	fleet    *placement.Fleet
	intent   intent
	approval *placement.Emptying
	clusters map[string]state
}

// view returns what is known for a Placement; ok is false before it was surveyed.
func (r *room) view(name string) (v view, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v = view{fleet: r.fleet, intent: r.intents[name], clusters: make(map[string]state, len(r.clusters))}
	if r.fleet == nil || v.intent.uid == "" {
		return view{}, false
	}
	if d := r.departures[name]; d != nil {
		v.approval = d.approval
	}
	for cluster, s := range r.clusters {
		v.clusters[cluster] = *s
	}
	return v, true
}

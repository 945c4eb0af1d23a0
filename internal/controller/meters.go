package controller

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/source"
)

// meters counts what the engines of a process do. In a steady state none of them moves.
type meters struct {
	builds        *prometheus.CounterVec
	renders       prometheus.Counter
	requests      *prometheus.CounterVec
	audited       prometheus.Counter
	disagreements prometheus.Counter

	mu    sync.Mutex
	known map[int]func() int // guarded by mu; how many objects each engine knows
	next  int                // guarded by mu
}

func newMeters() *meters {
	return &meters{
		known: map[int]func() int{},
		builds: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bowline_builds_total", Help: "Builds of units, by outcome.",
		}, []string{"outcome"}),
		renders: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "bowline_renders_total", Help: "Charts that were rendered with values.",
		}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "bowline_requests_total", Help: "Requests about delivered objects, by what they do: apply, dry-run or delete.",
		}, []string{"request"}),
		audited: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "bowline_audit_objects_total", Help: "Objects whose ledger record was compared with a dry run.",
		}),
		disagreements: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "bowline_audit_disagreements_total", Help: "Objects for which the ledger said in sync and a dry run did not. Must stay 0.",
		}),
	}
}

// register shows the meters in a registry until the returned function is called.
func (m *meters) register(r prometheus.Registerer) (unregister func(), err error) {
	objects := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "bowline_ledger_objects", Help: "Objects that the ledgers of all clusters know.",
	}, func() float64 { return float64(m.objects()) })
	var shown []prometheus.Collector
	unregister = func() {
		for _, c := range shown {
			r.Unregister(c)
		}
	}
	for _, c := range []prometheus.Collector{m.builds, m.renders, m.requests, m.audited, m.disagreements, objects} {
		if err := r.Register(c); err != nil {
			unregister()
			return nil, fmt.Errorf("register metrics: %w", err)
		}
		shown = append(shown, c)
	}
	return unregister, nil
}

// join adds the objects that an engine knows, until the returned function is called.
func (m *meters) join(known func() int) (leave func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next++
	mine := m.next
	m.known[mine] = known
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.known, mine)
	}
}

func (m *meters) objects() int {
	m.mu.Lock()
	all := slices.Collect(maps.Values(m.known))
	m.mu.Unlock()
	n := 0
	for _, known := range all {
		n += known()
	}
	return n
}

func (m *meters) request(kind string) { m.requests.WithLabelValues(kind).Inc() }

// build counts the builds of b.
func (m *meters) build(b pipeline.Builder) pipeline.Builder {
	return func(ctx context.Context, tree source.Tree, recipe build.Recipe) (build.Result, error) {
		result, err := b(ctx, tree, recipe)
		outcome := "success"
		if err != nil {
			outcome = "failure"
		}
		m.builds.WithLabelValues(outcome).Inc()
		return result, err
	}
}

package controller

import (
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"

	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// BenchmarkGuests measures what one more engine of a member costs its process at rest. They all serve one cluster, which has
// nothing to deliver, and do not take turns there.
func BenchmarkGuests(b *testing.B) {
	config := testkit.Start(b).Config
	if err := crds.Apply(b.Context(), config); err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	store, err := git.New(git.Options{DataDir: filepath.Join(dir, "git")})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(store.Close)
	host := &engine{options: Options{DataDir: dir, AuditInterval: -1}.withDefaults(), host: &host{repositories: store, meters: newMeters(), turns: &atomic.Uint64{}}}
	guest := func(i int) {
		address := freeAddress(b)
		e := runEngine(config, dir, func(o *Options) {
			name := fmt.Sprintf("guest-%d", i)
			*o = host.guestOptions(name)
			o.RestConfig, o.LeaderElect, o.HealthAddr = config, false, address
		})
		awaitReady(b, e, address)
		b.Cleanup(func() { _ = e.stop() })
	}
	guest(0) // what the first of them needs, all share
	guest(1)
	bytes, goroutines := atRest()
	for i := range b.N {
		guest(i + 2)
	}
	b.StopTimer()
	after, more := atRest()
	b.ReportMetric(float64(after-bytes)/float64(b.N)/(1<<20), "MiB/engine")
	b.ReportMetric(float64(more-goroutines)/float64(b.N), "goroutines/engine")
}

// atRest returns what the process has in use, heap and stacks, and how many goroutines.
func atRest() (bytes, goroutines int) {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapInuse + m.StackInuse), runtime.NumGoroutine()
}

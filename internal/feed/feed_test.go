package feed_test

import (
	"slices"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/controller/priorityqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/bowline-dev/bowline/internal/feed"
)

// take takes as many requests as there are to be.
func take(t *testing.T, q workqueue.TypedRateLimitingInterface[reconcile.Request], n int) (names []string) {
	t.Helper()
	for range n {
		r, down := q.Get()
		if down {
			t.Fatal("the queue is shut down")
		}
		names = append(names, r.Name)
		q.Done(r)
	}
	return names
}

func TestFeed(t *testing.T) {
	named := func(name string) types.NamespacedName { return types.NamespacedName{Name: name} }
	for _, tt := range []struct {
		name, reason string
		queue        workqueue.TypedRateLimitingInterface[reconcile.Request]
		want         []string
	}{
		{"with priorities", "what people wait for goes first", priorityqueue.New("test", func(o *priorityqueue.Opts[reconcile.Request]) { o.Log = logr.Discard() }), []string{"urgent", "usual", "idle"}},
		{"without", "nothing is lost", workqueue.NewTypedRateLimitingQueue(workqueue.DefaultTypedControllerRateLimiter[reconcile.Request]()), []string{"idle", "usual", "urgent"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			defer tt.queue.ShutDown()
			f := &feed.Feed{}
			f.Add(named("early"))
			f.AddAt(named("early"), 1)
			f.AddAfter(named("early"), 0)
			if err := f.Start(t.Context(), tt.queue); err != nil {
				t.Fatal(err)
			}
			f.AddAt(named("idle"), -1)
			f.Add(named("usual"))
			f.AddAt(named("urgent"), 1)
			if got := take(t, tt.queue, 3); !slices.Equal(got, tt.want) {
				t.Errorf("came as %q, want %q: %s", got, tt.want, tt.reason)
			}
			f.AddAfter(named("late"), time.Millisecond)
			if got := take(t, tt.queue, 1); got[0] != "late" {
				t.Errorf("came as %q", got)
			}
		})
	}
}

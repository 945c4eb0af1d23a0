package controller

import (
	"errors"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/failure"
)

// renderPatience is how long a worker waits for templates, at the most: the largest
// charts take seconds.
const renderPatience = time.Minute

// renders knows which renders have not ended. A template that never does cannot be
// stopped, only left behind; the same is not begun again beside it. The zero value is
// ready to use.
type renders struct {
	mu    sync.Mutex
	going map[renderKey]bool // guarded by mu
}

// renderKey names what is rendered by whom; digest is that of the request.
type renderKey struct {
	unit   types.NamespacedName
	digest string
}

// begin notes a render, and returns what is to be called when it has really ended. It
// fails while the same one is going on.
func (r *renders) begin(key renderKey) (ended func(), err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.going[key] {
		return nil, &failure.Error{Op: "render", Kind: failure.Timeout, Object: "the chart of HelmRelease " + key.unit.String(),
			Err: errors.New("its templates were given up for taking too long, and have not ended"), Remedy: "look for loops in its templates"}
	}
	if r.going == nil {
		r.going = map[renderKey]bool{}
	}
	r.going[key] = true
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.going, key)
	}, nil
}

package sops

import (
	"container/list"
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
)

const (
	// maxDataKeys bounds the data keys that are remembered, of 32 bytes each.
	maxDataKeys = 4096
	// keepFailure is how long a failure is kept for those whom it wakes.
	keepFailure = time.Minute
	// maxAsking bounds the requests to key services that are under way.
	maxAsking = 64
)

// question is something that only a key service can answer.
type question struct {
	id string
	// services are those that are asked.
	services []string
	ask      func(context.Context) ([]byte, error)
	wake     func()
}

// answers remembers data keys and asks for those that it does not know, each once
// however many builds want it.
type answers struct {
	ctx     context.Context
	options Options
	asking  chan struct{}

	mu     sync.Mutex
	keys   map[string]*list.Element // guarded by mu; of type *answer
	recent *list.List               // guarded by mu; the latest used first
	flying map[string]*flight       // guarded by mu
	// slow counts, per service, the questions whose answer a build did not wait for
	// any more. While there is one, nobody waits for that service at all.
	slow map[string]int // guarded by mu
}

type answer struct {
	id  string
	key []byte
}

// flight is a question under way, or one that failed after those who asked had left.
type flight struct {
	done     chan struct{}
	services []string
	overdue  bool     // guarded by answers.mu
	wake     []func() // guarded by answers.mu
	key      []byte   // set before done is closed
	err      error    // set before done is closed
}

func newAnswers(ctx context.Context, o Options) *answers {
	return &answers{
		ctx: ctx, options: o, asking: make(chan struct{}, maxAsking),
		keys: map[string]*list.Element{}, recent: list.New(), flying: map[string]*flight{}, slow: map[string]int{},
	}
}

// known returns a remembered data key, or nil.
func (a *answers) known(id string) []byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.keys[id]
	if !ok {
		return nil
	}
	a.recent.MoveToFront(e)
	kept, _ := e.Value.(*answer)
	return kept.key
}

func (a *answers) keep(id string, key []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keepLocked(id, key)
}

func (a *answers) keepLocked(id string, key []byte) {
	if _, ok := a.keys[id]; ok {
		return
	}
	a.keys[id] = a.recent.PushFront(&answer{id, key})
	if a.recent.Len() > maxDataKeys {
		last := a.recent.Back()
		a.recent.Remove(last)
		old, _ := last.Value.(*answer)
		delete(a.keys, old.id)
	}
}

// ask returns the answer, or fails when it does not come soon; whoever asked is then
// woken when it does.
func (a *answers) ask(ctx context.Context, q question) ([]byte, error) {
	f, patience := a.fly(q) //nolint:contextcheck // the question outlives who asks it
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-f.done:
		return a.land(q.id, f)
	default:
	}
	select {
	case <-f.done:
		return a.land(q.id, f)
	case <-ctx.Done():
		a.leave(f, q.wake)
		return nil, &reason{kind: failure.Timeout, message: "stopped while the key service was asked", err: context.Cause(ctx)}
	case <-timer.C:
		a.leave(f, q.wake)
		return nil, &reason{kind: failure.Unavailable,
			message: "the key service " + strings.Join(q.services, ", ") + " has not answered yet",
			remedy:  "it is tried again by itself; nothing else waits for it", err: errPending}
	}
}

// errPending says that an answer is still awaited, and that it will wake who asked.
var errPending = errors.New("an answer is awaited")

// Pending reports whether a build failed only because a key service has not answered
// yet: wake will be called.
func Pending(err error) bool { return errors.Is(err, errPending) }

// fly joins or starts the flight of a question, and says how long to wait for it.
func (a *answers) fly(q question) (*flight, time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	patience := a.options.Patience
	for _, s := range q.services {
		if a.slow[s] > 0 {
			patience = 0
		}
	}
	if f, ok := a.flying[q.id]; ok {
		return f, patience
	}
	f := &flight{done: make(chan struct{}), services: q.services}
	a.flying[q.id] = f
	go a.run(f, q)
	return f, patience
}

func (a *answers) run(f *flight, q question) {
	ctx, cancel := context.WithTimeout(a.ctx, a.options.Timeout)
	defer cancel()
	select {
	case a.asking <- struct{}{}:
		f.key, f.err = a.answer(ctx, q)
		<-a.asking
	case <-ctx.Done():
		f.err = &reason{kind: failure.Timeout, message: "too many requests to key services are under way", err: ctx.Err()}
	}
	a.mu.Lock()
	if f.err == nil {
		a.keepLocked(q.id, f.key)
	}
	if f.err == nil || len(f.wake) == 0 {
		delete(a.flying, q.id)
	} else { // the failure waits for those who are woken, but not for ever
		time.AfterFunc(keepFailure, func() { _, _ = a.land(q.id, f) })
	}
	if f.overdue {
		for _, s := range f.services {
			if a.slow[s]--; a.slow[s] <= 0 {
				delete(a.slow, s)
			}
		}
	}
	wake := f.wake
	close(f.done)
	a.mu.Unlock()
	for _, w := range wake {
		w()
	}
}

// answer asks, and comes back at the end of ctx also when a library does not.
func (a *answers) answer(ctx context.Context, q question) ([]byte, error) {
	type outcome struct {
		key []byte
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		defer func() {
			if recover() != nil {
				done <- outcome{nil, errMalformed}
			}
		}()
		key, err := q.ask(ctx)
		done <- outcome{key, err}
	}()
	select {
	case o := <-done:
		return o.key, o.err
	case <-ctx.Done():
		return nil, &reason{kind: failure.Timeout, message: "the key service " + strings.Join(q.services, ", ") + " does not answer",
			remedy: "check that it runs and can be reached from here", err: ctx.Err()}
	}
}

// land takes the answer of a flight. A failure is told once, and then asked again.
func (a *answers) land(id string, f *flight) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.flying[id] == f {
		delete(a.flying, id)
	}
	return f.key, f.err
}

// leave notes that a build did not wait for a flight to its end.
func (a *answers) leave(f *flight, wake func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-f.done:
		if wake != nil {
			go wake() // it came this very moment
		}
		return
	default:
	}
	if wake != nil {
		f.wake = append(f.wake, wake)
	}
	if !f.overdue {
		f.overdue = true
		for _, s := range f.services {
			a.slow[s]++
		}
	}
}

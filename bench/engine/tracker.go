package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// state is what the benchmark reads of a GitRepository or a Kustomization.
type state struct {
	Metadata struct {
		Name            string `json:"name"`
		ResourceVersion string `json:"resourceVersion"`
		Generation      int64  `json:"generation"`
	} `json:"metadata"`
	Status struct {
		ObservedGeneration     int64  `json:"observedGeneration"`
		LastAppliedRevision    string `json:"lastAppliedRevision"`
		LastHandledReconcileAt string `json:"lastHandledReconcileAt"`
		Artifact               struct {
			Revision string `json:"revision"`
		} `json:"artifact"`
		// Of a FleetCluster.
		Units struct {
			Ready int `json:"ready"`
		} `json:"units"`
		Sources []struct {
			Revision string `json:"revision"`
		} `json:"sources"`
		// Of a Placement.
		Clusters      int32 `json:"clusters"`
		ReadyClusters int32 `json:"readyClusters"`
		Conditions    []struct {
			Type    string `json:"type"`
			Status  string `json:"status"`
			Reason  string `json:"reason"`
			Message string `json:"message"`
		} `json:"conditions"`
	} `json:"status"`
}

func (s state) version() string { return s.Metadata.ResourceVersion }

// ready reports whether the object is Ready in its present generation.
func (s state) ready() bool {
	status, _ := s.condition()
	return status == "True" && s.Status.ObservedGeneration == s.Metadata.Generation
}

// at reports whether a FleetCluster has a source at a revision.
func (s state) at(revision string) bool {
	for _, source := range s.Status.Sources {
		if source.Revision == revision {
			return true
		}
	}
	return false
}

// condition returns the status of the condition Ready and what it says.
func (s state) condition() (status, says string) {
	for _, c := range s.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status, c.Reason + ": " + c.Message
		}
	}
	return "", "no Ready condition"
}

// tracker follows all objects of one kind with one watch.
type tracker struct {
	log *progress

	// mu guards all below.
	mu      sync.Mutex
	latest  map[string]event[state]
	waiters map[*waiter]bool
	err     error
}

// waiter is one goal: a set of objects that all satisfy a predicate.
type waiter struct {
	names   map[string]bool
	ok      func(state) bool
	missing map[string]bool
	last    time.Time
	done    chan struct{}
}

// track follows the objects at path until ctx ends, and returns once the watch
// stands.
func track(ctx context.Context, c *client, path string, log *progress) (*tracker, error) {
	t := &tracker{log: log, latest: map[string]event[state]{}, waiters: map[*waiter]bool{}}
	if err := served(ctx, c, path); err != nil {
		return nil, err
	}
	open := make(chan struct{})
	go func() {
		t.end(follow(ctx, c, path, "", func() { close(open) }, t.record), open)
	}()
	<-open
	t.mu.Lock()
	defer t.mu.Unlock()
	return t, t.err
}

// served returns when path is served: a definition is established a moment
// before the API server answers for it.
func served(ctx context.Context, c *client, path string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		var ignored struct{}
		err := c.get(ctx, path+"?limit=1", jsonBody, &ignored)
		var refused *statusError
		if !errors.As(err, &refused) {
			return err
		}
		if paused := pause(ctx, 50*time.Millisecond); paused != nil {
			return err
		}
	}
}

// end records why the watch ended and wakes all that wait for it.
func (t *tracker) end(err error, open chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.err = err
	for w := range t.waiters {
		close(w.done)
		delete(t.waiters, w)
	}
	select {
	case <-open:
	default:
		close(open)
	}
}

func (t *tracker) record(e event[state]) {
	t.mu.Lock()
	defer t.mu.Unlock()
	name := e.Object.Metadata.Name
	if e.Type == "DELETED" {
		delete(t.latest, name)
	} else {
		t.latest[name] = e
	}
	for w := range t.waiters {
		t.judge(w, name)
	}
}

// judge updates one waiter for one object. The caller holds mu.
func (t *tracker) judge(w *waiter, name string) {
	if !w.names[name] {
		return
	}
	e, exists := t.latest[name]
	if !exists || !w.ok(e.Object) {
		w.missing[name] = true
		return
	}
	if !w.missing[name] {
		return
	}
	delete(w.missing, name)
	if e.seen.After(w.last) {
		w.last = e.seen
	}
	if len(w.missing) == 0 {
		close(w.done)
		delete(t.waiters, w)
	}
}

// wait returns when the last of the named objects came to satisfy ok: the time
// at which that event arrived.
func (t *tracker) wait(ctx context.Context, what string, names []string, ok func(state) bool) (time.Time, error) {
	w := &waiter{names: map[string]bool{}, missing: map[string]bool{}, ok: ok, done: make(chan struct{})}
	for _, n := range names {
		w.names[n], w.missing[n] = true, true
	}
	t.mu.Lock()
	if t.err != nil {
		defer t.mu.Unlock()
		return time.Time{}, fmt.Errorf("%s: %w", what, t.err)
	}
	t.waiters[w] = true
	for _, n := range names {
		t.judge(w, n)
	}
	t.mu.Unlock()

	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-w.done:
			return t.outcome(w, what)
		case <-tick.C:
			t.log.printf("  %s", t.describe(w, what))
		case <-ctx.Done():
			t.mu.Lock()
			delete(t.waiters, w)
			t.mu.Unlock()
			return time.Time{}, errors.Join(context.Cause(ctx), errors.New(t.describe(w, what)))
		}
	}
}

// outcome is what came of a waiter that is done: its last event, or the end of
// the watch.
func (t *tracker) outcome(w *waiter, what string) (time.Time, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(w.missing) > 0 {
		return time.Time{}, fmt.Errorf("%s: %w", what, t.err)
	}
	return w.last, nil
}

// describe says how many objects are missing and what one of them reports.
func (t *tracker) describe(w *waiter, what string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for name := range w.missing {
		e := t.latest[name]
		_, says := e.Object.condition()
		return fmt.Sprintf("%s: %d of %d missing; %s says %q", what, len(w.missing), len(w.names), name, says)
	}
	return what + ": done"
}

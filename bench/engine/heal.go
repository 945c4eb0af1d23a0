package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// configMap is what the benchmark reads of a ConfigMap.
type configMap struct {
	Metadata struct {
		Name            string `json:"name"`
		UID             string `json:"uid"`
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
	Data map[string]string `json:"data"`
}

func (c configMap) version() string { return c.Metadata.ResourceVersion }

// configWatch follows one ConfigMap, or all of a namespace.
type configWatch struct {
	events chan event[configMap]
	failed chan error
	// first is the object as it was when the watch began.
	first configMap
}

// watchConfig returns once the object's present state has arrived, so that
// nothing after that is missed. Without a name it follows all of the namespace, and
// returns at the first. The caller calls stop.
func (b *bench) watchConfig(ctx context.Context, namespace, name string) (w *configWatch, stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	w = &configWatch{events: make(chan event[configMap], 100), failed: make(chan error, 1)}
	path, selector := "/api/v1/namespaces/"+namespace+"/configmaps", ""
	if name != "" {
		selector = "metadata.name=" + name
	}
	go func() {
		w.failed <- follow(ctx, b.plane.client, path, selector, func() {}, func(e event[configMap]) {
			select {
			case w.events <- e:
			case <-ctx.Done():
			}
		})
	}()
	_, err = w.until(ctx, "ConfigMap "+namespace+"/"+name+" exists", func(e event[configMap]) bool {
		w.first = e.Object
		return e.Type == "ADDED"
	})
	if err != nil {
		cancel()
	}
	return w, cancel, err
}

// until returns when the first event that satisfies ok arrived.
func (w *configWatch) until(ctx context.Context, what string, ok func(event[configMap]) bool) (time.Time, error) {
	for {
		select {
		case e := <-w.events:
			if ok(e) {
				return e.seen, nil
			}
		case err := <-w.failed:
			return time.Time{}, fmt.Errorf("%s: %w", what, err)
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%s: %w", what, context.Cause(ctx))
		}
	}
}

// errNotHealed says that an object stayed as it was for the whole time allowed.
var errNotHealed = errors.New("not healed in time")

// object is one ConfigMap.
type object struct{ namespace, name string }

// healing deletes and edits objects, one at a time, and waits for each to be
// as Git says again.
func (b *bench) healing(ctx context.Context) error {
	return b.healBoth(ctx, "heal", func(unit string) (gone, edited object) {
		return object{unit, configName(1)}, object{unit, configName(2)}
	})
}

// healBoth deletes one object of a unit and edits another, unit after unit. of names them.
func (b *bench) healBoth(ctx context.Context, id string, of func(unit string) (gone, edited object)) error {
	var deleted, edited []time.Duration
	for n := range b.cfg.heals {
		unit := b.names[(n*7)%len(b.names)]
		gone, changed := of(unit)
		for _, how := range []struct {
			act    func(context.Context, object) (time.Duration, error)
			object object
			times  *[]time.Duration
		}{{b.healDeleted, gone, &deleted}, {b.healEdited, changed, &edited}} {
			if err := pause(ctx, time.Second); err != nil {
				return err
			}
			took, err := how.act(ctx, how.object)
			if errors.Is(err, errNotHealed) {
				return b.notHealed(ctx, id, unit)
			}
			if err != nil {
				return err
			}
			*how.times = append(*how.times, took)
		}
	}
	b.add(result{
		ID: id, Measure: "a deleted or edited object healed",
		Text:    seconds(median(deleted)) + " deleted, " + seconds(median(edited)) + " edited",
		Figures: figures{"deletedSeconds": median(deleted).Seconds(), "editedSeconds": median(edited).Seconds()},
		Rounds:  append(secondsOf(deleted), secondsOf(edited)...),
	})
	return nil
}

// notHealed reports that the engine does not heal by itself, and has it put
// things right so that the measures after this one start clean.
func (b *bench) notHealed(ctx context.Context, id, unit string) error {
	b.add(result{
		ID: id, Measure: "a deleted or edited object healed",
		Text: fmt.Sprintf("not within %s", b.cfg.healTimeout), Figures: figures{},
	})
	token := b.nextRequest()
	if err := b.ask(ctx, b.unitsAt+"/"+unit, token); err != nil {
		return err
	}
	return b.within(ctx, func(ctx context.Context) error {
		_, err := b.units.wait(ctx, "puts things right when asked", []string{unit}, handled(token))
		return err
	})
}

func (b *bench) healDeleted(ctx context.Context, o object) (time.Duration, error) {
	return b.heal(ctx, o, func(w *configWatch) (func(event[configMap]) bool, error) {
		err := b.plane.client.do(ctx, http.MethodDelete, "/api/v1/namespaces/"+o.namespace+"/configmaps/"+o.name, "", nil)
		return func(e event[configMap]) bool {
			return e.Type != "DELETED" && e.Object.Metadata.UID != w.first.Metadata.UID && e.Object.Data["text"] == w.first.Data["text"]
		}, err
	})
}

func (b *bench) healEdited(ctx context.Context, o object) (time.Duration, error) {
	return b.heal(ctx, o, func(w *configWatch) (func(event[configMap]) bool, error) {
		patch := []byte(`{"data":{"text":"edited by hand"}}`)
		err := b.plane.client.do(ctx, http.MethodPatch, "/api/v1/namespaces/"+o.namespace+"/configmaps/"+o.name, mergePatch, patch)
		return func(e event[configMap]) bool { return e.Object.Data["text"] == w.first.Data["text"] }, err
	})
}

// heal measures from just before the damage is requested until the object is
// as it was.
func (b *bench) heal(ctx context.Context, o object, damage func(*configWatch) (func(event[configMap]) bool, error)) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, b.cfg.healTimeout, errNotHealed)
	defer cancel()
	w, stop, err := b.watchConfig(ctx, o.namespace, o.name)
	if err != nil {
		return 0, err
	}
	defer stop()
	start := time.Now()
	healed, err := damage(w)
	if err != nil {
		return 0, err
	}
	seen, err := w.until(ctx, "healing "+o.namespace+"/"+o.name, healed)
	return seen.Sub(start), err
}

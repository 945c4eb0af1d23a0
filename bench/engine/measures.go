package main

import (
	"context"
	"fmt"
	"time"
)

// span is what happened between two moments.
type span struct {
	engine, plane, harness time.Duration // processor time
	counters
}

// spend runs do and returns what the engine, the control plane and this
// program spent meanwhile, and what the API server counted.
func (b *bench) spend(ctx context.Context, do func(context.Context) error) (span, error) {
	var s span
	before, err := readCounters(ctx, b.plane.client, b.resources)
	if err != nil {
		return s, err
	}
	engine, plane, own := b.engine.usage().cpu, b.plane.cpu(), ownCPU()
	if err := b.within(ctx, do); err != nil {
		return s, err
	}
	s.engine, s.plane, s.harness = b.engine.usage().cpu-engine, b.plane.cpu()-plane, ownCPU()-own
	after, err := readCounters(ctx, b.plane.client, b.resources)
	s.counters = after.minus(before)
	return s, err
}

// figures returns the span's figures beside a time.
func (s span) figures(took time.Duration) figures {
	return figures{
		"seconds": took.Seconds(), "engineCPUSeconds": s.engine.Seconds(),
		"controlPlaneCPUSeconds": s.plane.Seconds(), "harnessCPUSeconds": s.harness.Seconds(),
		"applies": s.applies, "dryRuns": s.dryRuns, "otherWrites": s.otherWrites, "statusWrites": s.statusWrites,
	}
}

// at is a predicate: ready at a revision.
func at(revision string) func(state) bool {
	return func(s state) bool { return s.ready() && s.Status.LastAppliedRevision == revision }
}

// deliver creates everything that delivers, and returns how long it took until all was such.
func (b *bench) deliver(ctx context.Context, create func(ctx context.Context, name string) error, such func(state) bool) (took time.Duration, spent span, err error) {
	spent, err = b.spend(ctx, func(ctx context.Context) error {
		start := time.Now()
		err := parallel(b.cfg.workers, len(b.names), func(n int) error { return create(ctx, b.names[n]) })
		if err != nil {
			return err
		}
		end, err := b.units.wait(ctx, "ready", b.names, such)
		took = end.Sub(start)
		return err
	})
	return took, spent, err
}

// eachRound takes a measure once a round, and returns what each spent.
func (b *bench) eachRound(ctx context.Context, do func(ctx context.Context, round int) error) ([]span, error) {
	var all []span
	for round := range b.cfg.rounds {
		if err := pause(ctx, b.cfg.settle); err != nil {
			return nil, err
		}
		spent, err := b.spend(ctx, func(ctx context.Context) error { return do(ctx, round) })
		if err != nil {
			return nil, err
		}
		all = append(all, spent)
	}
	return all, nil
}

func (b *bench) everythingReady(ctx context.Context) error {
	took, spent, err := b.deliver(ctx, func(ctx context.Context, name string) error {
		return b.createKustomization(ctx, name, "units/"+name)
	}, at(b.revision))
	if err != nil {
		return err
	}
	if err := b.checkDelivered(ctx); err != nil {
		return err
	}
	b.add(result{
		ID: "ready", Measure: "everything ready, from creating the Kustomizations",
		Text:    fmt.Sprintf("%s, %s CPU s in the engine", seconds(took), number(spent.engine.Seconds())),
		Figures: spent.figures(took),
	})
	return nil
}

// checkDelivered counts the objects on the cluster: an engine that reports
// ready without having delivered is not measured.
func (b *bench) checkDelivered(ctx context.Context) error {
	expected := map[string]int{"/api/v1/namespaces": 1, "/api/v1/serviceaccounts": 1, "/api/v1/services": 1,
		"/apis/apps/v1/deployments": 1, "/api/v1/configmaps": configsPerUnit}
	ours := map[string]bool{}
	for _, n := range b.names {
		ours[n], ours[n+"/app"] = true, true
		for i := range configsPerUnit {
			ours[n+"/"+configName(i)] = true
		}
	}
	const listed = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	for path, perUnit := range expected {
		var list struct {
			Items []struct {
				Metadata struct {
					Name      string `json:"name"`
					Namespace string `json:"namespace"`
				} `json:"metadata"`
			} `json:"items"`
		}
		if err := b.plane.client.get(ctx, path, listed, &list); err != nil {
			return err
		}
		found := 0
		for _, o := range list.Items {
			key := o.Metadata.Name
			if o.Metadata.Namespace != "" {
				key = o.Metadata.Namespace + "/" + key
			}
			if ours[key] {
				found++
			}
		}
		if want := perUnit * b.cfg.units; found != want {
			return fmt.Errorf("everything reports ready, yet %s holds %d of %d objects", path, found, want)
		}
	}
	return nil
}

// commit changes one object of one unit, asks the source to look, and returns how long
// it took from there until the object had changed and until everything reported.
func (b *bench) commit(ctx context.Context, value string) (changed, reported time.Duration, err error) {
	unit := b.names[len(b.names)/2]
	revision, err := b.origin.change(ctx, unit, value)
	if err != nil {
		return 0, 0, err
	}
	watch, stop, err := b.watchConfig(ctx, unit, configName(0))
	if err != nil {
		return 0, 0, err
	}
	defer stop()
	start := time.Now()
	if err := b.ask(ctx, b.namespaced(sourceAPI, "gitrepositories/"+sourceName), b.nextRequest()); err != nil {
		return 0, 0, err
	}
	seen, err := watch.until(ctx, "the object changed", func(e event[configMap]) bool { return e.Object.Data["value"] == value })
	if err != nil {
		return 0, 0, err
	}
	end, err := b.units.wait(ctx, "reports the new revision", b.names, at(revision))
	if err == nil {
		b.revision = revision
	}
	return seen.Sub(start), end.Sub(start), err
}

// commits times one commit per round.
func (b *bench) commits(ctx context.Context) error {
	var changed, reported []time.Duration
	all, err := b.eachRound(ctx, func(ctx context.Context, round int) error {
		c, r, err := b.commit(ctx, fmt.Sprintf("round-%d", round))
		changed, reported = append(changed, c), append(reported, r)
		return err
	})
	if err != nil {
		return err
	}
	k := medianIndex(reported)
	b.add(result{
		ID: "commit-changed", Measure: "a commit that changes one object: until that object has changed, from the reconcile request",
		Text: seconds(median(changed)), Figures: figures{"seconds": median(changed).Seconds()}, Rounds: secondsOf(changed),
	}, result{
		ID: "commit-reported", Measure: "… until everything reports the new revision",
		Text: fmt.Sprintf("%s; %s", seconds(reported[k]), all[k].calls()), Figures: all[k].figures(reported[k]), Rounds: secondsOf(reported),
	})
	return nil
}

// calls prints the applies and dry runs.
func (s span) calls() string {
	return fmt.Sprintf("%s, %s", count(s.applies, "apply", "applies"), count(s.dryRuns, "dry run", "dry runs"))
}

// reconciles asks every Kustomization to reconcile while nothing changed.
func (b *bench) reconciles(ctx context.Context) error {
	row, err := b.reconciled(ctx, "reconcile", "everything asked to reconcile, nothing changed")
	if err == nil {
		b.add(row)
	}
	return err
}

// reconciled asks everything that delivers to reconcile, once a round.
func (b *bench) reconciled(ctx context.Context, id, measure string) (result, error) {
	var times []time.Duration
	all, err := b.eachRound(ctx, func(ctx context.Context, _ int) error {
		token, start := b.nextRequest(), time.Now()
		if err := b.askAll(ctx, b.names, token); err != nil {
			return err
		}
		end, err := b.units.wait(ctx, "handled the request", b.names, handled(token))
		times = append(times, end.Sub(start))
		return err
	})
	if err != nil {
		return result{}, err
	}
	k := medianIndex(times)
	return result{
		ID: id, Measure: measure,
		Text: fmt.Sprintf("%s; %s", seconds(times[k]), all[k].calls()), Figures: all[k].figures(times[k]), Rounds: secondsOf(times),
	}, nil
}

// handled is a predicate: ready, and the reconcile request was dealt with.
func handled(token string) func(state) bool {
	return func(s state) bool { return s.ready() && s.Status.LastHandledReconcileAt == token }
}

// idling measures the engine while nothing happens.
func (b *bench) idling(ctx context.Context) error {
	before := b.engine.usage()
	if err := pause(ctx, b.cfg.idle); err != nil {
		return err
	}
	after := b.engine.usage()
	share := (after.cpu - before.cpu).Seconds() / b.cfg.idle.Seconds()
	b.add(result{
		ID: "idle", Measure: "idle, nothing happening", Text: fmt.Sprintf("%.2f %% of a core", 100*share),
		Figures: figures{"coreShare": share, "windowSeconds": b.cfg.idle.Seconds()},
	}, result{
		ID: "memory", Measure: "resident memory, idle / peak", Text: megabytes(after.resident) + " / " + megabytes(after.peak) + " MB",
		Figures: figures{"idleBytes": float64(after.resident), "peakBytes": float64(after.peak)},
	})
	return nil
}

// restart kills the engine, asks everything to reconcile while it is down, and
// starts it again.
func (b *bench) restart(ctx context.Context) error {
	b.engine.kill()
	token := b.nextRequest()
	if err := b.askAll(ctx, b.names, token); err != nil {
		return err
	}
	if err := pause(ctx, b.cfg.settle); err != nil {
		return err
	}
	before, err := readCounters(ctx, b.plane.client, b.resources)
	if err != nil {
		return err
	}
	start := time.Now()
	if err := b.startEngine(ctx); err != nil {
		return err
	}
	end, ready := start, start
	err = b.within(ctx, func(ctx context.Context) error {
		if end, err = b.units.wait(ctx, "ready after the restart", b.names, handled(token)); err != nil || b.health == "" {
			return err
		}
		ready, err = b.awaitHealth(ctx)
		return err
	})
	if err != nil {
		return err
	}
	after, err := readCounters(ctx, b.plane.client, b.resources)
	if err != nil {
		return err
	}
	if ready.After(end) && b.health != "" {
		end = ready
	}
	used := b.engine.usage()
	s := span{engine: used.cpu, counters: after.minus(before)}
	f := s.figures(end.Sub(start))
	f["peakBytes"] = float64(used.peak)
	b.add(result{
		ID: "restart", Measure: fmt.Sprintf("engine restarted over %d objects, until ready again", b.cfg.units*objectsPerUnit),
		Text: fmt.Sprintf("%s; %s", seconds(end.Sub(start)), s.calls()), Figures: f,
	})
	return nil
}

// chain creates Kustomizations that each depend on the one before.
func (b *bench) chain(ctx context.Context) error {
	var names []string
	for n := range chainLength {
		names = append(names, chainName(n))
	}
	var took time.Duration
	spent, err := b.spend(ctx, func(ctx context.Context) error {
		start := time.Now()
		for n, name := range names {
			var on []string
			if n > 0 {
				on = names[n-1 : n]
			}
			if err := b.createKustomization(ctx, name, "chain/"+name, on...); err != nil {
				return err
			}
		}
		end, err := b.units.wait(ctx, "ready", names, at(b.revision))
		took = end.Sub(start)
		return err
	})
	if err != nil {
		return err
	}
	b.add(result{
		ID: "chain", Measure: fmt.Sprintf("a chain of %d `dependsOn`, default settings", chainLength),
		Text: seconds(took), Figures: spent.figures(took),
	})
	return nil
}

package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// farSecret holds the kubeconfig of the second cluster.
const farSecret = "far"

// beside are the times of the first cluster in one state of the second.
type beside struct {
	ready, changed, reported, reconciled, deleted, edited []time.Duration
}

// clusters measures one cluster while a second one, to which the same engine
// delivers the same fleet, is served and while it hangs. The two states take turns,
// so that what grows or warms up meanwhile concerns both.
func (b *bench) clusters(ctx context.Context) error {
	if err := b.prepareFar(ctx); err != nil {
		return err
	}
	defer b.far.stop()
	served, frozen := &beside{}, &beside{}
	var back []time.Duration
	for round := range b.cfg.rounds {
		hang := func() error {
			took, err := b.besideHanging(ctx, 2*round, frozen)
			back = append(back, took)
			return err
		}
		serve := func() error {
			if err := b.phase(ctx, 2*round+1, served); err != nil {
				return fmt.Errorf("with the second cluster served: %w%s", err, b.lastWords())
			}
			return nil
		}
		// Whichever comes first in a round comes second in the next.
		steps := []func() error{serve, hang}
		if round%2 == 1 {
			slices.Reverse(steps)
		}
		for _, step := range steps {
			if err := step(); err != nil {
				return err
			}
		}
	}
	b.reportBeside(served, frozen, back)
	return nil
}

// besideHanging takes the measures while the second cluster hangs, and returns how long
// that takes to catch up afterwards.
func (b *bench) besideHanging(ctx context.Context, number int, into *beside) (back time.Duration, err error) {
	if err := b.far.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return 0, fmt.Errorf("freeze the second cluster: %w", err)
	}
	err = b.phase(ctx, number, into)
	start := time.Now()
	if again := b.far.cmd.Process.Signal(syscall.SIGCONT); again != nil {
		return 0, fmt.Errorf("thaw the second cluster: %w", again)
	}
	if err != nil {
		return 0, fmt.Errorf("with the second cluster frozen: %w%s", err, b.lastWords())
	}
	return b.farServed(ctx, start)
}

// farServed waits until everything on the second cluster is at the newest revision.
func (b *bench) farServed(ctx context.Context, start time.Time) (took time.Duration, err error) {
	err = b.within(ctx, func(ctx context.Context) error {
		end, err := b.units.wait(ctx, "ready on the second cluster", b.farNames(), at(b.revision))
		took = end.Sub(start)
		return err
	})
	return took, err
}

func (b *bench) farNames() []string {
	names := make([]string, 0, len(b.names))
	for _, n := range b.names {
		names = append(names, "far-"+n)
	}
	return names
}

// prepareFar brings up the second cluster, and delivers the fleet to both.
func (b *bench) prepareFar(ctx context.Context) error {
	b.log.printf("starting the second cluster")
	var err error
	if b.far, err = startPlane(ctx, b.cfg, b.work, "far"); err != nil {
		return err
	}
	kubeconfig, err := os.ReadFile(filepath.Clean(b.far.kubeconfig))
	if err != nil {
		return fmt.Errorf("read the kubeconfig of the second cluster: %w", err)
	}
	err = b.create(ctx, "/api/v1/namespaces/"+b.cfg.namespace+"/secrets", body{
		"apiVersion": "v1", "kind": "Secret", "metadata": body{"name": farSecret, "namespace": b.cfg.namespace},
		"stringData": body{"value": string(kubeconfig)},
	})
	if err != nil {
		return err
	}
	b.log.printf("delivering to both")
	return b.within(ctx, func(ctx context.Context) error {
		err := parallel(b.cfg.workers, len(b.names), func(n int) error {
			if err := b.createKustomization(ctx, b.names[n], "units/"+b.names[n]); err != nil {
				return err
			}
			return b.createFar(ctx, "far-"+b.names[n], "units/"+b.names[n])
		})
		if err != nil {
			return err
		}
		_, err = b.units.wait(ctx, "ready on both", append(b.farNames(), b.names...), at(b.revision))
		return err
	})
}

// createFar creates one Kustomization for the second cluster.
func (b *bench) createFar(ctx context.Context, name, folder string) error {
	o := b.kustomization(name, folder)
	if spec, ok := o["spec"].(body); ok {
		spec["kubeConfig"] = body{"secretRef": body{"name": farSecret}}
	}
	return b.create(ctx, b.namespaced(kustomizeAPI, "kustomizations"), o)
}

// phase takes every measure of the first cluster once. The second one is asked to do
// the same each time.
func (b *bench) phase(ctx context.Context, number int, into *beside) error {
	b.log.printf("one more of %d phases", 2*b.cfg.rounds)
	for _, step := range []func(context.Context, int, *beside) error{b.besideCommit, b.besideReady, b.besideReconcile, b.besideHeal} {
		if err := pause(ctx, b.cfg.settle); err != nil {
			return err
		}
		if err := b.within(ctx, func(ctx context.Context) error { return step(ctx, number, into) }); err != nil {
			return err
		}
	}
	return nil
}

// besideCommits is how many commits each phase times: one takes some tens of
// milliseconds, of which chance has its share.
const besideCommits = 3

// besideCommit changes one object, which both clusters have.
func (b *bench) besideCommit(ctx context.Context, number int, into *beside) error {
	for n := range besideCommits {
		changed, reported, err := b.commit(ctx, fmt.Sprintf("phase-%d-%d", number, n))
		if err != nil {
			return err
		}
		into.changed, into.reported = append(into.changed, changed), append(into.reported, reported)
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	return nil
}

// extraUnits is how many Kustomizations each phase creates.
func (b *bench) extraUnits() int { return max(1, b.cfg.units/3) }

// besideReady delivers further units whose folders nobody has looked at yet.
func (b *bench) besideReady(ctx context.Context, number int, into *beside) error {
	var names []string
	for n := range b.extraUnits() {
		names = append(names, unitName(b.cfg.units+number*b.extraUnits()+n))
	}
	start := time.Now()
	err := parallel(b.cfg.workers, len(names), func(n int) error {
		return b.createKustomization(ctx, names[n], "units/"+names[n])
	})
	if err != nil {
		return err
	}
	end, err := b.units.wait(ctx, "ready", names, at(b.revision))
	if err != nil {
		return err
	}
	into.ready = append(into.ready, end.Sub(start))
	// The next phase must not find more units than this one did.
	return parallel(b.cfg.workers, len(names), func(n int) error {
		return b.plane.client.do(ctx, http.MethodDelete, b.namespaced(kustomizeAPI, "kustomizations/"+names[n]), "", nil)
	})
}

// besideReconcile asks everything on both clusters to reconcile.
func (b *bench) besideReconcile(ctx context.Context, _ int, into *beside) error {
	token, start := b.nextRequest(), time.Now()
	if err := b.askAll(ctx, append(b.farNames(), b.names...), token); err != nil {
		return err
	}
	end, err := b.units.wait(ctx, "handled the request", b.names, handled(token))
	into.reconciled = append(into.reconciled, end.Sub(start))
	return err
}

func (b *bench) besideHeal(ctx context.Context, _ int, into *beside) error {
	for n := range b.cfg.heals {
		unit := b.names[(n*7)%len(b.names)]
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
		deleted, err := b.healDeleted(ctx, object{unit, configName(1)})
		if err != nil {
			return err
		}
		edited, err := b.healEdited(ctx, object{unit, configName(2)})
		if err != nil {
			return err
		}
		into.deleted, into.edited = append(into.deleted, deleted), append(into.edited, edited)
	}
	return nil
}

// reportBeside puts the two states next to each other.
func (b *bench) reportBeside(served, frozen *beside, back []time.Duration) {
	for _, row := range []struct {
		id, measure    string
		served, frozen []time.Duration
	}{
		{"beside-ready", fmt.Sprintf("%d more Kustomizations ready, from creating them", b.extraUnits()), served.ready, frozen.ready},
		{"beside-commit-changed", "a commit that changes one object: until that object has changed", served.changed, frozen.changed},
		{"beside-commit-reported", "… until everything on this cluster reports the new revision", served.reported, frozen.reported},
		{"beside-reconcile", "everything on both clusters asked to reconcile, until this one has", served.reconciled, frozen.reconciled},
		{"beside-heal-deleted", "a deleted object healed", served.deleted, frozen.deleted},
		{"beside-heal-edited", "an edited object healed", served.edited, frozen.edited},
	} {
		s, f := median(row.served), median(row.frozen)
		change := 100 * (f.Seconds()/s.Seconds() - 1)
		b.add(result{
			ID: row.id, Measure: row.measure,
			Text:    fmt.Sprintf("%s beside a cluster that is served, %s beside one that hangs (%+.0f %%)", seconds(s), seconds(f), change),
			Figures: figures{"servedSeconds": s.Seconds(), "frozenSeconds": f.Seconds(), "changePercent": change},
			Rounds:  append(secondsOf(row.served), secondsOf(row.frozen)...),
		})
	}
	b.add(result{
		ID: "beside-back", Measure: "the cluster that hung goes on, until everything on it is at the newest revision",
		Text: seconds(median(back)), Figures: figures{"seconds": median(back).Seconds()}, Rounds: secondsOf(back),
	})
}

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/bowline-dev/bowline/internal/crds"
)

const (
	fleetAPI = "/apis/fleet.bowline.dev/v1alpha1"
	// unitsPerMember is how many units the Placement has.
	unitsPerMember = 20
	placementName  = "everywhere"
	// restWindow is over how long requests at rest are counted: four renewals of each Lease.
	restWindow = time.Minute
)

// members measures a hub with many members, on a control plane and with an engine of its own. The engine is the hub's; the members are
// in this process.
func members(ctx context.Context, cfg *config, work string, rep *report, log *progress) error {
	b := &bench{cfg: cfg, log: log, work: filepath.Join(work, "members"), hub: true, resources: map[string]bool{}, into: &rep.Fleet}
	if err := os.MkdirAll(b.work, 0o700); err != nil {
		return fmt.Errorf("make a work folder: %w", err)
	}
	defer b.close()
	running, end := context.WithCancel(ctx)
	defer end()
	if err := b.prepareHub(ctx); err != nil {
		return err
	}
	return b.steps(ctx, []step{
		{"members join", func(ctx context.Context) error { return b.membersJoin(ctx, running) }},
		{"a Placement for all members", b.placement},
		{"a hub at rest", b.rest},
		{"a commit for all members", b.memberCommits},
		{"the hub restarted", b.hubRestart},
	})
}

// prepareHub brings up the hub.
func (b *bench) prepareHub(ctx context.Context) error {
	b.log.printf("the fleet: starting the hub's control plane, the repository and the engine")
	var err error
	if b.origin, b.revision, err = serveFleet(ctx, filepath.Join(b.work, "git"), unitsPerMember); err != nil {
		return err
	}
	for n := range b.cfg.members {
		b.names = append(b.names, memberName(n))
	}
	return b.bringUp(ctx, b.namespaced(fleetAPI, "fleetclusters"), b.namespaced(sourceAPI, "gitrepositories"), body{
		"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
		"metadata": body{"name": sourceName, "namespace": b.cfg.namespace},
		"spec":     body{"url": b.origin.url, "ref": body{"branch": branch}, "interval": "10m", "timeout": "60s"},
	}, func(s state) bool { return s.ready() && s.Status.Artifact.Revision == b.revision })
}

// installFleet makes the fleet's kinds known to the API server.
func (b *bench) installFleet(ctx context.Context) error {
	all, err := crds.Fleet()
	if err != nil {
		return err
	}
	return crds.Install(ctx, b.plane.client.config, all)
}

// membersJoin has all members join, one after the other by each worker.
func (b *bench) membersJoin(ctx, running context.Context) error {
	var took time.Duration
	spent, err := b.spend(ctx, func(ctx context.Context) error {
		start := time.Now()
		if err := b.joinAll(ctx, running); err != nil {
			return err
		}
		end, err := b.units.wait(ctx, "has joined and reported", b.names, state.ready)
		took = end.Sub(start)
		return err
	})
	if err != nil {
		return err
	}
	b.addOfHub("fleet-join", fmt.Sprintf("%d clusters declared and joined, each with an invitation and a certificate of its own, until all are ready", b.cfg.members), took, spent)
	return nil
}

// addOfHub adds a row with the time, and the processor time of the hub's engine.
func (b *bench) addOfHub(id, measure string, took time.Duration, s span) {
	b.add(result{ID: id, Measure: measure, Text: fmt.Sprintf("%s, %s CPU s in the engine", seconds(took), number(s.engine.Seconds())), Figures: s.figures(took)})
}

// placement places units on all members and times it until all report them as ready, from the present assignment.
func (b *bench) placement(ctx context.Context) error {
	var units []body
	for n := range unitsPerMember {
		units = append(units, body{"name": unitName(n), "kustomization": body{
			"sourceRef": body{"kind": "GitRepository", "name": sourceName}, "path": "./units/" + unitName(n), "interval": "10m", "prune": true,
		}})
	}
	var err error
	if b.placements, err = track(ctx, b.plane.client, b.namespaced(fleetAPI, "placements"), b.log); err != nil {
		return err
	}
	var took time.Duration
	spent, err := b.spend(ctx, func(ctx context.Context) error {
		start := time.Now()
		err := b.create(ctx, b.namespaced(fleetAPI, "placements"), body{
			"apiVersion": "fleet.bowline.dev/v1alpha1", "kind": "Placement", "metadata": body{"name": placementName, "namespace": b.cfg.namespace},
			"spec": body{"clusters": body{"matchLabels": body{"environment": "bench"}}, "units": units},
		})
		if err != nil {
			return err
		}
		end, err := b.placed(ctx)
		took = end.Sub(start)
		return err
	})
	if err != nil {
		return err
	}
	b.addOfHub("fleet-placement", fmt.Sprintf("a new Placement of %d units, until all clusters have reported them ready", unitsPerMember), took, spent)
	return nil
}

// placed waits until the Placement and every cluster say that all is ready at the newest revision.
func (b *bench) placed(ctx context.Context) (time.Time, error) {
	there, err := b.units.wait(ctx, "reports all units at the newest revision", b.names, func(s state) bool {
		return s.ready() && s.Status.Units.Ready == unitsPerMember && s.at(b.revision)
	})
	if err != nil {
		return there, err
	}
	all := int32(len(b.names)) //nolint:gosec // a flag that is no larger
	told, err := b.placements.wait(ctx, "ready on all clusters", []string{placementName}, func(s state) bool {
		return s.ready() && s.Status.Clusters == all && s.Status.ReadyClusters == all
	})
	if told.After(there) {
		there = told
	}
	return there, err
}

// rest counts what the members and the engine ask of the hub's API server while nothing happens.
func (b *bench) rest(ctx context.Context) error {
	before, err := countRequests(ctx, b.plane.client)
	if err != nil {
		return err
	}
	start, engine, plane := time.Now(), b.engine.usage().cpu, b.plane.cpu()
	if err := pause(ctx, restWindow); err != nil {
		return err
	}
	took, engine, plane := time.Since(start).Seconds(), b.engine.usage().cpu-engine, b.plane.cpu()-plane
	after, err := countRequests(ctx, b.plane.client)
	if err != nil {
		return err
	}
	all, leases := (after.all-before.all)/took, (after.leases-before.leases)/took
	used := b.engine.usage()
	b.add(result{
		ID: "fleet-rest", Measure: "requests to the hub's API server at rest, by all together",
		Text:    fmt.Sprintf("%s a second, %s of them renewals of Leases; %.1f %% of a core in the engine", number(all), number(leases), 100*engine.Seconds()/took),
		Figures: figures{"requestsPerSecond": all, "leasesPerSecond": leases, "engineCoreShare": engine.Seconds() / took, "controlPlaneCoreShare": plane.Seconds() / took},
	}, result{
		ID: "fleet-memory", Measure: "resident memory of the hub's engine, now / peak", Text: megabytes(used.resident) + " / " + megabytes(used.peak) + " MB",
		Figures: figures{"idleBytes": float64(used.resident), "peakBytes": float64(used.peak)},
	})
	return nil
}

// memberCommits times a commit until all members report it.
func (b *bench) memberCommits(ctx context.Context) error {
	var times []time.Duration
	all, err := b.eachRound(ctx, func(ctx context.Context, round int) error {
		start, err := b.commitForAll(ctx, fmt.Sprintf("round-%d", round))
		if err != nil {
			return err
		}
		end, err := b.placed(ctx)
		times = append(times, end.Sub(start))
		return err
	})
	if err != nil {
		return err
	}
	k := medianIndex(times)
	b.addOfHub("fleet-commit", "a commit, until all clusters have reported all units ready at it", times[k], all[k])
	(*b.into)[len(*b.into)-1].Rounds = secondsOf(times)
	return nil
}

// commitForAll commits a change and asks the source to look. It returns when that was asked.
func (b *bench) commitForAll(ctx context.Context, value string) (time.Time, error) {
	var err error
	if b.revision, err = b.origin.change(ctx, unitName(0), value); err != nil {
		return time.Time{}, err
	}
	start := time.Now()
	return start, b.ask(ctx, b.namespaced(sourceAPI, "gitrepositories/"+sourceName), b.nextRequest())
}

// hubRestart kills the hub's engine, commits while it is away, and starts it again.
func (b *bench) hubRestart(ctx context.Context) error {
	b.engine.kill()
	if _, err := b.commitForAll(ctx, "while the hub was away"); err != nil {
		return err
	}
	if err := pause(ctx, b.cfg.settle); err != nil {
		return err
	}
	start := time.Now()
	if err := b.startEngine(ctx); err != nil {
		return err
	}
	var end time.Time
	err := b.within(ctx, func(ctx context.Context) (err error) {
		end, err = b.placed(ctx)
		return err
	})
	if err != nil {
		return err
	}
	used := b.engine.usage()
	b.add(result{
		ID: "fleet-restart", Measure: "the hub's engine restarted, until all clusters have reported all units ready at a commit made meanwhile",
		Text:    fmt.Sprintf("%s, %s CPU s in the engine; peak %s MB", seconds(end.Sub(start)), number(used.cpu.Seconds()), megabytes(used.peak)),
		Figures: figures{"seconds": end.Sub(start).Seconds(), "engineCPUSeconds": used.cpu.Seconds(), "peakBytes": float64(used.peak)},
	})
	return nil
}

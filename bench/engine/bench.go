package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
)

const requestedAt = "reconcile.fluxcd.io/requestedAt"

// Where the two kinds are served.
const (
	kustomizeAPI = "/apis/kustomize.toolkit.fluxcd.io/v1"
	sourceAPI    = "/apis/source.toolkit.fluxcd.io/v1"
	sourceName   = "fleet"
)

// bench is one run with one engine.
type bench struct {
	cfg  *config
	log  *progress
	work string

	plane  *plane
	far    *plane // the second cluster, where there is one
	origin *origin
	charts *chartRepository
	engine *process
	health string // URL of /readyz, empty where the engine has none
	// metrics is the URL of the engine's own meters, where it was told a port for them.
	metrics string
	pprof   string // URL below which the engine serves profiles

	sources, units *tracker
	hub            bool     // the engine is that of a fleet's hub
	placements     *tracker // of a fleet
	unitsAt        string   // path of what delivers
	names          []string // of those
	revision       string   // the newest one
	requests       int      // reconcile requests so far, so that each differs

	// resources are those that units deliver: what requests are counted for.
	resources map[string]bool
	// into is the table that results go to.
	into *[]result
}

func (b *bench) add(rows ...result) { *b.into = append(*b.into, rows...) }

// measure runs the bare client on one control plane and the engine on another.
func measure(ctx context.Context, cfg *config, work string, rep *report, log *progress) error {
	if cfg.membersOnly {
		return members(ctx, cfg, work, rep, log)
	}
	if !cfg.noBaseline && !cfg.helmOnly && cfg.clusters == 1 {
		if err := baseline(ctx, cfg, work, rep, log); err != nil {
			return err
		}
	}
	if cfg.baselineOnly {
		return nil
	}
	if !cfg.helmOnly {
		if err := kustomizations(ctx, cfg, work, rep, log); err != nil {
			return err
		}
	}
	if cfg.clusters > 1 {
		return nil
	}
	if cfg.helm > 0 {
		if err := helm(ctx, cfg, work, rep, log); err != nil {
			return err
		}
	}
	if cfg.members == 0 || cfg.helmOnly {
		return nil
	}
	return members(ctx, cfg, work, rep, log)
}

// kustomizations takes the measures of what is delivered from Git.
func kustomizations(ctx context.Context, cfg *config, work string, rep *report, log *progress) error {
	b := &bench{cfg: cfg, log: log, work: work, resources: delivered, into: &rep.Results}
	defer b.close()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if cfg.clusters > 1 {
		return b.clusters(ctx)
	}
	return b.steps(ctx, []step{
		{"everything ready", b.everythingReady},
		{"a commit that changes one object", b.commits},
		{"everything asked to reconcile", b.reconciles},
		{"healing", b.healing},
		{"idling", b.idling},
		{"engine restarted", b.restart},
		{"a chain of dependsOn", b.chain},
		{"units that read one ConfigMap", b.sharing},
	})
}

// step is one of the measures.
type step struct {
	name string
	run  func(context.Context) error
}

// steps takes one measure after the other.
func (b *bench) steps(ctx context.Context, steps []step) error {
	for _, s := range steps {
		if err := pause(ctx, b.cfg.settle); err != nil {
			return err
		}
		b.log.printf("%s", s.name)
		stop := b.startProfile(ctx, s.name)
		err := s.run(ctx)
		stop()
		if err != nil {
			return fmt.Errorf("%s: %w%s", s.name, err, b.lastWords())
		}
	}
	return nil
}

func baseline(ctx context.Context, cfg *config, work string, rep *report, log *progress) error {
	log.printf("bare client: %d applies by %d workers", cfg.units*objectsPerUnit, cfg.workers)
	p, err := startPlane(ctx, cfg, work, "baseline")
	if err != nil {
		return err
	}
	defer p.stop()
	if err := pause(ctx, cfg.settle); err != nil {
		return err
	}
	before := p.cpu()
	took, cpu, err := bareClient(ctx, p.client, cfg)
	if err != nil {
		return fmt.Errorf("bare client: %w", err)
	}
	rep.add(result{
		ID: "bare-client", Measure: fmt.Sprintf("a bare client that only sends the %d applies", cfg.units*objectsPerUnit),
		Text:    fmt.Sprintf("%s, %s CPU s in the client", seconds(took), number(cpu.Seconds())),
		Figures: figures{"seconds": took.Seconds(), "cpuSeconds": cpu.Seconds(), "controlPlaneCPUSeconds": (p.cpu() - before).Seconds()},
	})
	return nil
}

// within gives do the time that one measure may take, and ends it when the
// engine does.
func (b *bench) within(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, b.cfg.timeout, fmt.Errorf("not within %s", b.cfg.timeout))
	defer cancel()
	ctx, died := context.WithCancelCause(ctx)
	defer died(nil)
	engine := b.engine
	go func() {
		select {
		case <-engine.done:
			died(errors.New("the engine ended"))
		case <-ctx.Done():
		}
	}()
	return do(ctx)
}

// namespaced is the path of a resource in the benchmark's namespace.
func (b *bench) namespaced(api, resource string) string {
	return api + "/namespaces/" + b.cfg.namespace + "/" + resource
}

// create creates an object below path; one that is there already is left alone.
func (b *bench) create(ctx context.Context, path string, o body) error {
	data, err := json.Marshal(o)
	if err != nil {
		return err
	}
	err = b.plane.client.do(ctx, http.MethodPost, path, jsonBody, data)
	var refused *statusError
	if errors.As(err, &refused) && refused.code == http.StatusConflict {
		return nil
	}
	return err
}

// moreUnits is how many folders the repository has beside those that are delivered
// from the beginning.
func (b *bench) moreUnits() int {
	if b.cfg.clusters == 1 {
		return 0
	}
	return 2 * b.cfg.rounds * b.extraUnits()
}

// createKustomization creates one Kustomization for a folder.
func (b *bench) createKustomization(ctx context.Context, name, folder string, dependsOn ...string) error {
	return b.create(ctx, b.namespaced(kustomizeAPI, "kustomizations"), b.kustomization(name, folder, dependsOn...))
}

// kustomization is one for a folder.
func (b *bench) kustomization(name, folder string, dependsOn ...string) body {
	spec := body{
		"sourceRef": body{"kind": "GitRepository", "name": sourceName},
		"path":      "./" + folder, "interval": "10m", "timeout": "3m", "wait": true, "prune": true,
	}
	if len(dependsOn) > 0 {
		var list []body
		for _, d := range dependsOn {
			list = append(list, body{"name": d})
		}
		spec["dependsOn"] = list
	}
	return body{
		"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
		"metadata": body{"name": name, "namespace": b.cfg.namespace}, "spec": spec,
	}
}

// nextRequest returns a value for the annotation that was not used before.
func (b *bench) nextRequest() string {
	b.requests++
	return "bench-" + strconv.Itoa(b.requests)
}

// ask annotates one object with a reconcile request.
func (b *bench) ask(ctx context.Context, path, token string) error {
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, requestedAt, token)
	return b.plane.client.do(ctx, http.MethodPatch, path, mergePatch, patch)
}

// askAll annotates what delivers, by name.
func (b *bench) askAll(ctx context.Context, names []string, token string) error {
	return parallel(b.cfg.workers, len(names), func(n int) error {
		return b.ask(ctx, b.unitsAt+"/"+names[n], token)
	})
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bowline-dev/bowline/internal/crds"
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
	cfg    *config
	log    *progress
	report *report
	work   string

	plane  *plane
	far    *plane // the second cluster, where there is one
	origin *origin
	engine *process
	health string // URL of /readyz, empty where the engine has none
	// metrics is the URL of the engine's own meters, where it was told a port for them.
	metrics string
	pprof   string // URL below which the engine serves profiles

	sources, units *tracker
	names          []string // of the Kustomizations
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
	if cfg.helm == 0 || cfg.clusters > 1 {
		return nil
	}
	return helm(ctx, cfg, work, rep, log)
}

// kustomizations takes the measures of what is delivered from Git.
func kustomizations(ctx context.Context, cfg *config, work string, rep *report, log *progress) error {
	b := &bench{cfg: cfg, log: log, report: rep, work: work, resources: delivered, into: &rep.Results}
	defer b.close()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	if cfg.clusters > 1 {
		return b.clusters(ctx)
	}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"everything ready", b.everythingReady},
		{"a commit that changes one object", b.commits},
		{"everything asked to reconcile", b.reconciles},
		{"healing", b.healing},
		{"idling", b.idling},
		{"engine restarted", b.restart},
		{"a chain of dependsOn", b.chain},
		{"units that read one ConfigMap", b.sharing},
	} {
		if err := pause(ctx, cfg.settle); err != nil {
			return err
		}
		log.printf("%s", step.name)
		stop := b.startProfile(ctx, step.name)
		err := step.run(ctx)
		stop()
		if err != nil {
			return fmt.Errorf("%s: %w%s", step.name, err, b.lastWords())
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

// prepare brings up everything but the Kustomizations.
func (b *bench) prepare(ctx context.Context) error {
	b.log.printf("starting the control plane, the repository and the engine")
	var err error
	if b.plane, err = startPlane(ctx, b.cfg, b.work, "engine"); err != nil {
		return err
	}
	if err := b.install(ctx); err != nil {
		return err
	}
	if b.origin, b.revision, err = serveFleet(ctx, filepath.Join(b.work, "git"), b.cfg.units+b.moreUnits()); err != nil {
		return err
	}
	ns := body{"apiVersion": "v1", "kind": "Namespace", "metadata": body{"name": b.cfg.namespace}}
	if err := b.create(ctx, "/api/v1/namespaces", ns); err != nil {
		return err
	}
	for n := range b.cfg.units {
		b.names = append(b.names, unitName(n))
	}
	if b.sources, err = track(ctx, b.plane.client, b.namespaced(sourceAPI, "gitrepositories"), b.log); err != nil {
		return err
	}
	if b.units, err = track(ctx, b.plane.client, b.namespaced(kustomizeAPI, "kustomizations"), b.log); err != nil {
		return err
	}
	if err := b.startEngine(ctx); err != nil {
		return err
	}
	source := body{
		"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
		"metadata": body{"name": sourceName, "namespace": b.cfg.namespace},
		"spec":     body{"url": b.origin.url, "ref": body{"branch": branch}, "interval": "10m", "timeout": "60s"},
	}
	if err := b.create(ctx, b.namespaced(sourceAPI, "gitrepositories"), source); err != nil {
		return err
	}
	err = b.within(ctx, func(ctx context.Context) error {
		_, err := b.sources.wait(ctx, "the repository is fetched", []string{sourceName}, func(s state) bool {
			return s.ready() && s.Status.Artifact.Revision == b.revision
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("%w%s", err, b.lastWords())
	}
	return nil
}

// install makes the two kinds known to the API server.
func (b *bench) install(ctx context.Context) error {
	switch b.cfg.install {
	case "none":
		return nil
	case "bowline":
		return crds.Apply(ctx, b.plane.client.config)
	}
	file, err := os.Open(b.cfg.install)
	if err != nil {
		return fmt.Errorf("read definitions: %w", err)
	}
	defer func() { _ = file.Close() }()
	all, err := crds.Read(file)
	if err != nil {
		return err
	}
	return crds.Install(ctx, b.plane.client.config, all)
}

// startEngine starts the engine on the same data folder each time.
func (b *bench) startEngine(ctx context.Context) error {
	data := filepath.Join(b.work, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return fmt.Errorf("make the engine's data folder: %w", err)
	}
	metrics, err := freePort(ctx)
	if err != nil {
		return err
	}
	health, err := freePort(ctx)
	if err != nil {
		return err
	}
	pprof, err := freePort(ctx)
	if err != nil {
		return err
	}
	b.metrics = "http://127.0.0.1:" + metrics + "/metrics"
	b.pprof = "http://127.0.0.1:" + pprof + "/debug/pprof/"
	command := strings.NewReplacer("{kubeconfig}", b.plane.kubeconfig, "{data-dir}", data,
		"{metrics-port}", metrics, "{health-port}", health, "{pprof-port}", pprof).Replace(b.cfg.engine)
	if strings.Contains(b.cfg.engine, "{health-port}") {
		b.health = "http://127.0.0.1:" + health + "/readyz"
	}
	b.engine, err = startShell(ctx, command, filepath.Join(b.work, "engine.out"))
	return err
}

// lastWords returns the end of the engine's log, for errors.
func (b *bench) lastWords() string {
	const enough = 2000
	data, err := os.ReadFile(filepath.Join(b.work, "engine.out"))
	if err != nil || len(data) == 0 {
		return ""
	}
	if len(data) > enough {
		data = data[len(data)-enough:]
	}
	verb := "says"
	if !b.engine.running() {
		verb = "ended; it said"
	}
	return "\nthe engine " + verb + ":\n" + string(data)
}

func (b *bench) close() {
	if b.engine != nil {
		b.engine.kill()
	}
	if b.origin != nil {
		b.origin.close()
	}
	if b.plane != nil {
		b.plane.stop()
	}
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

// askAll annotates all Kustomizations.
func (b *bench) askAll(ctx context.Context, token string) error {
	return parallel(b.cfg.workers, len(b.names), func(n int) error {
		return b.ask(ctx, b.namespaced(kustomizeAPI, "kustomizations/"+b.names[n]), token)
	})
}

// freePort returns a port that nothing listens on.
func freePort(ctx context.Context) (string, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("find a free port: %w", err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	return port, errors.Join(err, l.Close())
}

// awaitHealth returns when the engine's /readyz answers 200. This asks every
// 20 ms: there is nothing to watch.
func (b *bench) awaitHealth(ctx context.Context) (time.Time, error) {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.health, nil)
		if err != nil {
			return time.Time{}, err
		}
		if res, err := http.DefaultClient.Do(req); err == nil {
			_ = res.Body.Close()
			if res.StatusCode == http.StatusOK {
				return time.Now(), nil
			}
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return time.Time{}, fmt.Errorf("waiting for %s: %w", b.health, err)
		}
	}
}

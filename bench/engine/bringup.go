package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bowline-dev/bowline/internal/crds"
)

// prepare brings up everything but the Kustomizations.
func (b *bench) prepare(ctx context.Context) error {
	b.log.printf("starting the control plane, the repository and the engine")
	var err error
	if b.origin, b.revision, err = serveFleet(ctx, filepath.Join(b.work, "git"), b.cfg.units+b.moreUnits()); err != nil {
		return err
	}
	for n := range b.cfg.units {
		b.names = append(b.names, unitName(n))
	}
	return b.bringUp(ctx, b.namespaced(kustomizeAPI, "kustomizations"), b.namespaced(sourceAPI, "gitrepositories"), body{
		"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "GitRepository",
		"metadata": body{"name": sourceName, "namespace": b.cfg.namespace},
		"spec":     body{"url": b.origin.url, "ref": body{"branch": branch}, "interval": "10m", "timeout": "60s"},
	}, func(s state) bool { return s.ready() && s.Status.Artifact.Revision == b.revision })
}

// bringUp starts a control plane and an engine, follows what is served at two paths, and creates
// the source, which the engine is to fetch.
func (b *bench) bringUp(ctx context.Context, units, sources string, source body, fetched func(state) bool) error {
	var err error
	if b.plane, err = startPlane(ctx, b.cfg, b.work, "engine"); err != nil {
		return err
	}
	if err := b.install(ctx); err != nil {
		return err
	}
	ns := body{"apiVersion": "v1", "kind": "Namespace", "metadata": body{"name": b.cfg.namespace}}
	if err := b.create(ctx, "/api/v1/namespaces", ns); err != nil {
		return err
	}
	b.unitsAt = units
	if b.units, err = track(ctx, b.plane.client, units, b.log); err != nil {
		return err
	}
	if b.sources, err = track(ctx, b.plane.client, sources, b.log); err != nil {
		return err
	}
	if err := b.startEngine(ctx); err != nil {
		return err
	}
	if err := b.create(ctx, sources, source); err != nil {
		return err
	}
	name, _ := source["metadata"].(body)["name"].(string)
	err = b.within(ctx, func(ctx context.Context) error {
		_, err := b.sources.wait(ctx, "the repository is fetched", []string{name}, fetched)
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
		if err := crds.Apply(ctx, b.plane.client.config); err != nil || !b.hub {
			return err
		}
		return b.installFleet(ctx)
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
	if b.charts != nil {
		b.charts.close()
	}
	if b.plane != nil {
		b.plane.stop()
	}
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

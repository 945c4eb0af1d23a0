package main

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/bowline-dev/bowline/internal/gitserve"
)

// Where the readers' ConfigMap is, and the namespace that they deliver to.
const (
	sharedConfig    = "shared"
	readerNamespace = "readers"
)

// readerName names a Kustomization that reads the shared ConfigMap, its folder and
// the one ConfigMap that it delivers.
func readerName(n int) string { return fmt.Sprintf("reader-%04d", n) }

// readerFile is what a reader's folder holds: own is what a commit changes.
func readerFile(n int, own string) (path string, f gitserve.File) {
	text := fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\n  namespace: %s\ndata:\n  shared: ${shared}\n  own: %s\n",
		readerName(n), readerNamespace, own)
	return "readers/" + readerName(n) + "/config.yaml", gitserve.File{Data: []byte(text)}
}

// sharing has many Kustomizations read one ConfigMap through substituteFrom. Then a
// commit touches one of them, and then the ConfigMap changes.
func (b *bench) sharing(ctx context.Context) error {
	if b.cfg.readers == 0 {
		return nil
	}
	names, err := b.makeReaders(ctx)
	if err != nil {
		return err
	}
	if err := pause(ctx, b.cfg.settle); err != nil {
		return err
	}
	if err := b.touchOneReader(ctx, names); err != nil {
		return err
	}
	if err := pause(ctx, b.cfg.settle); err != nil {
		return err
	}
	return b.changeShared(ctx)
}

// makeReaders creates the readers and waits until all are ready.
func (b *bench) makeReaders(ctx context.Context) (names []string, err error) {
	files := map[string]gitserve.File{}
	for n := range b.cfg.readers {
		path, f := readerFile(n, "first")
		files[path] = f
		names = append(names, readerName(n))
	}
	if b.revision, err = b.origin.commit(ctx, "the readers", files); err != nil {
		return nil, err
	}
	if err := b.create(ctx, "/api/v1/namespaces", body{"apiVersion": "v1", "kind": "Namespace", "metadata": body{"name": readerNamespace}}); err != nil {
		return nil, err
	}
	shared := body{"apiVersion": "v1", "kind": "ConfigMap", "metadata": body{"name": sharedConfig, "namespace": b.cfg.namespace}, "data": body{"shared": "first"}}
	if err := b.create(ctx, b.namespaced("/api/v1", "configmaps"), shared); err != nil {
		return nil, err
	}
	err = parallel(b.cfg.workers, len(names), func(n int) error {
		return b.create(ctx, b.namespaced(kustomizeAPI, "kustomizations"), body{
			"apiVersion": "kustomize.toolkit.fluxcd.io/v1", "kind": "Kustomization",
			"metadata": body{"name": names[n], "namespace": b.cfg.namespace},
			"spec": body{
				"sourceRef": body{"kind": "GitRepository", "name": sourceName},
				"path":      "./readers/" + names[n], "interval": "10m", "timeout": "3m", "prune": true,
				"postBuild": body{"substituteFrom": []body{{"kind": "ConfigMap", "name": sharedConfig}}},
			},
		})
	})
	if err != nil {
		return nil, err
	}
	return names, b.within(ctx, func(ctx context.Context) error {
		if err := b.ask(ctx, b.namespaced(sourceAPI, "gitrepositories/"+sourceName), b.nextRequest()); err != nil {
			return err
		}
		_, err := b.units.wait(ctx, "ready", append(names, b.names...), at(b.revision))
		return err
	})
}

// touchOneReader commits another text for one reader.
func (b *bench) touchOneReader(ctx context.Context, names []string) error {
	path, f := readerFile(b.cfg.readers/2, "second")
	revision, err := b.origin.commit(ctx, "touch one reader", map[string]gitserve.File{path: f})
	if err != nil {
		return err
	}
	builds := b.metered(ctx, "bowline_builds_total", "build", "builds")
	var took time.Duration
	spent, err := b.spend(ctx, func(ctx context.Context) error {
		start := time.Now()
		if err := b.ask(ctx, b.namespaced(sourceAPI, "gitrepositories/"+sourceName), b.nextRequest()); err != nil {
			return err
		}
		end, err := b.units.wait(ctx, "reports the new revision", names, at(revision))
		took = end.Sub(start)
		return err
	})
	if err != nil {
		return err
	}
	b.revision = revision
	b.addShared("readers-commit", fmt.Sprintf("%d Kustomizations that read one ConfigMap through `substituteFrom`: "+
		"a commit that touches one, until all report the new revision", b.cfg.readers), took, spent, builds)
	return nil
}

// changeShared changes the ConfigMap that all readers read.
func (b *bench) changeShared(ctx context.Context) error {
	builds := b.metered(ctx, "bowline_builds_total", "build", "builds")
	var took time.Duration
	spent, err := b.spend(ctx, func(ctx context.Context) error {
		watch, stop, err := b.watchConfig(ctx, readerNamespace, "")
		if err != nil {
			return err
		}
		defer stop()
		start := time.Now()
		patch := []byte(`{"data":{"shared":"second"}}`)
		if err := b.plane.client.do(ctx, http.MethodPatch, b.namespaced("/api/v1", "configmaps/"+sharedConfig), mergePatch, patch); err != nil {
			return err
		}
		delivered := map[string]bool{}
		end, err := watch.until(ctx, "every reader delivered the new value", func(e event[configMap]) bool {
			if e.Object.Data["shared"] == "second" {
				delivered[e.Object.Metadata.Name] = true
			}
			return len(delivered) == b.cfg.readers
		})
		took = end.Sub(start)
		return err
	})
	if err != nil {
		return err
	}
	b.addShared("readers-change", "… that ConfigMap changes, until all have delivered its value", took, spent, builds)
	return nil
}

func (b *bench) addShared(id, measure string, took time.Duration, spent span, builds func(*result)) {
	row := result{ID: id, Measure: measure, Text: fmt.Sprintf("%s; %s", seconds(took), spent.calls()), Figures: spent.figures(took)}
	builds(&row)
	b.add(row)
}

// metered begins to count by one of the engine's own counters. What it returns adds the count to a
// row, if the engine tells.
func (b *bench) metered(ctx context.Context, name, one, many string) func(*result) {
	before, told := b.meter(ctx, name)
	return func(row *result) {
		if after, still := b.meter(ctx, name); told && still {
			row.Figures[many] = after - before
			row.Text += ", " + count(after-before, one, many)
		}
	}
}

// meter sums up one of the engine's own counters.
func (b *bench) meter(ctx context.Context, name string) (n float64, told bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, b.metrics, nil)
	if err != nil {
		return 0, false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, false
	}
	defer func() { _ = res.Body.Close() }()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		line := lines.Text()
		if !strings.HasPrefix(line, name+"{") && !strings.HasPrefix(line, name+" ") {
			continue
		}
		if more, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64); err == nil {
			n, told = n+more, true
		}
	}
	return n, told
}

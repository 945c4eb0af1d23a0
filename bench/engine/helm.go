package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

const (
	helmAPI        = "/apis/helm.toolkit.fluxcd.io/v2"
	repositoryName = "charts"
)

// releaseName names HelmRelease n and its release.
func releaseName(n int) string { return fmt.Sprintf("release-%03d", n) }

// helm measures releases of one chart, on a control plane and with an engine of their
// own: what was measured before stays comparable.
func helm(ctx context.Context, cfg *config, work string, rep *report, log *progress) error {
	h := &bench{cfg: cfg, log: log, work: filepath.Join(work, "helm"), resources: releaseResources(), into: &rep.Helm}
	if err := os.MkdirAll(h.work, 0o700); err != nil {
		return fmt.Errorf("make a work folder: %w", err)
	}
	defer h.close()
	if err := h.prepareHelm(ctx); err != nil {
		return err
	}
	return h.steps(ctx, []step{
		{"every release ready", h.releasesReady},
		{"a change of values", h.valueChanges},
		{"every release asked to reconcile", h.releasesReconcile},
		{"healing of releases", h.healingReleases},
		{"idling with releases", h.idling},
	})
}

// releaseResources are the resources that count as delivered. Secrets are among them: those in
// which a release is recorded are created and updated, never applied or tried.
func releaseResources() map[string]bool {
	out := map[string]bool{}
	for path := range releaseKinds {
		out[filepath.Base(path)] = true
	}
	return out
}

// prepareHelm brings up everything but the HelmReleases.
func (b *bench) prepareHelm(ctx context.Context) error {
	b.log.printf("Helm: starting the control plane, the repository and the engine")
	var err error
	if b.charts, err = serveChart(ctx); err != nil {
		return err
	}
	for n := range b.cfg.helm {
		b.names = append(b.names, releaseName(n))
	}
	return b.bringUp(ctx, b.namespaced(helmAPI, "helmreleases"), b.namespaced(sourceAPI, "helmrepositories"), body{
		"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "HelmRepository",
		"metadata": body{"name": repositoryName, "namespace": b.cfg.namespace},
		"spec":     body{"url": b.charts.url, "interval": "10m", "timeout": "60s"},
	}, state.ready)
}

// helmRelease is one of the chart, with drift detection on.
func (b *bench) helmRelease(name string) body {
	return body{
		"apiVersion": "helm.toolkit.fluxcd.io/v2", "kind": "HelmRelease",
		"metadata": body{"name": name, "namespace": b.cfg.namespace},
		"spec": body{
			"interval": "10m", "timeout": "3m", "releaseName": name, "driftDetection": body{"mode": "enabled"},
			"chart": body{"spec": body{
				"chart": chartName, "version": chartVersion, "interval": "10m",
				"sourceRef": body{"kind": "HelmRepository", "name": repositoryName},
			}},
			"values": body{"value": "first"},
		},
	}
}

func (b *bench) releasesReady(ctx context.Context) error {
	took, spent, err := b.deliver(ctx, func(ctx context.Context, name string) error {
		return b.create(ctx, b.unitsAt, b.helmRelease(name))
	}, state.ready)
	if err != nil {
		return err
	}
	if err := b.checkReleased(ctx); err != nil {
		return err
	}
	b.add(result{
		ID: "helm-ready", Measure: "all ready, from creating the releases",
		Text: fmt.Sprintf("%s, %s; %s CPU s in the engine", seconds(took), count(spent.dryRuns, "dry run", "dry runs"), number(spent.engine.Seconds())), Figures: spent.figures(took),
	})
	return nil
}

// checkReleased counts the objects on the cluster by the label that the chart gives them.
func (b *bench) checkReleased(ctx context.Context) error {
	const listed = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	for path, each := range releaseKinds {
		var list struct {
			Items []struct{} `json:"items"`
		}
		path := filepath.Dir(path) + "/namespaces/" + b.cfg.namespace + "/" + filepath.Base(path)
		if err := b.plane.client.get(ctx, path+"?labelSelector=app.kubernetes.io%2Fname%3D"+chartName, listed, &list); err != nil {
			return err
		}
		if want := each * b.cfg.helm; len(list.Items) != want {
			return fmt.Errorf("every release reports ready, yet %s holds %d of %d objects", path, len(list.Items), want)
		}
	}
	return nil
}

// changeValue edits the values of one release, and returns how long it took from there
// until its object had changed and until the release was ready again.
func (b *bench) changeValue(ctx context.Context, name, value string) (changed, reported time.Duration, err error) {
	watch, stop, err := b.watchConfig(ctx, b.cfg.namespace, name+"-config-1")
	if err != nil {
		return 0, 0, err
	}
	defer stop()
	patch := fmt.Appendf(nil, `{"spec":{"values":{"value":%q}}}`, value)
	start := time.Now()
	if err := b.plane.client.do(ctx, http.MethodPatch, b.unitsAt+"/"+name, mergePatch, patch); err != nil {
		return 0, 0, err
	}
	seen, err := watch.until(ctx, "the object changed", func(e event[configMap]) bool { return e.Object.Data["value"] == value })
	if err != nil {
		return 0, 0, err
	}
	end, err := b.units.wait(ctx, "ready with the new values", []string{name}, func(s state) bool { return s.ready() && s.Metadata.Generation > 1 })
	return seen.Sub(start), end.Sub(start), err
}

// valueChanges times one change of values per round, of another release each.
func (b *bench) valueChanges(ctx context.Context) error {
	var changed, reported []time.Duration
	all, err := b.eachRound(ctx, func(ctx context.Context, round int) error {
		c, r, err := b.changeValue(ctx, b.names[round%len(b.names)], fmt.Sprintf("round-%d", round))
		changed, reported = append(changed, c), append(reported, r)
		return err
	})
	if err != nil {
		return err
	}
	k := medianIndex(changed)
	b.add(result{
		ID: "helm-values", Measure: "a values change live, from the edit",
		Text: fmt.Sprintf("%s; %s", seconds(changed[k]), all[k].calls()), Figures: all[k].figures(changed[k]), Rounds: secondsOf(changed),
	}, result{
		ID: "helm-values-reported", Measure: "… until the release is ready again",
		Text: seconds(median(reported)), Figures: figures{"seconds": median(reported).Seconds()}, Rounds: secondsOf(reported),
	})
	return nil
}

// releasesReconcile asks every release to reconcile while nothing changed.
func (b *bench) releasesReconcile(ctx context.Context) error {
	renders := b.metered(ctx, "bowline_renders_total", "render", "renders")
	row, err := b.reconciled(ctx, "helm-reconcile", "every release asked to reconcile, nothing changed")
	if err != nil {
		return err
	}
	renders(&row)
	b.add(row)
	return nil
}

// healingReleases deletes and edits one object of a release at a time.
func (b *bench) healingReleases(ctx context.Context) error {
	return b.healBoth(ctx, "helm-heal", func(name string) (gone, edited object) {
		return object{b.cfg.namespace, name + "-config-1"}, object{b.cfg.namespace, name + "-config-2"}
	})
}

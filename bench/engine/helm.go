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
	h := &bench{cfg: cfg, log: log, report: rep, work: filepath.Join(work, "helm"), resources: releaseResources(), into: &rep.Helm}
	if err := os.MkdirAll(h.work, 0o700); err != nil {
		return fmt.Errorf("make a work folder: %w", err)
	}
	defer h.close()
	charts, err := h.prepareHelm(ctx)
	if charts != nil {
		defer charts.close()
	}
	if err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"every release ready", h.releasesReady},
		{"a change of values", h.valueChanges},
		{"every release asked to reconcile", h.releasesReconcile},
		{"healing of releases", h.healingReleases},
		{"idling with releases", h.idling},
	} {
		if err := pause(ctx, cfg.settle); err != nil {
			return err
		}
		log.printf("%s", step.name)
		stop := h.startProfile(ctx, step.name)
		err := step.run(ctx)
		stop()
		if err != nil {
			return fmt.Errorf("%s: %w%s", step.name, err, h.lastWords())
		}
	}
	return nil
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
func (b *bench) prepareHelm(ctx context.Context) (*chartRepository, error) {
	b.log.printf("Helm: starting the control plane, the repository and the engine")
	charts, err := serveChart(ctx)
	if err != nil {
		return nil, err
	}
	if b.plane, err = startPlane(ctx, b.cfg, b.work, "engine"); err != nil {
		return charts, err
	}
	if err := b.install(ctx); err != nil {
		return charts, err
	}
	ns := body{"apiVersion": "v1", "kind": "Namespace", "metadata": body{"name": b.cfg.namespace}}
	if err := b.create(ctx, "/api/v1/namespaces", ns); err != nil {
		return charts, err
	}
	for n := range b.cfg.helm {
		b.names = append(b.names, releaseName(n))
	}
	if b.sources, err = track(ctx, b.plane.client, b.namespaced(sourceAPI, "helmrepositories"), b.log); err != nil {
		return charts, err
	}
	if b.units, err = track(ctx, b.plane.client, b.namespaced(helmAPI, "helmreleases"), b.log); err != nil {
		return charts, err
	}
	if err := b.startEngine(ctx); err != nil {
		return charts, err
	}
	source := body{
		"apiVersion": "source.toolkit.fluxcd.io/v1", "kind": "HelmRepository",
		"metadata": body{"name": repositoryName, "namespace": b.cfg.namespace},
		"spec":     body{"url": charts.url, "interval": "10m", "timeout": "60s"},
	}
	if err := b.create(ctx, b.namespaced(sourceAPI, "helmrepositories"), source); err != nil {
		return charts, err
	}
	err = b.within(ctx, func(ctx context.Context) error {
		_, err := b.sources.wait(ctx, "the repository is read", []string{repositoryName}, state.ready)
		return err
	})
	if err != nil {
		err = fmt.Errorf("%w%s", err, b.lastWords())
	}
	return charts, err
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
	var start, end time.Time
	spent, err := b.spend(ctx, func(ctx context.Context) error {
		start = time.Now()
		err := parallel(b.cfg.workers, len(b.names), func(n int) error {
			return b.create(ctx, b.namespaced(helmAPI, "helmreleases"), b.helmRelease(b.names[n]))
		})
		if err != nil {
			return err
		}
		end, err = b.units.wait(ctx, "ready", b.names, state.ready)
		return err
	})
	if err != nil {
		return err
	}
	if err := b.checkReleased(ctx); err != nil {
		return err
	}
	took := end.Sub(start)
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
	if err := b.plane.client.do(ctx, http.MethodPatch, b.namespaced(helmAPI, "helmreleases/"+name), mergePatch, patch); err != nil {
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
	var all []span
	for round := range b.cfg.rounds {
		if err := pause(ctx, b.cfg.settle); err != nil {
			return err
		}
		var c, r time.Duration
		spent, err := b.spend(ctx, func(ctx context.Context) (err error) {
			c, r, err = b.changeValue(ctx, b.names[round%len(b.names)], fmt.Sprintf("round-%d", round))
			return err
		})
		if err != nil {
			return err
		}
		changed, reported, all = append(changed, c), append(reported, r), append(all, spent)
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
	var times []time.Duration
	var all []span
	renders, told := b.renders(ctx)
	for range b.cfg.rounds {
		if err := pause(ctx, b.cfg.settle); err != nil {
			return err
		}
		var took time.Duration
		spent, err := b.spend(ctx, func(ctx context.Context) error {
			token, start := b.nextRequest(), time.Now()
			err := parallel(b.cfg.workers, len(b.names), func(n int) error {
				return b.ask(ctx, b.namespaced(helmAPI, "helmreleases/"+b.names[n]), token)
			})
			if err != nil {
				return err
			}
			end, err := b.units.wait(ctx, "handled the request", b.names, handled(token))
			took = end.Sub(start)
			return err
		})
		if err != nil {
			return err
		}
		times, all = append(times, took), append(all, spent)
	}
	k := medianIndex(times)
	f, text := all[k].figures(times[k]), fmt.Sprintf("%s; %s", seconds(times[k]), all[k].calls())
	if after, still := b.renders(ctx); told && still {
		f["renders"] = after - renders
		text += ", " + count(after-renders, "render", "renders")
	}
	b.add(result{ID: "helm-reconcile", Measure: "every release asked to reconcile, nothing changed", Text: text, Figures: f, Rounds: secondsOf(times)})
	return nil
}

// healingReleases deletes and edits one object of a release at a time.
func (b *bench) healingReleases(ctx context.Context) error {
	return b.healBoth(ctx, "helm-heal", func(name string) (gone, edited object, path string) {
		return object{b.cfg.namespace, name + "-config-1"}, object{b.cfg.namespace, name + "-config-2"}, b.namespaced(helmAPI, "helmreleases/"+name)
	})
}

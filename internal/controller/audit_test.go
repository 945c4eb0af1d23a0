package controller

import (
	"context"
	"strings"
	"testing"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/feed"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source"
)

// auditor is an engine that does nothing but audit the stage's units, and its log.
func auditor(t *testing.T, s *stage, told *[]string) (*engine, *liveEngine) {
	t.Helper()
	targets := bareTargetsOf(t, s, make(chan types.NamespacedName, 10), HelmFieldManager, object.HelmGroup)
	c := client.NewNamespacedClient(s.client, s.namespace)
	e := &engine{
		meters: newMeters(),
		log:    funcr.New(func(_, args string) { *told = append(*told, args) }, funcr.Options{}),
		units: &kustomizations{units: &units[*kustomizev1.Kustomization]{
			client: c, targets: targets, references: targets.references, artifacts: newArtifacts(), tenancy: Tenancy{Open: true},
		}},
		releases: &helmReleases{units: &units[*helmv2.HelmRelease]{
			client: c, targets: targets, references: targets.references, pipeline: pipeline.New(nil),
			attempts: newAttempts(), self: &feed.Feed{}, tenancy: Tenancy{Open: true},
		}},
	}
	meters := &liveEngine{registry: prometheus.NewRegistry()}
	if _, err := e.meters.register(meters.registry); err != nil {
		t.Fatal(err)
	}
	return e, meters
}

// An audit covers releases: a ledger that is wrong about one is noticed, counted, told
// of and put right.
func TestAuditOfReleases(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", map[string]string{"templates/two.yaml": configMap("two", "1"), "templates/hook.yaml": hook("hook", "post-install")}))
	s.release("web")
	h := s.awaitReleased("web", 1)
	var told []string
	e, meters := auditor(t, s, &told)
	audited := func(objects, disagreements float64) {
		t.Helper()
		e.auditFrom(t.Context(), 0)
		if got := meters.count(t, "bowline_audit_objects_total", ""); got != objects {
			t.Errorf("%v objects were audited, want %v: %s", got, objects, told)
		}
		if got := meters.count(t, "bowline_audit_disagreements_total", ""); got != disagreements {
			t.Errorf("%v disagreements, want %v: %s", got, disagreements, told)
		}
	}
	audited(0, 0) // nothing was delivered yet

	target, err := e.releases.targets.of(t.Context(), addressOfRelease(h))
	if err != nil {
		t.Fatal(err)
	}
	unit, err := e.releases.deployedUnit(t.Context(), h, target, nil)
	if err != nil {
		t.Fatal(err)
	}
	record := func(context.Context, []plan.Entry) error { return nil }
	if _, err := e.releases.pipeline.Run(t.Context(), unit, target.Target, source.Artifact{Digest: unit.Made.Digest}, record); err != nil {
		t.Fatal(err)
	}
	audited(2, 0)

	id := object.ID{Kind: "ConfigMap", Namespace: s.namespace, Name: "web"}
	state := func() plan.State {
		known, _ := target.ledger.Known(id)
		return known.State
	}
	edit(s, s.config("web"), func(m *corev1.ConfigMap) { m.Data["value"] = "theirs" })
	s.poll("seen", func() bool { return state() == plan.Drifted })
	target.ledger.Settle(id) // now the ledger takes the edit for what was applied
	audited(4, 1)
	if log := strings.Join(told, "\n"); !strings.Contains(log, "disagrees") || !strings.Contains(log, "helmrelease") || !strings.Contains(log, id.String()) {
		t.Errorf("logged: %s", log)
	}
	if state() != plan.Drifted || !e.releases.attempts.takeDrift(unit.Name) {
		t.Errorf("it is not healed: %v", state())
	}
	edit(s, h, func(h *helmv2.HelmRelease) { h.Spec.Suspend = true })
	audited(4, 1)
}

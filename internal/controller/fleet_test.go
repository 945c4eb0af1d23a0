package controller

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// An engine on a cluster that has the fleet's kinds is a hub: what it fetched is what members are assigned.
func TestHub(t *testing.T) {
	t.Parallel()
	config := testkit.Start(t).Config
	fleet, err := crds.Fleet()
	if err == nil {
		err = crds.Install(t.Context(), config, fleet)
	}
	if err != nil {
		t.Fatal(err)
	}
	repo := testkit.NewGitServer(t).Repo("fleet")
	commit := repo.Commit(map[string]string{"apps/config.yaml": "a"})
	e, err := startEngine(config, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.stop() })
	scheme, err := NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	named := func(name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceDefault}
	}
	for _, o := range []client.Object{
		&sourcev1.GitRepository{ObjectMeta: named("fleet"), Spec: sourcev1.GitRepositorySpec{
			URL: repo.URL(), Reference: &sourcev1.GitRepositoryRef{Branch: "main"}, Interval: metav1.Duration{Duration: time.Second},
		}},
		&fleetv1.FleetCluster{ObjectMeta: named("member"), Spec: fleetv1.FleetClusterSpec{Join: &fleetv1.JoinSpec{}}},
		&fleetv1.Placement{ObjectMeta: named("apps"), Spec: fleetv1.PlacementSpec{Units: []fleetv1.PlacementUnit{{Name: "apps", Kustomization: &apiextensionsv1.JSON{
			Raw: []byte(`{"interval":"1m","prune":true,"path":"./apps","sourceRef":{"kind":"GitRepository","name":"fleet"}}`)}}}}},
	} {
		if err := c.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		var got fleetv1.ClusterAssignment
		err = wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
			err := c.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: "member"}, &got)
			return err == nil && len(got.Spec.Sources) == 1 && strings.Contains(string(got.Spec.Sources[0].Spec.Raw), fmt.Sprintf("%q", commit)), client.IgnoreNotFound(err)
		})
		if err != nil {
			p := &fleetv1.Placement{ObjectMeta: named("apps")}
			_ = c.Get(context.Background(), client.ObjectKeyFromObject(p), p)
			t.Fatalf("not assigned at %s: %v; it is %+v, and the Placement says %+v", commit, err, got.Spec, p.Status.Conditions)
		}
		commit = repo.Commit(map[string]string{"apps/config.yaml": "b"})
	}
}

// A hub refuses what is wrong while it runs. While it does not, Git goes on, and what was stored then is told on the object.
func TestHubJudges(t *testing.T) {
	t.Parallel()
	config := testkit.Start(t).Config
	fleet, err := crds.Fleet()
	if err == nil {
		err = crds.Install(t.Context(), config, fleet)
	}
	if err != nil {
		t.Fatal(err)
	}
	judging := func(o *Options) { o.Webhooks.Listen = "127.0.0.1:0" }
	e, err := startEngine(config, t.TempDir(), judging)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.stop() })
	scheme, err := NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	wrong := &fleetv1.Placement{ObjectMeta: metav1.ObjectMeta{Name: "wrong", Namespace: metav1.NamespaceDefault}, Spec: fleetv1.PlacementSpec{
		Units:     []fleetv1.PlacementUnit{{Name: "web", HelmRelease: &apiextensionsv1.JSON{Raw: []byte(`{"interval":"1m","chartRef":{"kind":"OCIRepository","name":"web"}}`)}}},
		Overrides: []fleetv1.PlacementOverride{{ClusterNames: []string{"a"}, Unit: "wep", Patch: apiextensionsv1.JSON{Raw: []byte("{}")}}},
	}}
	const says = `spec.overrides[0].unit: there is no unit "wep"; name one of spec.units`
	err = wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		err = c.Create(ctx, wrong.DeepCopy(), client.DryRunAll)
		return apierrors.IsInvalid(err) && strings.HasSuffix(err.Error(), "denied the request: "+says), nil
	})
	if err != nil {
		t.Fatalf("it is not refused: %v", err)
	}
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), wrong); err != nil {
		t.Fatalf("without the hub: %v", err)
	}
	again := runEngine(config, t.TempDir(), judging)
	t.Cleanup(func() { _ = again.stop() })
	err = wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, client.ObjectKeyFromObject(wrong), wrong)
		told := apimeta.FindStatusCondition(wrong.Status.Conditions, fleetv1.PlacedCondition)
		return told != nil && told.Status == metav1.ConditionFalse && told.Reason == fleetv1.InvalidUnitReason && strings.Contains(told.Message, says), err
	})
	if err != nil {
		t.Fatalf("nothing is told: %v: %+v", err, wrong.Status.Conditions)
	}
}

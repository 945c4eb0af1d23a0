package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/build/sops"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source"
)

// sent notes the requests, and answers none.
type sent struct {
	paths []string
	until []time.Time
}

// RoundTrip implements http.RoundTripper.
func (s *sent) RoundTrip(r *http.Request) (*http.Response, error) {
	deadline, _ := r.Context().Deadline()
	s.paths, s.until = append(s.paths, r.URL.Path), append(s.until, deadline)
	return nil, errors.New("no answer")
}

// What a deletion asks is about objects of its own namespace, and ends in time.
func TestRemoveAsks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, reason, account, path string
	}{
		{"account", "it may have gone", "tenant", "/api/v1/namespaces/dev/serviceaccounts/tenant"},
		{"account with a path", "the answer would tell of another tenant's object", "../../victim/secrets/db", ""},
		{"account with a colon", "it could be taken for one of another namespace", "victim:admin", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			requests := &sent{}
			cluster, err := kube.Over("https://example.com", requests, nil)
			if err != nil {
				t.Fatal(err)
			}
			hub := &delivery{Target: pipeline.Target{Cluster: cluster, Applier: NewApplier(cluster, nil, 1, nil)}}
			r := &kustomizations{units: &units[*kustomizev1.Kustomization]{targets: newTargets(t.Context(), hub, targetOptions{clock: clock.RealClock{}})}}
			inventory := []plan.Entry{{ID: object.ID{Kind: "ConfigMap", Namespace: "dev", Name: "a"}, Version: "v1"}}
			began := time.Now()
			k := unitIn("dev", as(c.account))
			remaining, err := r.remove(t.Context(), k, inventory)
			if err == nil || len(remaining) != 1 || !strings.Contains(err.Error(), "spec.deletionPolicy: Orphan") {
				t.Errorf("remaining %v, %v", remaining, err)
			}
			if c.path == "" {
				if len(requests.paths) > 0 || !errors.Is(err, failure.Of(failure.Invalid)) || !strings.Contains(err.Error(), "spec.serviceAccountName") {
					t.Errorf("requests %q, %v; %s", requests.paths, err, c.reason)
				}
				return
			}
			if len(requests.paths) != 1 || requests.paths[0] != c.path {
				t.Fatalf("requests %q, want %s; %s", requests.paths, c.path, c.reason)
			}
			if until := requests.until[0]; until.IsZero() || until.After(began.Add(k.GetTimeout()+time.Minute)) {
				t.Errorf("it may last until %v; the timeout is %s", until, k.GetTimeout())
			}
		})
	}
}

// What a failed audit logs quotes neither variables of Secrets nor keys.
func TestAuditConceals(t *testing.T) {
	t.Parallel()
	const variable, token = "a-hidden-variable", "hvs.a-hidden-token"
	s := newStage(t)
	for name, data := range map[string]map[string]string{"vars": {"password": variable}, "keys": {"sops.vault-token": token}} {
		s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}, StringData: data})
	}
	k := unitIn(s.namespace, decrypted("keys"), func(k *kustomizev1.Kustomization) {
		k.Spec.Path = "app"
		k.Spec.PostBuild = &kustomizev1.PostBuild{SubstituteFrom: []kustomizev1.SubstituteReference{{Kind: "Secret", Name: "vars"}}}
	})
	targets := bareTargets(t, s, make(chan types.NamespacedName, 10))
	artifacts := newArtifacts()
	artifacts.put(sourceOf(k), source.Artifact{Revision: "main@sha1:1"})
	quotes := pipeline.New(func(context.Context, source.Tree, build.Recipe) (build.Result, error) {
		return build.Result{}, fmt.Errorf("Invalid value: %q, %q", variable, token)
	})
	var log []string
	e := &engine{
		log: funcr.New(func(_, args string) { log = append(log, args) }, funcr.Options{}),
		units: &kustomizations{
			units: &units[*kustomizev1.Kustomization]{
				targets: targets, references: targets.references, artifacts: artifacts, pipeline: quotes, tenancy: Tenancy{Open: true},
			},
			unitOptions: UnitOptions{Decryption: &Decryption{Ring: sops.NewRing(t.Context(), sops.Options{}), Tenancy: Tenancy{Open: true}}},
		},
	}
	if _, err := targets.of(t.Context(), addressOf(k)); err != nil { // only what was delivered is audited
		t.Fatal(err)
	}
	e.auditOne(t.Context(), k)
	if told := strings.Join(log, "\n"); !strings.Contains(told, "Invalid value") || strings.Contains(told, variable) || strings.Contains(told, token) {
		t.Errorf("logged: %s", told)
	}
}

package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/report"
)

// patience is how long a test waits for what has to come. It is far above what
// anything takes, so that a slow machine fails no test.
const patience = 60 * time.Second

// awaitUnit waits until the Kustomization is as it should be, and returns it.
func (s *stage) awaitUnit(name, what string, ok func(*kustomizev1.Kustomization) bool) *kustomizev1.Kustomization {
	s.Helper()
	return await(s, &kustomizev1.KustomizationList{}, name, what, ok)
}

// awaitRepository waits until a GitRepository is as it should be, and returns it.
func (s *stage) awaitRepository(name, what string, ok func(*sourcev1.GitRepository) bool) *sourcev1.GitRepository {
	s.Helper()
	return await(s, &sourcev1.GitRepositoryList{}, name, what, ok)
}

// awaitSource waits until the GitRepository "fleet" is as it should be, and returns it.
func (s *stage) awaitSource(what string, ok func(*sourcev1.GitRepository) bool) *sourcev1.GitRepository {
	s.Helper()
	return await(s, &sourcev1.GitRepositoryList{}, "fleet", what, ok)
}

// awaitLive waits until the Kustomization is ready at the revision.
func (s *stage) awaitLive(name, revision string) *kustomizev1.Kustomization {
	s.Helper()
	return s.awaitUnit(name, "ready at "+revision, func(k *kustomizev1.Kustomization) bool {
		return report.IsReady(k, k.Status.ObservedGeneration) && k.Status.LastAppliedRevision == revision
	})
}

// awaitFailure waits until the object is not ready for this reason, with a
// message that holds all of the words.
func (s *stage) awaitFailure(name, reason string, words ...string) *kustomizev1.Kustomization {
	s.Helper()
	return s.awaitUnit(name, fmt.Sprintf("not ready: %s: %q", reason, words), func(k *kustomizev1.Kustomization) bool {
		return says(k, metav1.ConditionFalse, reason, words...)
	})
}

func (s *stage) awaitSourceFailure(reason string, words ...string) *sourcev1.GitRepository {
	s.Helper()
	return s.awaitSource(fmt.Sprintf("not ready: %s: %q", reason, words), func(g *sourcev1.GitRepository) bool {
		return says(g, metav1.ConditionFalse, reason, words...)
	})
}

// says reports whether the Ready condition is as given, for the newest generation.
func says(o report.Conditioned, status metav1.ConditionStatus, reason string, words ...string) bool {
	c := report.Condition(o, meta.ReadyCondition)
	if c == nil || c.Status != status || c.Reason != reason || c.ObservedGeneration != o.GetGeneration() {
		return false
	}
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(c.Message, w) })
}

// await watches one object of the stage's namespace until it is as it should be.
func await[T client.Object](s *stage, list client.ObjectList, name, what string, ok func(T) bool) T {
	s.Helper()
	var last T
	err := s.follow(list, name, func(e apiwatch.Event) bool {
		o, is := e.Object.(T)
		if !is || e.Type == apiwatch.Deleted {
			return false
		}
		last = o
		return ok(o)
	})
	if err != nil {
		s.Fatalf("%s/%s is not %s: %v; last seen: %s", s.namespace, name, what, err, standingOf(last))
	}
	return last
}

// awaitGone waits until an object does not exist. The list says of which kind it is.
func (s *stage) awaitGone(o client.Object, list client.ObjectList) {
	s.Helper()
	err := s.follow(list, o.GetName(), func(apiwatch.Event) bool {
		return apierrors.IsNotFound(s.client.Get(s.Context(), client.ObjectKeyFromObject(o), o))
	})
	if err != nil {
		s.Fatalf("%s/%s is not gone: %v", s.namespace, o.GetName(), err)
	}
}

// follow hands the events of one object to done until it returns true. A watch
// begins with an empty event and the object as it is; one that ends is begun again.
func (s *stage) follow(list client.ObjectList, name string, done func(apiwatch.Event) bool) error {
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	for ctx.Err() == nil {
		w, err := s.client.Watch(ctx, list, client.InNamespace(s.namespace), client.MatchingFields{"metadata.name": name})
		if err != nil {
			return err
		}
		if reached(w, done) {
			return nil
		}
	}
	return ctx.Err()
}

func reached(w apiwatch.Interface, done func(apiwatch.Event) bool) bool {
	defer w.Stop()
	if done(apiwatch.Event{}) {
		return true
	}
	for e := range w.ResultChan() {
		if done(e) {
			return true
		}
	}
	return false
}

func standingOf(o client.Object) string {
	c, ok := o.(report.Conditioned)
	if !ok || c == report.Conditioned(nil) || isNil(o) {
		return "nothing"
	}
	var words []string
	for _, c := range c.GetConditions() {
		words = append(words, fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message))
	}
	return strings.Join(words, "\n\t")
}

func isNil(o client.Object) bool {
	switch x := o.(type) {
	case *kustomizev1.Kustomization:
		return x == nil
	case *sourcev1.GitRepository:
		return x == nil
	case *sourcev1.Bucket:
		return x == nil
	case *sourcev1.ExternalArtifact:
		return x == nil
	case *sourcev1.HelmRepository:
		return x == nil
	case *sourcev1.HelmChart:
		return x == nil
	case *sourcev1.OCIRepository:
		return x == nil
	case *swapi.ArtifactGenerator:
		return x == nil
	case *helmv2.HelmRelease:
		return x == nil
	default:
		return o == nil
	}
}

// poll waits until what no watch tells is so.
func (s *stage) poll(what string, ok func() bool) {
	s.Helper()
	err := wait.PollUntilContextTimeout(s.Context(), 10*time.Millisecond, patience, true, func(context.Context) (bool, error) { return ok(), nil })
	if err != nil {
		s.Fatalf("not %s: %v", what, err)
	}
}

// pass lets time pass where that is what a test is about: a random moment, or a
// while in which nothing may happen. Nothing is waited for with it.
func pass(d time.Duration) { <-time.After(d) }

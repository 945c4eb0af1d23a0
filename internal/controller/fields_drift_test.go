package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/report"
)

// Whatever somebody does to a field that we own is undone by an event: the
// interval is longer than the test.
func TestDriftIsHealed(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name, reason string
		change       func(*stage, *corev1.ConfigMap)
	}{
		{name: "edited", reason: "a value of ours changed", change: func(s *stage, m *corev1.ConfigMap) {
			edit(s, m, func(m *corev1.ConfigMap) { m.Data["value"] = "theirs" })
		}},
		{name: "key-removed", reason: "a value of ours is gone", change: func(s *stage, m *corev1.ConfigMap) {
			edit(s, m, func(m *corev1.ConfigMap) { m.Data = nil })
		}},
		{name: "label-removed", reason: "without our label no watch of ours shows it", change: func(s *stage, m *corev1.ConfigMap) {
			edit(s, m, func(m *corev1.ConfigMap) { m.Labels = nil })
		}},
		{name: "digest-removed", reason: "the annotation is a field of ours", change: func(s *stage, m *corev1.ConfigMap) {
			edit(s, m, func(m *corev1.ConfigMap) { m.Annotations = nil })
		}},
		{name: "deleted", reason: "it is gone", change: func(s *stage, m *corev1.ConfigMap) {
			if err := s.client.Delete(s.Context(), m); err != nil {
				s.Fatal(err)
			}
		}},
	}
	s := newStage(t)
	files := map[string]string{}
	for _, row := range rows {
		files["app/"+row.name+".yaml"] = configMap(row.name, "ours")
	}
	revision := "main@sha1:" + s.repo.Commit(files)
	s.source()
	s.unit("app")
	s.awaitLive("app", revision)
	for _, row := range rows {
		m := s.aMap(row.name)
		s.read(m)
		row.change(s, s.aMap(row.name))
		await(s, &corev1.ConfigMapList{}, row.name, "healed, although "+row.reason, func(now *corev1.ConfigMap) bool {
			return now.ResourceVersion != m.ResourceVersion && now.Data["value"] == "ours" &&
				now.Labels[toolkit+"name"] == "app" && now.Annotations[object.AppliedDigestAnnotation] != ""
		})
	}
}

// Fields that others add and we do not own are left to them.
func TestOthersFieldsAreLeftAlone(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1")})
	s.source()
	s.unit("app")
	s.awaitLive("app", s.push(map[string]string{"app/b.yaml": configMap("b", "2")}))
	edit(s, s.aMap("a"), func(m *corev1.ConfigMap) { m.Data["extra"], m.Labels["extra"] = "theirs", "theirs" })
	s.awaitLive("app", s.push(map[string]string{"app/b.yaml": configMap("b", "3"), "app/a.yaml": configMap("a", "3")}))
	if m := s.config("a"); m.Data["extra"] != "theirs" || m.Labels["extra"] != "theirs" || m.Data["value"] != "3" {
		t.Errorf("it holds %v and %v", m.Data, m.Labels)
	}
}

// Somebody who keeps changing an object is not fought for ever: the healing backs
// off, and an event names who it is.
func TestContestedObject(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("contested", "ours")})
	s.source()
	s.unit("app")
	s.awaitLive("app", revision)
	round := 0
	contest := func(now *corev1.ConfigMap) {
		if now.Data["value"] == "ours" {
			round++
			patch := fmt.Appendf(nil, `{"data":{"value":"theirs%d"}}`, round)
			if err := s.client.Patch(t.Context(), s.aMap("contested"), client.RawPatch("application/merge-patch+json", patch), client.FieldOwner("rival")); err != nil {
				t.Error(err)
			}
		}
	}
	ended := make(chan error, 1)
	go func() {
		ended <- s.follow(&corev1.ConfigMapList{}, "contested", func(e apiwatch.Event) bool {
			if now, ok := e.Object.(*corev1.ConfigMap); ok {
				contest(now)
			}
			return round > 6 || t.Failed()
		})
	}()
	if err := <-ended; err != nil {
		t.Fatalf("after %d rounds: %v", round, err)
	}
	s.awaitEvent(report.ReasonDriftContested, "ConfigMap/"+s.namespace+"/contested", "rival")
}

// awaitEvent waits until the engine has written an event in the stage's namespace
// for this reason, with a message that holds all of the words.
func (s *stage) awaitEvent(reason string, words ...string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	w, err := s.client.Watch(ctx, &corev1.EventList{}, client.InNamespace(s.namespace))
	if err != nil {
		s.Fatal(err)
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		event, ok := e.Object.(*corev1.Event)
		if ok && event.Reason == reason && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(event.Message, w) }) {
			return
		}
	}
	s.Fatalf("no event %s with %q", reason, words)
}

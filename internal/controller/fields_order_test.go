package controller

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/report"
)

func after(names ...string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) {
		for _, name := range names {
			k.Spec.DependsOn = append(k.Spec.DependsOn, kustomizev1.DependencyReference{Name: name})
		}
	}
}

// A chain of dependencies is delivered in its order, also when its last link was
// declared first. No retry comes within the test: every step is an event.
func TestDependsOnInOrder(t *testing.T) {
	t.Parallel()
	const links = 5
	s := newStage(t)
	files := map[string]string{}
	for i := range links {
		name := fmt.Sprintf("link%d", i)
		files[name+"/a.yaml"] = configMap(name, "1")
	}
	revision := "main@sha1:" + s.repo.Commit(files)
	s.source()
	for i := links - 1; i > 0; i-- {
		s.unit(fmt.Sprintf("link%d", i), after(fmt.Sprintf("link%d", i-1)))
	}
	s.awaitFailure("link1", meta.DependencyNotReadyReason, "link0")
	s.unit("link0")
	s.awaitLive("link4", revision)
	before := 0
	for i := range links {
		version, err := strconv.Atoi(s.config(fmt.Sprintf("link%d", i)).ResourceVersion)
		if err != nil || version <= before {
			t.Errorf("link%d was delivered at %d, before link%d at %d (%v)", i, version, i-1, before, err)
		}
		before = version
	}
}

// A dependent of the same source waits until its dependency is at the same
// revision, not only ready at an older one.
func TestDependsOnWaitsForTheRevision(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := "main@sha1:" + s.repo.Commit(map[string]string{"base/a.yaml": configMap("base", "1"), "top/a.yaml": configMap("top", "1")})
	s.source()
	s.unit("base")
	s.unit("top", after("base"))
	s.awaitLive("top", first)

	second := s.push(map[string]string{"base/a.yaml": "apiVersion: v1\nkind: [", "top/a.yaml": configMap("top", "2")})
	s.awaitFailure("base", meta.BuildFailedReason)
	k := s.awaitFailure("top", meta.DependencyNotReadyReason, s.namespace+"/base")
	if got := s.config("top").Data["value"]; got != "1" || k.Status.LastAppliedRevision != first {
		t.Errorf("top holds %s at %s, although its dependency is not at %s", got, k.Status.LastAppliedRevision, second)
	}
	third := s.push(map[string]string{"base/a.yaml": configMap("base", "3"), "top/a.yaml": configMap("top", "3")})
	s.awaitLive("top", third)
	base, top := s.config("base"), s.config("top")
	if base.Data["value"] != "3" || top.Data["value"] != "3" || versionOf(base) > versionOf(top) {
		t.Errorf("base %v at %s, top %v at %s", base.Data, base.ResourceVersion, top.Data, top.ResourceVersion)
	}
}

// What has to be there first: a dependency that does not exist, one in another
// source, one that fails.
func TestDependsOnWhatIsMissing(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"top/a.yaml": configMap("top", "1"), "base/a.yaml": configMap("base", "1")})
	s.source()
	s.unit("top", after("base"))
	s.awaitFailure("top", meta.DependencyNotReadyReason, "dependency '"+s.namespace+"/base' not found")
	s.unit("base", func(k *kustomizev1.Kustomization) { k.Spec.Path = "./nowhere" })
	s.awaitFailure("top", meta.DependencyNotReadyReason, "dependency '"+s.namespace+"/base' is not ready")
	edit(s, &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: "base", Namespace: s.namespace}},
		func(k *kustomizev1.Kustomization) { k.Spec.Path = "./base" })
	s.awaitLive("top", revision)
}

// Sources and dependencies may be in another namespace.
func TestDependsOnAcrossNamespaces(t *testing.T) {
	t.Parallel()
	s, other := newStage(t), newStage(t)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"base/a.yaml": configMap("base", "1"), "top/a.yaml": configMap("top", "1")})
	s.source()
	other.unit("top", func(k *kustomizev1.Kustomization) {
		k.Spec.SourceRef.Namespace, k.Spec.SourceRef.APIVersion = s.namespace, "source.toolkit.fluxcd.io/v1"
		k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "base", Namespace: s.namespace}}
	})
	other.awaitFailure("top", meta.DependencyNotReadyReason, "dependency '"+s.namespace+"/base' not found")
	s.unit("base")
	other.awaitLive("top", revision)
}

// A cycle is spelled out on every member and on nobody else. Taking out one
// dependency, or one member, ends it for all.
func TestDependsOnCycle(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, reason string
		mend         func(*stage, *kustomizev1.Kustomization)
	}{
		{
			name: "edit", reason: "a dependency is taken out",
			mend: func(s *stage, k *kustomizev1.Kustomization) {
				edit(s, k, func(k *kustomizev1.Kustomization) { k.Spec.DependsOn = nil })
			},
		},
		{
			name: "replace", reason: "a member is deleted and made anew without dependencies",
			mend: func(s *stage, k *kustomizev1.Kustomization) {
				if err := s.client.Delete(s.Context(), k); err != nil {
					s.Fatal(err)
				}
				s.awaitGone(k, &kustomizev1.KustomizationList{})
				s.unit("c")
			},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			files := map[string]string{}
			for _, name := range []string{"a", "b", "c", "outside"} {
				files[name+"/a.yaml"] = configMap(name, "1")
			}
			revision := "main@sha1:" + s.repo.Commit(files)
			s.source()
			s.unit("a", after("b"))
			s.unit("b", after("c"))
			last := s.unit("c", after("a"))
			s.unit("outside", after("a"))
			for _, member := range [][]string{{"a", "b", "c", "a"}, {"b", "c", "a", "b"}, {"c", "a", "b", "c"}} {
				way := s.namespace + "/" + strings.Join(member, " → "+s.namespace+"/")
				s.awaitFailure(member[0], report.ReasonCircularDependency, "dependsOn forms a cycle: "+way)
			}
			s.awaitFailure("outside", meta.DependencyNotReadyReason, s.namespace+"/a")
			if got := s.names(""); got != "" {
				t.Errorf("delivered %s", got)
			}
			row.mend(s, last)
			for _, name := range []string{"a", "b", "c", "outside"} {
				s.awaitLive(name, revision)
			}
		})
	}
}

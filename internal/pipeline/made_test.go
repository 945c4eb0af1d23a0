package pipeline

import (
	"context"
	"strings"
	"testing"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/ignore"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source"
)

// Objects that were made before go the same way as those of a build: they are asked
// for when one has to be sent, and carry the labels of their kind of unit.
func TestMade(t *testing.T) {
	r := newRig(t)
	r.group = object.HelmGroup
	r.restart()
	made := 0
	release := func(digest, data string) Unit {
		return Unit{
			Name: r.name("release"), Group: r.group, Inventory: r.inventory["release"],
			Policy: plan.Policy{Prune: true, Budget: plan.DefaultBudget()},
			Made: &Made{Digest: digest, Objects: func(context.Context) ([]*unstructured.Unstructured, error) {
				made++
				return []*unstructured.Unstructured{{Object: map[string]any{
					"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "a", "namespace": r.namespace},
					"data": map[string]any{"a": data},
				}}}, nil
			}},
		}
	}
	deliver := func(digest, data string) {
		t.Helper()
		if _, err := r.run(release(digest, data), source.Artifact{Digest: digest}); err != nil {
			t.Fatal(err)
		}
		if got := r.data("a"); got != data {
			t.Fatalf("it holds %q, want %q", got, data)
		}
	}
	deliver("one", "1")
	live, err := r.target.Applier.Live(t.Context(), plan.Action{ID: r.id("a"), Version: "v1"})
	if err != nil {
		t.Fatal(err)
	}
	if owner, ok := object.OwnerOf(live.GetLabels(), object.HelmGroup); !ok || owner.Name != "release" {
		t.Errorf("labels %v do not name the release", live.GetLabels())
	}
	r.spent()
	deliver("one", "1")
	if spent := r.spent(); made != 1 || len(spent) != 0 {
		t.Errorf("nothing changed, and they were made %d times; sent %v", made, spent)
	}
	r.edit("a", `{"data":{"a":"theirs"}}`)
	r.eventually("the edit is seen", func() bool { return r.drifted("a") })
	deliver("one", "1")
	deliver("two", "2")
	if made != 3 {
		t.Errorf("made %d times, want once for each time that something had to be sent", made)
	}
	left, err := r.pipeline.Remove(t.Context(), r.name("release"), r.target, r.inventory["release"])
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		r.eventually("it is gone", func() bool { return r.data("a") == "" })
	}
}

// An object of a release that is left to others as a whole is healed once its rule goes,
// though nothing else of the rules changes.
func TestLaxUntilTheRuleGoes(t *testing.T) {
	r := newRig(t)
	r.group = object.HelmGroup
	r.restart()
	deliver := func(paths ...string) {
		t.Helper()
		rules, err := ignore.ForRelease([]helmv2.IgnoreRule{{Paths: paths}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.run(Unit{
			Name: r.name("release"), Group: r.group, Inventory: r.inventory["release"], Ignore: rules,
			Made: &Made{Digest: "one", Objects: func(context.Context) ([]*unstructured.Unstructured, error) {
				return []*unstructured.Unstructured{parse(t, strings.ReplaceAll(configMap("a", "ours"), "NS", r.namespace))}, nil
			}},
		}, source.Artifact{Digest: "one"}); err != nil {
			t.Fatal(err)
		}
	}
	deliver("", "/data/other")
	r.edit("a", `{"data":{"a":"theirs"}}`)
	r.eventually("the edit is seen", func() bool { return r.drifted("a") })
	deliver("", "/data/other")
	if got := r.data("a"); got != "theirs" {
		t.Errorf("it was healed to %q", got)
	}
	deliver("/data/other")
	if got := r.data("a"); got != "ours" {
		t.Errorf("it is still %q", got)
	}
}

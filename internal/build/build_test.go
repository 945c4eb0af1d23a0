package build

import (
	"errors"
	"io/fs"
	"testing"
	"testing/fstest"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
)

// tree hashes a file as its content and a folder as the names in it.
type tree struct{ fstest.MapFS }

var errLink = errors.New("the link leads outside")

func (t tree) Hash(name string) (string, error) {
	if name == "link" {
		return "", errLink
	}
	info, err := t.Stat(name)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		data, err := t.ReadFile(name)
		return "file " + string(data), err
	}
	entries, err := t.ReadDir(name)
	hash := "folder"
	for _, e := range entries {
		hash += " " + e.Name()
	}
	return hash, err
}

func TestUnchanged(t *testing.T) {
	now := tree{fstest.MapFS{"a": {Data: []byte("1")}, "d/x": {}, "link": {}}}
	tests := []struct {
		name, reason string
		reads        Reads
		want         bool
	}{
		{"nothing", "nothing was read", nil, true},
		{"file", "the same content", Reads{"a": "file 1"}, true},
		{"other file", "other content", Reads{"a": "file 2"}, false},
		{"gone", "it was there", Reads{"b": "file 1"}, false},
		{"still absent", "it was not there and is not", Reads{"b": Absent, "d/y": Absent, "a/b": Absent}, true},
		{"came", "it was not there", Reads{"a": Absent}, false},
		{"folder", "the same names", Reads{"d": "folder x"}, true},
		{"other folder", "other names", Reads{"d": "folder x y"}, false},
		{"any folder", "its names do not matter", Reads{"d": Folder, ".": Folder}, true},
		{"folder gone", "it was there", Reads{"e": Folder}, false},
		{"folder became file", "a file is no folder", Reads{"a": Folder}, false},
		{"unreadable", "nobody knows", Reads{"link": "file "}, false},
		{"elsewhere", "nobody knows", Reads{"a": "file 1", Elsewhere: Absent}, false},
		{"one of many", "all must be the same", Reads{"a": "file 1", "d": "folder x", "b": "file 1"}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.reads.Unchanged(now); got != tt.want {
				t.Errorf("%s: %t, want %t", tt.reason, got, tt.want)
			}
		})
	}
	if fs.ValidPath(Elsewhere) {
		t.Error("a tree could hold " + Elsewhere)
	}
}

func full() *kustomizev1.Kustomization {
	k := &kustomizev1.Kustomization{}
	k.Name, k.Namespace = "apps", "flux-system"
	k.Spec.Path = "./apps"
	k.Spec.TargetNamespace = "ns"
	k.Spec.NamePrefix, k.Spec.NameSuffix = "p-", "-s"
	k.Spec.CommonMetadata = &kustomizev1.CommonMetadata{Labels: map[string]string{"a": "b", "c": "d"}}
	k.Spec.Patches = []kustomize.Patch{{Patch: "x", Target: &kustomize.Selector{Kind: "Deployment"}}}
	k.Spec.Images = []kustomize.Image{{Name: "x", NewTag: "1"}}
	k.Spec.Components = []string{"../c"}
	k.Spec.IgnoreMissingComponents = true
	k.Spec.BuildMetadata = []kustomizev1.BuildMetadataOption{kustomizev1.BuildMetadataOriginAnnotations}
	k.Spec.PostBuild = &kustomizev1.PostBuild{Substitute: map[string]string{"v": "1"}}
	return k
}

func TestRecipeDigest(t *testing.T) {
	base := RecipeOf(full())
	if base.SubstituteStrategy != kustomizev1.SubstituteStrategyWithVariables {
		t.Errorf("strategy %q", base.SubstituteStrategy)
	}
	tests := []struct {
		name, reason string
		change       func(*kustomizev1.Kustomization)
		same         bool
	}{
		{"nothing", "maps have no order", func(*kustomizev1.Kustomization) {}, true},
		{"name", "who asks does not matter", func(k *kustomizev1.Kustomization) { k.Name = "other" }, true},
		{"apply", "how it is applied does not matter", func(k *kustomizev1.Kustomization) {
			k.Spec.Prune, k.Spec.Wait, k.Spec.Force, k.Spec.Suspend = true, true, true, true
		}, true},
		{"path", "", func(k *kustomizev1.Kustomization) { k.Spec.Path = "./other" }, false},
		{"namespace", "", func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = "other" }, false},
		{"prefix", "", func(k *kustomizev1.Kustomization) { k.Spec.NamePrefix = "" }, false},
		{"suffix", "", func(k *kustomizev1.Kustomization) { k.Spec.NameSuffix = "" }, false},
		{"metadata", "", func(k *kustomizev1.Kustomization) { k.Spec.CommonMetadata.Labels["a"] = "c" }, false},
		{"patch", "", func(k *kustomizev1.Kustomization) { k.Spec.Patches[0].Patch = "y" }, false},
		{"patch target", "", func(k *kustomizev1.Kustomization) { k.Spec.Patches[0].Target.Name = "y" }, false},
		{"image", "", func(k *kustomizev1.Kustomization) { k.Spec.Images[0].NewTag = "2" }, false},
		{"components", "", func(k *kustomizev1.Kustomization) { k.Spec.Components = nil }, false},
		{"missing components", "", func(k *kustomizev1.Kustomization) { k.Spec.IgnoreMissingComponents = false }, false},
		{"build metadata", "", func(k *kustomizev1.Kustomization) { k.Spec.BuildMetadata = nil }, false},
		{"variable", "", func(k *kustomizev1.Kustomization) { k.Spec.PostBuild.Substitute["v"] = "2" }, false},
		{"strategy", "", func(k *kustomizev1.Kustomization) {
			k.Spec.PostBuild.SubstituteStrategy = kustomizev1.SubstituteStrategyAlways
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := full()
			tt.change(k)
			if got := RecipeOf(k).Digest() == base.Digest(); got != tt.same {
				t.Errorf("%s: same %t, want %t", tt.reason, got, tt.same)
			}
		})
	}
	remote := base
	remote.AllowRemoteBases = true
	if remote.Digest() == base.Digest() {
		t.Error("remote bases make no difference")
	}
}

func TestWithVariables(t *testing.T) {
	base := RecipeOf(full())
	got := base.WithVariables(map[string]string{"v": "from", "w": "from"}, map[string]string{"v": "Secret/a/b", "w": "Secret/a/b"})
	if got.Substitute["v"] != "1" || got.Substitute["w"] != "from" {
		t.Errorf("variables %v", got.Substitute)
	}
	if len(got.Origins) != 1 || got.Origins["w"] != "Secret/a/b" {
		t.Errorf("origins %v, want that of w: v is the recipe's own", got.Origins)
	}
	if len(base.Substitute) != 1 {
		t.Error("the recipe itself was changed")
	}
	if got := (Recipe{}).WithVariables(nil, nil); len(got.Substitute) != 0 {
		t.Errorf("variables %v of nothing", got.Substitute)
	}
}

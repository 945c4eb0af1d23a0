package controller

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// buildField is one field of a Kustomization that decides what is built: the
// folder of the row's name is delivered with it.
type buildField struct {
	name, reason string
	files        map[string]string // below the folder
	set          func(*kustomizev1.KustomizationSpec)
	see          func(*stage) string
	want         string
}

var buildFields = []buildField{
	{
		name: "path", reason: "a folder without a kustomization.yaml gets one that names all manifests below it",
		files: map[string]string{"deep/er/a.yaml": configMap("path-a", "1"), "deep/b.yaml": configMap("path-b", "1"), "c.yaml": configMap("path-c", "1")},
		set:   func(s *kustomizev1.KustomizationSpec) { s.Path = "path/deep/" },
		see:   func(s *stage) string { return s.names("path-") },
		want:  "path-a path-b",
	},
	{
		name: "target-namespace", reason: "it overrides the namespace that the manifest names",
		files: map[string]string{"a.yaml": strings.Replace(configMap("target-a", "1"), "metadata:", "metadata:\n  namespace: elsewhere", 1)},
		see:   func(s *stage) string { return s.names("target-") },
		want:  "target-a",
	},
	{
		name: "name-prefix", reason: "all names get it",
		files: map[string]string{"a.yaml": configMap("a", "1")},
		set:   func(s *kustomizev1.KustomizationSpec) { s.NamePrefix = "prefix-" },
		see:   func(s *stage) string { return s.names("prefix-") },
		want:  "prefix-a",
	},
	{
		name: "name-suffix", reason: "all names get it, together with a prefix",
		files: map[string]string{"a.yaml": configMap("a", "1")},
		set:   func(s *kustomizev1.KustomizationSpec) { s.NamePrefix, s.NameSuffix = "both-", "-blue" },
		see:   func(s *stage) string { return s.names("both-") },
		want:  "both-a-blue",
	},
	{
		name: "common-metadata", reason: "labels and annotations override those in the manifest",
		files: map[string]string{"a.yaml": strings.Replace(configMap("common", "1"), "metadata:", "metadata:\n  labels: {team: old}", 1)},
		set: func(s *kustomizev1.KustomizationSpec) {
			s.CommonMetadata = &kustomizev1.CommonMetadata{Labels: map[string]string{"team": "a"}, Annotations: map[string]string{"note": "b"}}
		},
		see: func(s *stage) string {
			m := s.config("common")
			return m.Labels["team"] + " " + m.Annotations["note"]
		},
		want: "a b",
	},
	{
		name: "patches", reason: "a strategic merge patch finds its object by name, a JSON patch by its target",
		files: map[string]string{"a.yaml": configMap("patched", "1")},
		set: func(s *kustomizev1.KustomizationSpec) {
			s.Patches = []kustomize.Patch{
				{Patch: "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: patched\ndata:\n  more: merged"},
				{Patch: "- op: replace\n  path: /data/value\n  value: replaced", Target: &kustomize.Selector{Kind: "ConfigMap"}},
			}
		},
		see:  func(s *stage) string { m := s.config("patched"); return m.Data["value"] + " " + m.Data["more"] },
		want: "replaced merged",
	},
	{
		name: "images", reason: "name, tag and digest of images are replaced",
		files: map[string]string{"a.yaml": deployment("images", "example.test/app:1", 0)},
		set: func(s *kustomizev1.KustomizationSpec) {
			s.Images = []kustomize.Image{{Name: "example.test/app", NewName: "mirror.test/app", NewTag: "2"}}
		},
		see: func(s *stage) string {
			d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "images", Namespace: s.namespace}}
			s.read(d)
			return d.Spec.Template.Spec.Containers[0].Image
		},
		want: "mirror.test/app:2",
	},
	{
		name: "components", reason: "a component is added from beside the folder",
		files: map[string]string{
			"app/a.yaml":                configMap("component", "1"),
			"extra/kustomization.yaml":  "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [b.yaml]\n",
			"extra/b.yaml":              configMap("component-extra", "1"),
			"unused/kustomization.yaml": "this: is [not read",
		},
		set: func(s *kustomizev1.KustomizationSpec) {
			s.Path, s.Components = "./components/app", []string{"../extra"}
		},
		see:  func(s *stage) string { return s.names("component") },
		want: "component component-extra",
	},
	{
		name: "ignore-missing-components", reason: "a component that the source lacks is left out",
		files: map[string]string{"a.yaml": configMap("tolerant", "1")},
		set: func(s *kustomizev1.KustomizationSpec) {
			s.Components, s.IgnoreMissingComponents = []string{"./nowhere"}, true
		},
		see:  func(s *stage) string { return s.names("tolerant") },
		want: "tolerant",
	},
	{
		name: "build-metadata", reason: "objects are annotated with the file that they come from",
		files: map[string]string{"a.yaml": configMap("origin", "1")},
		set: func(s *kustomizev1.KustomizationSpec) {
			s.BuildMetadata = []kustomizev1.BuildMetadataOption{kustomizev1.BuildMetadataOriginAnnotations}
		},
		see:  func(s *stage) string { return s.config("origin").Annotations["config.kubernetes.io/origin"] },
		want: "path: a.yaml\n",
	},
	{
		name: "substitute", reason: "variables and their defaults are replaced, except in objects annotated otherwise",
		files: map[string]string{
			"a.yaml": configMap("substituted", "${name}/${size:=small}"),
			"b.yaml": strings.Replace(configMap("verbatim", "${name}"), "metadata:", "metadata:\n  annotations: {kustomize.toolkit.fluxcd.io/substitute: disabled}", 1),
		},
		set: func(s *kustomizev1.KustomizationSpec) {
			s.PostBuild = &kustomizev1.PostBuild{Substitute: map[string]string{"name": "web"}}
		},
		see: func(s *stage) string {
			return s.config("substituted").Data["value"] + " " + s.config("verbatim").Data["value"]
		},
		want: "web/small ${name}",
	},
	{
		name: "substitute-always", reason: "defaults count without any variable",
		files: map[string]string{"a.yaml": configMap("always", "${size:=small}")},
		set: func(s *kustomizev1.KustomizationSpec) {
			s.PostBuild = &kustomizev1.PostBuild{SubstituteStrategy: kustomizev1.SubstituteStrategyAlways}
		},
		see:  func(s *stage) string { return s.config("always").Data["value"] },
		want: "small",
	},
	{
		name: "no-substitute", reason: "without postBuild nothing is replaced",
		files: map[string]string{"a.yaml": configMap("plain", "${size:=small}")},
		see:   func(s *stage) string { return s.config("plain").Data["value"] },
		want:  "${size:=small}",
	},
}

func TestFieldsOfTheBuild(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := map[string]string{}
	for _, row := range buildFields {
		for path, content := range row.files {
			files[row.name+"/"+path] = content
		}
	}
	revision := "main@sha1:" + s.repo.Commit(files)
	s.source()
	for _, row := range buildFields {
		s.unit(row.name, func(k *kustomizev1.Kustomization) {
			if row.set != nil {
				row.set(&k.Spec)
			}
		})
	}
	for _, row := range buildFields {
		s.awaitLive(row.name, revision)
		if got := row.see(s); got != row.want {
			t.Errorf("%s: %s: got %q, want %q", row.name, row.reason, got, row.want)
		}
	}
}

// Without ignoreMissingComponents a component that the source lacks is an error
// that names it, and a commit that adds it ends the error.
func TestMissingComponent(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.source()
	s.unit("app", func(k *kustomizev1.Kustomization) { k.Spec.Components = []string{"../extra"} })
	s.awaitFailure("app", meta.BuildFailedReason, "extra")
	revision := s.push(map[string]string{
		"extra/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [b.yaml]\n",
		"extra/b.yaml":             configMap("b", "1"),
	})
	s.awaitLive("app", revision)
	if got := s.names(""); got != "a b" {
		t.Errorf("delivered %q, want a and b", got)
	}
}

// names returns the names of the delivered ConfigMaps that begin with a prefix, sorted.
func (s *stage) names(prefix string) string {
	s.Helper()
	var names []string
	for name := range s.deliveredConfigs() {
		if strings.HasPrefix(name, prefix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// deployment is the manifest of a Deployment.
func deployment(name, image string, replicas int) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: %[1]s
spec:
  replicas: %[3]d
  selector:
    matchLabels: {app: %[1]s}
  template:
    metadata:
      labels: {app: %[1]s}
    spec:
      containers:
      - name: app
        image: %[2]s
`, name, image, replicas)
}

package examples

import (
	"io/fs"
	"path"
	"regexp"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// units reads the Kustomizations of the cluster "local".
func units(t *testing.T) map[string]kustomizev1.Kustomization {
	t.Helper()
	files, err := fs.Glob(Fleet(), "clusters/local/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]kustomizev1.Kustomization{}
	for _, file := range files {
		data, err := fs.ReadFile(Fleet(), file)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range strings.Split(string(data), "\n---\n") {
			var k kustomizev1.Kustomization
			if err := yaml.UnmarshalStrict([]byte(doc), &k); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if _, twice := all[k.Name]; twice {
				t.Errorf("%s: Kustomization %s is there twice", file, k.Name)
			}
			all[k.Name] = k
		}
	}
	return all
}

// onDisk copies the fleet into memory, in the form that kustomize reads.
func onDisk(t *testing.T) filesys.FileSystem {
	t.Helper()
	mem := filesys.MakeFsInMemory()
	err := fs.WalkDir(Fleet(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(Fleet(), name)
		if err != nil {
			return err
		}
		return mem.WriteFile("/"+name, data)
	})
	if err != nil {
		t.Fatal(err)
	}
	return mem
}

func build(t *testing.T, mem filesys.FileSystem, dir string) resmap.ResMap {
	t.Helper()
	if !mem.Exists(path.Join(dir, "kustomization.yaml")) {
		files, err := mem.Glob(path.Join(dir, "*.yaml"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s holds no manifests: %v", dir, err)
		}
		made := "resources:\n"
		for _, file := range files {
			made += "- " + path.Base(file) + "\n"
		}
		if err := mem.WriteFile(path.Join(dir, "kustomization.yaml"), []byte(made)); err != nil {
			t.Fatal(err)
		}
	}
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(mem, dir)
	if err != nil {
		t.Fatalf("build %s: %v", dir, err)
	}
	return built
}

var variable = regexp.MustCompile(`\$\{(\w+)`)

// TestFleet checks what a reader relies on: every Kustomization refers to what
// is there, builds, and is given a value for each variable.
func TestFleet(t *testing.T) {
	t.Parallel()
	all, mem := units(t), onDisk(t)
	if len(all) < 8 {
		t.Errorf("the fleet has %d Kustomizations; it is meant to show an order of several", len(all))
	}
	for name, k := range all {
		if k.Namespace != "bowline-system" || k.Spec.SourceRef.Kind != "GitRepository" || k.Spec.SourceRef.Name != "fleet" {
			t.Errorf("%s: is in %q from %s %s; `bowline up` makes GitRepository fleet in bowline-system", name, k.Namespace, k.Spec.SourceRef.Kind, k.Spec.SourceRef.Name)
		}
		for _, dep := range k.Spec.DependsOn {
			if _, ok := all[dep.Name]; !ok {
				t.Errorf("%s: depends on %q, which is not there", name, dep.Name)
			}
		}
		built := build(t, mem, path.Join("/", k.Spec.Path))
		text, err := built.AsYaml()
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range variable.FindAllStringSubmatch(string(text), -1) {
			if k.Spec.PostBuild == nil || k.Spec.PostBuild.Substitute[match[1]] == "" {
				t.Errorf("%s: nothing is given for ${%s}", name, match[1])
			}
		}
	}
}

// TestNoCycle checks that the Kustomizations can be put in an order.
func TestNoCycle(t *testing.T) {
	t.Parallel()
	all, done := units(t), map[string]bool{}
	for len(done) < len(all) {
		before := len(done)
		for name, k := range all {
			ready := true
			for _, dep := range k.Spec.DependsOn {
				ready = ready && done[dep.Name]
			}
			if ready {
				done[name] = true
			}
		}
		if len(done) == before {
			t.Fatalf("of %d Kustomizations only %v can start", len(all), done)
		}
	}
}

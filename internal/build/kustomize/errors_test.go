package kustomize

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"testing"
	"time"

	fluxkustomize "github.com/fluxcd/pkg/apis/kustomize"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/failure"
)

// bomb is YAML that grows by its aliases, tenfold with every line.
var bomb = func() string {
	text := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := range 9 {
		text += fmt.Sprintf("a%d: &a%d [%s*a%d]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 9), i)
	}
	return text
}()

// doubling returns kustomizations that each name the next one twice.
func doubling(levels int) map[string]string {
	files := map[string]string{}
	for i := range levels {
		files[fmt.Sprintf("%d/kustomization.yaml", i)] = fmt.Sprintf("resources: [../%d, ../%d/.]\n", i+1, i+1)
	}
	files[fmt.Sprintf("%d/kustomization.yaml", levels)] = "resources: []\n"
	return files
}

// copies is a JSON patch that doubles an object n times.
func copies(n int) string {
	var ops []string
	for i := range n {
		ops = append(ops, fmt.Sprintf(`{"op": "copy", "from": "/metadata", "path": "/metadata/k%d"}`, i))
	}
	return "[" + strings.Join(ops, ", ") + "]"
}

// A build that fails shows nothing of what a Secret would hold.
func TestErrorsQuoteNoValues(t *testing.T) {
	const value = "hunter2hunter2"
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {a: b}\n"
	generated := func(literal string) map[string]string {
		return map[string]string{"kustomization.yaml": "secretGenerator:\n- name: s\n  literals: [" + literal + "]\n"}
	}
	for _, tt := range []struct {
		name, message string
		files         map[string]string
		recipe        build.Recipe
	}{
		{name: "patch in the folder", message: "unable to parse SM or JSON patch", files: map[string]string{"a.yaml": secret,
			"kustomization.yaml": "resources: [a.yaml]\npatches:\n- patch: |\n    kind: Secret\n    stringData: {a: " + value + "}\n"}},
		{name: "patch of the unit", message: "PatchTransformer", files: map[string]string{"a.yaml": secret},
			recipe: build.Recipe{Patches: []fluxkustomize.Patch{{Patch: "stringData: {a: " + value + "}\n"}}}},
		{name: "literal", message: "expected key=value", files: generated("pass" + value)},
		{name: "wrong type", message: "metadata/labels", files: map[string]string{
			"kustomization.yaml": "resources: [a.yaml]\nlabels: [{pairs: {a: b}}]\n",
			"a.yaml":             "apiVersion: v1\nkind: Secret\nmetadata: {name: s, labels: " + value + "}\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Build(context.Background(), treeOf(tt.files), tt.recipe)
			if err == nil || !strings.Contains(err.Error(), tt.message) || strings.Contains(err.Error(), value) {
				t.Errorf("got %v, want %q and no value", err, tt.message)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	list := func(entries string) string { return "resources: [" + entries + "]\n" }
	tests := []struct {
		name, reason string
		files        map[string]string
		recipe       build.Recipe
		kind         failure.Kind
		message      string
	}{
		{name: "missing path", reason: "the folder may come with the next commit", files: map[string]string{"a.yaml": configMap}, recipe: build.Recipe{Path: "./app"},
			kind: failure.NotFound, message: `build path "./app": the repository has no such folder: file does not exist; correct spec.path or add the folder`},
		{name: "path outside", reason: "a repository ends at its root", recipe: build.Recipe{Path: "../x"},
			kind: failure.Invalid, message: `build path "../x": the path leaves the repository; set spec.path to a folder inside it`},
		{name: "path outside by detour", reason: "a repository ends at its root", recipe: build.Recipe{Path: "a/../../x"},
			kind: failure.Invalid, message: `build path "a/../../x": the path leaves the repository; set spec.path to a folder inside it`},
		{name: "path is a file", reason: "folders are built", files: map[string]string{"a.yaml": configMap}, recipe: build.Recipe{Path: "a.yaml"},
			kind: failure.Invalid, message: `build path "a.yaml": it is a file, not a folder; correct spec.path or add the folder`},
		{name: "bad YAML", reason: "file and line", files: map[string]string{"a.yaml": configMap + "---\n" + configMap + "data:\n  a: b\n bad: x\n"},
			kind: failure.Invalid, message: `build a.yaml:9: invalid YAML: did not find expected key; correct the file`},
		{name: "bad YAML in a patched folder", reason: "file and line although kustomize names neither", files: map[string]string{"a.yaml": "a: [\n"}, recipe: build.Recipe{TargetNamespace: "x"},
			kind: failure.Invalid, message: `build a.yaml:1: invalid YAML: did not find expected node content; correct the file`},
		{name: "key twice", reason: "file and line", files: map[string]string{"a.yaml": "# x\n" + configMap + "data:\n  a: b\n  a: c\n"},
			kind: failure.Invalid, message: `build a.yaml:7: invalid YAML: the key "a" is given twice; correct the file`},
		{name: "not an object", reason: "other YAML does not belong there", files: map[string]string{"values.yaml": "\nreplicas: 1\n"},
			kind: failure.Invalid, message: `build values.yaml:2: this is not a Kubernetes object: apiVersion, kind, metadata.name missing or not a string; complete it, or keep other files out of the folder`},
		{name: "no name", reason: "it cannot be identified", files: map[string]string{"a.yaml": configMap + "---\napiVersion: v1\nkind: Secret\nmetadata: {generateName: x}\n"},
			kind: failure.Invalid, message: `build a.yaml:5: Secret: metadata.name missing or not a string; complete it, or keep other files out of the folder`},
		{name: "number as a name", reason: "names are strings", files: map[string]string{"a.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: 1}\n"},
			kind: failure.Invalid, message: `build a.yaml:1: Secret: metadata.name missing or not a string; complete it, or keep other files out of the folder`},
		{name: "no apiVersion", reason: "kustomize lets it pass", files: map[string]string{"a.yaml": "kind: Secret\nmetadata: {name: x}\n"}, recipe: build.Recipe{NamePrefix: "p-"},
			kind: failure.Invalid, message: `build path "./": Secret p-x: apiVersion missing or not a string; complete it, or keep other files out of the folder`},
		{name: "twice", reason: "both files are named", files: map[string]string{"a.yaml": configMap, "sub/b.yaml": "\n" + configMap},
			kind: failure.Invalid, message: `build sub/b.yaml:2: ConfigMap/c is also in a.yaml:1; keep one of them`},
		{name: "twice in a patched folder", reason: "both files are named", files: map[string]string{"a.yaml": configMap, "b.yaml": configMap}, recipe: build.Recipe{TargetNamespace: "x"},
			kind: failure.Invalid, message: `build b.yaml:1: ConfigMap/c is also in a.yaml:1; keep one of them`},
		{name: "twice through two overlays", reason: "the file is one", files: map[string]string{"kustomization.yaml": list("a, b"), "a/kustomization.yaml": list("../base") + "commonAnnotations: {a: b}\n", "b/kustomization.yaml": list("../base"), "base/kustomization.yaml": list("c.yaml"), "base/c.yaml": configMap},
			kind: failure.Invalid, message: `build base/c.yaml:1: ConfigMap/c is built twice from this file, by two kustomizations; build one of them, or change its name or namespace in one`},
		{name: "twice in two versions", reason: "identity has no version", files: map[string]string{"a.yaml": "apiVersion: x.io/v1\nkind: T\nmetadata: {name: t}\n---\napiVersion: x.io/v2\nkind: T\nmetadata: {name: t}\n"}, recipe: build.Recipe{NamePrefix: "p-"},
			kind: failure.Invalid, message: `build path "./": T/p-t is there twice, in two API versions or by substitution; keep one of them`},
		{name: "empty", reason: "the caller decides", files: map[string]string{"app/README.md": "x"}, recipe: build.Recipe{Path: "app"},
			kind: failure.Invalid, message: `build path "app": the build holds no objects`},
		{name: "empty kustomization", reason: "the caller decides", files: map[string]string{"kustomization.yaml": "# nothing\n"},
			kind: failure.Invalid, message: `build path "./": the build holds no objects`},
		{name: "missing resource", reason: "kustomization and entry", files: map[string]string{"app/kustomization.yaml": list("a.yaml, gone.yaml"), "app/a.yaml": configMap}, recipe: build.Recipe{Path: "app"},
			kind: failure.Invalid, message: `build app/kustomization.yaml (resources[1]: gone.yaml): the repository has no such file or folder; add it or remove the entry`},
		{name: "missing patch", reason: "kustomization and entry", files: map[string]string{"kustomization.yaml": list("a.yaml") + "patches: [{path: gone.yaml}]\n", "a.yaml": configMap},
			kind: failure.Invalid, message: `build kustomization.yaml (patches[0].path: gone.yaml): the repository has no such file or folder; add it or remove the entry`},
		{name: "missing generator file", reason: "kustomization and entry", files: map[string]string{"kustomization.yaml": "configMapGenerator: [{name: x, files: [k=gone.txt]}]\n"},
			kind: failure.Invalid, message: `build kustomization.yaml (configMapGenerator[0]: gone.txt): the repository has no such file or folder; add it or remove the entry`},
		{name: "missing component", reason: "not ignored unless asked", files: map[string]string{"a.yaml": configMap}, recipe: build.Recipe{Components: []string{"../x"}},
			kind: failure.Invalid, message: `build kustomization.yaml (components[0]: ../x): the path leaves the repository; keep what is built inside it`},
		{name: "resource outside", reason: "a repository ends at its root", files: map[string]string{"app/kustomization.yaml": list("../../x.yaml")}, recipe: build.Recipe{Path: "app"},
			kind: failure.Invalid, message: `build app/kustomization.yaml (resources[0]: ../../x.yaml): the path leaves the repository; keep what is built inside it`},
		{name: "absolute resource", reason: "a repository ends at its root", files: map[string]string{"kustomization.yaml": list("/etc/passwd")},
			kind: failure.Invalid, message: `build kustomization.yaml (resources[0]: /etc/passwd): an absolute path leaves the repository; keep what is built inside it`},
		{name: "generator outside", reason: "a repository ends at its root", files: map[string]string{"kustomization.yaml": "configMapGenerator: [{name: x, files: [/etc/passwd]}]\n"},
			kind: failure.Invalid, message: `build kustomization.yaml (configMapGenerator[0]: /etc/passwd): an absolute path leaves the repository; keep what is built inside it`},
		{name: "folder without kustomization", reason: "kustomize wants one", files: map[string]string{"kustomization.yaml": list("sub"), "sub/a.yaml": configMap},
			kind: failure.Invalid, message: `build kustomization.yaml (resources[0]: sub): the folder has no kustomization.yaml; add one, or name its files`},
		{name: "two kustomizations", reason: "which one is meant?", files: map[string]string{"kustomization.yaml": list("a.yaml"), "Kustomization": list("a.yaml"), "a.yaml": configMap}, recipe: build.Recipe{Path: "."},
			kind: failure.Invalid, message: `build . (kustomization): the folder holds both kustomization.yaml and Kustomization; keep one of them`},
		{name: "unknown field", reason: "kustomize is strict with bases", files: map[string]string{"kustomization.yaml": list("base"), "base/kustomization.yaml": "resource: [a.yaml]\n"},
			kind: failure.Invalid, message: `build base/kustomization.yaml: invalid kustomization: unknown field "resource"; correct the file`},
		{name: "bad kustomization", reason: "file and line", files: map[string]string{"kustomization.yaml": "resources: [a.yaml]\n  x: y\n"},
			kind: failure.Invalid, message: `build kustomization.yaml:1: invalid YAML: did not find expected key; correct the file`},
		{name: "wrong kind", reason: "a Kustomization of the toolkit is something else", files: map[string]string{"kustomization.yaml": "apiVersion: kustomize.toolkit.fluxcd.io/v1\nkind: Kustomization\nmetadata: {name: x}\n"},
			kind: failure.Invalid, message: `build kustomization.yaml: invalid kustomization: apiVersion for Kustomization should be kustomize.config.k8s.io/v1beta1; correct the file`},
		{name: "cycle", reason: "it would never end", files: map[string]string{"a/kustomization.yaml": list("../b"), "b/kustomization.yaml": list("../a")}, recipe: build.Recipe{Path: "a"},
			kind: failure.Invalid, message: `build b/kustomization.yaml (resources[0]: ../a): a kustomization cannot hold itself or a folder above it; remove the entry`},
		{name: "remote base", reason: "a build is hermetic", files: map[string]string{"base/kustomization.yaml": "resources: ['https://github.com/org/repo//path?ref=v1']\n", "kustomization.yaml": list("base")},
			kind: failure.Unsupported, message: `build base/kustomization.yaml (resources[0]: https://github.com/org/repo//path?ref=v1): remote bases are not allowed; copy it into the repository, or allow remote bases`},
		{name: "remote component", reason: "a build is hermetic", files: map[string]string{"kustomization.yaml": "components: [git@example.com:org/repo]\n"},
			kind: failure.Unsupported, message: `build kustomization.yaml (components[0]: git@example.com:org/repo): remote bases are not allowed; copy it into the repository, or allow remote bases`},
		{name: "remote patch", reason: "a build is hermetic", files: map[string]string{"kustomization.yaml": "patches: [{path: https://example.com/p.yaml}]\n"},
			kind: failure.Unsupported, message: `build kustomization.yaml (patches[0].path: https://example.com/p.yaml): remote bases are not allowed; copy it into the repository, or allow remote bases`},
		{name: "remote file of a plugin", reason: "plugins load files too", files: map[string]string{"kustomization.yaml": "generators: [g.yaml]\n", "g.yaml": "apiVersion: builtin\nkind: ConfigMapGenerator\nmetadata: {name: x}\nname: x\nfiles: [\"a=https://example.com/f\"]\n"},
			kind: failure.Unsupported, message: `build g.yaml (files: https://example.com/f): remote bases are not allowed; copy it into the repository, or allow remote bases`},
		{name: "remote component of the recipe", reason: "components are local", recipe: build.Recipe{Path: ".", Components: []string{"https://example.com/c"}}, files: map[string]string{"a.yaml": configMap},
			kind: failure.Invalid, message: `build component "https://example.com/c": it must be a path relative to spec.path; correct spec.components`},
		{name: "helm", reason: "helm would be run", files: map[string]string{"kustomization.yaml": "helmCharts: [{name: x, repo: https://example.com}]\n"},
			kind: failure.Unsupported, message: `build kustomization.yaml (helmCharts): kustomize may not run helm; use a HelmRelease`},
		{name: "helm by generator", reason: "helm would be run", files: map[string]string{"kustomization.yaml": "generators: [g.yaml]\n", "g.yaml": "apiVersion: builtin\nkind: HelmChartInflationGenerator\nmetadata: {name: x}\nname: x\n"},
			kind: failure.Unsupported, message: `build g.yaml (HelmChartInflationGenerator): kustomize may not run helm; use a HelmRelease`},
		{name: "bad patch", reason: "kustomize says what is wrong, in one line", files: map[string]string{"a.yaml": configMap}, recipe: build.Recipe{Patches: []fluxkustomize.Patch{{Patch: "apiVersion: v1\nkind: Secret\nmetadata: {name: gone}\n"}}},
			kind: failure.Invalid, message: `build kustomization.yaml: no resource matches strategic merge patch "Secret.v1.[noGrp]/gone.[noNs]": no matches for Id Secret.v1.[noGrp]/gone.[noNs]; failed to find unique target for patch Secret.v1.[noGrp]/gone.[noNs]`},
		{name: "aliases", reason: "a few lines could take all memory", files: map[string]string{"a.yaml": configMap + bomb}, recipe: build.Recipe{NamePrefix: "x-"},
			kind: failure.Invalid, message: `build a.yaml: invalid YAML: its aliases stand for more than a million values; correct the file`},
		{name: "aliases in a plain folder", reason: "a few lines could take all memory", files: map[string]string{"a.yaml": configMap + bomb},
			kind: failure.Invalid, message: `build a.yaml: invalid YAML: its aliases stand for more than a million values; correct the file`},
		{name: "aliases in a patch", reason: "a few lines could take all memory", files: map[string]string{"a.yaml": configMap}, recipe: build.Recipe{Patches: []fluxkustomize.Patch{{Patch: configMap + bomb}}},
			kind: failure.Invalid, message: `build kustomization.yaml (patches[0]): its aliases stand for more than a million values; use fewer of them`},
		{name: "doubling", reason: "every level builds the next one twice", files: doubling(20), recipe: build.Recipe{Path: "0"},
			kind: failure.Invalid, message: `build 20/kustomization.yaml: more than 10000 kustomizations are built; split the folder into several units`},
		{name: "copies", reason: "each copy doubles the object", files: map[string]string{"a.yaml": configMap}, recipe: build.Recipe{Patches: []fluxkustomize.Patch{{Patch: copies(40), Target: &fluxkustomize.Selector{Kind: "ConfigMap"}}}},
			kind: failure.Invalid, message: `build kustomization.yaml (patches): the copy operations of a patch add more than 2 MiB to an object; copy less`},
		{name: "variable name", reason: "the toolkit's rule", files: map[string]string{"a.yaml": configMap}, recipe: build.Recipe{Substitute: map[string]string{"a-b": "c"}},
			kind: failure.Invalid, message: `substitute variable "a-b": the name must match ^[_[:alpha:]][_[:alpha:][:digit:]]*$; rename it in spec.postBuild.substitute`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			res, err := Build(context.Background(), treeOf(tt.files), tt.recipe)
			if err == nil {
				t.Fatalf("%s: no error but %d objects", tt.reason, len(res.Objects))
			}
			if got := failure.KindOf(err); got != tt.kind {
				t.Errorf("%s: kind %s, want %s", tt.reason, got, tt.kind)
			}
			if got := err.Error(); got != tt.message {
				t.Errorf("%s:\n got %s\nwant %s", tt.reason, got, tt.message)
			}
			if strings.HasPrefix(tt.name, "empty") && !errors.Is(err, build.ErrEmpty) {
				t.Errorf("%s: not build.ErrEmpty", tt.reason)
			}
			if len(res.Objects) != 0 {
				t.Errorf("%s: a failed build has objects", tt.reason)
			}
			if !res.Reads.Unchanged(treeOf(tt.files)) {
				t.Errorf("%s: the tree that failed counts as changed", tt.reason)
			}
		})
	}
}

// brokenTree fails to read one file.
type brokenTree struct {
	mapTree
	name string
	err  error
}

func (b brokenTree) ReadFile(name string) ([]byte, error) {
	if name == b.name {
		return nil, b.err
	}
	return b.mapTree.ReadFile(name)
}

func TestSourceErrorsOutrankKustomize(t *testing.T) {
	cause := &failure.Error{Op: "read", Kind: failure.Invalid, Object: "p.yaml", Err: errors.New("the link leads outside")}
	tree := brokenTree{treeOf(map[string]string{"kustomization.yaml": "resources: [a.yaml]\npatches: [{path: p.yaml}]\n", "a.yaml": configMap, "p.yaml": "x"}), "p.yaml", cause}
	_, err := Build(context.Background(), tree, build.Recipe{})
	if !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
	tree.err = fs.ErrInvalid
	_, err = Build(context.Background(), tree, build.Recipe{})
	if failure.KindOf(err) != failure.Unavailable || !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("got %v, want kind Unavailable", err)
	}
}

// slowTree blocks the reading of one file until it is let go.
type slowTree struct {
	mapTree
	name    string
	reached chan struct{}
	release chan struct{}
}

func (s slowTree) ReadFile(name string) ([]byte, error) {
	if name == s.name {
		close(s.reached)
		<-s.release
	}
	return s.mapTree.ReadFile(name)
}

func TestBuildStopsWithItsContext(t *testing.T) {
	// Only kustomize reads the patch.
	tree := slowTree{treeOf(map[string]string{"kustomization.yaml": "resources: [a.yaml]\npatches: [{path: p.yaml}]\n", "a.yaml": configMap, "p.yaml": configMap}),
		"p.yaml", make(chan struct{}), make(chan struct{})}
	defer close(tree.release)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var res build.Result
	go func() {
		var err error
		res, err = Build(ctx, tree, build.Recipe{})
		done <- err
	}()
	<-tree.reached
	cancel()
	select {
	case err := <-done:
		if failure.KindOf(err) != failure.Timeout || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want kind Timeout", err)
		}
		if res.Reads.Unchanged(tree.mapTree) {
			t.Error("an unfinished build counts as one that need not be repeated")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the build goes on")
	}
}

func TestBuildDoesNotStartWithoutTime(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, recipe := range []build.Recipe{{}, {NamePrefix: "x-"}} {
		if _, err := Build(ctx, treeOf(map[string]string{"a.yaml": configMap}), recipe); failure.KindOf(err) != failure.Timeout {
			t.Errorf("got %v, want kind Timeout", err)
		}
	}
}

// TestRemoteIsWhatKustomizeTakesForRemote has kustomize load each name where no
// git can be found: it then complains about git, or about a missing folder.
func TestRemoteIsWhatKustomizeTakesForRemote(t *testing.T) {
	t.Setenv("PATH", "")
	if _, err := exec.LookPath("git"); err == nil {
		t.Fatal("git can be found")
	}
	for _, name := range []string{
		"github.com/org/repo", "GitHub.com/org/repo//x?ref=v1", "github.com:org/repo", "git@github.com:org/repo.git", "git@example.com:org/repo", "user@host/a/b",
		"ssh://git@example.com/org/repo", "SSH://x/y/z", "git::https://example.com/org/repo", "git::github.com/org/repo", "file:///tmp/repo", "file://tmp/x/y",
		"org-1234@github.com:org/repo?ref=main",
		"a", "../a", "./github.com/org/repo", "a.git/b", "example.com/org/repo", "gitlab.com/org/repo.git", "_git/x", "a//b", "1@x/y/z", "gh:org/repo", "git::a/b", "a@b", "hg::x",
	} {
		fsys := filesys.MakeFsInMemory()
		if err := fsys.WriteFile("/kustomization.yaml", []byte("components: ['"+name+"']\n")); err != nil {
			t.Fatal(err)
		}
		_, err := krusty.MakeKustomizer(&krusty.Options{PluginConfig: types.DisabledPluginConfig()}).Run(fsys, "/")
		if err == nil {
			t.Fatalf("%s: kustomize loads it", name)
		}
		if theirs := strings.Contains(err.Error(), "no 'git' program on path"); theirs && !isRemote(name) {
			t.Errorf("%s: kustomize would clone it", name)
		} else if !theirs && isRemote(name) && !strings.Contains(name, "@") {
			t.Errorf("%s: kustomize takes it for local: %v", name, err)
		}
	}
}

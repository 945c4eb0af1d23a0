package controller

import (
	"slices"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// generator makes an ArtifactGenerator of the repository "fleet", with the alias repo.
func (s *stage) generator(name string, change func(*swapi.ArtifactGeneratorSpec)) *swapi.ArtifactGenerator {
	s.Helper()
	g := &swapi.ArtifactGenerator{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}}
	g.Spec.Sources = []swapi.SourceReference{{Alias: "repo", Kind: sourcev1.GitRepositoryKind, Name: "fleet"}}
	change(&g.Spec)
	s.create(g)
	return g
}

// part makes an artifact of what is in a folder.
func part(name, folder string) swapi.OutputArtifact {
	return swapi.OutputArtifact{
		Name: name, OriginRevision: "@repo", Copy: []swapi.CopyOperation{{From: "@repo/" + folder + "/**", To: "@artifact/"}},
	}
}

func (s *stage) awaitGenerator(name, what string, ok func(*swapi.ArtifactGenerator) bool) *swapi.ArtifactGenerator {
	s.Helper()
	return await(s, &swapi.ArtifactGeneratorList{}, name, what, ok)
}

func (s *stage) awaitArtifact(name, what string, ok func(*sourcev1.ExternalArtifact) bool) *sourcev1.ExternalArtifact {
	s.Helper()
	return await(s, &sourcev1.ExternalArtifactList{}, name, what, ok)
}

func hasArtifact(ea *sourcev1.ExternalArtifact) bool { return ea.Status.Artifact != nil }

// fromArtifact lets a Kustomization read an ExternalArtifact as a whole.
func fromArtifact(name string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) {
		k.Spec.Path = "./"
		k.Spec.SourceRef = kustomizev1.CrossNamespaceSourceReference{Kind: sourcev1.ExternalArtifactKind, Name: name}
	}
}

// A repository is taken apart: a commit concerns only the artifacts that it changes
// something of, and only their users.
func TestComposition(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	first := s.push0(map[string]string{"deploy/web/a.yaml": configMap("web", "1"), "deploy/api/a.yaml": configMap("api", "1")})
	s.source()
	s.generator("split", func(g *swapi.ArtifactGeneratorSpec) {
		g.CommonMetadata = &swapi.CommonMetadata{Labels: map[string]string{"team": "one"}, Annotations: map[string]string{"note": "x"}}
		g.OutputArtifacts = []swapi.OutputArtifact{part("web", "deploy/web"), part("api", "deploy/api")}
	})
	s.unit("web", fromArtifact("web"))
	s.unit("api", fromArtifact("api"))
	g := s.awaitGenerator("split", "ready", func(g *swapi.ArtifactGenerator) bool {
		return says(g, metav1.ConditionTrue, meta.SucceededReason, "2 artifact")
	})
	if len(g.Status.Inventory) != 2 || g.Status.Inventory[0].Name != "web" || g.Status.Inventory[0].Digest == "" || g.Status.ObservedSourcesDigest == "" {
		t.Errorf("status %+v", g.Status)
	}
	web := s.awaitArtifact("web", "made", hasArtifact)
	if ref := web.Spec.SourceRef; ref == nil || ref.Kind != swapi.ArtifactGeneratorKind || ref.Name != "split" {
		t.Errorf("source %+v", ref)
	}
	if l := web.Labels; l["team"] != "one" || l[managedBy] != "source-watcher" || l[swapi.ArtifactGeneratorLabel] != string(g.UID) || web.Annotations["note"] != "x" {
		t.Errorf("labels %v, annotations %v", l, web.Annotations)
	}
	if a := web.Status.Artifact; !strings.HasPrefix(a.Revision, "latest@sha256:") || a.Metadata["org.opencontainers.image.revision"] != first || !report.IsReady(web, web.Generation) {
		t.Errorf("status %+v", web.Status)
	}
	one := s.awaitLive("web", web.Status.Artifact.Revision)
	if one.Status.LastAppliedOriginRevision != first {
		t.Errorf("origin %q, want %q", one.Status.LastAppliedOriginRevision, first)
	}
	api := s.awaitArtifact("api", "made", hasArtifact)
	idle := s.awaitLive("api", api.Status.Artifact.Revision)

	second := s.push(map[string]string{"deploy/web/a.yaml": configMap("web", "2"), "README.md": "more"})
	moved := s.awaitArtifact("web", "at the second commit", func(ea *sourcev1.ExternalArtifact) bool {
		return ea.Status.Artifact.Revision != web.Status.Artifact.Revision
	})
	s.awaitLive("web", moved.Status.Artifact.Revision)
	if s.config("web").Data["value"] != "2" {
		t.Error("the second commit was not delivered")
	}
	same := s.awaitArtifact("api", "known to be of the second commit", func(ea *sourcev1.ExternalArtifact) bool {
		return ea.Status.Artifact.Metadata["org.opencontainers.image.revision"] == second
	})
	if was, is := api.Status.Artifact, same.Status.Artifact; was.Revision != is.Revision || was.Digest != is.Digest || was.LastUpdateTime != is.LastUpdateTime {
		t.Errorf("nothing of api changed, and its artifact went from %+v to %+v", was, is)
	}
	after := s.kustomization("api")
	s.read(after)
	if after.ResourceVersion != idle.ResourceVersion {
		t.Errorf("nothing of api changed, and its Kustomization was written to: %s", standingOf(after))
	}
}

// push0 commits files before there is a source to ask.
func (s *stage) push0(files map[string]string) string { return "main@sha1:" + s.repo.Commit(files) }

// Parts of several sources become one artifact, in order, and artifacts of others too.
func TestCompositionOfSources(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.push0(map[string]string{"base/a.yaml": configMap("a", "1"), "base/b.yaml": configMap("b", "1")})
	other := s.git.Repo("other")
	revision := "main@sha1:" + other.Commit(map[string]string{"env/b.yaml": "metadata:\n  labels:\n    x: other\ndata:\n  value: \"2\"\n", "env/c.yaml": configMap("c", "1")})
	s.source()
	s.source(func(g *sourcev1.GitRepository) { g.Name, g.Spec.URL = "other", other.URL() })
	s.generator("first", func(g *swapi.ArtifactGeneratorSpec) { g.OutputArtifacts = []swapi.OutputArtifact{part("base", "base")} })
	s.generator("second", func(g *swapi.ArtifactGeneratorSpec) {
		g.Sources = []swapi.SourceReference{
			{Alias: "base", Kind: sourcev1.ExternalArtifactKind, Name: "base"},
			{Alias: "env", Kind: sourcev1.GitRepositoryKind, Name: "other", Namespace: s.namespace},
		}
		g.OutputArtifacts = []swapi.OutputArtifact{{Name: "all", Revision: "@env", OriginRevision: "@base", Copy: []swapi.CopyOperation{
			{From: "@base/", To: "@artifact/"},
			{From: "@env/env/**", To: "@artifact/", Exclude: []string{"b.yaml"}},
			{From: "@env/env/b.yaml", To: "@artifact/b.yaml", Strategy: swapi.MergeStrategy},
		}}}
	})
	s.unit("all", fromArtifact("all"))
	k := s.awaitLive("all", revision)
	if got := s.names(""); got != "a b c" {
		t.Errorf("delivered %q", got)
	}
	if b := s.config("b"); b.Data["value"] != "2" || b.Labels["x"] != "other" {
		t.Errorf("merged: %v %v", b.Data, b.Labels)
	}
	if !strings.HasPrefix(k.Status.LastAppliedOriginRevision, "main@sha1:") {
		t.Errorf("origin %q: the origin of the base is the commit", k.Status.LastAppliedOriginRevision)
	}
}

// A path pattern makes one artifact for each folder that it matches, as they come and go.
func TestCompositionByFolder(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.push0(map[string]string{"apps/Web/prod/a.yaml": configMap("web", "1"), "apps/api/prod/a.yaml": configMap("api", "1"), "apps/README.md": "x"})
	s.source()
	s.generator("folders", func(g *swapi.ArtifactGeneratorSpec) {
		g.PathPattern = "@repo/apps/{app}/{env}"
		o := part("{app}-{env}", "apps/{app}/{env}")
		g.OutputArtifacts = []swapi.OutputArtifact{o}
	})
	web := s.awaitArtifact("web-prod", "made", hasArtifact)
	if web.Labels["app"] != "web" || web.Labels["env"] != "prod" {
		t.Errorf("labels %v", web.Labels)
	}
	s.push(map[string]string{"apps/job/test/a.yaml": configMap("job", "1")})
	s.awaitArtifact("job-test", "made", hasArtifact)
	s.remove("apps/api/prod/a.yaml")
	s.awaitGone(&sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Name: "api-prod", Namespace: s.namespace}}, &sourcev1.ExternalArtifactList{})
	g := s.awaitGenerator("folders", "ready with two", func(g *swapi.ArtifactGenerator) bool { return len(g.Status.Inventory) == 2 })
	var names []string
	for _, ref := range g.Status.Inventory {
		names = append(names, ref.Name)
	}
	if slices.Sort(names); !slices.Equal(names, []string{"job-test", "web-prod"}) {
		t.Errorf("inventory %v", names)
	}
}

// What a generator makes is put back when somebody takes it away, goes when it is made no longer,
// and goes with the generator.
func TestCompositionCleansUp(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.push0(map[string]string{"one/a.yaml": configMap("a", "1"), "two/b.yaml": configMap("b", "1")})
	s.source()
	g := s.generator("parts", func(g *swapi.ArtifactGeneratorSpec) {
		g.OutputArtifacts = []swapi.OutputArtifact{part("one", "one"), part("two", "two")}
	})
	two := s.awaitArtifact("two", "made", hasArtifact)
	if err := s.client.Delete(t.Context(), two); err != nil {
		t.Fatal(err)
	}
	s.awaitArtifact("two", "made again", func(ea *sourcev1.ExternalArtifact) bool { return ea.UID != two.UID && hasArtifact(ea) })
	edit(s, g, func(g *swapi.ArtifactGenerator) { g.Spec.OutputArtifacts = g.Spec.OutputArtifacts[:1] })
	s.awaitGone(two, &sourcev1.ExternalArtifactList{})
	one := s.awaitArtifact("one", "still there", hasArtifact)
	s.awaitGenerator("parts", "ready with one", func(g *swapi.ArtifactGenerator) bool {
		return says(g, metav1.ConditionTrue, meta.SucceededReason, "1 artifact")
	})
	if err := s.client.Delete(t.Context(), g); err != nil {
		t.Fatal(err)
	}
	s.awaitGone(one, &sourcev1.ExternalArtifactList{})
	s.awaitGone(g, &swapi.ArtifactGeneratorList{})
}

// An artifact is handed out before it is written. One that never could be written is
// taken back all the same when it is made no longer.
func TestCompositionCleansUpUnwritten(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.push0(map[string]string{"one/a.yaml": configMap("a", "1"), "two/b.yaml": configMap("b", "1")})
	s.source()
	g := s.generator("parts", func(g *swapi.ArtifactGeneratorSpec) {
		g.CommonMetadata = &swapi.CommonMetadata{Labels: map[string]string{"team": "no label value!"}}
		g.OutputArtifacts = []swapi.OutputArtifact{part("one", "one"), part("two", "two")}
	})
	s.awaitGenerator("parts", "refused by the cluster", func(g *swapi.ArtifactGenerator) bool {
		return says(g, metav1.ConditionFalse, meta.ReconciliationFailedReason, "write ExternalArtifact")
	})
	s.unit("two", fromArtifact("two"))
	s.awaitUnit("two", "delivered", func(k *kustomizev1.Kustomization) bool { return report.IsReady(k, k.Generation) })
	edit(s, g, func(g *swapi.ArtifactGenerator) {
		g.Spec.CommonMetadata, g.Spec.OutputArtifacts = nil, g.Spec.OutputArtifacts[:1]
	})
	s.awaitGenerator("parts", "ready with one", func(g *swapi.ArtifactGenerator) bool {
		return says(g, metav1.ConditionTrue, meta.SucceededReason, "1 artifact") && len(g.Status.Inventory) == 1
	})
	s.awaitUnit("two", "without its source", func(k *kustomizev1.Kustomization) bool { return !report.IsReady(k, k.Generation) })
}

// A suspended generator makes nothing; it goes on when it is resumed, and answers requests.
func TestCompositionSuspended(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.push0(map[string]string{"one/a.yaml": configMap("a", "1")})
	s.source()
	g := s.generator("parts", func(g *swapi.ArtifactGeneratorSpec) { g.OutputArtifacts = []swapi.OutputArtifact{part("one", "one")} })
	before := s.awaitArtifact("one", "made", hasArtifact)
	edit(s, g, func(g *swapi.ArtifactGenerator) {
		g.Annotations = map[string]string{swapi.ReconcileAnnotation: "Disabled"}
	})
	revision := s.push(map[string]string{"one/a.yaml": configMap("a", "2")})
	s.awaitSource("at the second commit", atRevision(revision))
	pass(300 * time.Millisecond)
	during := &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Name: "one", Namespace: s.namespace}}
	if s.read(during); during.Status.Artifact.Revision != before.Status.Artifact.Revision {
		t.Error("a suspended generator made something")
	}
	edit(s, g, func(g *swapi.ArtifactGenerator) { g.Annotations = nil })
	s.awaitArtifact("one", "made of the second commit", func(ea *sourcev1.ExternalArtifact) bool {
		return ea.Status.Artifact.Revision != before.Status.Artifact.Revision
	})
	request := s.ask(g)
	s.awaitGenerator("parts", "asked", func(g *swapi.ArtifactGenerator) bool { return g.Status.LastHandledReconcileAt == request })
}

// Everything that can be wrong with a generator is one condition, which names the field.
func TestCompositionBadInput(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.push0(map[string]string{"one/a.yaml": configMap("a", "1"), "apps/A/x": "", "apps/a/x": "", "values.txt": "no map", "bad.tgz": "no archive", "link": "x"})
	s.source()
	s.create(&sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Name: "taken", Namespace: s.namespace}})
	copyOf := func(from, to string) []swapi.OutputArtifact {
		return []swapi.OutputArtifact{{Name: "x", Copy: []swapi.CopyOperation{{From: from, To: to}}}}
	}
	ok := copyOf("@repo/one/", "@artifact/")
	tests := []struct {
		name, why string
		change    func(*swapi.ArtifactGeneratorSpec)
		reason    string
		words     []string
	}{
		{"unknown-alias", "there is no such source", func(g *swapi.ArtifactGeneratorSpec) { g.OutputArtifacts = copyOf("@none/x", "@artifact/") }, meta.BuildFailedReason, []string{"copy[0].from", `"none"`}},
		{"unknown-revision", "there is no such source", func(g *swapi.ArtifactGeneratorSpec) {
			g.OutputArtifacts = slices.Clone(ok)
			g.OutputArtifacts[0].Revision = "@none"
		}, swapi.ValidationFailedReason, []string{"spec.artifacts[0].revision", `"none"`}},
		{"alias-twice", "which is meant?", func(g *swapi.ArtifactGeneratorSpec) {
			g.Sources = append(g.Sources, g.Sources[0])
			g.OutputArtifacts = ok
		}, swapi.ValidationFailedReason, []string{"spec.sources[1]", `"repo"`}},
		{"name-twice", "one would take the place of the other", func(g *swapi.ArtifactGeneratorSpec) { g.OutputArtifacts = append(slices.Clone(ok), ok...) }, swapi.ValidationFailedReason, []string{"spec.artifacts[1]"}},
		{"outside", "a path stays in its source", func(g *swapi.ArtifactGeneratorSpec) { g.OutputArtifacts = copyOf("@repo/../x", "@artifact/") }, meta.BuildFailedReason, []string{"outside of the source"}},
		{"nothing-matches", "a pattern that matches nothing is a mistake", func(g *swapi.ArtifactGeneratorSpec) { g.OutputArtifacts = copyOf("@repo/*.none", "@artifact/") }, meta.BuildFailedReason, []string{"matches the pattern", "*.none"}},
		{"no-such-path", "", func(g *swapi.ArtifactGeneratorSpec) { g.OutputArtifacts = copyOf("@repo/none/", "@artifact/") }, meta.BuildFailedReason, []string{`"none"`, "no such file"}},
		{"file-and-folder", "neither can be both", func(g *swapi.ArtifactGeneratorSpec) {
			g.OutputArtifacts = copyOf("@repo/one", "@artifact/")
			g.OutputArtifacts[0].Copy = append([]swapi.CopyOperation{{From: "@repo/values.txt", To: "@artifact/one"}}, g.OutputArtifacts[0].Copy...)
		}, meta.BuildFailedReason, []string{`"one"`, "a file and a folder"}},
		{"no-values", "only maps can be merged", func(g *swapi.ArtifactGeneratorSpec) {
			g.OutputArtifacts = copyOf("@repo/one/a.yaml", "@artifact/v.yaml")
			g.OutputArtifacts[0].Copy = append(g.OutputArtifacts[0].Copy, swapi.CopyOperation{From: "@repo/values.txt", To: "@artifact/v.yaml", Strategy: swapi.MergeStrategy})
		}, meta.BuildFailedReason, []string{"values.txt", "no YAML map"}},
		{"no-archive", "it is called one and is none", func(g *swapi.ArtifactGeneratorSpec) {
			g.OutputArtifacts = copyOf("@repo/bad.tgz", "@artifact/")
			g.OutputArtifacts[0].Copy[0].Strategy = swapi.ExtractStrategy
		}, meta.BuildFailedReason, []string{"bad.tgz", "gzip"}},
		{"no-source", "it may come", func(g *swapi.ArtifactGeneratorSpec) { g.Sources[0].Name, g.OutputArtifacts = "none", ok }, swapi.SourceFetchFailedReason, []string{"none", "not found"}},
		{"chart", "it may come", func(g *swapi.ArtifactGeneratorSpec) {
			g.Sources[0].Kind, g.Sources[0].Name, g.OutputArtifacts = sourcev1.HelmChartKind, "none", ok
		}, swapi.SourceFetchFailedReason, []string{"HelmChart", "none", "not found"}},
		{"taken", "it belongs to somebody else", func(g *swapi.ArtifactGeneratorSpec) {
			g.OutputArtifacts = slices.Clone(ok)
			g.OutputArtifacts[0].Name = "taken"
		}, meta.ReconciliationFailedReason, []string{"taken", "belongs to somebody else"}},
		{"same-name", "two folders make one artifact", func(g *swapi.ArtifactGeneratorSpec) {
			g.PathPattern, g.OutputArtifacts = "@repo/apps/{app}", []swapi.OutputArtifact{part("p-{app}", "apps/{app}")}
		}, meta.BuildFailedReason, []string{"spec.pathPattern", "p-a", "apps/A"}},
		{"no-capture", "nothing would be put in", func(g *swapi.ArtifactGeneratorSpec) {
			g.PathPattern, g.OutputArtifacts = "@repo/on{x}", []swapi.OutputArtifact{part("p-{y}", "one")}
		}, meta.BuildFailedReason, []string{"spec.artifacts", "{y}"}},
	}
	for _, tt := range tests {
		s.generator(tt.name, tt.change)
	}
	for _, tt := range tests {
		s.awaitGenerator(tt.name, tt.why+": "+tt.reason, func(g *swapi.ArtifactGenerator) bool { return says(g, metav1.ConditionFalse, tt.reason, tt.words...) })
	}
	ea := &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Name: "taken", Namespace: s.namespace}}
	if s.read(ea); len(ea.Labels) > 0 || ea.Spec.SourceRef != nil || hasArtifact(ea) {
		t.Errorf("an artifact of somebody else was changed: %+v", ea)
	}
	// A failed generator goes on when its source does.
	s.push(map[string]string{"x.none": "here it is"})
	s.awaitGenerator("nothing-matches", "ready", func(g *swapi.ArtifactGenerator) bool { return says(g, metav1.ConditionTrue, meta.SucceededReason) })
}

// A generator that is made of what it makes, by way of another one, is told so.
func TestCompositionInCircle(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.push0(map[string]string{"one/a.yaml": configMap("a", "1")})
	s.source()
	first := s.generator("first", func(g *swapi.ArtifactGeneratorSpec) { g.OutputArtifacts = []swapi.OutputArtifact{part("one", "one")} })
	s.awaitArtifact("one", "made", hasArtifact)
	s.generator("second", func(g *swapi.ArtifactGeneratorSpec) {
		g.Sources[0].Kind, g.Sources[0].Name = sourcev1.ExternalArtifactKind, "one"
		g.OutputArtifacts = []swapi.OutputArtifact{{Name: "two", Copy: []swapi.CopyOperation{{From: "@repo/", To: "@artifact/in/"}}}}
	})
	s.awaitArtifact("two", "made", hasArtifact)
	edit(s, first, func(g *swapi.ArtifactGenerator) {
		g.Spec.Sources = append(g.Spec.Sources, swapi.SourceReference{Alias: "own", Kind: sourcev1.ExternalArtifactKind, Name: "two"})
		g.Spec.OutputArtifacts[0].Copy = append(g.Spec.OutputArtifacts[0].Copy, swapi.CopyOperation{From: "@own/", To: "@artifact/more/"})
	})
	s.awaitGenerator("first", "told", func(g *swapi.ArtifactGenerator) bool {
		return says(g, metav1.ConditionFalse, swapi.ValidationFailedReason, "spec.sources[1]", "second", " → ")
	})
}

// An engine starts on a cluster whose definitions are older, and does without what those lack;
// after a restart everything is as it was, also what a suspended generator has made.
func TestCompositionAfterRestart(t *testing.T) {
	t.Parallel()
	instance := testkit.Start(t)
	all, err := crds.All()
	if err != nil {
		t.Fatal(err)
	}
	older := slices.DeleteFunc(all, func(u *unstructured.Unstructured) bool {
		return !strings.HasPrefix(u.GetName(), "gitrep") && !strings.HasPrefix(u.GetName(), "kustom")
	})
	if err := crds.Install(t.Context(), instance.Config, older); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	engine := runEngine(instance.Config, dir)
	s := stageOn(t, instance.Config)
	s.engine = engine
	revision := s.push0(map[string]string{"one/a.yaml": configMap("a", "1"), "plain/b.yaml": configMap("b", "1")})
	s.source()
	s.unit("one", fromArtifact("one"))
	s.unit("plain")
	s.awaitLive("plain", revision)
	s.awaitFailure("one", meta.ArtifactFailedReason, "did not know the kind ExternalArtifact", "restart")
	if err := engine.stop(); err != nil {
		t.Fatal(err)
	}

	if engine, err = startEngine(instance.Config, dir); err != nil {
		t.Fatal(err)
	}
	g := s.generator("parts", func(g *swapi.ArtifactGeneratorSpec) { g.OutputArtifacts = []swapi.OutputArtifact{part("one", "one")} })
	ea := s.awaitArtifact("one", "made", hasArtifact)
	s.awaitLive("one", ea.Status.Artifact.Revision)
	s.awaitGenerator("parts", "ready", func(g *swapi.ArtifactGenerator) bool { return says(g, metav1.ConditionTrue, meta.SucceededReason) })
	edit(s, g, func(g *swapi.ArtifactGenerator) {
		g.Annotations = map[string]string{swapi.ReconcileAnnotation: "disabled"}
	})
	if err := engine.stop(); err != nil {
		t.Fatal(err)
	}
	s.read(g)
	s.read(ea)
	was := s.config("a")
	if err := s.client.Delete(t.Context(), was); err != nil {
		t.Fatal(err)
	}
	s.engine = engineFor(t, instance.Config, func(o *Options) { o.DataDir = dir })
	await(s, &corev1.ConfigMapList{}, "a", "made anew of the artifact of a suspended generator", func(m *corev1.ConfigMap) bool { return m.UID != was.UID })
	after, still := &swapi.ArtifactGenerator{ObjectMeta: metav1.ObjectMeta{Name: "parts", Namespace: s.namespace}}, ea.DeepCopy()
	s.read(after)
	s.read(still)
	if after.ResourceVersion != g.ResourceVersion || still.ResourceVersion != ea.ResourceVersion {
		t.Errorf("a restart wrote: generator %s, then %s; artifact %s, then %s", g.ResourceVersion, after.ResourceVersion, ea.ResourceVersion, still.ResourceVersion)
	}
}

// Where tenancy is locked, a generator keeps to its namespace.
func TestCompositionConfined(t *testing.T) {
	t.Parallel()
	g := &swapi.ArtifactGenerator{ObjectMeta: metav1.ObjectMeta{Name: "g", Namespace: "tenant"}}
	for _, row := range []struct {
		name, reason, from, to string
		tenancy                Tenancy
		refused                bool
	}{
		{"own", "it is the tenant's", "tenant", "", Tenancy{}, false},
		{"other", "it is another tenant's", "tenant", "other", Tenancy{}, true},
		{"open", "somebody opened the door", "tenant", "other", Tenancy{Open: true}, false},
		{"flag", "no references across namespaces for anybody", "flux-system", "other", Tenancy{Open: true, NoCrossNamespaceRefs: true}, true},
		{"platform", "the platform may", "flux-system", "other", Tenancy{}, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			g := g.DeepCopy()
			g.Namespace = row.from
			g.Spec.Sources = []swapi.SourceReference{{Alias: "repo", Kind: sourcev1.GitRepositoryKind, Name: "fleet", Namespace: row.to}}
			err := (&generatorRun{artifactGenerators: &artifactGenerators{tenancy: row.tenancy}, g: g}).valid()
			if (reasonOfSpec(err) == swapi.AccessDeniedReason) != row.refused {
				t.Errorf("%s: %v", row.reason, err)
			}
		})
	}
}

package controller

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/report"
	helmchart "github.com/bowline-dev/bowline/internal/source/chart"
	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/charttest"
)

// Every way to say which version of a chart is wanted, all of one repository; a chart that several
// want is downloaded once.
func TestHelmChartVersions(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0"), podinfo("1.2.0"), podinfo("2.0.0"), podinfo("2.1.0-rc.1")})
	s.helmRepository(server.URL())
	rows := []struct{ name, reason, version, want string }{
		{"none", "the newest that is no prerelease", "", "2.0.0"},
		{"any", "the default of the API", "*", "2.0.0"},
		{"exact", "as it is written", "1.0.0", "1.0.0"},
		{"range", "the newest in it", ">=1.0.0 <2.0.0", "1.2.0"},
		{"prerelease", "where the range names one", ">=2.1.0-0", "2.1.0-rc.1"},
	}
	for _, row := range rows {
		s.helmChart(row.name, func(c *sourcev1.HelmChartSpec) { c.Version = row.version })
	}
	for i := range 20 {
		s.helmChart(fmt.Sprintf("same-%d", i))
	}
	for _, row := range rows {
		hc := s.awaitChartAt(row.name, row.want)
		if hc.Status.ObservedChartName != "podinfo" || hc.Status.ObservedSourceArtifactRevision == "" || hc.Status.ObservedGeneration != hc.Generation {
			t.Errorf("%s: %s: status %+v", row.name, row.reason, hc.Status)
		}
	}
	for i := range 20 {
		s.awaitChartAt(fmt.Sprintf("same-%d", i), "2.0.0")
	}
	if n := server.Asked("/podinfo-2.0.0.tgz"); n != 1 {
		t.Errorf("podinfo 2.0.0 was downloaded %d times", n)
	}
	if n := server.Asked("/index.yaml"); n != 1 {
		t.Errorf("the index was asked for %d times", n)
	}
}

// A chart is told of with the reasons that users know, handed out, served, and follows its repository.
func TestHelmChart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := stageServing(t, func(o *Options) { o.DataDir = dir })
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")})
	r := s.helmRepository(server.URL())
	s.helmChart("podinfo")
	hc := s.awaitChartAt("podinfo", "1.0.0")
	if !says(hc, metav1.ConditionTrue, sourcev1.ChartPullSucceededReason, "pulled 'podinfo' chart with version '1.0.0'") {
		t.Errorf("conditions %s", standingOf(hc))
	}
	if c := report.Condition(hc, sourcev1.ArtifactInStorageCondition); c == nil || c.Reason != sourcev1.ChartPullSucceededReason {
		t.Errorf("conditions %s", standingOf(hc))
	}
	a := hc.Status.Artifact
	if !strings.HasSuffix(a.URL, "/helmchart/"+s.namespace+"/podinfo/podinfo-1.0.0.tgz") || hc.Status.URL != a.URL {
		t.Errorf("URL %q, %q", a.URL, hc.Status.URL)
	}
	if got := download(t, a.URL); !bytes.Equal(got, podinfo("1.0.0").Archive(t)) {
		t.Errorf("served are other bytes than the repository's")
	}
	s.awaitEvent(sourcev1.ChartPullSucceededReason, "pulled 'podinfo' chart")

	asked := s.ask(hc)
	s.awaitHelmChart("podinfo", "asked", func(hc *sourcev1.HelmChart) bool { return hc.Status.LastHandledReconcileAt == asked })
	if n := len(server.Requests()); n != 2 {
		t.Errorf("%d requests for nothing new", n)
	}
	server.Add(podinfo("1.1.0"))
	s.ask(r)
	s.awaitChartAt("podinfo", "1.1.0")
	s.delete(hc)
	s.awaitGone(hc, &sourcev1.HelmChartList{})
	s.poll("forgotten what it was given", func() bool {
		given, err := os.ReadDir(filepath.Join(dir, "helm", "charts", "given"))
		return err == nil && len(given) == 0
	})
}

// Another chart of the same version is another one, also when it did not come at the first attempt.
func TestHelmChartOfAnotherName(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	other := podinfo("1.0.0")
	other.Name = "other"
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0"), other})
	s.helmRepository(server.URL())
	hc := s.helmChart("changing")
	s.awaitChartAt("changing", "1.0.0")
	server.Refuse("/other-1.0.0.tgz", http.StatusServiceUnavailable)
	edit(s, hc, func(hc *sourcev1.HelmChart) { hc.Spec.Chart = "other" })
	s.awaitChartFailure("changing", reasonChartPull, "503")
	server.Refuse("/other-1.0.0.tgz", 0)
	s.ask(hc)
	got := s.awaitChartAt("changing", "1.0.0")
	if got.Status.ObservedChartName != "other" {
		t.Errorf("after a failure it has the chart %s", got.Status.ObservedChartName)
	}
}

// Values files make other values and another version of the chart.
func TestHelmChartValuesFiles(t *testing.T) {
	t.Parallel()
	s := stageServing(t)
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")})
	s.helmRepository(server.URL())
	s.repo.Commit(podinfo("1.0.0").In("charts"))
	s.source()
	files := []string{"values.yaml", "values-prod.yaml", "values-none.yaml", "values-red.yaml"}
	rows := []struct {
		name, reason string
		change       func(*sourcev1.HelmChartSpec)
		want         map[string]string
	}{
		{"own", "the chart's own values are no other ones", func(c *sourcev1.HelmChartSpec) { c.ValuesFiles = []string{"values.yaml"} }, nil},
		{"merged", "each overrides those before it, missing ones are passed over", func(c *sourcev1.HelmChartSpec) { c.ValuesFiles, c.IgnoreMissingValuesFiles = files, true }, map[string]string{"values.yaml": "replicas: 3\nui:\n  color: red\n"}},
		{"missing", "a missing one is a mistake", func(c *sourcev1.HelmChartSpec) { c.ValuesFiles = files }, map[string]string{}},
		{"git", "of a Git repository they are named from its root", func(c *sourcev1.HelmChartSpec) {
			fromGit("charts/podinfo")(c)
			c.ValuesFiles = []string{"charts/podinfo/values-prod.yaml"}
		}, map[string]string{"values.yaml": "replicas: 3\n"}},
	}
	for _, row := range rows {
		s.helmChart(row.name, row.change)
	}
	for _, row := range rows {
		if row.want != nil && len(row.want) == 0 {
			hc := s.awaitChartFailure(row.name, reasonValuesFiles, "values-none.yaml", "spec.ignoreMissingValuesFiles")
			if c := report.Condition(hc, sourcev1.BuildFailedCondition); c == nil || c.Reason != reasonValuesFiles {
				t.Errorf("%s: %s: conditions %s", row.name, row.reason, standingOf(hc))
			}
			continue
		}
		want := "1.0.0+1"
		if row.want == nil {
			want = "1.0.0"
		}
		hc := s.awaitChartAt(row.name, want)
		c, err := helmchart.Read(download(t, hc.Status.Artifact.URL))
		if err != nil || c.Version != want {
			t.Errorf("%s: version %q: %v", row.name, c.Version, err)
		}
		for name, content := range row.want {
			if got, _ := c.Tree.ReadFile("podinfo/" + name); string(got) != content {
				t.Errorf("%s: %s: %s is %q", row.name, row.reason, name, got)
			}
		}
		if observed := hc.Status.ObservedValuesFiles; (len(observed) > 0) != hc.Spec.IgnoreMissingValuesFiles || slices.Contains(observed, "values-none.yaml") {
			t.Errorf("%s: observed %v", row.name, observed)
		}
	}
}

// A folder of a Git repository is packaged when its version changes, or with each revision.
func TestHelmChartFromGit(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	dependent := testkit.Chart{
		Name: "app", Version: "0.1.0", Files: map[string]string{"values.yaml": "", ".helmignore": "*.md\n", "README.md": "no", "templates/a.yaml": "a"},
		Metadata: "dependencies:\n- name: common\n  version: 1.x\n  repository: file://../common\n",
	}
	files := dependent.In("charts")
	for name, content := range (testkit.Chart{Name: "common", Version: "1.2.0", Type: "library"}).In("charts") {
		files[name] = content
	}
	files["packed/podinfo-1.0.0.tgz"] = string(podinfo("1.0.0").Archive(t))
	one := s.repo.Commit(files)
	s.source()
	s.helmChart("version", fromGit("./charts/app"))
	s.helmChart("revision", fromGit("charts/app"), func(c *sourcev1.HelmChartSpec) { c.ReconcileStrategy = sourcev1.ReconcileStrategyRevision })
	s.helmChart("packed", fromGit("packed/podinfo-1.0.0.tgz"))
	first := s.awaitChartAt("version", "0.1.0")
	if !says(first, metav1.ConditionTrue, sourcev1.ChartPackageSucceededReason, "packaged 'app' chart with version '0.1.0'") {
		t.Errorf("conditions %s", standingOf(first))
	}
	s.awaitChartAt("revision", "0.1.0+"+one[:12])
	packed := s.awaitChartAt("packed", "1.0.0")
	if c, _ := helmchart.Read(podinfo("1.0.0").Archive(t)); packed.Status.Artifact.Digest != c.Digest || !says(packed, metav1.ConditionTrue, sourcev1.ChartPullSucceededReason) {
		t.Errorf("a packed chart is not what it was: %+v", packed.Status.Artifact)
	}
	s.push(map[string]string{"charts/app/templates/a.yaml": "b"})
	two := s.awaitHelmChart("revision", "another revision", func(hc *sourcev1.HelmChart) bool { return hc.Status.Artifact.Revision != "0.1.0+"+one[:12] })
	if two.Status.ObservedSourceArtifactRevision == "main@sha1:"+one {
		t.Errorf("observed %s", two.Status.ObservedSourceArtifactRevision)
	}
	if hc := s.awaitHelmChart("version", "looked at", func(hc *sourcev1.HelmChart) bool { return hc.Status.ObservedSourceArtifactRevision != "main@sha1:"+one }); hc.Status.Artifact.Digest != first.Status.Artifact.Digest {
		t.Error("the chart changed and its version did not")
	}
	dependent.Version = "0.2.0"
	s.push(dependent.In("charts"))
	s.awaitChartAt("version", "0.2.0")
}

// Dependencies that are not in the folder come from the repositories of the namespace.
func TestHelmChartDependencies(t *testing.T) {
	t.Parallel()
	s := stageServing(t)
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0"), podinfo("1.1.0")}, charttest.BasicAuth("ann", "secret"))
	s.opaque("login", map[string][]byte{"username": []byte("ann"), "password": []byte("secret")})
	s.helmRepository(server.URL()+"/", func(r *sourcev1.HelmRepository) { r.Spec.SecretRef = &meta.LocalObjectReference{Name: "login"} })
	s.awaitIndexed()
	open := charttest.NewServer(t, []testkit.Chart{{Name: "open", Version: "3.0.0"}})
	app := testkit.Chart{
		Name: "app", Version: "0.1.0", Subcharts: []testkit.Chart{{Name: "here", Version: "1.0.0"}},
		Metadata: "dependencies:\n- {name: podinfo, version: ~1, repository: '" + server.URL() + "'}\n- {name: open, version: '*', repository: '" + open.URL() + "'}\n- {name: here, version: '*', repository: ''}\n",
		Files:    map[string]string{"Chart.lock": "dependencies:\n- {name: podinfo, version: 1.0.0, repository: '" + server.URL() + "'}\n"},
	}
	s.repo.Commit(app.In("."))
	s.source()
	s.helmChart("app", fromGit("app"))
	hc := s.awaitChartAt("app", "0.1.0")
	c, err := helmchart.Read(download(t, hc.Status.Artifact.URL))
	if err != nil {
		t.Fatal(err)
	}
	files, err := c.Files()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"charts/podinfo-1.0.0.tgz", "charts/open-3.0.0.tgz", "charts/here/Chart.yaml"} {
		if files[name] == nil {
			t.Errorf("there is no %s", name)
		}
	}
	app.Version, app.Metadata = "0.2.0", "dependencies:\n- {name: gone, version: 1.0.0, repository: '"+server.URL()+"'}\n"
	s.push(app.In("."))
	failed := s.awaitChartFailure("app", reasonDependencyBuild, "dependency gone", "it is not in the index", "podinfo")
	if failed.Status.Artifact.Revision != "0.1.0" {
		t.Errorf("the last artifact is gone: %+v", failed.Status.Artifact)
	}
}

// One clear condition for each mistake; what was there stays.
func TestHelmChartBadInput(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0"), podinfo("1.1.0")})
	s.helmRepository(server.URL())
	s.repo.Commit(map[string]string{
		"empty/a": "", "broken/Chart.yaml": "name: broken\nversion: [", "odd/Chart.yaml": "name: odd\nversion: one\n", "file.tgz": "no archive",
		"bomb.tgz":        string(testkit.TarGz(t, map[string]string{"bomb/Chart.yaml": "name: bomb\nversion: 1.0.0\n", "bomb/zero": strings.Repeat("\x00", helmchart.MaxFile+1)})),
		"away/Chart.yaml": "name: away\nversion: 1.0.0\ndependencies:\n- {name: x, version: 1.0.0, repository: 'file://../../x'}\n",
	})
	s.source()
	rows := []struct {
		name, why, reason string
		change            func(*sourcev1.HelmChartSpec)
		words             []string
	}{
		{"no-source", "the source is not there", reasonSourceUnavailable, func(c *sourcev1.HelmChartSpec) { c.SourceRef.Name = "none" }, []string{"HelmRepository", "none", "spec.sourceRef"}},
		{"no-git", "nor is the other", reasonNoSourceArtifact, func(c *sourcev1.HelmChartSpec) { fromGit("x")(c); c.SourceRef.Name = "none" }, []string{"GitRepository", "not found", "spec.sourceRef"}},
		{"no-chart", "the index has others", reasonChartReference, func(c *sourcev1.HelmChartSpec) { c.Chart = "podinf" }, []string{"podinf", "there is podinfo", "spec.chart"}},
		{"no-version", "the versions are said", reasonChartReference, func(c *sourcev1.HelmChartSpec) { c.Version = ">=9" }, []string{">=9", "there are 1.1.0, 1.0.0", "spec.version"}},
		{"bad-version", "no range at all", reasonChartReference, func(c *sourcev1.HelmChartSpec) { c.Version = "~~" }, []string{"spec.version"}},
		{"no-folder", "nothing there", reasonChartReference, fromGit("none"), []string{"none in GitRepository", "spec.chart"}},
		{"empty", "a folder without a chart", reasonChartReference, fromGit("empty"), []string{"there is no Chart.yaml"}},
		{"broken", "Chart.yaml is no YAML", reasonChartReference, fromGit("broken"), []string{"broken/Chart.yaml", "line 2"}},
		{"odd", "the version is none", reasonChartReference, fromGit("odd"), []string{"odd/Chart.yaml", `version "one"`}},
		{"file", "a file that is no archive", reasonChartReference, fromGit("file.tgz"), []string{"gzip"}},
		{"bomb", "one that grows", reasonChartReference, fromGit("bomb.tgz"), []string{"more than the limit"}},
		{"away", "a dependency outside of the source", reasonDependencyBuild, fromGit("away"), []string{"leads outside"}},
	}
	for _, row := range rows {
		s.helmChart(row.name, row.change)
	}
	for _, row := range rows {
		hc := s.awaitChartFailure(row.name, row.reason, row.words...)
		c := report.Condition(hc, "Ready")
		if strings.Contains(c.Message, "\n") || hc.Status.Artifact != nil {
			t.Errorf("%s: %s: %q, artifact %v", row.name, row.why, c.Message, hc.Status.Artifact)
		}
		t.Logf("%s: %s", row.name, c.Message)
	}
	good := &sourcev1.HelmChart{ObjectMeta: metav1.ObjectMeta{Name: "no-version", Namespace: s.namespace}}
	edit(s, good, func(hc *sourcev1.HelmChart) { hc.Spec.Version = "1.x" })
	s.awaitChartAt("no-version", "1.1.0")
	server.Write("podinfo-1.0.0.tgz", podinfo("6.6.6").Archive(t))
	edit(s, good, func(hc *sourcev1.HelmChart) { hc.Spec.Version = "1.0.0" })
	hc := s.awaitChartFailure("no-version", reasonChartPull, "podinfo-1.0.0.tgz", "the index promises")
	if hc.Status.Artifact.Revision != "1.1.0" {
		t.Errorf("the last artifact is gone: %+v", hc.Status.Artifact)
	}
}

// A chart is something to make artifacts of, too.
func TestHelmChartComposed(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")})
	s.generator("parts", func(g *swapi.ArtifactGeneratorSpec) {
		g.Sources = []swapi.SourceReference{{Alias: "chart", Kind: sourcev1.HelmChartKind, Name: "podinfo"}}
		g.OutputArtifacts = []swapi.OutputArtifact{{Name: "templates", Revision: "@chart", Copy: []swapi.CopyOperation{{From: "@chart/podinfo/templates/**", To: "@artifact/"}}}}
	})
	s.helmRepository(server.URL())
	s.helmChart("podinfo")
	ea := s.awaitArtifact("templates", "made", hasArtifact)
	if !strings.HasPrefix(ea.Status.Artifact.Revision, "1.0.0") {
		t.Errorf("revision %s", ea.Status.Artifact.Revision)
	}
}

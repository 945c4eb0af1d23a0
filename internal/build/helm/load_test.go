package helm

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/bowline-dev/bowline/internal/failure"
)

func TestLoad(t *testing.T) {
	const chart = "-- c/Chart.yaml --\nname: c\nversion: 1.0.0\nappVersion: \"2\"\napiVersion: v2\n-- c/templates/x.yaml --\n"
	file := func(data []byte) *fstest.MapFile { return &fstest.MapFile{Data: data} }
	bare := strings.ReplaceAll(chart, "c/", "")
	library := "-- l/Chart.yaml --\nname: l\nversion: 1.0.0\napiVersion: v2\ntype: library\n"
	tests := []struct {
		name, reason, dir string
		files             fstest.MapFS
		want              string // of the error; none where empty
		kind              failure.Kind
	}{
		{"folder", "an extracted archive", "", tree0(chart), "", ""},
		{"root", "an archive without a folder", "", tree0(bare), "", ""},
		{"path", "one of many in a repository", "charts/c", tree0(strings.ReplaceAll(chart, "c/", "charts/c/") + strings.ReplaceAll(bare, "-- ", "-- d/")), "", ""},
		{"path with dots", "the same", "./charts/c/", tree0(strings.ReplaceAll(chart, "c/", "charts/c/")), "", ""},
		{"archive", "a layer that was copied as it is", "", fstest.MapFS{"c-1.0.0.tgz": file(packed(t, chart))}, "", ""},
		{"byte order mark", "it is no part of a file", "", fstest.MapFS{"c/Chart.yaml": file([]byte("\xef\xbb\xbfname: c\nversion: 1.0.0\nappVersion: \"2\"\napiVersion: v2\n"))}, "", ""},
		{"packed subchart", "it is opened", "", fstest.MapFS{
			"c/Chart.yaml":           file([]byte("name: c\nversion: 1.0.0\nappVersion: \"2\"\napiVersion: v2\n")),
			"c/charts/l-1.0.0.tgz":   file(packed(t, library)),
			"c/charts/_ignored.tgz":  file([]byte("no archive")),
			"c/charts/l.tgz.prov":    file([]byte("a signature")),
			"c/templates/x.tgz.yaml": file([]byte("")),
		}, "", ""},
		{"nothing", "there is no chart", "", fstest.MapFS{"README.md": file(nil)}, "there is no Chart.yaml", failure.NotFound},
		{"no such path", "the path is named", "charts/d", tree0(chart), "there is no charts/d/Chart.yaml", failure.NotFound},
		{"two", "nobody says which", "", tree0(chart + strings.ReplaceAll(chart, "c/", "d/")), "it holds more than one chart: c, d", failure.Invalid},
		{"two archives", "nobody says which", "", fstest.MapFS{"a.tgz": file(nil), "b.tgz": file(nil)}, "it holds more than one chart: a.tgz, b.tgz", failure.Invalid},
		{"library", "it cannot be installed", "", tree0(library), "l is a chart of type library, which cannot be installed", failure.Invalid},
		{"no gzip", "the file is named", "", fstest.MapFS{"c.tgz": file([]byte("text"))}, "c.tgz is not compressed with gzip", failure.Invalid},
		{"empty archive", "there is nothing in it", "", fstest.MapFS{"c.tgz": file(packed(t, ""))}, "c.tgz holds no files", failure.Invalid},
		{"leads out", "nothing is read from outside", "", fstest.MapFS{"c.tgz": file(packed(t, "-- c/../../etc/x --\n"))}, "is not a file in a chart's folder", failure.Invalid},
		{"no folder in an archive", "Helm wants one", "", fstest.MapFS{"c.tgz": file(packed(t, bare))}, `"Chart.yaml" is not a file in a chart's folder`, failure.Invalid},
		{"no version", "Helm wants one", "", tree0("-- c/Chart.yaml --\nname: c\napiVersion: v2\n"), "chart.metadata.version is required", failure.Invalid},
		{"broken values", "the file is named", "", tree0(chart + "-- c/values.yaml --\n- a\n"), "cannot load values.yaml", failure.Invalid},
		{"broken subchart", "it is named", "", fstest.MapFS{
			"c/Chart.yaml": file([]byte("name: c\nversion: 1.0.0\napiVersion: v2\n")), "c/charts/l-1.0.0.tgz": file([]byte("text")),
		}, "charts/l-1.0.0.tgz is not compressed with gzip", failure.Invalid},
		{"bomb", "archives in archives share their limits", "", fstest.MapFS{
			"c/Chart.yaml":   file([]byte("name: c\nversion: 1.0.0\napiVersion: v2\n")),
			"c/charts/a.tgz": file(packedBomb(t)), "c/charts/b.tgz": file(packedBomb(t)),
		}, "the chart is larger than 100 MB unpacked", failure.Invalid},
		{"too deep", "charts in charts end", "", fstest.MapFS{"c/Chart.yaml": file([]byte("name: c\nversion: 1.0.0\napiVersion: v2\n")), "c/charts/a.tgz": file(nested(t, 40))},
			"charts are more than 32 deep", failure.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Load(artifactWith("sha256:x", tt.files), tt.dir)
			if tt.want == "" {
				if err != nil || got.Name() != "c" || got.Version() != "1.0.0" || got.AppVersion() != "2" {
					t.Errorf("%s: %v, %v", tt.reason, got, err)
				}
				return
			}
			if failure.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v, want %s %q", tt.reason, err, tt.kind, tt.want)
			}
		})
	}
}

func tree0(text string) fstest.MapFS { return artifactOf("", text).Tree.(tree).MapFS }

// packedBomb is a small archive of a chart of 60 MB.
func packedBomb(t *testing.T) []byte {
	return packed(t, "-- b/Chart.yaml --\nname: b\nversion: 1.0.0\napiVersion: v2\n-- b/zeros --\n"+strings.Repeat("\n", 60<<20))
}

// nested is a chart in a chart in a chart.
func nested(t *testing.T, depth int) []byte {
	inner := packedFiles(t, []txtar.File{{Name: "n/Chart.yaml"}})
	for range depth {
		inner = packedFiles(t, []txtar.File{{Name: "n/Chart.yaml", Data: []byte("name: n\nversion: 1.0.0\napiVersion: v2\n")}, {Name: "n/charts/n.tgz", Data: inner}})
	}
	return inner
}

func TestAtRevision(t *testing.T) {
	const hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
	chart := func(version string) *Chart {
		return chartOf(t, "-- c/Chart.yaml --\nname: c\nversion: "+version+"\napiVersion: v2\n")
	}
	tests := []struct{ name, reason, version, revision, want, digest, err string }{
		{"tag", "the digest tells a moved tag", "1.2.3", "1.2.3@sha256:" + hash, "1.2.3+9f86d081884c", "sha256:" + hash, ""},
		{"tag with a plus", "tags have an underscore for it", "1.2.3+build", "1.2.3_build@sha256:" + hash, "1.2.3+9f86d081884c", "sha256:" + hash, ""},
		{"digest", "", "1.2.3", "sha256:" + hash, "1.2.3+9f86d081884c", "sha256:" + hash, ""},
		{"other tag", "the toolkit tells it as a whole", "1.2.3", "latest@sha256:" + hash, "1.2.3+9f86d081884c", "latest@sha256:" + hash, ""},
		{"version", "it holds no digest", "1.2.3", "1.2.3", "1.2.3", "", ""},
		{"another version", "the tag lies", "1.2.3", "1.2.4@sha256:" + hash, "", "", "the tag 1.2.4 is not its version 1.2.3"},
		{"short", "no digest", "1.2.3", "sha256:abc", "", "", "holds no digest"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := chart(tt.version)
			got, digest, err := c.AtRevision(tt.revision)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || failure.KindOf(err) != failure.Invalid {
					t.Errorf("%s: %v, want %q", tt.reason, err, tt.err)
				}
				return
			}
			if err != nil || got.Version() != tt.want || digest != tt.digest {
				t.Errorf("%s: %v, %s, %v", tt.reason, got, digest, err)
			}
			if c.Version() != tt.version {
				t.Error("the chart itself was changed")
			}
			if tt.want != tt.version && got.Digest() == c.Digest() {
				t.Error("another version has the same digest")
			}
		})
	}
}

func TestCharts(t *testing.T) {
	var charts Charts
	artifact := func(name string, bytes int) (digest, text string) {
		return "sha256:" + name, "-- c/Chart.yaml --\nname: " + name + "\nversion: 1.0.0\napiVersion: v2\n-- c/zeros --\n" + strings.Repeat("\n", bytes)
	}
	var group sync.WaitGroup
	loaded := make([]*Chart, 8)
	for i := range loaded {
		group.Go(func() {
			c, err := charts.Load(artifactOf(artifact("one", 10)), "")
			if err != nil {
				t.Error(err)
			}
			loaded[i] = c
		})
	}
	group.Wait()
	for _, c := range loaded {
		if c != loaded[0] {
			t.Fatal("one artifact is read more than once")
		}
	}
	for i := range 4 {
		if _, err := charts.Load(artifactOf(artifact(fmt.Sprintf("big%d", i), 5<<20)), ""); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	if again, err := charts.Load(artifactOf(artifact("one", 10)), ""); err != nil || again != loaded[0] {
		t.Errorf("%v: a chart in use is read again", err)
	}
	runtime.KeepAlive(loaded)
	if _, err := charts.Load(artifactOf(artifact("last", 1)), ""); err != nil {
		t.Fatal(err)
	}
	charts.mu.Lock()
	known, kept := len(charts.entries), len(charts.recent)
	charts.mu.Unlock()
	if known > 4 || kept > 3 {
		t.Errorf("%d charts are known and %d kept: those that nobody uses are not let go", known, kept)
	}
	if _, err := charts.Load(artifactOf("sha256:none", ""), ""); !errors.Is(err, failure.Of(failure.NotFound)) {
		t.Error(err)
	}
}

func TestRequestDigest(t *testing.T) {
	base := request(t, simple)
	tests := []struct {
		name, reason string
		change       func(*Request)
		same         bool
	}{
		{"nothing", "", func(*Request) {}, true},
		{"revision", "each rendering has another", func(r *Request) { r.Release.Revision, r.Release.IsUpgrade = 2, true }, true},
		{"no values", "none are none", func(r *Request) { r.Values = Of(map[string]any{}) }, true},
		{"values", "", func(r *Request) { r.Values = Of(map[string]any{"a": "b"}) }, false},
		{"name", "", func(r *Request) { r.Release.Name = "x" }, false},
		{"namespace", "", func(r *Request) { r.Release.Namespace = "x" }, false},
		{"capabilities", "", func(r *Request) { r.Capabilities, _ = NewCapabilities("v1.36.3", []string{"v1"}) }, false},
		{"renderers", "", func(r *Request) { r.PostRender.Renderers = patching(r.PostRender.Origin).Renderers }, false},
		{"metadata", "", func(r *Request) { r.PostRender.CommonMetadata = &helmv2.CommonMetadata{} }, false},
		{"strategy", "", func(r *Request) { r.PostRender.Strategy = "nohooks" }, false},
		{"origin", "", func(r *Request) { r.PostRender.Origin.Name = "x" }, false},
		{"schema", "", func(r *Request) { r.SkipSchema = true }, false},
		{"definitions", "", func(r *Request) { r.DefinitionsFirst = true }, false},
		{"chart", "", func(r *Request) { r.Chart = chartOf(t, parent) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := base
			tt.change(&req)
			if same := req.Digest() == base.Digest(); same != tt.same {
				t.Errorf("same %t: %s", same, tt.reason)
			}
		})
	}
}

func TestCapabilities(t *testing.T) {
	one, err := NewCapabilities("v1.36.3-gke.1", []string{"v1", "apps/v1", "v1"})
	if err != nil {
		t.Fatal(err)
	}
	same, _ := NewCapabilities("v1.36.3-gke.1", []string{"apps/v1", "v1"})
	other, _ := NewCapabilities("v1.36.4", []string{"apps/v1", "v1"})
	if one.Digest() != same.Digest() || one.Digest() == other.Digest() {
		t.Errorf("digests %s, %s, %s: order and repetition do not matter, the version does", one.Digest(), same.Digest(), other.Digest())
	}
	if _, err := NewCapabilities("unknown", nil); failure.KindOf(err) != failure.Invalid {
		t.Errorf("%v: this is no version", err)
	}
	req := request(t, parent+"kubeVersion: \">=1.36.0\"\n-- c/templates/x.yaml --\n"+
		"apiVersion: v1\nkind: Pod\nmetadata: {name: {{ .Capabilities.KubeVersion.Version }}-{{ .Capabilities.KubeVersion.Minor }}}\n")
	req.Capabilities = one
	r, err := Render(t.Context(), req)
	if err != nil || !strings.Contains(r.Manifest, "v1.36.3-gke.1-36") {
		t.Errorf("%v, %s: a vendor's version fits constraints as its Kubernetes does", err, r.Manifest)
	}
}

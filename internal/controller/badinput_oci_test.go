package controller

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
)

// What cannot be pulled is said to be so with one clear condition, and so it is on those who wait for it.
func TestOCIBadInput(t *testing.T) {
	t.Parallel()
	s, reg, refuses, forges, gone := newStage(t), ocitest.NewRegistry(t), ocitest.NewRegistry(t), ocitest.NewRegistry(t), ocitest.NewRegistry(t)
	good := reg.PushFiles("app", map[string]string{"a": "1"}, nil, "1.0.0", "latest")
	reg.Push("plain", ocitest.OCIArtifact{ConfigMediaType: ocitest.FluxConfigMediaType, Layers: []ocitest.OCILayer{{MediaType: "text/plain", Data: []byte("no archive")}}}, "latest")
	reg.Push("huge", ocitest.OCIArtifact{ConfigMediaType: ocitest.FluxConfigMediaType, Layers: []ocitest.OCILayer{
		{MediaType: ocitest.FluxContentMediaType, Data: testkit.TarGz(t, map[string]string{"a": strings.Repeat("0", 101<<20)})},
	}}, "latest")
	refuses.Refuse(http.StatusServiceUnavailable)
	forged := forges.PushFiles("app", map[string]string{"a": "1"}, nil, "latest")
	forges.SendOtherBytes("/manifests/"+forged, `{"schemaVersion":2}`)
	gone.Stop()
	rows := []struct {
		name, reason, url string
		change            func(*sourcev1.OCIRepositorySpec)
		want, word        string
		stalled           bool
	}{
		{"refuses", "it says what it answers", refuses.URL("app"), nil, sourcev1.OCIPullFailedReason, "503", false},
		{"gone", "nobody answers", gone.URL("app"), nil, sourcev1.OCIPullFailedReason, "refused", false},
		{"forges", "it sends another digest", forges.URL("app"), nil, sourcev1.OCIPullFailedReason, "other bytes", false},
		{"no-repository", "nobody pushed it", reg.URL("none"), nil, sourcev1.OCIPullFailedReason, "404", false},
		{"no-tag", "nobody pushed it", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) { o.Reference = &sourcev1.OCIRepositoryRef{Tag: "v9"} }, sourcev1.OCIPullFailedReason, ":v9", false},
		{"no-version", "nothing matches", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) { o.Reference = &sourcev1.OCIRepositoryRef{SemVer: ">=9"} }, sourcev1.ReadOperationFailedReason, "none of 2 tags", false},
		{"no-range", "it cannot be read", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) { o.Reference = &sourcev1.OCIRepositoryRef{SemVer: "newest"} }, sourcev1.ReadOperationFailedReason, "newest", true},
		{"no-filter", "it cannot be read", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) {
			o.Reference = &sourcev1.OCIRepositoryRef{SemVer: "1.x", SemverFilter: "("}
		}, sourcev1.ReadOperationFailedReason, "filter", true},
		{"no-digest", "it is none", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) { o.Reference = &sourcev1.OCIRepositoryRef{Digest: "sha256:1"} }, sourcev1.OCIPullFailedReason, "no digest", true},
		{"no-layer", "no layer has the type", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) {
			o.LayerSelector = &sourcev1.OCILayerSelector{MediaType: "text/html"}
		}, sourcev1.OCILayerOperationFailedReason, ocitest.FluxContentMediaType, true},
		{"no-archive", "it cannot be extracted", reg.URL("plain"), nil, sourcev1.OCILayerOperationFailedReason, "gzip", true},
		{"huge", "there is a limit", reg.URL("huge"), nil, sourcev1.OCILayerOperationFailedReason, "104857600", true},
		{"address", "it has a tag", reg.URL("app") + ":v1", nil, sourcev1.URLInvalidReason, "tag", true},
		{"password", "that is for a Secret", "oci://ann:top-secret@ghcr.io/app", nil, sourcev1.URLInvalidReason, "Secret", true},
	}
	for _, row := range rows {
		s.ociSource(row.name, row.url, func(o *sourcev1.OCIRepositorySpec) {
			if row.change != nil {
				row.change(o)
			}
		})
		s.unit(row.name, fromOCI(row.name))
	}
	for _, row := range rows {
		o := s.awaitOCI(row.name, row.reason, func(o *sourcev1.OCIRepository) bool { return says(o, "False", row.want, row.word) })
		ready := report.Condition(o, meta.ReadyCondition)
		if c := report.Condition(o, sourcev1.FetchFailedCondition); c == nil || c.Status != metav1.ConditionTrue || c.Reason != row.want || strings.Contains(ready.Message, "\n") {
			t.Errorf("%s: conditions %s", row.name, standingOf(o))
		}
		if c := report.Condition(o, meta.StalledCondition); (c != nil) != row.stalled {
			t.Errorf("%s: stalled %v, want %t", row.name, c, row.stalled)
		}
		if strings.Contains(standingOf(o), "top-secret") {
			t.Errorf("%s: it shows the password", row.name)
		}
		s.awaitFailure(row.name, meta.ArtifactFailedReason, row.word)
	}
	edit(s, &sourcev1.OCIRepository{ObjectMeta: metav1.ObjectMeta{Name: "no-tag", Namespace: s.namespace}}, func(o *sourcev1.OCIRepository) { o.Spec.Reference.Tag = "1.0.0" })
	o := s.awaitPulled("no-tag", "1.0.0@"+good)
	if report.Condition(o, sourcev1.FetchFailedCondition) != nil || report.Condition(o, meta.StalledCondition) != nil {
		t.Errorf("conditions %s", standingOf(o))
	}
}

// An engine that starts while the registry is away goes on with what it had.
func TestOCIRestart(t *testing.T) {
	t.Parallel()
	one, reg, dir := testkit.Start(t), ocitest.NewRegistry(t), t.TempDir()
	s := stageOn(t, one.Config)
	on := func(o *Options) { o.DataDir = dir }
	before, err := startEngine(one.Config, dir, on)
	if err != nil {
		t.Fatal(err)
	}
	revision := "latest@" + reg.PushFiles("app", map[string]string{"app/a.yaml": configMap("a", "1"), "late/b.yaml": configMap("b", "1")}, nil, "latest")
	o := s.ociSource("app", reg.URL("app"))
	suspended := s.ociSource("suspended", reg.URL("app"))
	s.unit("app", fromOCI("app"))
	s.awaitLive("app", revision)
	s.awaitPulled("suspended", revision)
	edit(s, suspended, func(o *sourcev1.OCIRepository) { o.Spec.Suspend = true })
	if err := before.stop(); err != nil {
		t.Fatal(err)
	}
	reg.Stop()
	s.engine = engineFor(t, one.Config, on)
	s.awaitOCI("app", "not reached", func(o *sourcev1.OCIRepository) bool { return says(o, "False", sourcev1.OCIPullFailedReason) })
	s.unit("late", fromOCI("app"))
	s.awaitLive("late", revision)
	s.unit("later", fromOCI("suspended"))
	s.awaitFailure("later", "BuildFailed", "later") // it is no folder of it
	s.read(o)
	if o.Status.Artifact == nil || o.Status.Artifact.Revision != revision {
		t.Errorf("artifact %+v", o.Status.Artifact)
	}
}

// The identity of a workload at Google is a login at its registries, with the mirror of which the login goes along.
func TestOCIProvider(t *testing.T) {
	metadata := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Metadata-Flavor") != "Google" || !strings.HasSuffix(r.URL.Path, "/token") {
			http.Error(w, r.URL.String(), http.StatusNotFound)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"access_token":"google-token","expires_in":3600,"token_type":"Bearer"}`))
	}))
	t.Cleanup(metadata.Close)
	t.Setenv("GCE_METADATA_HOST", strings.TrimPrefix(metadata.URL, "http://"))
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
	t.Setenv("HOME", t.TempDir())
	one, reg := testkit.Start(t), ocitest.NewRegistry(t, ocitest.BasicAuth("oauth2accesstoken", "google-token"))
	digest := reg.PushFiles("mirror/project/app", map[string]string{"a": "1"}, nil, "latest")
	s := stageOn(t, one.Config)
	s.engine = engineFor(t, one.Config, func(o *Options) {
		o.Mirrors = []string{"oci://europe-docker.pkg.dev/=oci://" + reg.Host() + "/mirror/"}
	})
	s.ociSource("google", "oci://europe-docker.pkg.dev/project/app", func(o *sourcev1.OCIRepositorySpec) { o.Provider = sourcev1.GoogleOCIProvider })
	s.awaitPulled("google", "latest@"+digest)
	for _, row := range []struct{ name, reason, url, provider, word string }{
		{"google-elsewhere", "it is no registry of that cloud", reg.URL("app"), sourcev1.GoogleOCIProvider, "GCP"},
		{"aws-elsewhere", "it is no registry of that cloud", reg.URL("app"), sourcev1.AmazonOCIProvider, "AWS"},
		{"azure-elsewhere", "it is no registry of that cloud", reg.URL("app"), sourcev1.AzureOCIProvider, "Azure"},
	} {
		s.ociSource(row.name, row.url, func(o *sourcev1.OCIRepositorySpec) {
			o.Provider, o.Timeout = row.provider, &metav1.Duration{Duration: 5 * time.Second}
		})
		s.awaitOCI(row.name, row.reason, func(o *sourcev1.OCIRepository) bool {
			return says(o, "False", sourcev1.AuthenticationFailedReason, row.word)
		})
	}
}

// A HelmRelease takes its chart from a registry, extracted or as it is, and moves on with the newest
// version in the range.
func TestOCIHelmRelease(t *testing.T) {
	t.Parallel()
	s, reg := newStage(t), ocitest.NewRegistry(t)
	first := reg.PushChart("charts/web", chart("1.0.0", nil).Archive(t))
	for name, operation := range map[string]string{"extracted": sourcev1.OCILayerExtract, "copied": sourcev1.OCILayerCopy} {
		s.ociSource(name, reg.URL("charts/web"), func(o *sourcev1.OCIRepositorySpec) {
			o.Reference = &sourcev1.OCIRepositoryRef{SemVer: "1.x"}
			o.LayerSelector = &sourcev1.OCILayerSelector{MediaType: ocitest.ChartLayerMediaType, Operation: operation}
		})
		s.release(name, func(h *helmv2.HelmRelease) {
			h.Spec.ChartRef = &helmv2.CrossNamespaceSourceReference{Kind: sourcev1.OCIRepositoryKind, Name: name}
		})
	}
	for _, name := range []string{"extracted", "copied"} {
		h := s.awaitReleased(name, 1)
		if got := h.Status.History.Latest(); got.OCIDigest != first || s.config(name).Data["value"] != "one" {
			t.Errorf("%s: released %+v", name, got)
		}
	}
	second := reg.PushChart("charts/web", chart("1.1.0+b1", map[string]string{"values.yaml": "value: two\n"}).Archive(t))
	for _, name := range []string{"extracted", "copied"} {
		s.ask(&sourcev1.OCIRepository{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}})
		s.awaitPulled(name, "1.1.0_b1@"+second)
		h := s.awaitReleased(name, 2)
		if got := h.Status.History.Latest(); got.OCIDigest != second || s.config(name).Data["value"] != "two" {
			t.Errorf("%s: released %+v", name, got)
		}
	}
}

package oci_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/archive"
	"github.com/bowline-dev/bowline/internal/source/blob"
	"github.com/bowline-dev/bowline/internal/source/oci"
	"github.com/bowline-dev/bowline/internal/source/registry"
	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
)

func newStore(t *testing.T, dir string) *oci.Store { return newStoreAt(t, dir, nil) }

func newStoreAt(t *testing.T, dir string, now func() time.Time) *oci.Store {
	t.Helper()
	blobs, err := blob.Open(filepath.Join(dir, "blobs"), blob.Options{MaxBlobSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	client := registry.New(registry.Options{Blobs: blobs})
	t.Cleanup(client.Close)
	s, err := oci.New(oci.Options{Dir: filepath.Join(dir, "oci"), Client: client, Blobs: blobs, Limits: archive.Limits{MaxBytes: 1 << 20}, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func names(t *testing.T, tree source.Tree) string {
	t.Helper()
	var all []string
	err := fs.WalkDir(tree, ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, " ")
}

func TestFetch(t *testing.T) {
	reg := ocitest.NewRegistry(t)
	one := reg.PushFiles("app", map[string]string{"a.yaml": "1", "b.yaml": "1", ".sourceignore": "b.yaml\n", "l": "link:a.yaml"}, map[string]string{"org.opencontainers.image.revision": "main@sha1:x"}, "1.0.0")
	two := reg.PushFiles("app", map[string]string{"c.yaml": "2"}, nil, "1.2.0", "latest")
	many := reg.Push("many", ocitest.OCIArtifact{ConfigMediaType: ocitest.FluxConfigMediaType, Layers: []ocitest.OCILayer{
		{MediaType: "text/plain", Data: []byte("no archive")}, {MediaType: ocitest.FluxContentMediaType, Data: testkit.TarGz(t, map[string]string{"d.yaml": "3", "a.jpg": "4"})},
	}}, "latest")
	ignore := "!b.yaml\nc.yaml\n"
	for _, tc := range []struct {
		name, reason, repository string
		ref                      oci.Ref
		layer                    oci.Layer
		ignore                   *string
		revision, files          string
	}{
		{"none", "the tag latest", "app", oci.Ref{}, oci.Layer{}, nil, "latest@" + two, "c.yaml"},
		{"tag", "its ignore rules apply, and links are passed over", "app", oci.Ref{Tag: "1.0.0"}, oci.Layer{}, nil, "1.0.0@" + one, ".sourceignore a.yaml"},
		{"ignore", "that of the source comes last", "app", oci.Ref{Tag: "1.0.0"}, oci.Layer{}, &ignore, "1.0.0@" + one, ".sourceignore a.yaml b.yaml"},
		{"semver", "before a tag", "app", oci.Ref{SemVer: ">=1.0.0 <2", Tag: "1.0.0"}, oci.Layer{}, nil, "1.2.0@" + two, "c.yaml"},
		{"filter", "only those tags", "app", oci.Ref{SemVer: "1.x", SemVerFilter: `\.0\.0$`}, oci.Layer{}, nil, "1.0.0@" + one, ".sourceignore a.yaml"},
		{"digest", "before all else", "app", oci.Ref{Digest: one, SemVer: "1.x"}, oci.Layer{}, nil, one, ".sourceignore a.yaml"},
		{"layer", "the first of its type", "many", oci.Ref{}, oci.Layer{MediaType: ocitest.FluxContentMediaType}, nil, "latest@" + many, "d.yaml"},
		{"copy", "as it is", "many", oci.Ref{}, oci.Layer{MediaType: ocitest.FluxContentMediaType, Copy: true}, &ignore, "latest@" + many, "a.jpg d.yaml"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a, err := newStore(t, t.TempDir()).Fetch(t.Context(), oci.Request{URL: reg.URL(tc.repository), Ref: tc.ref, Layer: tc.layer, Ignore: tc.ignore, For: tc.name})
			if err != nil {
				t.Fatal(err)
			}
			if got := names(t, a.Tree); a.Revision != tc.revision || got != tc.files {
				t.Errorf("%s: %s with %s, want %s with %s", tc.reason, a.Revision, got, tc.revision, tc.files)
			}
			if (a.Packed != nil) != tc.layer.Copy {
				t.Errorf("packed: %v", a.Packed)
			}
			if strings.HasSuffix(tc.revision, one) && a.OriginRevision() != "main@sha1:x" {
				t.Errorf("metadata: %v", a.Metadata)
			}
		})
	}
}

// A layer that is copied is handed on to the byte, whatever is in it.
func TestCopy(t *testing.T) {
	reg := ocitest.NewRegistry(t)
	reg.Push("app", ocitest.OCIArtifact{ConfigMediaType: ocitest.FluxConfigMediaType, Layers: []ocitest.OCILayer{{MediaType: "text/plain", Data: []byte("no archive")}}}, "latest")
	a, err := newStore(t, t.TempDir()).Fetch(t.Context(), oci.Request{URL: reg.URL("app"), Layer: oci.Layer{Copy: true}})
	if err != nil {
		t.Fatal(err)
	}
	r, err := a.Packed.Open()
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil || string(data) != "no archive" || a.Digest != a.Packed.Digest {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := a.Tree.ReadFile("a"); failure.KindOf(err) != failure.Invalid || !strings.Contains(err.Error(), "gzip") {
		t.Errorf("error = %v", err)
	}
}

// What one has is asked for no more than has to be.
func TestNothingNew(t *testing.T) {
	reg := ocitest.NewRegistry(t)
	digest := reg.PushFiles("app", map[string]string{"a": "1"}, nil, "v1")
	s := newStore(t, t.TempDir())
	req := oci.Request{URL: reg.URL("app"), Ref: oci.Ref{Tag: "v1"}, For: "one"}
	fetch := func() source.Artifact {
		t.Helper()
		a, err := s.Fetch(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	before := fetch()
	for range 3 {
		fetch()
	}
	if n, m := reg.Asked(http.MethodGet, "/manifests/"), reg.Asked(http.MethodGet, "/blobs/"); n != 1 || m != 1 {
		t.Errorf("asked for %d manifests and %d layers, want one each", n, m)
	}
	req.For = "two" // the layer is here; that it may be read has to be asked
	if other := fetch(); other.Digest != before.Digest {
		t.Error("two contents of one layer")
	}
	if n, m := reg.Asked(http.MethodGet, "/manifests/"), reg.Asked(http.MethodGet, "/blobs/"); n != 2 || m != 1 {
		t.Errorf("asked for %d manifests and %d layers, want two and one", n, m)
	}
	req.Ref = oci.Ref{Digest: digest}
	all := len(reg.Requests())
	if fetch(); len(reg.Requests()) != all {
		t.Error("asked for what cannot change")
	}
}

// After a restart the last revision is at hand, for whom it was fetched.
func TestRecall(t *testing.T) {
	reg := ocitest.NewRegistry(t)
	reg.PushFiles("app", map[string]string{"a": "1"}, nil, "latest")
	dir := t.TempDir()
	req := oci.Request{URL: reg.URL("app"), For: "one"}
	a, err := newStore(t, dir).Fetch(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	reg.Stop()
	s := newStore(t, dir)
	b, err := s.Recall(t.Context(), req, a.Revision)
	if err != nil || b.Digest != a.Digest || b.Revision != a.Revision || names(t, b.Tree) != "a" {
		t.Errorf("recalled %s, %v", b.Revision, err)
	}
	for _, tc := range []struct {
		name, reason, revision string
		change                 func(*oci.Request)
	}{
		{"other revision", "it was not that", "latest@sha256:x", func(*oci.Request) {}},
		{"other source", "it is not for everybody", a.Revision, func(r *oci.Request) { r.For = "two" }},
		{"other address", "it is from elsewhere", a.Revision, func(r *oci.Request) { r.URL += "s" }},
		{"other layer", "it is another one", a.Revision, func(r *oci.Request) { r.Layer.Copy = true }},
	} {
		r := req
		tc.change(&r)
		if _, err := s.Recall(t.Context(), r, tc.revision); failure.KindOf(err) != failure.NotFound {
			t.Errorf("%s: %v: %s", tc.name, err, tc.reason)
		}
	}
	s.Forget("one")
	if _, err := newStore(t, dir).Recall(t.Context(), req, a.Revision); failure.KindOf(err) != failure.NotFound {
		t.Errorf("forgotten, and there: %v", err)
	}
}

// What nobody fetched for months is there after a restart, as of a source that is suspended; that of those who
// are gone goes in time.
func TestRecallAfterLong(t *testing.T) {
	reg := ocitest.NewRegistry(t)
	reg.PushFiles("app", map[string]string{"a": "1"}, nil, "latest", "new")
	dir, now := t.TempDir(), time.Now()
	clock := func() time.Time { return now }
	s := newStoreAt(t, dir, clock)
	var got []source.Artifact
	for _, who := range []string{"suspended", "gone"} {
		a, err := s.Fetch(t.Context(), oci.Request{URL: reg.URL("app"), For: who})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a)
	}
	now = now.Add(100 * 24 * time.Hour)
	s = newStoreAt(t, dir, clock)
	suspended := oci.Request{URL: reg.URL("app"), For: "suspended"}
	if _, err := s.Recall(t.Context(), suspended, got[0].Revision); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	now = now.Add(100 * 24 * time.Hour)
	if _, err := s.Fetch(t.Context(), oci.Request{URL: reg.URL("app"), Ref: oci.Ref{Tag: "new"}, For: "other"}); err != nil {
		t.Fatal(err)
	}
	s = newStoreAt(t, dir, clock)
	if _, err := s.Recall(t.Context(), suspended, got[0].Revision); err != nil {
		t.Errorf("in use, and removed: %v", err)
	}
	if _, err := s.Recall(t.Context(), oci.Request{URL: reg.URL("app"), For: "gone"}, got[1].Revision); failure.KindOf(err) != failure.NotFound {
		t.Errorf("of somebody who is gone, and there: %v", err)
	}
}

func TestBadArtifacts(t *testing.T) {
	reg := ocitest.NewRegistry(t)
	push := func(name string, layers ...ocitest.OCILayer) {
		reg.Push(name, ocitest.OCIArtifact{ConfigMediaType: ocitest.FluxConfigMediaType, Layers: layers}, "latest")
	}
	files := func(of map[string]string) ocitest.OCILayer {
		return ocitest.OCILayer{MediaType: ocitest.FluxContentMediaType, Data: testkit.TarGz(t, of)}
	}
	push("plain", ocitest.OCILayer{MediaType: "text/plain", Data: []byte("no archive")})
	push("empty")
	push("good", files(map[string]string{"a": "1"}))
	push("outside", files(map[string]string{"../a": "1"}))
	push("large", files(map[string]string{"a": strings.Repeat("1", 2<<20)}))
	push("huge", ocitest.OCILayer{MediaType: ocitest.FluxContentMediaType, Data: make([]byte, 2<<20)})
	unverified := errors.New("nobody vouches for it")
	for _, tc := range []struct {
		name, reason, url string
		change            func(*oci.Request)
		stage             oci.Stage
		kind              failure.Kind
		word              string
	}{
		{"not an archive", "it cannot be extracted", reg.URL("plain"), nil, oci.Reading, failure.Invalid, "gzip"},
		{"no layers", "there is nothing to read", reg.URL("empty"), nil, oci.Reading, failure.Invalid, "no layers"},
		{"no such layer", "the types are told", reg.URL("good"), func(r *oci.Request) { r.Layer.MediaType = "text/html" }, oci.Reading, failure.Invalid, ocitest.FluxContentMediaType},
		{"outside", "nothing leads outside", reg.URL("outside"), nil, oci.Reading, failure.Invalid, "outside"},
		{"large", "there is a limit", reg.URL("large"), nil, oci.Reading, failure.Invalid, "1048576"},
		{"huge", "there is a limit", reg.URL("huge"), nil, oci.Pulling, failure.Invalid, "1048576 bytes"},
		{"no version", "nothing matches", reg.URL("good"), func(r *oci.Request) { r.Ref.SemVer = ">=9" }, oci.Choosing, failure.NotFound, reg.URL("good")},
		{"no tag", "nothing matches", reg.URL("good"), func(r *oci.Request) { r.Ref.Tag = "v9" }, oci.Pulling, failure.NotFound, ":v9"},
		{"no such digest", "nothing matches", reg.URL("good"), func(r *oci.Request) { r.Ref.Digest = "sha256:" + strings.Repeat("a", 64) }, oci.Pulling, failure.NotFound, "aaaa"},
		{"no digest", "nothing could match", reg.URL("good"), func(r *oci.Request) { r.Ref.Digest = "sha256:a" }, oci.Pulling, failure.Invalid, "no digest"},
		{"address", "it has a tag", reg.URL("good") + ":v1", nil, oci.Addressing, failure.Invalid, "tag"},
		{"unverified", "it is not pulled", reg.URL("good"), func(r *oci.Request) {
			r.Verify = func(context.Context, *registry.Repository, string) (string, error) { return "", unverified }
		}, oci.Verifying, "", "vouches"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			req := oci.Request{URL: tc.url, Timeout: 10 * time.Second}
			if tc.change != nil {
				tc.change(&req)
			}
			_, err := newStore(t, t.TempDir()).Fetch(t.Context(), req)
			var staged *oci.Error
			if !errors.As(err, &staged) || staged.Stage != tc.stage || failure.KindOf(err) != tc.kind || !strings.Contains(err.Error(), tc.word) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: error = %v, of kind %s", tc.reason, err, failure.KindOf(err))
			}
		})
	}
}

package registry_test

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/blob"
	"github.com/bowline-dev/bowline/internal/source/reach"
	"github.com/bowline-dev/bowline/internal/source/registry"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
)

func newClient(t *testing.T, mirrors ...reach.Mirror) *registry.Client {
	t.Helper()
	blobs, err := blob.Open(filepath.Join(t.TempDir(), "blobs"), blob.Options{MaxBlobSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	c := registry.New(registry.Options{Blobs: blobs, Mirrors: mirrors})
	t.Cleanup(c.Close)
	return c
}

// pull does what a fetch does, and returns the digest and the first layer.
func pull(ctx context.Context, c *registry.Client, address, tag string, a registry.Access) (string, []byte, error) {
	r, err := c.Repository(address, a)
	if err != nil {
		return "", nil, err
	}
	digest, err := r.Resolve(ctx, tag)
	if err != nil {
		return "", nil, err
	}
	m, err := r.Manifest(ctx, digest)
	if err != nil {
		return digest, nil, err
	}
	b, err := r.Blob(ctx, m.Layers[0])
	if err != nil {
		return digest, nil, err
	}
	data, err := b.Bytes()
	return digest, data, err
}

func TestPull(t *testing.T) {
	plain := ocitest.NewRegistry(t)
	login := ocitest.NewRegistry(t, ocitest.BasicAuth("ann", "right"))
	secure := ocitest.NewRegistry(t, ocitest.TLS())
	mutual := ocitest.NewRegistry(t, ocitest.ClientCert())
	cert, key := mutual.ClientCert()
	keychain, err := registry.KeychainFromSecrets(map[string][]byte{".dockerconfigjson": []byte(login.DockerConfig("ann", "right"))})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, reason string
		of           *ocitest.Registry
		access       registry.Access
		want         failure.Kind
		word         string
	}{
		{"plain", "loopback needs no certificate", plain, registry.Access{}, "", ""},
		{"insecure", "it is said to be", plain, registry.Access{Insecure: true}, "", ""},
		{"login", "the Secret has it", login, registry.Access{Keychain: keychain}, "", ""},
		{"password", "whoever asks", login, registry.Access{Keychain: registry.Password("ann", "right")}, "", ""},
		{"no login", "it wants one", login, registry.Access{}, failure.Denied, "401"},
		{"wrong login", "it is not the right one", login, registry.Access{Keychain: registry.Password("ann", "not-this")}, failure.Denied, "401"},
		{"ca", "it vouches for the server", secure, registry.Access{TLS: reach.TLS{CA: secure.CA()}}, "", ""},
		{"unknown ca", "nobody vouches for it", secure, registry.Access{}, failure.Denied, "certSecretRef"},
		{"insecure certificate", "nobody needs to", secure, registry.Access{Insecure: true}, "", ""},
		{"client certificate", "it wants one", mutual, registry.Access{TLS: reach.TLS{CA: mutual.CA(), Cert: cert, Key: key}}, "", ""},
		{"no client certificate", "it wants one", mutual, registry.Access{TLS: reach.TLS{CA: mutual.CA()}}, failure.Denied, "client certificate"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			want := tc.of.PushFiles("team/app", map[string]string{"a": tc.name}, nil, "v1")
			digest, _, err := pull(t.Context(), newClient(t), tc.of.URL("team/app"), "v1", tc.access)
			if tc.want == "" {
				if err != nil || digest != want {
					t.Errorf("%s: %s, %v, want %s", tc.reason, digest, err, want)
				}
				return
			}
			check(t, err, tc.want, tc.word, tc.of.URL("team/app"))
			if strings.Contains(err.Error(), "not-this") {
				t.Errorf("it shows the password: %v", err)
			}
		})
	}
}

func check(t *testing.T, err error, kind failure.Kind, words ...string) {
	t.Helper()
	if !errors.Is(err, failure.Of(kind)) {
		t.Errorf("error = %v, of kind %s, want %s", err, failure.KindOf(err), kind)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error = %v, want %q in it", err, word)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error has many lines: %q", err)
	}
}

// What a registry does wrong, one clear error each.
func TestBadRegistry(t *testing.T) {
	reg := ocitest.NewRegistry(t)
	c := newClient(t)
	digest := reg.PushFiles("app", map[string]string{"a": "1"}, nil, "v1")
	layer := ""
	m, err := manifest(t, c, reg, digest)
	if err != nil {
		t.Fatal(err)
	}
	layer = m.Layers[0].Digest
	big := reg.Push("big", ocitest.OCIArtifact{ConfigMediaType: ocitest.FluxConfigMediaType, Layers: []ocitest.OCILayer{{MediaType: ocitest.FluxContentMediaType, Data: make([]byte, 2<<20)}}}, "v1")
	for _, tc := range []struct {
		name, reason  string
		bad           func()
		address, word string
		tag           string
		want          failure.Kind
	}{
		{"refuses", "it says what it answers", func() { reg.Refuse(http.StatusForbidden) }, "app", "403", "v1", failure.Denied},
		{"breaks", "its own fault", func() { reg.Refuse(http.StatusBadGateway) }, "app", "502", "v1", failure.Unavailable},
		{"too many", "to be asked less often", func() { reg.Refuse(http.StatusTooManyRequests) }, "app", "interval", "v1", failure.Unavailable},
		{"hangs", "given up at the timeout", func() { reg.Hang(true) }, "app", "within 300ms", "v1", failure.Timeout},
		{"other manifest", "not what was promised", func() { reg.SendOtherBytes("/manifests/"+digest, `{"schemaVersion":2}`) }, "app", "other bytes", "v1", failure.Unavailable},
		{"other layer", "not what was promised", func() { reg.SendOtherBytes("/blobs/"+layer, "something else") }, "app", "other bytes", "v1", failure.Unavailable},
		{"no tag", "nobody pushed it", func() {}, "app", ":v9", "v9", failure.NotFound},
		{"no repository", "nobody pushed it", func() {}, "none", "none", "v1", failure.NotFound},
		{"too large", "there is a limit", func() {}, "big", "1048576 bytes", "v1", failure.Invalid},
		{"not a tag", "no registry could have it", func() {}, "app", "no tag", "v 1", failure.Invalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.bad()
			defer func() { reg.Refuse(0); reg.Hang(false); reg.Intercept(nil) }()
			ctx, cancel := registry.WithTimeout(t.Context(), time.Minute)
			if tc.want == failure.Timeout {
				cancel()
				ctx, cancel = registry.WithTimeout(t.Context(), 300*time.Millisecond)
			}
			defer cancel()
			_, _, err := pull(ctx, newClient(t), reg.URL(tc.address), tc.tag, registry.Access{})
			check(t, err, tc.want, tc.word, "127.0.0.1")
		})
	}
	if big == digest {
		t.Error("two artifacts have one digest")
	}
	reg.Stop()
	_, _, err = pull(t.Context(), newClient(t), reg.URL("app"), "v1", registry.Access{})
	check(t, err, failure.Unavailable, "connection refused")
}

func manifest(t *testing.T, c *registry.Client, reg *ocitest.Registry, digest string) (*registry.Manifest, error) {
	t.Helper()
	r, err := c.Repository(reg.URL("app"), registry.Access{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Manifest(t.Context(), digest)
}

// A layer is downloaded once, whoever asks for it.
func TestBlobOnce(t *testing.T) {
	reg := ocitest.NewRegistry(t)
	reg.PushFiles("app", map[string]string{"a": "1"}, nil, "v1", "v2")
	c := newClient(t)
	done := make(chan error)
	const many = 8
	for range many {
		go func() {
			_, _, err := pull(t.Context(), c, reg.URL("app"), "v1", registry.Access{})
			done <- err
		}()
	}
	for range many {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if n := reg.Asked(http.MethodGet, "/blobs/"); n != 1 {
		t.Errorf("downloaded %d times, want once", n)
	}
}

// Somebody with a proxy of his own can be answered by whom he likes, in the name of any registry: he gets what comes
// from there, and not what others have got from the registry by that name.
func TestBlobByAnotherWay(t *testing.T) {
	reg := ocitest.NewRegistry(t)
	reg.PushFiles("app", map[string]string{"a": "private"}, nil, "v1")
	c := newClient(t)
	proxy, err := url.Parse("http://" + reg.Host())
	if err != nil {
		t.Fatal(err)
	}
	secret := &url.URL{Scheme: proxy.Scheme, Host: proxy.Host, User: url.UserPassword("ann", "secret")}
	for _, tc := range []struct {
		name, reason string
		access       registry.Access
		downloads    int
	}{
		{"plain", "it is not here", registry.Access{}, 1},
		{"plain again", "it is here", registry.Access{}, 1},
		{"insecure", "anybody may answer", registry.Access{Insecure: true}, 2},
		{"proxy", "the proxy may answer", registry.Access{Proxy: proxy}, 3},
		{"proxy with a login", "it is the same proxy", registry.Access{Proxy: secret}, 3},
		{"authority", "whom it vouches for may answer", registry.Access{TLS: reach.TLS{CA: ocitest.NewRegistry(t, ocitest.TLS()).CA()}}, 4},
	} {
		if _, _, err := pull(t.Context(), c, reg.URL("app"), "v1", tc.access); err != nil {
			t.Errorf("%s: %v", tc.name, err)
		}
		if n := reg.Asked(http.MethodGet, "/blobs/"); n != tc.downloads {
			t.Errorf("%s: downloaded %d times, want %d: %s", tc.name, n, tc.downloads, tc.reason)
		}
	}
}

func TestMirror(t *testing.T) {
	reg := ocitest.NewRegistry(t, ocitest.BasicAuth("ann", "right"))
	want := reg.PushFiles("cache/org/app", map[string]string{"a": "1"}, nil, "v1")
	for _, tc := range []struct{ name, reason, to, login string }{
		{"oci", "the same prefix", "oci://" + reg.Host() + "/cache/", "ghcr.io"},
		{"http", "says that it is not encrypted", "http://" + reg.Host() + "/cache/", "ghcr.io"},
		{"own login", "that for the mirror", "oci://" + reg.Host() + "/cache/", reg.Host()},
	} {
		keychain, err := registry.KeychainFromSecrets(map[string][]byte{".dockerconfigjson": []byte(`{"auths":{"` + tc.login + `":{"username":"ann","password":"right"}}}`)})
		if err != nil {
			t.Fatal(err)
		}
		c := newClient(t, reach.Mirror{From: "https://ghcr.io/", To: "https://nowhere/"}, reach.Mirror{From: "oci://", To: "oci://127.0.0.1:1/"}, reach.Mirror{From: "oci://ghcr.io/", To: tc.to})
		digest, _, err := pull(t.Context(), c, "oci://ghcr.io/org/app", "v1", registry.Access{Keychain: keychain})
		if err != nil || digest != want {
			t.Errorf("%s: %s, %v", tc.name, digest, err)
		}
		_, _, err = pull(t.Context(), c, "oci://ghcr.io/org/app", "v2", registry.Access{Keychain: keychain})
		check(t, err, failure.NotFound, "mirror of oci://ghcr.io/org/app")
	}
}

// Private addresses are no reason to talk without encryption; only loopback and the user's word are.
func TestUnencrypted(t *testing.T) {
	for _, tc := range []struct {
		name, reason, host string
		access             registry.Access
		refused            bool
	}{
		{"private", "who is there is not known", "10.0.0.1:5000", registry.Access{}, true},
		{"public", "who is between is not known", "registry.example.com", registry.Access{}, true},
		{"insecure", "the user says so", "127.0.0.1:1", registry.Access{Insecure: true}, false},
		{"loopback", "nobody is between", "127.0.0.1:1", registry.Access{}, false},
		{"not loopback", "it only begins so", "localhost.example.com", registry.Access{}, true},
	} {
		r, err := newClient(t).Repository("oci://"+tc.host+"/app", tc.access)
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:1/", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := r.Transport().RoundTrip(req)
		if err == nil {
			_ = answer.Body.Close()
			t.Fatal("somebody answers at port 1")
		}
		if refused := strings.Contains(err.Error(), "without encryption"); refused != tc.refused {
			t.Errorf("%s: %v: %s", tc.name, err, tc.reason)
		}
	}
}

func TestAddresses(t *testing.T) {
	for _, tc := range []struct{ name, reason, address string }{
		{"scheme", "it is another one", "https://ghcr.io/app"},
		{"no path", "it names no repository", "oci://ghcr.io"},
		{"tag", "that is for the reference", "oci://ghcr.io/app:v1"},
		{"digest", "that is for the reference", "oci://ghcr.io/app@sha256:" + strings.Repeat("a", 64)},
		{"password", "that is for a Secret", "oci://ann:top-secret@ghcr.io/app"},
		{"letters", "no registry has such", "oci://ghcr.io/App"},
	} {
		_, err := newClient(t).Repository(tc.address, registry.Access{})
		check(t, err, failure.Invalid, "oci://host/path")
		if !errors.Is(err, registry.ErrAddress) || strings.Contains(err.Error(), "top-secret") {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestNewest(t *testing.T) {
	tags := []string{"latest", "v1", "1.0.0", "v1.2.0", "1.10.0", "2.0.0-rc.1", "1.11.0_5", "1.9.0-dev"}
	for _, tc := range []struct {
		name, reason, within, filter string
		charts                       bool
		want                         string
		kind                         failure.Kind
	}{
		{"range", "numbers are compared as numbers", "1.x", "", false, "1.10.0", ""},
		{"chart", "an underscore is a plus", "1.x", "", true, "1.11.0_5", ""},
		{"prerelease", "only if the range names one", ">=2.0.0-0", "", false, "2.0.0-rc.1", ""},
		{"filter", "of those that match", ">=0.0.0-0", "^1.*-dev$", false, "1.9.0-dev", ""},
		{"prefix", "a v is no part of it", "~1.2", "", false, "v1.2.0", ""},
		{"none", "nothing is there", ">=3", "", false, "", failure.NotFound},
		{"no range", "it cannot be read", "newest", "", false, "", failure.Invalid},
		{"no filter", "it cannot be read", "1.x", "(", false, "", failure.Invalid},
	} {
		got, err := registry.Newest(tags, tc.within, tc.filter, tc.charts)
		if got != tc.want || failure.KindOf(err) != tc.kind {
			t.Errorf("%s: %q, %v, want %q: %s", tc.name, got, err, tc.want, tc.reason)
		}
	}
}

func TestSecrets(t *testing.T) {
	for _, tc := range []struct {
		name, reason string
		data         map[string][]byte
		key          string
	}{
		{"none", "there is nothing to read", nil, ".dockerconfigjson"},
		{"no JSON", "it cannot be read", map[string][]byte{".dockerconfigjson": []byte("top-secret")}, ".dockerconfigjson"},
		{"no login", "it cannot be decoded", map[string][]byte{".dockerconfigjson": []byte(`{"auths":{"a":{"auth":"top-secret"}}}`)}, ".dockerconfigjson"},
	} {
		_, err := registry.KeychainFromSecrets(tc.data)
		check(t, err, failure.Invalid, tc.key)
		if strings.Contains(err.Error(), "top-secret") {
			t.Errorf("%s: it shows the value: %v", tc.name, err)
		}
	}
	for _, data := range []map[string][]byte{nil, {"ca.crt": []byte("top-secret")}, {"tls.crt": []byte("x")}, {"tls.crt": []byte("x"), "tls.key": []byte("top-secret")}} {
		_, err := reach.TLSFromSecret("spec.certSecretRef", data)
		check(t, err, failure.Invalid, "correct the Secret")
		if strings.Contains(err.Error(), "top-secret") {
			t.Errorf("it shows the value: %v", err)
		}
	}
	for _, data := range []map[string][]byte{nil, {"address": []byte("top-secret")}} {
		if _, err := reach.ProxyFromSecret(data); failure.KindOf(err) != failure.Invalid || strings.Contains(err.Error(), "top-secret") {
			t.Errorf("error = %v", err)
		}
	}
}

// The login for the longest address wins, and a star stands for one part of a host.
func TestLogins(t *testing.T) {
	config := `{"auths":{"*.example.com":{"username":"star","password":"x"},"a.example.com/team":{"username":"team","password":"x"},
		"https://index.docker.io/v1/":{"username":"hub","password":"x"},"b.example.com:5000":{"auth":"YW5uOng="}}}`
	keychain, err := registry.KeychainFromSecrets(map[string][]byte{".dockerconfigjson": []byte(config)})
	if err != nil {
		t.Fatal(err)
	}
	for address, want := range map[string]string{
		"oci://a.example.com/team/app": "team", "oci://a.example.com/teams/app": "star", "oci://c.example.com/app": "star",
		"oci://c.d.example.com/app": "", "oci://docker.io/library/app": "hub", "oci://b.example.com:5000/app": "ann", "oci://other.io/app": "",
	} {
		r, err := newClient(t).Repository(address, registry.Access{})
		if err != nil {
			t.Fatal(err)
		}
		found, err := keychain.Resolve(r.Name())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := found.Authorization(); err != nil || got.Username != want {
			t.Errorf("%s: %q, %v, want %q", address, got.Username, err, want)
		}
	}
}

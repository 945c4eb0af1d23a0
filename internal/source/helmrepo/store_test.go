package helmrepo_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/chart"
	"github.com/bowline-dev/bowline/internal/source/helmrepo"
	"github.com/bowline-dev/bowline/internal/source/reach"
	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/charttest"
)

func podinfo(version string) testkit.Chart {
	return testkit.Chart{Name: "podinfo", Version: version, Files: map[string]string{"values.yaml": "a: 1\n"}}
}

func open(t *testing.T, dir string, change func(*helmrepo.Options)) *helmrepo.Store {
	t.Helper()
	charts, err := chart.NewStore(filepath.Join(dir, "archives"))
	if err != nil {
		t.Fatal(err)
	}
	o := helmrepo.Options{Dir: filepath.Join(dir, "repositories"), Charts: charts}
	if change != nil {
		change(&o)
	}
	s, err := helmrepo.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// pick fetches the index and the newest version of podinfo.
func pick(t *testing.T, s *helmrepo.Store, req helmrepo.Request) (chart.Chart, error) {
	t.Helper()
	index, err := s.Fetch(t.Context(), req)
	if err != nil {
		return chart.Chart{}, err
	}
	versions, err := index.Versions("podinfo")
	if err != nil {
		return chart.Chart{}, err
	}
	v, err := chart.Pick("podinfo", versions, "")
	if err != nil {
		return chart.Chart{}, err
	}
	return s.Chart(t.Context(), req, "podinfo", v)
}

func TestFetchAndDownloadOnce(t *testing.T) {
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0"), podinfo("1.1.0"), podinfo("2.0.0-rc.1")})
	dir := t.TempDir()
	s := open(t, dir, nil)
	req := helmrepo.Request{URL: server.URL()}
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			c, err := pick(t, s, req)
			if err != nil || c.Version != "1.1.0" {
				t.Errorf("%v %+v", err, c.Metadata)
			}
		})
	}
	wait.Wait()
	if n := server.Asked(".tgz"); n != 1 {
		t.Errorf("%d downloads for one chart", n)
	}
	plain := 0
	for _, r := range server.Requests() {
		if strings.HasSuffix(r.Path, "/index.yaml") && !r.Conditional {
			plain++
		}
	}
	if plain != 1 {
		t.Errorf("%d requests for the index were not conditional", plain)
	}
	// Another process: nothing is sent again.
	s = open(t, dir, nil)
	c, err := pick(t, s, req)
	if err != nil {
		t.Fatal(err)
	}
	requests := server.Requests()
	if last := requests[len(requests)-1]; last.Status != http.StatusNotModified || server.Asked(".tgz") != 1 {
		t.Errorf("after a restart: %+v, %d downloads", last, server.Asked(".tgz"))
	}
	if text, err := c.Tree.ReadFile("podinfo/values.yaml"); err != nil || string(text) != "a: 1\n" {
		t.Errorf("%q %v", text, err)
	}
	server.Add(podinfo("1.2.0"))
	if c, err = pick(t, s, req); err != nil || c.Version != "1.2.0" {
		t.Errorf("a new index is not noticed: %v %+v", err, c.Metadata)
	}
}

func TestServersWithoutMarks(t *testing.T) {
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")}, charttest.Plain())
	s := open(t, t.TempDir(), nil)
	first, err := s.Fetch(t.Context(), helmrepo.Request{URL: server.URL() + "/"})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Fetch(t.Context(), helmrepo.Request{URL: server.URL() + "/"}); err != nil || again != first {
		t.Errorf("%v %+v", err, again)
	}
}

func TestCredentials(t *testing.T) {
	elsewhere := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")})
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")}, charttest.BasicAuth("ann", "secret"))
	s := open(t, t.TempDir(), nil)
	auth := helmrepo.Auth{Username: "ann", Password: "secret"}
	if _, err := pick(t, s, helmrepo.Request{URL: server.URL()}); !errors.Is(err, failure.Of(failure.Denied)) {
		t.Errorf("without credentials: %v", err)
	}
	req := helmrepo.Request{URL: server.URL(), Auth: auth, For: "ann's"}
	if _, err := pick(t, s, req); err != nil {
		t.Fatal(err)
	}
	if _, err := pick(t, s, helmrepo.Request{URL: server.URL(), Auth: helmrepo.Auth{Username: "bob", Password: "x"}, For: "bob's"}); !errors.Is(err, failure.Of(failure.Denied)) {
		t.Errorf("what ann's credentials opened was shown to bob: %v", err)
	}
	inURL := strings.Replace(server.URL(), "://", "://ann:secret@", 1)
	if _, err := pick(t, s, helmrepo.Request{URL: inURL}); err != nil {
		t.Errorf("credentials in the URL: %v", err)
	}
	server.Index(elsewhere.URL())
	for _, pass := range []bool{false, true} {
		req.PassCredentials, req.For = pass, "other"
		if _, err := pick(t, s, req); err != nil {
			t.Fatal(err)
		}
		requests := elsewhere.Requests()
		if got := requests[len(requests)-1].Authorization != ""; got != pass {
			t.Errorf("passCredentials %t: credentials sent to another host: %t", pass, got)
		}
	}
}

func TestRedirects(t *testing.T) {
	elsewhere := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")})
	server := httptest.NewServer(http.RedirectHandler(elsewhere.URL()+"/index.yaml", http.StatusFound))
	t.Cleanup(server.Close)
	s := open(t, t.TempDir(), nil)
	for _, pass := range []bool{false, true} {
		req := helmrepo.Request{URL: server.URL, Auth: helmrepo.Auth{Username: "ann", Password: "secret"}, PassCredentials: pass, For: "x"}
		if _, err := s.Fetch(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		requests := elsewhere.Requests()
		if got := requests[len(requests)-1].Authorization != ""; got != pass {
			t.Errorf("passCredentials %t: credentials sent along: %t", pass, got)
		}
	}
}

func TestTLS(t *testing.T) {
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")}, charttest.ClientCert())
	cert, key := server.ClientCert()
	s := open(t, t.TempDir(), nil)
	tests := []struct {
		name, reason  string
		secret, certs map[string][]byte
		want          failure.Kind
	}{
		{"nothing", "nobody vouches for the server", nil, nil, failure.Denied},
		{"no certificate", "the server asks for one", nil, map[string][]byte{"ca.crt": server.CA()}, failure.Denied},
		{"certificate", "both sides are content", nil, map[string][]byte{"ca.crt": server.CA(), "tls.crt": cert, "tls.key": key}, ""},
		{"old keys", "the older way is still good", map[string][]byte{"caFile": server.CA(), "certFile": cert, "keyFile": key}, nil, ""},
		{"precedence", "certSecretRef counts where both are there", map[string][]byte{"caFile": []byte("x")}, map[string][]byte{"ca.crt": server.CA(), "tls.crt": cert, "tls.key": key}, ""},
		{"half", "a certificate without its key is a mistake", nil, map[string][]byte{"tls.crt": cert}, failure.Invalid},
		{"half a login", "so is a user without a password", map[string][]byte{"username": []byte("x")}, nil, failure.Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			auth, err := helmrepo.AuthFromSecrets(tt.secret, tt.certs)
			if err == nil {
				_, err = pick(t, s, helmrepo.Request{URL: server.URL(), Auth: auth, For: tt.name})
			}
			if failure.KindOf(err) != tt.want {
				t.Errorf("%s: got %v, want %q", tt.reason, err, tt.want)
			}
		})
	}
}

func TestMirrors(t *testing.T) {
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")})
	server.Index("https://charts.invalid/stable")
	s := open(t, t.TempDir(), func(o *helmrepo.Options) {
		o.Mirrors = []reach.Mirror{{From: "https://charts.invalid/", To: "http://127.0.0.1:1/"}, {From: "https://charts.invalid/stable", To: server.URL()}}
	})
	if _, err := pick(t, s, helmrepo.Request{URL: "https://charts.invalid/stable"}); err != nil {
		t.Error(err)
	}
	_, err := pick(t, s, helmrepo.Request{URL: "https://charts.invalid/other", Timeout: time.Second})
	if err == nil || !strings.Contains(err.Error(), "mirror of https://charts.invalid/other") {
		t.Errorf("the message does not name the mirror: %v", err)
	}
}

func TestBadServers(t *testing.T) {
	tests := []struct {
		name, reason string
		fault        func(*charttest.Server)
		want         failure.Kind
		says         string
	}{
		{"gone", "nobody listens", (*charttest.Server).Stop, failure.Unavailable, "check that the server is up"},
		{"hangs", "it accepts and says nothing", func(s *charttest.Server) { s.Hang(true) }, failure.Timeout, "raise spec.timeout"},
		{"error", "it is broken", func(s *charttest.Server) { s.Refuse("", 500) }, failure.Unavailable, "500"},
		{"no index", "the URL is another's", func(s *charttest.Server) { s.Refuse("/index.yaml", 404) }, failure.NotFound, "check the URL"},
		{"broken index", "the line is named", func(s *charttest.Server) { s.Write("index.yaml", []byte("apiVersion: v1\nentries:\n  a: b\n")) }, failure.Invalid, "line 3"},
		{"huge index", "it is not read to its end", func(s *charttest.Server) { s.Write("index.yaml", make([]byte, 2<<20)) }, failure.Invalid, "more than 1048576 bytes"},
		{"no chart", "the index knows others", func(s *charttest.Server) {
			_ = os.Remove(filepath.Join(s.Root(), "podinfo-1.0.0.tgz"))
			s.Add(testkit.Chart{Name: "podinfos", Version: "1.0.0"})
		}, failure.NotFound, "there is podinfos"},
		{"other bytes", "not what the index promised", func(s *charttest.Server) { s.Write("podinfo-1.0.0.tgz", podinfo("1.0.1").Archive(t)) }, failure.Unavailable, "the index promises"},
		{"archive is gone", "the index is ahead of it", func(s *charttest.Server) { s.Refuse("/podinfo-1.0.0.tgz", 404) }, failure.NotFound, "podinfo-1.0.0.tgz"},
		{"no archive", "an error page", func(s *charttest.Server) {
			index(s, "podinfo-1.0.0.tgz")
			s.Write("podinfo-1.0.0.tgz", []byte("<html>"))
		}, failure.Invalid, "gzip"},
		{"no chart in it", "any archive will not do", func(s *charttest.Server) {
			index(s, "x.tgz")
			s.Write("x.tgz", testkit.TarGz(t, map[string]string{"a/b": "c"}))
		}, failure.Invalid, "Chart.yaml"},
		{"paths", "nothing leads outside", func(s *charttest.Server) {
			index(s, "x.tgz")
			s.Write("x.tgz", testkit.TarGz(t, map[string]string{"podinfo/Chart.yaml": "", "podinfo/../../b": "c"}))
		}, failure.Invalid, "leads outside"},
		{"links", "an archive has none", func(s *charttest.Server) {
			index(s, "x.tgz")
			s.Write("x.tgz", testkit.TarGz(t, map[string]string{"podinfo/Chart.yaml": "link:/etc/passwd"}))
		}, failure.Invalid, "links"},
		{"bomb", "small on the way, large here", func(s *charttest.Server) {
			index(s, "x.tgz")
			s.Write("x.tgz", testkit.TarGz(t, map[string]string{"podinfo/Chart.yaml": "name: podinfo\nversion: 1.0.0\n", "podinfo/b": strings.Repeat("\x00", chart.MaxFile+1)}))
		}, failure.Invalid, "more than the limit"},
		{"no URL", "nowhere to get it", func(s *charttest.Server) {
			s.Write("index.yaml", []byte("apiVersion: v1\nentries:\n  podinfo:\n  - version: 1.0.0\n"))
		}, failure.Invalid, "no URL"},
		{"odd URL", "files of this machine are no charts", func(s *charttest.Server) { index(s, "file:///etc/passwd") }, failure.Invalid, `the scheme is "file"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")})
			tt.fault(server)
			s := open(t, t.TempDir(), func(o *helmrepo.Options) { o.MaxIndex = 1 << 20 })
			req := helmrepo.Request{URL: server.URL()}
			if tt.want == failure.Timeout {
				req.Timeout = 500 * time.Millisecond
			}
			_, err := pick(t, s, req)
			if failure.KindOf(err) != tt.want || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: got %q (%s), want %s with %q", tt.reason, err, failure.KindOf(err), tt.want, tt.says)
			}
		})
	}
}

// index writes an index with one version, whose digest is not promised.
func index(s *charttest.Server, url string) {
	s.Write("index.yaml", []byte("apiVersion: v1\nentries:\n  podinfo:\n  - version: 1.0.0\n    urls:\n    - "+url+"\n"))
}

func TestRecallAndSweep(t *testing.T) {
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")})
	dir := t.TempDir()
	req := helmrepo.Request{URL: server.URL()}
	got, err := open(t, dir, nil).Fetch(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	server.Stop()
	s := open(t, dir, nil)
	if again, err := s.Recall(req, got.Digest); err != nil || again != got {
		t.Errorf("%v %+v", err, again)
	}
	if _, err := s.Recall(helmrepo.Request{URL: server.URL(), For: "x", Auth: helmrepo.Auth{Username: "x", Password: "y"}}, got.Digest); !errors.Is(err, failure.Of(failure.NotFound)) {
		t.Errorf("recalled for somebody who was never given it: %v", err)
	}
	later := time.Now().Add(100 * time.Hour)
	if err := s.Sweep(later, time.Hour, func(digest string) bool { return digest == got.Digest }); err != nil {
		t.Fatal(err)
	}
	if _, err := got.Versions("podinfo"); err != nil {
		t.Errorf("an index in use was removed: %v", err)
	}
	if err := s.Sweep(later, time.Hour, func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recall(req, got.Digest); !errors.Is(err, failure.Of(failure.NotFound)) {
		t.Errorf("an index that nobody uses stays: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "repositories", "*", "*")); err != nil || len(left) != 0 {
		t.Errorf("of what nobody uses, this is left: %v %v", left, err)
	}
}

// A process that ends while it keeps an index leaves some of its files; the next one makes the rest.
func TestKilledWhileKeeping(t *testing.T) {
	server := charttest.NewServer(t, []testkit.Chart{podinfo("1.0.0")})
	dir := t.TempDir()
	req := helmrepo.Request{URL: server.URL()}
	if _, err := open(t, dir, nil).Fetch(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "repositories", "indexes", "*"))
	if err != nil || len(files) != 3 {
		t.Fatalf("%v, %v", files, err)
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir, nil)
		var got helmrepo.Index
		for range 2 {
			if got, err = s.Fetch(t.Context(), req); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := os.Stat(file); err != nil {
			t.Errorf("it is not made again: %v", err)
		}
		if _, err := s.Recall(req, got.Digest); err != nil {
			t.Error(err)
		}
	}
}

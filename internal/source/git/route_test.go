package git_test

import (
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/source/reach"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMirrors(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("team/app")
	r.Commit(map[string]string{"a": "1"})
	s := newStore(t, git.Options{Mirrors: []reach.Mirror{
		{From: "https://github.com/", To: "http://127.0.0.1:1/"},
		{From: "https://github.com/team/", To: srv.URL() + "/team/"},
	}})
	a := mustFetch(t, s, git.Request{URL: "https://github.com/team/app.git", Ref: main})
	wantFile(t, a.Tree, "a", "1")
	err := fetchError(t, s, git.Request{URL: "https://user:pw@github.com/team/app.git", Ref: git.Ref{Branch: "x"}})
	wantError(t, err, failure.NotFound, r.URL(), "mirror of https://github.com/team/app.git")
	err = fetchError(t, s, git.Request{URL: "https://github.com/other/app.git", Ref: main})
	wantError(t, err, failure.Unavailable, "http://127.0.0.1:1/other/app.git", "https://github.com/other/app.git")
}

// proxy is a forward proxy for both plain requests and tunnels that asks for a password.
func proxy(t *testing.T) (address string, used func() int) {
	t.Helper()
	var mu sync.Mutex
	n := 0
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		check := &http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
		if user, password, _ := check.BasicAuth(); user != "p" || password != "w" {
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		}
		mu.Lock()
		n++
		mu.Unlock()
		if r.Method != http.MethodConnect {
			r.RequestURI = ""
			r.Header.Del("Proxy-Authorization")
			resp, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			defer func() { _ = resp.Body.Close() }()
			w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
			w.WriteHeader(resp.StatusCode)
			_, _ = io.Copy(w, resp.Body)
			return
		}
		far, err := net.Dial("tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		near, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(near, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(far, near); _ = far.Close() }()
		_, _ = io.Copy(near, far)
		_ = near.Close()
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func() int { mu.Lock(); defer mu.Unlock(); return n }
}

func TestProxy(t *testing.T) {
	srv := testkit.NewGitServer(t, testkit.GitSSH())
	tlsServer := testkit.NewGitServer(t, testkit.GitTLS())
	for _, tc := range []struct {
		name, reason, url string
		secret            map[string][]byte
	}{
		{"http", "requests go to the proxy", repoWithFile(srv).URL(), nil},
		{"https", "through a tunnel", repoWithFile(tlsServer).URL(), map[string][]byte{"ca.crt": tlsServer.CA()}},
		{"ssh", "through a tunnel", repoWithFile(srv).SSHURL(), map[string][]byte{"identity": srv.SSHIdentity(""), "known_hosts": srv.SSHKnownHosts()}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			address, used := proxy(t)
			auth, err := git.AuthFromSecret(tc.url, tc.secret)
			if err != nil {
				t.Fatal(err)
			}
			p, err := reach.ProxyFromSecret(secret("address", address, "username", "p", "password", "w"))
			if err != nil {
				t.Fatal(err)
			}
			s := newStore(t, git.Options{})
			wantFile(t, mustFetch(t, s, git.Request{URL: tc.url, Ref: main, Auth: auth, Proxy: p}).Tree, "a", "1")
			if used() == 0 {
				t.Errorf("%s, but nothing came by", tc.reason)
			}
			p.User = url.UserPassword("p", "wrong-pass")
			err = fetchError(t, s, git.Request{URL: tc.url, Ref: main, Auth: auth, Proxy: p})
			if !strings.Contains(err.Error(), "proxy") && !strings.Contains(strings.ToLower(err.Error()), "proxy") || strings.Contains(err.Error(), "wrong-pass") {
				t.Errorf("error = %v", err)
			}
			wantError(t, err, failure.KindOf(err), "proxySecretRef")
		})
	}
}

func TestRedirects(t *testing.T) {
	far := testkit.NewGitServer(t)
	r := repoWithFile(far)
	target, err := url.Parse(far.URL())
	if err != nil {
		t.Fatal(err)
	}
	leaked := make(chan string, 100)
	// watch stands before the far server, at another port.
	watch := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked <- r.Header.Get("Authorization")
		httputil.NewSingleHostReverseProxy(target).ServeHTTP(w, r)
	}))
	t.Cleanup(watch.Close)
	near := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, _, _ := r.BasicAuth(); user != "ann" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, watch.URL+strings.Replace(r.URL.Path, "/old.git", "/app.git", 1)+"?"+r.URL.RawQuery, http.StatusMovedPermanently)
	}))
	t.Cleanup(near.Close)
	s := newStore(t, git.Options{})
	req := git.Request{URL: near.URL + "/old.git", Ref: main, Auth: git.Auth{Username: "ann", Password: "pw"}}
	wantFile(t, mustFetch(t, s, req).Tree, "a", "1")
	r.Commit(map[string]string{"a": "2"})
	wantFile(t, mustFetch(t, s, req).Tree, "a", "2")
	for range len(leaked) {
		if got := <-leaked; got != "" {
			t.Errorf("credentials went to another host: %q", got)
		}
	}

	secure := httptest.NewTLSServer(http.RedirectHandler(far.URL()+"/app.git/info/refs?service=git-upload-pack", http.StatusFound))
	t.Cleanup(secure.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	err = fetchError(t, s, git.Request{URL: secure.URL + "/app.git", Ref: main, Auth: git.Auth{TLS: reach.TLS{CA: ca}}})
	wantError(t, err, failure.Denied, "from https to http")
}

func repoWithFile(s *testkit.GitServer) *testkit.Repo {
	r := s.Repo("app")
	r.Commit(map[string]string{"a": "1"})
	return r
}

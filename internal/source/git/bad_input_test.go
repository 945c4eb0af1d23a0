package git_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/source/reach"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// fetchError fetches and returns the error.
func fetchError(t *testing.T, s *git.Store, req git.Request) error {
	t.Helper()
	a, err := s.Fetch(t.Context(), req)
	if err == nil {
		t.Fatalf("fetched %s", a.Revision)
	}
	return err
}

func TestMissingReferences(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	one := r.Commit(map[string]string{"a": "1"})
	r.Branch("dev", one)
	r.Tag("v1.0.0", one)
	s := newStore(t, git.Options{})
	for _, tc := range []struct {
		name, reason string
		ref          git.Ref
		kind         failure.Kind
		parts        []string
	}{
		{"branch", "names what there is instead", git.Ref{Branch: "mian"}, failure.NotFound, []string{r.URL(), "branch mian", "dev, main", "spec.ref.branch"}},
		{"default branch", "master is the default and often not there", git.Ref{}, failure.NotFound, []string{"branch master", "dev, main"}},
		{"tag", "", git.Ref{Tag: "v9"}, failure.NotFound, []string{"tag v9", "v1.0.0"}},
		{"semver", "no tag in the range", git.Ref{SemVer: ">=2"}, failure.NotFound, []string{`">=2"`, "v1.0.0", "spec.ref.semver"}},
		{"name", "", git.Ref{Name: "refs/pull/1/head"}, failure.NotFound, []string{"refs/pull/1/head"}},
		{"commit", "", git.Ref{Commit: strings.Repeat("12", 20)}, failure.NotFound, []string{strings.Repeat("12", 20), "spec.ref.commit"}},
		{"commit on missing branch", "", git.Ref{Branch: "mian", Commit: one}, failure.NotFound, []string{"branch mian"}},
		{"bad semver", "cannot be read at all", git.Ref{SemVer: "latest"}, failure.Invalid, []string{"semver", "latest"}},
		{"bad commit", "short hashes are not allowed", git.Ref{Commit: one[:7]}, failure.Invalid, []string{"commit", one[:7]}},
		{"line end in branch", "must not reach the protocol", git.Ref{Branch: "main\n0000"}, failure.Invalid, []string{"branch"}},
		{"space in name", "", git.Ref{Name: "refs/heads/a b"}, failure.Invalid, []string{"name"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			wantError(t, fetchError(t, s, git.Request{URL: r.URL(), Ref: tc.ref}), tc.kind, tc.parts...)
		})
	}
}

func TestDeletedBranchAndEmptyRepository(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	s := newStore(t, git.Options{})
	req := git.Request{URL: r.URL(), Ref: git.Ref{Branch: "dev"}}
	wantError(t, fetchError(t, s, req), failure.NotFound, r.URL(), "empty")
	wantError(t, fetchError(t, s, git.Request{URL: r.URL(), Ref: git.Ref{Commit: strings.Repeat("12", 20)}}), failure.NotFound, r.URL())
	r.Commit(map[string]string{"a": "1"})
	r.On("dev").Commit(map[string]string{"a": "2"})
	a := mustFetch(t, s, req)
	r.DeleteBranch("dev")
	wantError(t, fetchError(t, s, req), failure.NotFound, "branch dev", "main")
	wantFile(t, a.Tree, "a", "2")
	r.On("dev").Commit(map[string]string{"a": "3"})
	wantFile(t, mustFetch(t, s, req).Tree, "a", "3")
}

func TestServerTrouble(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	r.Commit(map[string]string{"a": "1"})
	s := newStore(t, git.Options{})
	req := git.Request{URL: r.URL(), Ref: main}
	a := mustFetch(t, s, req)
	for _, tc := range []struct {
		status int
		kind   failure.Kind
	}{
		{http.StatusInternalServerError, failure.Unavailable},
		{http.StatusBadGateway, failure.Unavailable},
		{http.StatusForbidden, failure.Denied},
		{http.StatusUnauthorized, failure.Denied},
		{http.StatusNotFound, failure.NotFound},
	} {
		srv.Refuse(tc.status)
		wantError(t, fetchError(t, s, req), tc.kind, r.URL(), http.StatusText(tc.status))
	}
	srv.Refuse(0)
	mustFetch(t, s, req)
	wantError(t, fetchError(t, s, git.Request{URL: srv.URL() + "/nothing.git", Ref: main}), failure.NotFound, "/nothing.git")
	srv.Stop()
	wantError(t, fetchError(t, s, req), failure.Unavailable, r.URL(), "refused")
	wantFile(t, a.Tree, "a", "1")
}

func TestUnreachable(t *testing.T) {
	s := newStore(t, git.Options{})
	err := fetchError(t, s, git.Request{URL: "https://user:secret-token@no-such-host.invalid/x.git", Ref: main})
	wantError(t, err, failure.Unavailable, "https://no-such-host.invalid/x.git", "DNS")
	if strings.Contains(err.Error(), "secret-token") || strings.Contains(err.Error(), "user") {
		t.Errorf("credentials are in %q", err)
	}
	for _, u := range []string{"ftp://host/x", "https:///x", "://", "/some/folder"} {
		wantError(t, fetchError(t, s, git.Request{URL: u, Ref: main}), failure.Invalid, "https://host/path")
	}
}

func TestNotAGitServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.URL.Path, "/html"):
			_, _ = w.Write([]byte("<html>Welcome"))
		case strings.HasPrefix(r.URL.Path, "/lies"):
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			_, _ = w.Write([]byte("hello, world"))
		default:
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			_, _ = w.Write([]byte("00"))
		}
	})}
	t.Cleanup(func() { _ = srv.Close() })
	go func() { _ = srv.Serve(l) }()
	s := newStore(t, git.Options{})
	for path, part := range map[string]string{"/html": "not the Git protocol", "/lies": "not the Git protocol", "/short": "broke off"} {
		wantError(t, fetchError(t, s, git.Request{URL: "http://" + l.Addr().String() + path, Ref: main}), failure.Unavailable, path, part)
	}
}

func TestBasicAndBearer(t *testing.T) {
	for _, tc := range []struct {
		name, reason string
		opt          testkit.GitOption
		good, bad    map[string][]byte
	}{
		{"basic", "user and password", testkit.GitBasicAuth("ann", "hunter2"), secret("username", "ann", "password", "hunter2"), secret("username", "ann", "password", "wrong-pass")},
		{"bearer", "token", testkit.GitBearer("tok3n"), secret("bearerToken", "tok3n"), secret("bearerToken", "wrong-pass")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := testkit.NewGitServer(t, tc.opt)
			r := srv.Repo("app")
			r.Commit(map[string]string{"a": "1"})
			s := newStore(t, git.Options{})
			fetch := func(data map[string][]byte) error {
				auth, err := git.AuthFromSecret(r.URL(), data)
				if err != nil {
					t.Fatal(err)
				}
				_, err = s.Fetch(t.Context(), git.Request{URL: r.URL(), Ref: main, Auth: auth})
				return err
			}
			if err := fetch(tc.good); err != nil {
				t.Fatal(err)
			}
			// What others may read is on disk now; it must not matter.
			for _, data := range []map[string][]byte{nil, tc.bad} {
				err := fetch(data)
				wantError(t, err, failure.Denied, r.URL(), "401", "secretRef")
				if strings.Contains(err.Error(), "wrong-pass") {
					t.Errorf("credentials are in %q", err)
				}
			}
		})
	}
	t.Run("in the URL", func(t *testing.T) {
		srv := testkit.NewGitServer(t, testkit.GitBasicAuth("ann", "hunter2"))
		r := srv.Repo("app")
		r.Commit(map[string]string{"a": "1"})
		mustFetch(t, newStore(t, git.Options{}), git.Request{URL: strings.Replace(r.URL(), "://", "://ann:hunter2@", 1), Ref: main})
	})
}

func secret(kv ...string) map[string][]byte {
	m := map[string][]byte{}
	for i := 0; i < len(kv); i += 2 {
		m[kv[i]] = []byte(kv[i+1])
	}
	return m
}

func TestTLS(t *testing.T) {
	srv := testkit.NewGitServer(t, testkit.GitClientCert())
	r := srv.Repo("app")
	r.Commit(map[string]string{"a": "1"})
	cert, key := srv.ClientCert()
	other := testkit.NewGitServer(t, testkit.GitClientCert())
	otherCert, otherKey := other.ClientCert()
	ca := srv.CA()
	s := newStore(t, git.Options{})
	for _, tc := range []struct {
		name, reason string
		data         map[string][]byte
		kind         failure.Kind
		parts        []string
	}{
		{"good", "keys as kubectl create secret tls names them", map[string][]byte{"ca.crt": ca, "tls.crt": cert, "tls.key": key}, "", nil},
		{"old names", "as Flux first named them", map[string][]byte{"caFile": ca, "certFile": cert, "keyFile": key}, "", nil},
		{"no CA", "the server's own CA is unknown", map[string][]byte{"tls.crt": cert, "tls.key": key}, failure.Denied, []string{"ca.crt"}},
		{"other CA", "", map[string][]byte{"ca.crt": other.CA()}, failure.Denied, []string{"ca.crt"}},
		{"no client certificate", "the server wants one", map[string][]byte{"ca.crt": ca}, failure.Denied, []string{"tls.crt"}},
		{"other client certificate", "of another CA", map[string][]byte{"ca.crt": ca, "tls.crt": otherCert, "tls.key": otherKey}, failure.Denied, []string{"tls.crt"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			auth, err := git.AuthFromSecret(r.URL(), tc.data)
			if err != nil {
				t.Fatal(err)
			}
			_, err = s.Fetch(t.Context(), git.Request{URL: r.URL(), Ref: main, Auth: auth})
			if tc.kind != "" {
				wantError(t, err, tc.kind, append(tc.parts, r.URL())...)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSSH(t *testing.T) {
	srv := testkit.NewGitServer(t, testkit.GitSSH())
	r := srv.Repo("app")
	sha := r.Commit(map[string]string{"a": "1"})
	_, stranger, _ := ed25519.GenerateKey(rand.Reader)
	block, err := ssh.MarshalPrivateKey(stranger, "")
	if err != nil {
		t.Fatal(err)
	}
	strangerKey, err := ssh.NewPublicKey(stranger.Public())
	if err != nil {
		t.Fatal(err)
	}
	wrongHost := knownhosts.Line([]string{knownhosts.Normalize(srv.SSHAddr())}, strangerKey)
	otherHost := knownhosts.Line([]string{"git.example.com"}, strangerKey)
	hosts := srv.SSHKnownHosts()
	for _, tc := range []struct {
		name, reason string
		data         map[string][]byte
		kind         failure.Kind
		parts        []string
	}{
		{"good", "", map[string][]byte{"identity": srv.SSHIdentity(""), "known_hosts": hosts, "identity.pub": []byte("unused")}, "", nil},
		{"encrypted", "password decrypts the key", map[string][]byte{"identity": srv.SSHIdentity("pw"), "known_hosts": hosts, "password": []byte("pw")}, "", nil},
		{"unknown host", "the fingerprint is offered for checking", map[string][]byte{"identity": srv.SSHIdentity(""), "known_hosts": []byte(otherHost)}, failure.Denied, []string{srv.SSHFingerprint(), "known_hosts", r.SSHURL()}},
		{"changed host key", "may be an attack", map[string][]byte{"identity": srv.SSHIdentity(""), "known_hosts": []byte(wrongHost)}, failure.Denied, []string{srv.SSHFingerprint(), "known_hosts"}},
		{"stranger", "a key that the server does not know", map[string][]byte{"identity": pem.EncodeToMemory(block), "known_hosts": hosts}, failure.Denied, []string{"login"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStore(t, git.Options{})
			auth, err := git.AuthFromSecret(r.SSHURL(), tc.data)
			if err != nil {
				t.Fatal(err)
			}
			a, err := s.Fetch(t.Context(), git.Request{URL: r.SSHURL(), Ref: main, Auth: auth, Timeout: 10 * time.Second})
			switch {
			case tc.kind != "":
				wantError(t, err, tc.kind, tc.parts...)
			case err != nil:
				t.Error(err)
			case a.Revision != "main@sha1:"+sha:
				t.Errorf("revision %s", a.Revision)
			}
		})
	}
	auth, err := git.AuthFromSecret(r.SSHURL(), map[string][]byte{"identity": srv.SSHIdentity(""), "known_hosts": hosts})
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, git.Options{})
	err = fetchError(t, s, git.Request{URL: strings.Replace(r.SSHURL(), "app", "nothing", 1), Ref: main, Auth: auth})
	wantError(t, err, failure.NotFound, "nothing.git")
	req := git.Request{URL: r.SSHURL(), Ref: main, Auth: auth}
	mustFetch(t, s, req)
	wantError(t, fetchError(t, s, git.Request{URL: r.SSHURL(), Ref: git.Ref{Branch: "x"}, Auth: auth}), failure.NotFound, "branch x", "main")
	r.Commit(map[string]string{"a": "2"})
	wantFile(t, mustFetch(t, s, req).Tree, "a", "2")
	wantError(t, fetchError(t, s, git.Request{URL: r.SSHURL(), Ref: main}), failure.Invalid, "identity")
}

func TestSSHThatHangs(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	srv := testkit.NewGitServer(t, testkit.GitSSH())
	url := "ssh://git@" + l.Addr().String() + "/app.git"
	auth, err := git.AuthFromSecret(url, map[string][]byte{"identity": srv.SSHIdentity(""), "known_hosts": srv.SSHKnownHosts()})
	if err != nil {
		t.Fatal(err)
	}
	s := newStore(t, git.Options{})
	wantError(t, fetchError(t, s, git.Request{URL: url, Ref: main, Auth: auth, Timeout: 50 * time.Millisecond}), failure.Timeout, url)
}

func TestCallerGivesUp(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	srv.Hang(true)
	s := newStore(t, git.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := s.Fetch(ctx, git.Request{URL: r.URL(), Ref: main})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
}

func TestSecretMistakes(t *testing.T) {
	srv := testkit.NewGitServer(t, testkit.GitSSH())
	hosts := srv.SSHKnownHosts()
	plain, encrypted := srv.SSHIdentity(""), srv.SSHIdentity("pw")
	for _, tc := range []struct {
		name, reason, url string
		data              map[string][]byte
		key               string
	}{
		{"no known_hosts", "a host is never trusted blindly", "ssh://git@h/x", map[string][]byte{"identity": plain}, "known_hosts"},
		{"no identity", "", "ssh://git@h/x", map[string][]byte{"known_hosts": hosts}, "identity"},
		{"no secret", "SSH needs one", "ssh://git@h/x", nil, "identity"},
		{"identity is no key", "", "ssh://git@h/x", map[string][]byte{"identity": []byte("x"), "known_hosts": hosts}, "identity"},
		{"no passphrase", "", "ssh://git@h/x", map[string][]byte{"identity": encrypted, "known_hosts": hosts}, "password"},
		{"wrong passphrase", "", "ssh://git@h/x", map[string][]byte{"identity": encrypted, "known_hosts": hosts, "password": []byte("no")}, "password"},
		{"known_hosts is nonsense", "", "ssh://git@h/x", map[string][]byte{"identity": plain, "known_hosts": []byte("x")}, "known_hosts"},
		{"password alone", "", "https://h/x", secret("password", "p"), "username"},
		{"CA is nonsense", "", "https://h/x", secret("ca.crt", "x"), "ca.crt"},
		{"certificate without key", "", "https://h/x", secret("tls.crt", "x"), "tls.key"},
		{"pair is nonsense", "", "https://h/x", secret("tls.crt", "x", "tls.key", "y"), "tls.crt"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := git.AuthFromSecret(tc.url, tc.data)
			wantError(t, err, failure.Invalid, tc.key, "secretRef")
		})
	}
	for _, data := range []map[string][]byte{nil, secret("username", "x"), secret("address", "x"), secret("address", "ftp://x")} {
		_, err := reach.ProxyFromSecret(data)
		wantError(t, err, failure.Invalid, "address", "proxySecretRef")
	}
}

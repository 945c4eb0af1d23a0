package git_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/source/git/signature"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// trust makes a verification that trusts some keys.
func trust(t *testing.T, commit, tag bool, entries map[string][]byte) *git.Verification {
	t.Helper()
	keys, err := signature.ReadKeys("Secret/ns/keys", entries)
	if err != nil {
		t.Fatal(err)
	}
	return &git.Verification{Commit: commit, Tag: tag, Keys: keys}
}

// Commits and tags signed in every way, and what becomes of them.
func TestVerify(t *testing.T) {
	srv := testkit.NewGitServer(t)
	long := time.Now().Add(-48 * time.Hour)
	pgp, stranger := testkit.NewPGPSigner(t, long, 0), testkit.NewPGPSigner(t, long, 0)
	expired := testkit.NewPGPSigner(t, long, time.Hour)
	ssh, sshStranger, file := testkit.NewSSHSigner(t, "git"), testkit.NewSSHSigner(t, "git"), testkit.NewSSHSigner(t, "file")
	entries := map[string][]byte{
		"a.asc": pgp.Public, "old.asc": expired.Public, "readme": []byte("no key"),
		"b.sshpub": append(append([]byte("# a comment\n\n"), ssh.Public...), file.Public...),
	}
	type row struct {
		name, reason string
		make         func(r *testkit.Repo) git.Ref
		commit, tag  bool
		keys         map[string][]byte
		want         string   // the reason of the refusal, or "" for none
		words        []string // in the message of the refusal, or in what was verified
	}
	branch := func(by *testkit.Signer) func(r *testkit.Repo) git.Ref {
		return func(r *testkit.Repo) git.Ref {
			r.Commit(map[string]string{"f": "1"})
			if by != nil {
				r.SignCommit(by)
			}
			return main
		}
	}
	tagged := func(commitBy, tagBy *testkit.Signer) func(r *testkit.Repo) git.Ref {
		return func(r *testkit.Repo) git.Ref {
			branch(commitBy)(r)
			r.SignTag("v1.0.0", "main", tagBy)
			return git.Ref{Tag: "v1.0.0"}
		}
	}
	for _, tc := range []row{
		{name: "pgp", reason: "a trusted OpenPGP key", make: branch(pgp), commit: true, words: []string{"commit '", "with key '" + pgp.ID + "'"}},
		{name: "ssh", reason: "a trusted SSH key", make: branch(ssh), commit: true, words: []string{"with key '" + ssh.ID + "'"}},
		{name: "tag", reason: "the commit need not be signed", make: tagged(nil, pgp), tag: true, words: []string{"tag 'v1.0.0@", pgp.ID}},
		{name: "ssh-tag", reason: "tags may be signed with SSH too", make: tagged(nil, ssh), tag: true, words: []string{"tag 'v1.0.0@", ssh.ID}},
		{name: "both", reason: "each by another key", make: tagged(ssh, pgp), commit: true, tag: true, words: []string{"tag 'v1.0.0@", pgp.ID, "commit '", ssh.ID}},
		{name: "semver", reason: "a range finds a tag", tag: true, words: []string{pgp.ID}, make: func(r *testkit.Repo) git.Ref {
			tagged(nil, pgp)(r)
			return git.Ref{SemVer: "1.x"}
		}},
		{name: "tag-name", reason: "a tag by its full name is one too", tag: true, words: []string{pgp.ID}, make: func(r *testkit.Repo) git.Ref {
			tagged(nil, pgp)(r)
			return git.Ref{Name: "refs/tags/v1.0.0"}
		}},
		{name: "several-rings", reason: "any entry, and any ring in it", make: branch(pgp), commit: true, keys: map[string][]byte{
			"all": append(append([]byte{}, stranger.Public...), pgp.Public...),
		}, words: []string{pgp.ID}},
		{name: "no-suffix", reason: "an entry without a suffix holds OpenPGP keys", make: branch(pgp), commit: true,
			keys: map[string][]byte{"author": pgp.Public}, words: []string{pgp.ID}},
		{name: "unsigned", reason: "a commit without a signature", make: branch(nil), commit: true, want: git.ReasonInvalidCommit, words: []string{"not signed"}},
		{name: "stranger", reason: "a key that nobody trusts", make: branch(stranger), commit: true, want: git.ReasonInvalidCommit, words: []string{"none of the trusted keys", "readme"}},
		{name: "ssh-stranger", reason: "an SSH key that nobody trusts", make: branch(sshStranger), commit: true, want: git.ReasonInvalidCommit, words: []string{sshStranger.ID, "not trusted"}},
		{name: "expired", reason: "a trusted key that has expired", make: branch(expired), commit: true, want: git.ReasonInvalidCommit, words: []string{expired.ID, "expired"}},
		{name: "namespace", reason: "a signature of a file is none of a commit", make: branch(file), commit: true, want: git.ReasonInvalidCommit, words: []string{file.ID, "namespace"}},
		{name: "no-pgp-key", reason: "there is no key of that format", make: branch(pgp), commit: true, keys: map[string][]byte{"b.sshpub": ssh.Public},
			want: git.ReasonInvalidCommit, words: []string{"holds no OpenPGP key", ".asc"}},
		{name: "no-ssh-key", reason: "there is no key of that format", make: branch(ssh), commit: true, keys: map[string][]byte{"a.asc": pgp.Public},
			want: git.ReasonInvalidCommit, words: []string{"holds no SSH key", ".sshpub"}},
		{name: "forged", reason: "another message under the same signature", commit: true, want: git.ReasonInvalidCommit, words: []string{"invalid"}, make: func(r *testkit.Repo) git.Ref {
			branch(pgp)(r)
			r.SetRef("refs/heads/main", r.Write("commit", []byte(strings.Replace(string(r.Object("main")), "\n\nchange", "\n\nforged", 1))))
			return main
		}},
		{name: "forged-tree", reason: "another tree under the same signature", commit: true, want: git.ReasonInvalidCommit, words: []string{"signature"}, make: func(r *testkit.Repo) git.Ref {
			branch(ssh)(r)
			signed := string(r.Object("main"))
			evil := string(r.Object(r.Commit(map[string]string{"f": "evil"})))
			r.SetRef("refs/heads/main", r.Write("commit", []byte(evil[:len("tree ")+40]+signed[len("tree ")+40:])))
			return main
		}},
		{name: "second-signature", reason: "a commit with two signatures is no work of git's", commit: true, want: git.ReasonInvalidCommit, words: []string{"more than one"}, make: func(r *testkit.Repo) git.Ref {
			branch(pgp)(r)
			r.SignCommit(ssh)
			return main
		}},
		{name: "other-hash", reason: "a signature for another hash is not part of what is signed", commit: true, words: []string{pgp.ID}, make: func(r *testkit.Repo) git.Ref {
			branch(pgp)(r)
			raw := strings.Replace(string(r.Object("main")), "\ngpgsig ", "\ngpgsig-sha256 -----BEGIN PGP SIGNATURE-----\n \n abc\n -----END PGP SIGNATURE-----\ngpgsig ", 1)
			r.SetRef("refs/heads/main", r.Write("commit", []byte(raw)))
			return main
		}},
		{name: "inner-signature", reason: "the signature of a merged tag is not the commit's", commit: true, want: git.ReasonInvalidCommit, words: []string{"not signed"}, make: func(r *testkit.Repo) git.Ref {
			branch(pgp)(r)
			head, message, _ := strings.Cut(string(r.Object("main")), "\n\n")
			before, sig, _ := strings.Cut(head, "\ngpgsig ")
			inner := "mergetag object " + strings.Repeat("1", 40) + "\n type commit\n \n gpgsig " + sig
			r.SetRef("refs/heads/main", r.Write("commit", []byte(before+"\n"+inner+"\n\n"+message)))
			return main
		}},
		{name: "lightweight", reason: "a lightweight tag has no signature", tag: true, want: git.ReasonInvalidObject, words: []string{"lightweight", "v1"}, make: func(r *testkit.Repo) git.Ref {
			branch(pgp)(r)
			r.Tag("v1", "main")
			return git.Ref{Tag: "v1"}
		}},
		{name: "annotated", reason: "an annotated tag may have none", tag: true, want: git.ReasonInvalidObject, words: []string{"not signed", "v1"}, make: func(r *testkit.Repo) git.Ref {
			branch(pgp)(r)
			r.TagAnnotated("v1", "main")
			return git.Ref{Tag: "v1"}
		}},
		{name: "no-tag", reason: "a branch has no tag to verify", make: branch(pgp), tag: true, want: git.ReasonInvalidMode, words: []string{"spec.ref.tag", "spec.verify.mode"}},
		{name: "tag-stranger", reason: "a tag of a stranger's", make: tagged(pgp, stranger), commit: true, tag: true, want: git.ReasonInvalidTag, words: []string{"v1.0.0"}},
		{name: "both-unsigned-commit", reason: "a good tag does not speak for the commit", make: tagged(nil, pgp), commit: true, tag: true, want: git.ReasonInvalidCommit, words: []string{"not signed"}},
		{name: "renamed", reason: "an old tag under a new name", tag: true, want: git.ReasonInvalidTag, words: []string{"another name", "v1.0.0"}, make: func(r *testkit.Repo) git.Ref {
			tagged(nil, pgp)(r)
			r.SetRef("refs/tags/v2.0.0", "refs/tags/v1.0.0")
			return git.Ref{SemVer: ">=1.0.0"}
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := srv.Repo(tc.name)
			ref := tc.make(r)
			if tc.keys == nil {
				tc.keys = entries
			}
			a, err := newStore(t, git.Options{}).Fetch(t.Context(), git.Request{URL: r.URL(), Ref: ref, Verify: trust(t, tc.commit, tc.tag, tc.keys)})
			said := a.Verified
			if tc.want != "" {
				var u *git.UnverifiedError
				if !errors.As(err, &u) || u.Reason != tc.want || a.Tree != nil {
					t.Fatalf("%s: %v (artifact %v), want it refused as %s", tc.reason, err, a, tc.want)
				}
				said = err.Error()
			} else if err != nil {
				t.Fatalf("%s: %v", tc.reason, err)
			}
			for _, w := range tc.words {
				if !strings.Contains(said, w) {
					t.Errorf("%s: %q does not say %q", tc.reason, said, w)
				}
			}
		})
	}
}

// What git itself signs, git's way, with the tools that people have.
func TestVerifyWhatGitSigned(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("SKIPPED: ssh-keygen is not installed, so git cannot sign here")
	}
	dir := t.TempDir()
	key, work := filepath.Join(dir, "key"), filepath.Join(dir, "work")
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "HOME="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	run(keygen, "-q", "-t", "ecdsa", "-N", "", "-f", key)
	srv := testkit.NewGitServer(t)
	r := srv.Repo("signed")
	r.Commit(map[string]string{"f": "1"})
	run("git", "clone", "-q", "-b", "main", r.Dir(), work)
	base := []string{"-C", work, "-c", "user.name=n", "-c", "user.email=n@localhost", "-c", "gpg.format=ssh", "-c", "user.signingKey=" + key}
	run("git", append(base, "commit", "-q", "-S", "--allow-empty", "-m", "signed")...)
	run("git", append(base, "tag", "-s", "-m", "signed", "v1")...)
	run("git", "-C", work, "push", "-q", "origin", "main", "v1")
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	v := trust(t, true, true, map[string][]byte{"me.sshpub": public})
	a := mustFetch(t, newStore(t, git.Options{}), git.Request{URL: r.URL(), Ref: git.Ref{Tag: "v1"}, Verify: v})
	if !strings.Contains(a.Verified, "tag 'v1@") || !strings.Contains(a.Verified, "commit '") {
		t.Errorf("verified %q", a.Verified)
	}
}

// A tag is fetched when its signature is asked for although its commit is here
// already; after that, an unchanged remote costs one listing.
func TestVerifyFetchesTheTagOnce(t *testing.T) {
	srv := testkit.NewGitServer(t)
	r := srv.Repo("app")
	pgp := testkit.NewPGPSigner(t, time.Now().Add(-time.Hour), 0)
	r.Commit(map[string]string{"f": "1"})
	r.SignTag("v1", "main", pgp)
	s := newStore(t, git.Options{})
	req := git.Request{URL: r.URL(), Ref: git.Ref{Tag: "v1"}}
	mustFetch(t, s, git.Request{URL: r.URL(), Ref: main})
	req.Verify = trust(t, false, true, map[string][]byte{"k.asc": pgp.Public})
	mustFetch(t, s, req)
	fetches, requests := srv.Fetches(), len(srv.Requests())
	for range 3 {
		if a := mustFetch(t, s, req); !strings.Contains(a.Verified, pgp.ID) {
			t.Errorf("verified %q", a.Verified)
		}
	}
	if f, n := srv.Fetches()-fetches, len(srv.Requests())-requests; f != 0 || n != 3 {
		t.Errorf("3 looks at an unchanged remote took %d fetches and %d requests", f, n)
	}
}

// A Secret without keys says so.
func TestKeysThatCannotBeRead(t *testing.T) {
	for _, tc := range []struct {
		name, reason string
		data         map[string][]byte
		words        []string
	}{
		{"empty", "there is nothing in it", nil, []string{"Secret/ns/keys", "no public key"}},
		{"garbage", "an entry that is no key", map[string][]byte{"a.asc": []byte("x"), "b.sshpub": []byte("ssh-rsa !")}, []string{"a.asc", "b.sshpub", "Secret/ns/keys"}},
		{"comment", "a list of keys without a key", map[string][]byte{"b.sshpub": []byte("# none\n")}, []string{"b.sshpub"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := signature.ReadKeys("Secret/ns/keys", tc.data)
			if err == nil {
				t.Fatalf("%s: no error", tc.reason)
			}
			wantError(t, err, failure.Invalid, tc.words...)
		})
	}
}

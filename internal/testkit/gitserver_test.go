package testkit_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bowline-dev/bowline/internal/gitserve"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func gitOutput(t *testing.T, env []string, args ...string) (string, error) {
	t.Helper()
	cmd := gitserve.Command(t.Context(), args...)
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestGitServerOverHTTP(t *testing.T) {
	s := testkit.NewGitServer(t, testkit.GitBasicAuth("ann", "secret"))
	r := s.Repo("app")
	sha := r.Commit(map[string]string{"a": "1"})
	if out, err := gitOutput(t, nil, "ls-remote", r.URL()); err == nil {
		t.Fatalf("let in without credentials:\n%s", out)
	}
	url := strings.Replace(r.URL(), "://", "://ann:secret@", 1)
	out, err := gitOutput(t, nil, "ls-remote", url, "refs/heads/main")
	if err != nil || !strings.HasPrefix(out, sha) {
		t.Fatalf("ls-remote: %v\n%s", err, out)
	}
	if n := s.Fetches(); n != 0 {
		t.Errorf("a listing was counted as %d fetches", n)
	}
	if out, err := gitOutput(t, nil, "clone", "-q", url, filepath.Join(t.TempDir(), "w")); err != nil {
		t.Fatalf("clone: %v\n%s", err, out)
	}
	if n := s.Fetches(); n != 1 {
		t.Errorf("a clone was counted as %d fetches", n)
	}
}

func TestGitServerOverSSH(t *testing.T) {
	s := testkit.NewGitServer(t, testkit.GitSSH())
	r := s.Repo("app")
	sha := r.Commit(map[string]string{"a": "1"})
	dir := t.TempDir()
	key, hosts := filepath.Join(dir, "key"), filepath.Join(dir, "hosts")
	for name, data := range map[string][]byte{key: s.SSHIdentity(""), hosts: s.SSHKnownHosts()} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"GIT_SSH_COMMAND=ssh -F /dev/null -o IdentitiesOnly=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile=" + hosts + " -i " + key}
	out, err := gitOutput(t, env, "ls-remote", r.SSHURL(), "refs/heads/main")
	if err != nil || !strings.HasPrefix(out, sha) {
		t.Fatalf("ls-remote: %v\n%s", err, out)
	}
	if out, err := gitOutput(t, env, "clone", "-q", r.SSHURL(), filepath.Join(dir, "w")); err != nil {
		t.Fatalf("clone: %v\n%s", err, out)
	}
	if s.SSHLogins() != 2 {
		t.Errorf("logins = %d, want 2", s.SSHLogins())
	}
}

func TestRepoHistory(t *testing.T) {
	s := testkit.NewGitServer(t)
	r := s.Repo("app")
	one := r.Commit(map[string]string{"a": "1", "d/b": "2"})
	two := r.Delete("d")
	r.Branch("dev", one)
	r.Tag("v1", one)
	r.TagAnnotated("v2", two)
	three := r.ForcePush(map[string]string{"z": "1"})
	r.DeleteBranch("dev")
	out, err := gitOutput(t, nil, "ls-remote", r.URL())
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{three + "\trefs/heads/main\n", one + "\trefs/tags/v1\n", two + "\trefs/tags/v2^{}\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if strings.Contains(out, "dev") {
		t.Errorf("dev is still there:\n%s", out)
	}
}

package kustomize

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/bowline-dev/bowline/internal/build"
)

// TestRemoteBases builds from a Git repository and an HTTP server of this
// machine.
func TestRemoteBases(t *testing.T) {
	repo := t.TempDir()
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(repo, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("kustomization.yaml", "resources: [c.yaml]\nconfigMapGenerator: [{name: g, files: [c.yaml]}]\n")
	write("c.yaml", configMap)
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"add", "."}, {"-c", "user.name=t", "-c", "user.email=t@example.com", "commit", "-q", "-m", "m"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = repo
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: served}\n"))
	}))
	defer server.Close()
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)

	tree := treeOf(map[string]string{
		"kustomization.yaml": "namePrefix: x-\nresources:\n- file://" + repo + "?ref=main\n- " + server.URL + "/a.yaml\n- own.yaml\n",
		"own.yaml":           "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: own}\n",
	})
	res, err := Build(context.Background(), tree, build.Recipe{AllowRemoteBases: true})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, u := range res.Objects {
		names = append(names, u.GetName())
	}
	if len(names) != 4 || names[0] != "x-c" || names[2] != "x-served" || names[3] != "x-own" {
		t.Errorf("built %v", names)
	}
	if res.Reads.Unchanged(tree) {
		t.Error("what is elsewhere may have changed, yet the build counts as unchanged")
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) != 0 {
		t.Errorf("left in the temporary folder: %v %v", left, err)
	}
}

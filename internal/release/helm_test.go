package release

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"helm.sh/helm/v4/pkg/release/common"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/testkit"
)

// helm runs Helm's own executable in the namespace.
func helm(t *testing.T, namespace string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testkit.Tool(t, "helm"), append(args, "--namespace", namespace)...)
	dir := t.TempDir()
	cmd.Env = append(os.Environ(), "KUBECONFIG="+testkit.Kubeconfig(t), "HELM_CACHE_HOME="+dir, "HELM_CONFIG_HOME="+dir, "HELM_DATA_HOME="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestHelmSeesOrdinaryReleases(t *testing.T) {
	namespace := namespaceOf(t, "helm-sees")
	s := storeIn(t, namespace, nil)
	first, second := deployed(namespace, 1), deployed(namespace, 2)
	first.SetStatus(common.StatusSuperseded, "Install complete")
	second.Config = map[string]any{"replicas": 3}
	second.SetStatus(common.StatusDeployed, "Upgrade complete")
	for _, r := range []*Record{first, second} {
		if err := s.Create(t.Context(), r, 5); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name   string
		args   []string
		want   []string
		reason string
	}{
		{"list", []string{"list"}, []string{"demo", "deployed", "demo-1.2.3"}, "the last revision, with its chart"},
		{"status", []string{"status", "demo"}, []string{"STATUS: deployed", "REVISION: 2", "hello"}, "the notes are there"},
		{"history", []string{"history", "demo"}, []string{"superseded", "Install complete", "Upgrade complete"}, "both revisions"},
		{"values", []string{"get", "values", "demo"}, []string{"replicas: 3"}, "of the last revision"},
		{"hooks", []string{"get", "hooks", "demo"}, []string{"kind: Job", "kind: Pod"}, "with the record"},
		{"all", []string{"get", "all", "demo"}, []string{"kind: ConfigMap", "replicas: 3"}, "everything"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := helm(t, namespace, c.args...)
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("helm %s does not say %q: %s\n%s", strings.Join(c.args, " "), want, c.reason, out)
				}
			}
		})
	}
}

// TestWhatHelmDoesIsSeen installs, upgrades, rolls back and uninstalls with Helm's executable.
func TestWhatHelmDoesIsSeen(t *testing.T) {
	namespace := namespaceOf(t, "helm-does")
	chart := filepath.Join(t.TempDir(), "demo")
	for name, content := range map[string]string{
		"Chart.yaml":          "apiVersion: v2\nname: demo\nversion: 1.0.0\n",
		"values.yaml":         "word: one\n",
		"templates/conf.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf}\ndata: {word: {{ .Values.word }}}\n",
	} {
		path := filepath.Join(chart, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	told := make(chan struct{}, 1)
	w := NewWatch(t.Context(), WatchOptions{Cluster: clusterOf(t), Clock: clock.RealClock{}, Log: testr.New(t), Notify: func(types.NamespacedName) {
		select {
		case told <- struct{}{}:
		default:
		}
	}})
	key := Key{Namespace: namespace, Name: "demo"}
	w.Use(types.NamespacedName{Namespace: namespace, Name: "demo"}, key)
	s := storeIn(t, namespace, w)
	statuses := func(want ...common.Status) {
		t.Helper()
		var have []common.Status
		for deadline := time.After(settle); ; {
			seen, ok := w.Known(key)
			have = nil
			for _, r := range seen {
				have = append(have, r.Status)
			}
			if ok && slices.Equal(have, want) {
				return
			}
			select {
			case <-told:
			case <-deadline:
				t.Fatalf("the watch knows %v, want %v", have, want)
			}
		}
	}
	helm(t, namespace, "install", "demo", chart)
	statuses(common.StatusDeployed)
	installed, err := s.Last(t.Context(), "demo")
	if err != nil {
		t.Fatal(err)
	}
	if installed.Marks.Unit != "" || installed.Writer != "Helm" || installed.WrittenAt.IsZero() {
		t.Errorf("it was written by %q at %v, with the marks %+v", installed.Writer, installed.WrittenAt, installed.Marks)
	}
	// A mark of ours says that nobody wrote since: whatever Helm writes takes it away.
	installed.Marks = Marks{Unit: namespace + "/demo"}
	if err := s.Mark(t.Context(), installed); err != nil {
		t.Fatal(err)
	}
	if marked, err := s.Last(t.Context(), "demo"); err != nil || marked.Marks.Unit == "" {
		t.Fatalf("marked %+v, %v", marked, err)
	}
	helm(t, namespace, "upgrade", "demo", chart, "--set", "word=two")
	statuses(common.StatusDeployed, common.StatusSuperseded)
	if first, err := s.Get(t.Context(), "demo", 1); err != nil || first.Marks.Unit != "" {
		t.Errorf("the superseded revision is %+v, %v", first, err)
	}
	helm(t, namespace, "rollback", "demo", "1")
	statuses(common.StatusDeployed, common.StatusSuperseded, common.StatusSuperseded)
	helm(t, namespace, "uninstall", "demo", "--keep-history")
	statuses(common.StatusUninstalled, common.StatusSuperseded, common.StatusSuperseded)
}

package controller

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// hookRuns counts how often each hook was made, by a watch of its objects.
type hookRuns struct {
	mu   sync.Mutex
	uids map[string]map[types.UID]bool // by name
}

func countHooks(s *stage) *hookRuns {
	s.Helper()
	runs := &hookRuns{uids: map[string]map[types.UID]bool{}}
	w, err := s.client.Watch(s.Context(), &corev1.ConfigMapList{}, client.InNamespace(s.namespace))
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(w.Stop)
	go func() {
		for e := range w.ResultChan() {
			m, ok := e.Object.(*corev1.ConfigMap)
			if !ok || e.Type != watch.Added || !strings.Contains(m.Name, "-hook-") {
				continue
			}
			runs.mu.Lock()
			if runs.uids[m.Name] == nil {
				runs.uids[m.Name] = map[types.UID]bool{}
			}
			runs.uids[m.Name][m.UID] = true
			runs.mu.Unlock()
		}
	}()
	return runs
}

// The engine is killed at random moments during upgrades: every release ends deployed, none
// is left pending, and no hook of a revision runs twice.
func TestReleaseKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	instance := testkit.Start(t)
	if err := crds.Apply(t.Context(), instance.Config); err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	rng := rand.New(rand.NewPCG(seed, 0))
	s := stageOn(t, instance.Config)
	hooked := func(event string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-hook-" + event +
			"-{{ .Release.Revision }}\n  annotations: {helm.sh/hook: \"" + event + "-install," + event + "-upgrade\"}\n"
	}
	files := map[string]string{"templates/pre.yaml": hooked("pre"), "templates/post.yaml": hooked("post")}
	for i := range 8 {
		files[fmt.Sprintf("templates/more%d.yaml", i)] = fmt.Sprintf(
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"{{ .Release.Name }}-more%d\"}\ndata: {value: {{ .Values.value | quote }}}\n", i)
	}
	s.charts(chart("1.0.0", files))
	runs := countHooks(s)
	names := []string{"one", "two", "three"}
	for _, name := range names {
		s.release(name)
	}
	dir := t.TempDir()
	engine := startChild(t, instance.Kubeconfig, dir)
	defer func() { engine.kill(t) }()
	live := func(value string) {
		t.Helper()
		for _, name := range names {
			s.awaitRelease(name, "live", func(h *helmv2.HelmRelease) bool { return report.IsReady(h, h.Status.ObservedGeneration) })
			if got := s.config(name).Data["value"]; got != value {
				t.Errorf("%s holds %q, want %q", name, got, value)
			}
			for _, revision := range s.revisions(name) {
				if strings.Contains(revision, "pending") {
					t.Errorf("%s: revision %s", name, revision)
				}
			}
		}
	}
	live("one")
	struck := 0
	for kill := range kills {
		value := fmt.Sprint(kill)
		for _, name := range names {
			edit(s, s.helmRelease(name), withValues(map[string]any{"value": value}))
		}
		pass(time.Duration(rng.IntN(150)) * time.Millisecond) // the random moment itself
		engine.kill(t)
		for _, name := range names {
			if r := strings.Join(s.revisions(name), " "); strings.Contains(r, "pending") {
				struck++
			}
		}
		engine = startChild(t, instance.Kubeconfig, dir)
		live(value)
		if t.Failed() {
			t.Fatalf("kill %d of %d, seed %d; the engine said:\n%s", kill, kills, seed, engine.output.about(""))
		}
	}
	t.Logf("%d upgrades were struck in the middle", struck)
	if struck < kills/4 {
		t.Errorf("only %d upgrades were struck in the middle: the test proves little", struck)
	}
	runs.mu.Lock()
	defer runs.mu.Unlock()
	for name, uids := range runs.uids {
		if len(uids) != 1 {
			t.Errorf("the hook %s ran %d times", name, len(uids))
		}
	}
}

package release

import (
	"errors"
	"slices"
	"testing"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/go-logr/logr/testr"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/release/common"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// settle bounds how long the cluster may take to tell what a test did.
const settle = 20 * time.Second

func clusterOf(t *testing.T) *kube.Cluster {
	t.Helper()
	c, err := kube.NewCluster(testkit.Cluster(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// namespaceOf makes the namespace of a test, whose name begins like this.
func namespaceOf(t *testing.T, name string) string {
	t.Helper()
	client, err := kubernetes.NewForConfig(testkit.Cluster(t))
	if err != nil {
		t.Fatal(err)
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: name + "-"}}
	if ns, err = client.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	return ns.Name
}

func storeIn(t *testing.T, namespace string, journal Journal) *Store {
	t.Helper()
	s, err := NewStore(clusterOf(t), namespace, journal)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// day is the time at which the tests' releases are made.
var day = time.Date(2026, 3, 1, 10, 0, 0, 123456789, time.UTC)

// demo is a release with a chart, values, a manifest and two hooks.
func demo(namespace string) *Release {
	return &Release{
		Name: "demo", Namespace: namespace, Version: 1,
		Info: &helmrelease.Info{FirstDeployed: day, LastDeployed: day, Status: common.StatusDeployed, Description: "Install complete", Notes: "hello"},
		Chart: &chart.Chart{
			Metadata: &chart.Metadata{Name: "demo", Version: "1.2.3", AppVersion: "7", APIVersion: "v2"},
			Values:   map[string]any{"replicas": 1},
		},
		Config:   map[string]any{"replicas": float64(2), "list": []any{"a", true, nil}},
		Manifest: "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: demo\n",
		Hooks: []*helmrelease.Hook{
			{Name: "demo-migrate", Kind: "Job", Path: "demo/templates/migrate.yaml", Events: []helmrelease.HookEvent{helmrelease.HookPreUpgrade}, Manifest: "kind: Job"},
			{Name: "demo-test", Kind: "Pod", Path: "demo/templates/test.yaml", Events: []helmrelease.HookEvent{helmrelease.HookTest}, Manifest: "kind: Pod"},
		},
	}
}

func deployed(namespace string, version int) *Record {
	rel := demo(namespace)
	rel.Version = version
	return &Record{Release: rel, Marks: Marks{Unit: namespace + "/demo", Inputs: "in", Action: v2.ReleaseActionInstall}}
}

func TestRecordsComeBackAsTheyWereStored(t *testing.T) {
	s := storeIn(t, namespaceOf(t, "store-roundtrip"), nil)
	wrote := deployed(s.Namespace(), 1)
	if err := s.Create(t.Context(), wrote, 5); err != nil {
		t.Fatal(err)
	}
	read, err := s.Last(t.Context(), "demo")
	if err != nil {
		t.Fatal(err)
	}
	if read.ResourceVersion != wrote.ResourceVersion || read.ResourceVersion == "" {
		t.Errorf("read version %q, wrote %q", read.ResourceVersion, wrote.ResourceVersion)
	}
	if read.Marks.Unit != wrote.Marks.Unit || read.Marks.Inputs != "in" || read.Marks.Action != v2.ReleaseActionInstall {
		t.Errorf("marks %+v, wrote %+v", read.Marks, wrote.Marks)
	}
	if read.Writer != Manager || read.WrittenAt.IsZero() {
		t.Errorf("written by %q at %v", read.Writer, read.WrittenAt)
	}
	a, errA := Snapshot(wrote.Release, "", "")
	b, errB := Snapshot(read.Release, "", "")
	if err := errors.Join(errA, errB); err != nil || a.Digest != b.Digest || a.ConfigDigest != b.ConfigDigest {
		t.Errorf("digests differ after storing: %v %v %v", a, b, err)
	}
	if !Verified(a, read.Release) {
		t.Error("the snapshot of what was written does not verify what was read")
	}
}

func TestAnUpdateIsRefusedWhenSomebodyElseWrote(t *testing.T) {
	s := storeIn(t, namespaceOf(t, "store-conflict"), nil)
	first := deployed(s.Namespace(), 1)
	if err := s.Create(t.Context(), first, 5); err != nil {
		t.Fatal(err)
	}
	second, err := s.Get(t.Context(), "demo", 1)
	if err != nil {
		t.Fatal(err)
	}
	second.SetStatus(common.StatusFailed, "by somebody")
	if err := s.Update(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), first); !errors.Is(err, failure.Of(failure.Conflict)) {
		t.Errorf("update of what somebody else wrote gave %v", err)
	}
	if err := s.Create(t.Context(), deployed(s.Namespace(), 1), 5); !errors.Is(err, failure.Of(failure.Conflict)) {
		t.Errorf("a second revision 1 gave %v", err)
	}
	if _, err := s.Get(t.Context(), "demo", 9); !errors.Is(err, ErrAbsent) {
		t.Errorf("a revision that is not there gave %v", err)
	}
	if _, err := s.Last(t.Context(), "nothing"); !errors.Is(err, ErrAbsent) {
		t.Errorf("a release that is not there gave %v", err)
	}
}

func TestPruningKeepsTheDeployedRevision(t *testing.T) {
	for _, c := range []struct {
		name, namespace string
		statuses        []common.Status
		most            int
		want            []int
		reason          string
	}{
		{"oldest go", "prune-oldest", []common.Status{common.StatusSuperseded, common.StatusSuperseded, common.StatusDeployed}, 2, []int{4, 3}, "two are kept, with the new one"},
		{"deployed stays", "prune-deployed", []common.Status{common.StatusDeployed, common.StatusFailed, common.StatusFailed}, 2, []int{4, 1}, "the deployed one is never removed, however old"},
		{"no limit", "prune-none", []common.Status{common.StatusSuperseded, common.StatusDeployed}, 0, []int{3, 2, 1}, "0 keeps all"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := storeIn(t, namespaceOf(t, c.namespace), nil)
			for i, status := range c.statuses {
				r := deployed(s.Namespace(), i+1)
				r.Info.Status = status
				if err := s.Create(t.Context(), r, 0); err != nil {
					t.Fatal(err)
				}
			}
			next := deployed(s.Namespace(), len(c.statuses)+1)
			next.Info.Status = common.StatusPendingUpgrade
			if err := s.Create(t.Context(), next, c.most); err != nil {
				t.Fatal(err)
			}
			seen, err := s.Revisions(t.Context(), "demo")
			if err != nil {
				t.Fatal(err)
			}
			var have []int
			for _, r := range seen {
				have = append(have, r.Version)
			}
			if !slices.Equal(have, c.want) {
				t.Errorf("left %v, want %v: %s", have, c.want, c.reason)
			}
		})
	}
}

func TestSupersedeAndPurge(t *testing.T) {
	s := storeIn(t, namespaceOf(t, "store-supersede"), nil)
	for v := 1; v <= 2; v++ {
		if err := s.Create(t.Context(), deployed(s.Namespace(), v), 0); err != nil {
			t.Fatal(err)
		}
	}
	changed, err := s.Supersede(t.Context(), "demo", 2)
	if err != nil || len(changed) != 1 || changed[0].Version != 1 || changed[0].Info.Status != common.StatusSuperseded {
		t.Fatalf("superseded %v, %v", changed, err)
	}
	r, err := s.Deployed(t.Context(), "demo")
	if err != nil || r.Version != 2 {
		t.Fatalf("deployed is %v, %v", r, err)
	}
	history, err := s.History(t.Context(), "demo")
	if err != nil || len(history) != 2 || history[0].Version != 2 {
		t.Fatalf("history is %v, %v", history, err)
	}
	if err := s.Purge(t.Context(), "demo"); err != nil {
		t.Fatal(err)
	}
	if left, err := s.Revisions(t.Context(), "demo"); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestTheWatchTellsOfOthersOnly(t *testing.T) {
	namespace := namespaceOf(t, "release-watch")
	told := make(chan types.NamespacedName, 64)
	w := NewWatch(t.Context(), WatchOptions{
		Cluster: clusterOf(t), Clock: clock.RealClock{}, Log: testr.New(t),
		Notify: func(unit types.NamespacedName) { told <- unit },
	})
	unit := types.NamespacedName{Namespace: namespace, Name: "demo"}
	key := Key{Namespace: namespace, Name: "demo"}
	if _, ok := w.Known(key); ok {
		t.Fatal("the watch knows before it began")
	}
	w.Use(unit, key)
	await := func(why string) {
		t.Helper()
		select {
		case got := <-told:
			if got != unit {
				t.Fatalf("%s: told %v", why, got)
			}
		case <-time.After(settle):
			t.Fatalf("%s: nobody was told", why)
		}
	}
	await("the watch is in sync")
	ours, others := storeIn(t, namespace, w), storeIn(t, namespace, nil)
	r := deployed(namespace, 1)
	if err := ours.Create(t.Context(), r, 5); err != nil {
		t.Fatal(err)
	}
	r.SetStatus(common.StatusFailed, "no")
	if err := ours.Update(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if seen, ok := w.Known(key); !ok || !slices.Equal(seen, []Seen{r.Seen()}) {
		t.Fatalf("known is %v, %v; want %v", seen, ok, r.Seen())
	}
	foreign := deployed(namespace, 2)
	if err := others.Create(t.Context(), foreign, 5); err != nil {
		t.Fatal(err)
	}
	await("somebody made a revision")
	if seen, _ := w.Known(key); len(seen) != 2 || seen[0] != foreign.Seen() {
		t.Fatalf("known is %v", seen)
	}
	if err := ours.Delete(t.Context(), "demo", 1); err != nil {
		t.Fatal(err)
	}
	if err := others.Delete(t.Context(), "demo", 2); err != nil {
		t.Fatal(err)
	}
	await("somebody removed a revision")
	if seen, ok := w.Known(key); !ok || len(seen) != 0 {
		t.Fatalf("known is %v, %v", seen, ok)
	}
	select {
	case <-told:
		t.Error("somebody was told of what we wrote ourselves")
	default:
	}
	w.Leave(unit)
	if _, ok := w.Known(key); ok {
		t.Error("the watch knows after its last user left")
	}
}

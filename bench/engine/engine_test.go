package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	loader "helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
)

func TestCounters(t *testing.T) {
	const prefix = "apiserver_request_total{code=\"200\",component=\"apiserver\","
	tests := []struct {
		name, reason string
		labels       string
		want         counters
	}{
		{"apply", "an apply of a delivered object is what is counted",
			`dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="APPLY",version="v1"`, counters{applies: 3}},
		{"dry run", "it asks and changes nothing",
			`dry_run="All",group="apps",resource="deployments",scope="resource",subresource="",verb="APPLY",version="v1"`, counters{dryRuns: 3}},
		{"dry-run patch", "an engine that asks with a patch asks all the same",
			`dry_run="All",group="apps",resource="deployments",scope="resource",subresource="",verb="PATCH",version="v1"`, counters{dryRuns: 3}},
		{"update", "no apply, but a write",
			`dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="PUT",version="v1"`, counters{otherWrites: 3}},
		{"status of a workload", "the controller-manager's business",
			`dry_run="",group="apps",resource="deployments",scope="resource",subresource="status",verb="PUT",version="v1"`, counters{}},
		{"status of a Kustomization", "the engine's report",
			`dry_run="",group="kustomize.toolkit.fluxcd.io",resource="kustomizations",scope="resource",subresource="status",verb="PATCH",version="v1"`, counters{statusWrites: 3}},
		{"get", "reading changes nothing",
			`dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="GET",version="v1"`, counters{}},
		{"lease", "not part of the fleet",
			`dry_run="",group="coordination.k8s.io",resource="leases",scope="resource",subresource="",verb="APPLY",version="v1"`, counters{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got counters
			labels, n, err := parseCount(prefix + tt.labels + "} 3")
			if err != nil {
				t.Fatal(err)
			}
			got.add(labels, n, delivered)
			if got != tt.want {
				t.Errorf("got %+v, want %+v: %s", got, tt.want, tt.reason)
			}
		})
	}
	if _, _, err := parseCount(prefix + `verb="APPLY"} many`); err == nil {
		t.Error("a count that is no number was taken for one")
	}
}

// unit returns an event of a Kustomization.
func unit(name, ready string, generation, observed int64, revision string, seen time.Time) event[state] {
	var e event[state]
	e.Type, e.seen = "MODIFIED", seen
	e.Object.Metadata.Name, e.Object.Metadata.Generation = name, generation
	e.Object.Status.ObservedGeneration, e.Object.Status.LastAppliedRevision = observed, revision
	e.Object.Status.Conditions = append(e.Object.Status.Conditions, struct {
		Type    string `json:"type"`
		Status  string `json:"status"`
		Reason  string `json:"reason"`
		Message string `json:"message"`
	}{"Ready", ready, "Because", "it says so"})
	return e
}

func newTestTracker(t *testing.T) *tracker {
	t.Helper()
	return &tracker{log: &progress{out: t.Output(), start: time.Now()}, latest: map[string]event[state]{}, waiters: map[*waiter]bool{}}
}

func TestTrackerReturnsWhenTheLastOneCame(t *testing.T) {
	tr := newTestTracker(t)
	start := time.Now()
	at := func(s int) time.Time { return start.Add(time.Duration(s) * time.Second) }
	// Already there before anybody waits.
	tr.record(unit("a", "True", 1, 1, "r2", at(1)))
	tr.record(unit("b", "True", 1, 1, "r1", at(2)))
	tr.record(unit("c", "False", 1, 1, "r2", at(3)))
	type outcome struct {
		when time.Time
		err  error
	}
	got := make(chan outcome, 1)
	go func() {
		when, err := tr.wait(t.Context(), "at r2", []string{"a", "b", "c"}, func(s state) bool {
			return s.ready() && s.Status.LastAppliedRevision == "r2"
		})
		got <- outcome{when, err}
	}()
	tr.record(unit("b", "True", 1, 1, "r2", at(4)))
	tr.record(unit("b", "True", 2, 1, "r2", at(5))) // its spec changed: no longer what is asked for
	tr.record(unit("other", "True", 1, 1, "r2", at(6)))
	tr.record(unit("c", "True", 1, 1, "r2", at(7)))
	select {
	case o := <-got:
		t.Fatalf("returned %v, %v though b is behind its generation", o.when.Sub(start), o.err)
	default:
	}
	tr.record(unit("b", "True", 2, 2, "r2", at(9)))
	o := <-got
	if o.err != nil || !o.when.Equal(at(9)) {
		t.Errorf("returned %v, %v; want 9s: the time at which the last event arrived", o.when.Sub(start), o.err)
	}
}

func TestTrackerSaysWhatIsMissing(t *testing.T) {
	tr := newTestTracker(t)
	tr.record(unit("a", "True", 1, 1, "r1", time.Now()))
	tr.record(unit("b", "False", 1, 1, "r1", time.Now()))
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	_, err := tr.wait(ctx, "ready", []string{"a", "b"}, state.ready)
	if !errors.Is(err, stopped) {
		t.Errorf("error %v does not say why it stopped", err)
	}
	if err == nil || !strings.Contains(err.Error(), `1 of 2 missing; b says "Because: it says so"`) {
		t.Errorf("error %v does not say what is missing", err)
	}
}

func TestProcessCountsChildren(t *testing.T) {
	dir := t.TempDir()
	mark := filepath.Join(dir, "mark")
	// All the work is done by a child that ended; another child lives.
	burn := "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done"
	script := fmt.Sprintf("sh -c '(%s); sleep 60 & : > %s; wait'", burn, mark)
	p, err := startShell(t.Context(), script, filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer p.kill()
	deadline := time.After(30 * time.Second)
	for {
		if _, err := os.Stat(mark); err == nil {
			break
		}
		select {
		case <-deadline:
			t.Fatal("the script did not get anywhere")
		case <-p.done:
			t.Fatal("the script ended")
		case <-time.After(10 * time.Millisecond):
		}
	}
	u := p.usage()
	if u.cpu < 50*time.Millisecond {
		t.Errorf("processor time %v; the child that ended has used more", u.cpu)
	}
	if alone := statusBytes(p.cmd.Process.Pid, "VmRSS"); u.resident <= alone || u.peak < u.resident {
		t.Errorf("resident %d, peak %d; the shell alone holds %d", u.resident, u.peak, alone)
	}
	p.kill()
	if p.running() {
		t.Error("still running after kill")
	}
	if gone := p.usage(); gone.resident != 0 || gone.peak != u.peak {
		t.Errorf("after its end resident %d, peak %d; want 0 and the peak kept", gone.resident, gone.peak)
	}
}

func TestUnitIsWhatTheTableSays(t *testing.T) {
	got := map[string]int{}
	for _, o := range unitObjects("unit-000", "v") {
		got[fmt.Sprint(o["kind"])]++
	}
	want := map[string]int{"Namespace": 1, "ServiceAccount": 1, "Service": 1, "Deployment": 1, "ConfigMap": 6}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("a unit is %v, want %v", got, want)
	}
	requests, err := applyRequests("unit-000")
	if err != nil {
		t.Fatal(err)
	}
	if want := "/apis/apps/v1/namespaces/unit-000/deployments/app?fieldManager=bare-client&force=true"; requests[3].path != want {
		t.Errorf("the Deployment is applied at %s, want %s", requests[3].path, want)
	}
}

// The chart is rendered as it is packed and served.
func TestReleaseIsWhatTheTableSays(t *testing.T) {
	r, err := serveChart(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	index := httpGet(t, r.url+"/index.yaml")
	archive := httpGet(t, r.url+chartArchive)
	if digest := fmt.Sprintf("%x", sha256.Sum256(archive)); !bytes.Contains(index, []byte(digest)) {
		t.Errorf("the index does not name the digest %s:\n%s", digest, index)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "chart.tgz")
	if err := os.WriteFile(path, archive, 0o600); err != nil {
		t.Fatal(err)
	}
	loaded, err := loader.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	values, err := util.ToRenderValues(loaded, map[string]any{"value": "edited"}, common.ReleaseOptions{Name: "release-000", Namespace: "apps"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	files, err := new(engine.Engine).RenderWithContext(t.Context(), loaded, values)
	if err != nil {
		t.Fatal(err)
	}
	got, all := map[string]int{}, ""
	for _, text := range files {
		for _, line := range strings.Split(text, "\n") {
			if kind, ok := strings.CutPrefix(line, "kind: "); ok {
				got[strings.ToLower(kind)+"s"]++
			}
		}
		all += text
	}
	want, objects := map[string]int{}, 0
	for path, n := range releaseKinds {
		want[filepath.Base(path)] = n
		objects += n
	}
	if !maps.Equal(got, want) || objects != objectsPerRelease {
		t.Errorf("a release is %v, want %v, %d objects", got, want, objectsPerRelease)
	}
	if !strings.Contains(all, `value: "edited"`) {
		t.Errorf("the value is not in the objects:\n%s", all)
	}
}

func httpGet(t *testing.T, url string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	data, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %d, %v", url, res.StatusCode, err)
	}
	return data
}

func TestMedianAndTable(t *testing.T) {
	d := []time.Duration{3 * time.Second, time.Second, 2 * time.Second}
	if median(d) != 2*time.Second || medianIndex(d) != 2 {
		t.Errorf("median %v at %d", median(d), medianIndex(d))
	}
	r := &report{Units: 3, Machine: "m"}
	r.add(result{Measure: "x", Text: span{counters: counters{applies: 1}}.calls()})
	if want := "| x | 1 apply, no dry run |\n"; !strings.HasSuffix(r.table(), want) {
		t.Errorf("table\n%s\ndoes not end in %s", r.table(), want)
	}
	for d, want := range map[time.Duration]string{
		123*time.Second + 400*time.Millisecond: "123 s", 1512 * time.Millisecond: "1.5 s", 87 * time.Millisecond: "0.087 s",
	} {
		if got := seconds(d); got != want {
			t.Errorf("seconds(%v) = %s, want %s", d, got, want)
		}
	}
}

// TestFollowGoesOn has a server that closes a watch in the middle.
func TestFollowGoesOn(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from := r.URL.Query().Get("resourceVersion")
		asked = append(asked, from)
		switch from {
		case "":
			fmt.Fprint(w, `{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"7"}}}`, "\n", `{"type":"MODI`)
		case "7":
			fmt.Fprint(w, `{"type":"MODIFIED","object":{"metadata":{"name":"a","resourceVersion":"8"}}}`)
		default:
			fmt.Fprint(w, `{"type":"ERROR","object":{"code":410}}`)
		}
	}))
	defer server.Close()
	c := &client{http: server.Client(), watches: server.Client(), base: server.URL}
	var got []string
	opened := 0
	err := follow(t.Context(), c, "/x", "", func() { opened++ }, func(e event[state]) {
		got = append(got, e.Type+e.Object.Metadata.ResourceVersion)
	})
	if err == nil || errors.Is(err, io.EOF) {
		t.Errorf("error %v; want the server's refusal", err)
	}
	if fmt.Sprint(got, asked, opened) != "[ADDED7 MODIFIED8] [ 7 8] 1" {
		t.Errorf("events %q after asking from %q, opened %d times", got, asked, opened)
	}
}

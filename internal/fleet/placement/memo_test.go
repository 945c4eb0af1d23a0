package placement_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/placement"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// revised is a source at another revision.
func revised(n int) map[placement.SourceKey]placement.Source {
	s := git()
	s.Revision = fmt.Sprintf("main@sha1:%040x", n)
	return sources(s)
}

// world is all that one assignment is made from, in a form that can be changed at random.
type world struct {
	revision, interval int
	env, zone, note    string
	size               any
	unknown, override  bool
	when, namespace    string
	renamed, helm, hub bool
}

func (w *world) change(r *rand.Rand) {
	pick := func(from ...string) string { return from[r.IntN(len(from))] }
	switch r.IntN(10) {
	case 0, 1:
		w.revision++
	case 2:
		w.env = pick("prod", "test")
	case 3:
		w.zone = pick("a", "b", "")
	case 4:
		w.size = []any{int64(1), float64(1), "1", nil}[r.IntN(4)]
	case 5:
		w.unknown = !w.unknown
	case 6:
		w.override, w.interval = r.IntN(2) == 0, r.IntN(3)+1
	case 7:
		w.when, w.namespace = pick("", "cluster.labels.env == 'prod'", "cluster.nothing == 1"), pick("", "apps", "fleet")
	case 8:
		w.renamed, w.helm, w.hub = r.IntN(2) == 0, r.IntN(2) == 0, r.IntN(2) == 0
	case 9:
		w.note = pick("x", "y")
	}
}

func (w *world) fleet(t *testing.T, compiler *template.Compiler) *placement.Fleet {
	t.Helper()
	name, override, unit := "web", "", kustomization("plain", "")
	if w.renamed {
		name = "site"
	}
	if w.override {
		override = fmt.Sprintf(", overrides: [{clusters: {matchLabels: {env: prod}}, unit: %s, patch: {timeout: %dm, path: '${cluster.name}/%[2]d'}}]", name, w.interval)
	}
	if w.helm { // which has no source to come from
		unit = "{name: plain, helmRelease: {interval: 1m, chartRef: {kind: OCIRepository, name: none}}}"
	}
	first := placementOf(t, "first", fmt.Sprintf("{clusters: {}, namespace: '%s', units: [%s, {name: %s, when: \"%s\", kustomization: {interval: %dm, prune: true,"+
		" path: '${cluster.labels.?zone.orValue(\"none\")}/${cluster.annotations.note}', sourceRef: {kind: GitRepository, name: fleet}}}]%s}",
		w.namespace, kustomization("same", ""), name, w.when, w.interval, override))
	second := placementOf(t, "second", "{clusters: {matchLabels: {env: prod}}, dependsOn: [{name: first}], units: ["+unit+", {name: sized, kustomization: {interval: 1m, prune: true,"+
		" path: '${parameters.?size.orValue(\"no\")}', sourceRef: {kind: GitRepository, name: fleet}}}]}")
	return placement.New([]*v1alpha1.Placement{first, second}, revised(w.revision), compiler)
}

func (w *world) input() placement.Input {
	c := cluster("a", "env="+w.env)
	if w.zone != "" {
		c.Labels["zone"] = w.zone
	}
	c.Annotations = map[string]string{"note": w.note}
	in := placement.Input{Cluster: c, Parameters: map[string]any{}, Hub: w.hub}
	if w.size != nil {
		in.Parameters["size"] = w.size
	}
	if w.unknown {
		in.Unknown = errors.New("its template is gone")
	}
	return in
}

// With what is remembered of a cluster the assignment is the same, byte by byte, whatever changes and in whatever order; and whoever
// has an assignment may write into it.
func TestMemoIsInvisible(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	w, memo := &world{env: "prod", note: "x", interval: 1}, &placement.Memo{}
	var current *v1alpha1.ClusterAssignmentSpec
	problems, seen, compiler := 0, map[string]bool{}, template.NewCompiler()
	for step := range 1000 {
		f, in := w.fleet(t, compiler), w.input()
		in.Current = current.DeepCopy()
		plain, err := f.Assign(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		in.Current, in.Memo = current.DeepCopy(), memo
		for range 2 { // the second is of the same fleet
			got, err := f.Assign(t.Context(), in)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got.Spec, plain.Spec) || fmt.Sprint(got.Problems) != fmt.Sprint(plain.Problems) {
				t.Fatalf("step %d, %+v: got\n%s%v\nwant\n%s%v", step, *w, shown(got.Spec), got.Problems, shown(plain.Spec), plain.Problems)
			}
			scribble(got.Spec)
		}
		problems, seen[plain.Spec.Digest] = problems+len(plain.Problems), true
		current = &plain.Spec
		w.change(r)
	}
	if problems == 0 || len(seen) < 250 {
		t.Errorf("%d problems and %d assignments: the changes are too few to show anything", problems, len(seen))
	}
}

// scribble writes into all that an assignment holds.
func scribble(s v1alpha1.ClusterAssignmentSpec) {
	over := func(raw apiextensionsv1.JSON) { copy(raw.Raw, bytes.Repeat([]byte("x"), len(raw.Raw))) }
	for _, src := range s.Sources {
		over(src.Spec)
	}
	for _, p := range s.Placements {
		for i := range p.Units {
			over(p.Units[i].Spec)
			p.Units[i].Name = "scribbled"
		}
	}
}

// twenty is a fleet of twenty Placements at a revision, whose units ask for the cluster's name.
func twenty(t testing.TB, revision int, path string) *placement.Fleet {
	t.Helper()
	var all []*v1alpha1.Placement
	for i := range 20 {
		p := &v1alpha1.Placement{}
		p.Name, p.Namespace = fmt.Sprintf("p%02d", i), "fleet"
		p.Spec.Units = []v1alpha1.PlacementUnit{{Name: fmt.Sprintf("unit-%02d", i), Kustomization: &apiextensionsv1.JSON{Raw: fmt.Appendf(nil,
			`{"interval":"1m","prune":true,"path":"./%s/%d","sourceRef":{"kind":"%s","name":"fleet"}}`, path, i, sourcev1.GitRepositoryKind)}}}
		all = append(all, p)
	}
	return placement.New(all, revised(revision), template.NewCompiler())
}

// Paths of units: one is the same on all clusters.
const plain, asks = "plain", "${cluster.name}"

// A pin that moves makes no unit anew: what it costs does not depend on what units hold.
func TestMemoSavesUnits(t *testing.T) {
	fleets := []*placement.Fleet{twenty(t, 1, asks), twenty(t, 2, asks)}
	cost := func(memo *placement.Memo) float64 {
		n := 0
		return testing.AllocsPerRun(20, func() {
			if _, err := fleets[n%2].Assign(t.Context(), placement.Input{Cluster: cluster("a", ""), Memo: memo}); err != nil {
				t.Fatal(err)
			}
			n++
		})
	}
	if without, with := cost(nil), cost(&placement.Memo{}); with*3 > without {
		t.Errorf("a moved pin costs %.0f allocations with what was made before, and %.0f without it", with, without)
	}
}

// BenchmarkAssign says what a moved pin costs for one cluster with twenty units.
func BenchmarkAssign(b *testing.B) {
	for _, tc := range []struct {
		name, path string
		memo       *placement.Memo
	}{{"anew", asks, nil}, {"remembered", asks, &placement.Memo{}}, {"asks nothing", plain, nil}} {
		b.Run(tc.name, func(b *testing.B) {
			fleets := []*placement.Fleet{twenty(b, 1, tc.path), twenty(b, 2, tc.path)}
			c, n := cluster("a", "env=prod"), 0
			b.ReportAllocs()
			for b.Loop() {
				r, err := fleets[n%2].Assign(b.Context(), placement.Input{Cluster: c, Memo: tc.memo})
				if err != nil || len(r.Problems) > 0 {
					b.Fatal(err, r.Problems)
				}
				n++
			}
		})
	}
}

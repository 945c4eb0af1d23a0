package placement_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/placement"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

func cluster(name, labels string, change ...func(*v1alpha1.FleetCluster)) *v1alpha1.FleetCluster {
	c := &v1alpha1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "fleet", Labels: map[string]string{}}}
	for _, l := range strings.Fields(labels) {
		key, value, _ := strings.Cut(l, "=")
		c.Labels[key] = value
	}
	for _, f := range change {
		f(c)
	}
	return c
}

// placementOf reads the spec of a Placement.
func placementOf(t *testing.T, name, spec string) *v1alpha1.Placement {
	t.Helper()
	p := &v1alpha1.Placement{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "fleet"}}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	return p
}

func kustomization(name, more string) string {
	return fmt.Sprintf("{name: %s, kustomization: {interval: 1m, prune: true, path: ./%[1]s, sourceRef: {kind: GitRepository, name: fleet}%s}}", name, more)
}

const commit = "0123456789abcdef0123456789abcdef01234567"

func git(change ...func(*sourcev1.GitRepositorySpec)) placement.Source {
	spec := &sourcev1.GitRepositorySpec{URL: "https://git.example.org/fleet", Reference: &sourcev1.GitRepositoryRef{Branch: "main"}}
	for _, f := range change {
		f(spec)
	}
	return placement.Source{Spec: spec, Revision: "main@sha1:" + commit}
}

func sources(git placement.Source) map[placement.SourceKey]placement.Source {
	return map[placement.SourceKey]placement.Source{{Kind: "GitRepository", Name: "fleet"}: git}
}

func assign(t *testing.T, f *placement.Fleet, c *v1alpha1.FleetCluster, current *v1alpha1.ClusterAssignmentSpec, held ...string) placement.Result {
	t.Helper()
	r, err := f.Assign(t.Context(), placement.Input{Cluster: c, Current: current, Held: func(p string) bool { return slices.Contains(held, p) }})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// shown prints what an assignment holds, a line for each thing.
func shown(s v1alpha1.ClusterAssignmentSpec) string {
	var b strings.Builder
	for _, src := range s.Sources {
		fmt.Fprintf(&b, "source %s/%s/%s %s\n", src.Kind, src.Namespace, src.Name, src.Spec.Raw)
	}
	for _, u := range s.Sync {
		fmt.Fprintf(&b, "sync %s/%s/%s %s\n", u.Kind, u.Namespace, u.Name, u.Spec.Raw)
	}
	for _, p := range s.Placements {
		fmt.Fprintf(&b, "placement %s after %v\n", p.Name, p.DependsOn)
		for _, u := range p.Units {
			fmt.Fprintf(&b, "  %s/%s/%s %s\n", u.Kind, u.Namespace, u.Name, u.Spec.Raw)
		}
	}
	return b.String()
}

const pinnedSource = `{"interval":"0s","ref":{"branch":"main","commit":"` + commit + `"},"url":"https://git.example.org/fleet"}`

// What is placed is what the selector finds, with the values of the cluster, its overrides, and the revision of the hub.
func TestAssign(t *testing.T) {
	for _, tc := range []struct {
		name, reason string
		placements   map[string]string
		cluster      *v1alpha1.FleetCluster
		want         string
	}{
		{
			name: "values", reason: "one Placement serves all clusters",
			placements: map[string]string{"apps": "{clusters: {matchLabels: {env: prod}}, namespace: apps, units: [{name: web, kustomization: " +
				"{interval: 1m, prune: true, path: 'clusters/${cluster.name}/${cluster.labels.env}', sourceRef: {kind: GitRepository, name: fleet}}}]}"},
			cluster: cluster("a", "env=prod"),
			want: "source GitRepository/apps/fleet " + pinnedSource + "\nplacement apps after []\n" +
				`  Kustomization/apps/web {"interval":"1m","path":"clusters/a/prod","prune":true,"sourceRef":{"kind":"GitRepository","name":"fleet"}}` + "\n",
		},
		{
			name: "not selected", reason: "its labels are others",
			placements: map[string]string{"apps": "{clusters: {matchLabels: {env: prod}}, units: [" + kustomization("web", "") + "]}"},
			cluster:    cluster("a", "env=test"),
		},
		{
			name: "overrides", reason: "the last one wins, and a cluster may be named",
			placements: map[string]string{"apps": "{clusters: {}, units: [" + kustomization("web", ", timeout: 5m") + "], overrides: [" +
				"{clusters: {matchLabels: {env: prod}}, unit: web, patch: {timeout: 7m, wait: true}}, {clusterNames: [a], unit: web, patch: {timeout: null, path: './${cluster.name}'}}," +
				"{clusterNames: [b], unit: web, patch: {wait: false}}]}"},
			cluster: cluster("a", "env=prod"),
			want: "source GitRepository/bowline-system/fleet " + pinnedSource + "\nplacement apps after []\n" +
				`  Kustomization/bowline-system/web {"interval":"1m","path":"./a","prune":true,"sourceRef":{"kind":"GitRepository","name":"fleet"},"wait":true}` + "\n",
		},
		{
			name: "order", reason: "only what is on the cluster can be waited for",
			placements: map[string]string{
				"apps":      "{clusters: {}, dependsOn: [{name: infra}, {name: elsewhere}, {name: missing}], units: [" + kustomization("web", "") + "]}",
				"infra":     "{clusters: {}, units: [" + kustomization("ingress", "") + "]}",
				"elsewhere": "{clusters: {matchLabels: {env: none}}, units: [" + kustomization("other", "") + "]}",
			},
			cluster: cluster("a", ""),
			want: "source GitRepository/bowline-system/fleet " + pinnedSource + "\nplacement apps after [infra]\n" +
				`  Kustomization/bowline-system/web {"interval":"1m","path":"./web","prune":true,"sourceRef":{"kind":"GitRepository","name":"fleet"}}` + "\n" +
				"placement infra after []\n" +
				`  Kustomization/bowline-system/ingress {"interval":"1m","path":"./ingress","prune":true,"sourceRef":{"kind":"GitRepository","name":"fleet"}}` + "\n",
		},
		{
			name: "when", reason: "a unit that some clusters do not have",
			placements: map[string]string{"apps": "{clusters: {}, units: [{name: web, when: \"cluster.labels.env == 'prod'\", kustomization: {interval: 1m, prune: true, sourceRef: {kind: GitRepository, name: fleet}}}]}"},
			cluster:    cluster("a", "env=test"),
		},
		{
			name: "sync", reason: "folder, branch and namespace are a line each",
			cluster: cluster("a", "env=prod", func(c *v1alpha1.FleetCluster) {
				source := v1alpha1.SourceReference{Kind: "GitRepository", Name: "fleet"}
				c.Spec.Sync = []v1alpha1.SyncSpec{
					{Name: "own", Source: source, Path: "clusters/${cluster.name}", Wait: true},
					{Name: "team", Source: source, Branch: "${cluster.labels.env}", Namespace: "team", ServiceAccountName: "deployer"},
					{Name: "kept", Source: source, Prune: ptr.To(false)},
				}
			}),
			want: "source GitRepository/bowline-system/fleet " + pinnedSource + "\n" +
				`source GitRepository/team/team {"interval":"0s","ref":{"branch":"prod"},"url":"https://git.example.org/fleet"}` + "\n" +
				`sync Kustomization/bowline-system/own {"deletionPolicy":"WaitForTermination","interval":"0s","path":"clusters/a","prune":true,"sourceRef":{"kind":"GitRepository","name":"fleet"},"wait":true}` + "\n" +
				`sync Kustomization/team/team {"deletionPolicy":"WaitForTermination","interval":"0s","prune":true,"serviceAccountName":"deployer","sourceRef":{"kind":"GitRepository","name":"team"}}` + "\n" +
				`sync Kustomization/bowline-system/kept {"interval":"0s","prune":false,"sourceRef":{"kind":"GitRepository","name":"fleet"}}` + "\n",
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var all []*v1alpha1.Placement
			for name, spec := range tc.placements {
				all = append(all, placementOf(t, name, spec))
			}
			r := assign(t, placement.New(all, sources(git()), template.NewCompiler()), tc.cluster, nil)
			if got := shown(r.Spec); got != tc.want || len(r.Problems) > 0 {
				t.Errorf("%s\ngot:\n%swant:\n%sproblems: %v", tc.reason, got, tc.want, r.Problems)
			}
		})
	}
}

// Each kind of source goes to the members as it is, and pinned where it can be.
func TestSources(t *testing.T) {
	unit := func(kind, spec string) string {
		return "{clusters: {}, units: [{name: web, " + kind + ": {interval: 1m, " + spec + "}}]}"
	}
	all := map[placement.SourceKey]placement.Source{
		{Kind: "GitRepository", Name: "tagged"}: git(func(s *sourcev1.GitRepositorySpec) {
			mode := sourcev1.GitVerificationMode("Tag")
			s.Reference = &sourcev1.GitRepositoryRef{SemVer: "1.x"}
			s.Verification = &sourcev1.GitRepositoryVerification{Mode: mode}
		}),
		{Kind: "GitRepository", Name: "including"}: git(func(s *sourcev1.GitRepositorySpec) {
			s.Suspend = true
			s.Include = []sourcev1.GitRepositoryInclude{{}}
			s.Include[0].GitRepositoryRef.Name = "fleet"
		}),
		{Kind: "GitRepository", Name: "fleet"}:  git(),
		{Kind: "OCIRepository", Name: "apps"}:   {Spec: &sourcev1.OCIRepositorySpec{URL: "oci://r.example.org/apps"}, Revision: "latest@sha256:beef"},
		{Kind: "Bucket", Name: "store"}:         {Spec: &sourcev1.BucketSpec{BucketName: "b"}},
		{Kind: "HelmRepository", Name: "chart"}: {Spec: &sourcev1.HelmRepositorySpec{URL: "https://charts.example.org"}},
		{Kind: "HelmChart", Name: "web"}:        {Spec: &sourcev1.HelmChartSpec{Chart: "web", SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: "HelmRepository", Name: "chart"}}},
	}
	tagged := all[placement.SourceKey{Kind: "GitRepository", Name: "tagged"}]
	tagged.Revision = "v1.2.3@sha1:" + commit
	all[placement.SourceKey{Kind: "GitRepository", Name: "tagged"}] = tagged
	for _, tc := range []struct {
		name, reason, spec string
		want               []string
	}{
		{"tag", "its signature is what is verified", unit("kustomization", "prune: true, sourceRef: {kind: GitRepository, name: tagged}"),
			[]string{`GitRepository/tagged "ref":{"tag":"v1.2.3"}`}},
		{"include", "what it includes goes with it, and a suspended one only pins", unit("kustomization", "prune: true, sourceRef: {kind: GitRepository, name: including}"),
			[]string{`GitRepository/fleet "commit":"` + commit + `"`, `GitRepository/including "commit":"` + commit + `"`}},
		{"artifact", "a digest is exact", unit("kustomization", "prune: true, sourceRef: {kind: OCIRepository, name: apps}"),
			[]string{`OCIRepository/apps "ref":{"digest":"sha256:beef"}`}},
		{"bucket", "nothing to pin", unit("kustomization", "prune: true, sourceRef: {kind: Bucket, name: store}"), []string{`Bucket/store "bucketName":"b"`}},
		{"chart", "a HelmRelease names a repository", unit("helmRelease", "chart: {spec: {chart: web, sourceRef: {kind: HelmRepository, name: chart}}}"),
			[]string{`HelmRepository/chart "url":"https://charts.example.org"`}},
		{"chartRef", "a chart comes with its repository", unit("helmRelease", "chartRef: {kind: HelmChart, name: web, namespace: fleet}"),
			[]string{`HelmChart/web "chart":"web"`, `HelmRepository/chart "url":"https://charts.example.org"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := assign(t, placement.New([]*v1alpha1.Placement{placementOf(t, "p", tc.spec)}, all, template.NewCompiler()), cluster("a", ""), nil)
			if len(r.Spec.Sources) != len(tc.want) || len(r.Problems) > 0 {
				t.Fatalf("%s\n%s%v", tc.reason, shown(r.Spec), r.Problems)
			}
			for i, want := range tc.want {
				s := r.Spec.Sources[i]
				id, part, _ := strings.Cut(want, " ")
				if s.Kind+"/"+s.Name != id || !strings.Contains(string(s.Spec.Raw), part) || strings.Contains(string(s.Spec.Raw), "suspend") {
					t.Errorf("%s: %s is %s, want %s", tc.reason, s.Kind+"/"+s.Name, s.Spec.Raw, want)
				}
			}
			if unit := string(r.Spec.Placements[0].Units[0].Spec.Raw); strings.Contains(unit, "namespace") {
				t.Errorf("the source is looked for elsewhere: %s", unit)
			}
		})
	}
}

// What cannot be told leaves the cluster as it is, and holds up no other Placement.
func TestAssignKeeps(t *testing.T) {
	good := map[string]string{
		"apps":  "{clusters: {matchLabels: {env: prod}}, units: [" + kustomization("web", "") + "]}",
		"infra": "{clusters: {}, units: [" + kustomization("ingress", "") + "]}",
	}
	all := func(t *testing.T, specs map[string]string) (out []*v1alpha1.Placement) {
		for name, spec := range specs {
			out = append(out, placementOf(t, name, spec))
		}
		return out
	}
	for _, tc := range []struct {
		name, reason string
		apps         string
		git          placement.Source
		gone         bool
		cluster      *v1alpha1.FleetCluster
		held         []string
		kept         bool
		is           func(error) bool
		words        string
	}{
		{name: "suspended", reason: "nothing changes", apps: "{clusters: {matchLabels: {env: prod}}, suspend: true, units: [" + kustomization("other", "") + "]}", git: git(), kept: true},
		{name: "held", reason: "leaving waits for approval", apps: "{clusters: {matchLabels: {env: none}}, units: [" + kustomization("web", "") + "]}", git: git(), held: []string{"apps"}, kept: true},
		{name: "left", reason: "it does not match any more", apps: "{clusters: {matchLabels: {env: none}}, units: [" + kustomization("web", "") + "]}", git: git()},
		{name: "no value", reason: "the cluster lacks a label", apps: "{clusters: {matchLabels: {env: prod}}, units: [" + kustomization("web", ", targetNamespace: '${cluster.labels.zone}'") + "]}", git: git(),
			kept: true, is: kind(failure.Invalid), words: "spec.units[0].kustomization"},
		{name: "bad field", reason: "the API has none of this name", apps: "{clusters: {matchLabels: {env: prod}}, units: [" + kustomization("web", ", purne: true") + "]}", git: git(),
			kept: true, is: kind(failure.Invalid), words: `unknown field "purne"`},
		{name: "bad override", reason: "the unit is not there", apps: "{clusters: {matchLabels: {env: prod}}, units: [" + kustomization("web", "") + "], overrides: [{clusterNames: [a], unit: wbe, patch: {}}]}", git: git(),
			kept: true, is: kind(failure.Invalid), words: "spec.overrides[0].unit"},
		{name: "circle", reason: "neither can begin", apps: "{clusters: {matchLabels: {env: prod}}, dependsOn: [{name: apps}], units: [" + kustomization("web", "") + "]}", git: git(),
			kept: true, is: func(err error) bool { return errors.Is(err, placement.ErrCycle) }, words: "take one of the Placements out"},
		{name: "no revision", reason: "the hub has fetched nothing", apps: good["apps"], git: placement.Source{Spec: git().Spec, Why: "authentication failed"},
			kept: true, is: func(err error) bool { return errors.Is(err, placement.ErrSource) }, words: "authentication failed"},
		{name: "no source", reason: "it is not there", apps: good["apps"], gone: true, kept: true, is: kind(failure.NotFound), words: "GitRepository/fleet"},
		{name: "elsewhere", reason: "a fleet ends at its namespace", apps: "{clusters: {matchLabels: {env: prod}}, units: [{name: web, kustomization: {interval: 1m, prune: true, sourceRef: {kind: GitRepository, name: fleet, namespace: secret}}}]}",
			git: git(), kept: true, is: kind(failure.Refused), words: "secret/fleet"},
		{name: "on the hub", reason: "members cannot fetch it", apps: "{clusters: {matchLabels: {env: prod}}, units: [{name: web, kustomization: {interval: 1m, prune: true, sourceRef: {kind: ExternalArtifact, name: fleet}}}]}",
			git: git(), kept: true, is: kind(failure.Unsupported), words: "ExternalArtifact/fleet"},
		{name: "taken", reason: "two units cannot have one name", apps: "{clusters: {matchLabels: {env: prod}}, units: [" + kustomization("sync", "") + "]}", git: git(),
			cluster: cluster("a", "env=prod", func(c *v1alpha1.FleetCluster) {
				c.Spec.Sync = []v1alpha1.SyncSpec{{Name: "sync", Source: v1alpha1.SourceReference{Kind: "GitRepository", Name: "fleet"}}}
			}), kept: true, is: func(err error) bool { return errors.Is(err, placement.ErrTaken) }, words: "Kustomization/bowline-system/sync"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := assign(t, placement.New(all(t, good), sources(git()), template.NewCompiler()), cluster("a", "env=prod"), nil).Spec
			now := map[placement.SourceKey]placement.Source{}
			if !tc.gone {
				now = sources(tc.git)
			}
			c := tc.cluster
			if c == nil {
				c = cluster("a", "env=prod")
			}
			r := assign(t, placement.New(all(t, map[string]string{"apps": tc.apps, "infra": good["infra"]}), now, template.NewCompiler()), c, &before, tc.held...)
			has := func(name string) int {
				return slices.IndexFunc(r.Spec.Placements, func(p v1alpha1.AssignedPlacement) bool { return p.Name == name })
			}
			if (has("apps") >= 0) != tc.kept || has("infra") < 0 {
				t.Fatalf("%s:\n%s%v", tc.reason, shown(r.Spec), r.Problems)
			}
			if tc.kept && !slices.EqualFunc(r.Spec.Placements[has("apps")].Units, before.Placements[0].Units, func(x, y v1alpha1.AssignedUnit) bool { return shownUnit(x) == shownUnit(y) }) {
				t.Errorf("%s: something else now:\n%s", tc.reason, shown(r.Spec))
			}
			if len(r.Spec.Sources) == 0 {
				t.Errorf("%s: the source that it needs went", tc.reason)
			}
			err := r.Problems["apps"]
			if (tc.is == nil) != (err == nil) || tc.is != nil && (!tc.is(err) || !strings.Contains(err.Error(), tc.words)) {
				t.Errorf("%s: says %v", tc.reason, err)
			}
		})
	}
}

func shownUnit(u v1alpha1.AssignedUnit) string {
	return u.Kind + u.Namespace + u.Name + string(u.Spec.Raw)
}

func kind(k failure.Kind) func(error) bool {
	return func(err error) bool { return errors.Is(err, failure.Of(k)) }
}

// A Placement that stays as it is goes on with the source that it has, while another one moves on.
func TestAssignKeepsSources(t *testing.T) {
	specs := func(suspend bool) []*v1alpha1.Placement {
		return []*v1alpha1.Placement{
			placementOf(t, "apps", fmt.Sprintf("{clusters: {}, suspend: %v, units: [%s]}", suspend, kustomization("web", ""))),
			placementOf(t, "infra", "{clusters: {}, units: ["+kustomization("ingress", "")+"]}"),
		}
	}
	before := assign(t, placement.New(specs(false), sources(git()), template.NewCompiler()), cluster("a", ""), nil).Spec
	next := git()
	next.Revision = "main@sha1:" + strings.Repeat("f", 40)
	now := assign(t, placement.New(specs(true), sources(next), template.NewCompiler()), cluster("a", ""), &before).Spec
	pins := map[string]string{}
	for _, s := range now.Sources {
		pins[s.Name] = s.Revision
	}
	sourceOf := func(i int) string {
		var spec struct{ SourceRef struct{ Name string } }
		if err := json.Unmarshal(now.Placements[i].Units[0].Spec.Raw, &spec); err != nil {
			t.Fatal(err)
		}
		return spec.SourceRef.Name
	}
	if len(pins) != 2 || pins[sourceOf(0)] != git().Revision || pins[sourceOf(1)] != next.Revision || sourceOf(1) != "fleet" {
		t.Errorf("apps, which is suspended, and infra have\n%s", shown(now))
	}
	// Nothing moves when it is made once more, and both are one again afterwards.
	if again := assign(t, placement.New(specs(true), sources(next), template.NewCompiler()), cluster("a", ""), &now).Spec; again.Digest != now.Digest {
		t.Errorf("made once more it is\n%s", shown(again))
	}
	if after := assign(t, placement.New(specs(false), sources(next), template.NewCompiler()), cluster("a", ""), &now).Spec; len(after.Sources) != 1 {
		t.Errorf("resumed it is\n%s", shown(after))
	}
}

// The same inputs give the same digest, in whatever order they come; what is to run changes it, who it is for does not.
// TestAssignHub assigns to the hub itself: its own sources are there, and are followed and not pinned; what is elsewhere is pinned as for everybody.
func TestAssignHub(t *testing.T) {
	near := placementOf(t, "near", "{clusters: {}, namespace: fleet, units: ["+kustomization("near", "")+"]}")
	far := placementOf(t, "far", "{clusters: {}, namespace: team, units: ["+kustomization("far", "")+"]}")
	f := placement.New([]*v1alpha1.Placement{near, far}, sources(git()), template.NewCompiler())
	for _, hub := range []bool{false, true} {
		current := &v1alpha1.ClusterAssignmentSpec{Sources: []v1alpha1.AssignedSource{{Kind: "GitRepository", Namespace: "fleet", Name: "fleet"}}}
		r, err := f.Assign(t.Context(), placement.Input{Cluster: cluster("c", ""), Hub: hub, Current: current})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range r.Spec.Sources {
			got = append(got, s.Namespace+"/"+s.Name)
		}
		want := []string{"fleet/fleet", "team/fleet"}
		if hub {
			want = want[1:]
		}
		if !slices.Equal(got, want) || len(r.Problems) > 0 || r.Spec.UnitCount != 2 {
			t.Errorf("hub %t: sources %v, want %v; %v", hub, got, want, r.Problems)
		}
	}
}

func TestDigest(t *testing.T) {
	a := placementOf(t, "a", "{clusters: {}, units: ["+kustomization("x", "")+"]}")
	b := placementOf(t, "b", "{clusters: {}, units: ["+kustomization("y", "")+"]}")
	one := assign(t, placement.New([]*v1alpha1.Placement{a, b}, sources(git()), template.NewCompiler()), cluster("c", "k=v"), nil).Spec
	two := assign(t, placement.New([]*v1alpha1.Placement{b, a}, sources(git()), template.NewCompiler()), cluster("d", ""), &one).Spec
	if one.Digest != two.Digest || one.UnitCount != 2 {
		t.Errorf("%s and %s, %d units", one.Digest, two.Digest, one.UnitCount)
	}
	moved := git()
	moved.Revision = "main@sha1:" + strings.Repeat("e", 40)
	if three := assign(t, placement.New([]*v1alpha1.Placement{a, b}, sources(moved), template.NewCompiler()), cluster("c", ""), &one).Spec; three.Digest == one.Digest {
		t.Error("a commit changes nothing")
	}
}

// An assignment that the API server would not take is told in its own words.
func TestAssignTooLarge(t *testing.T) {
	p := placementOf(t, "p", "{clusters: {}, units: ["+kustomization("x", "")+"]}")
	p.Spec.Units[0].Kustomization = &apiextensionsv1.JSON{Raw: []byte(`{"interval":"1m","prune":true,"sourceRef":{"kind":"GitRepository","name":"fleet"},"path":"` + strings.Repeat("x", placement.MaxBytes) + `"}`)}
	_, err := placement.New([]*v1alpha1.Placement{p}, sources(git()), template.NewCompiler()).Assign(t.Context(), placement.Input{Cluster: cluster("big", "")})
	if !errors.Is(err, failure.Of(failure.Invalid)) || !strings.Contains(err.Error(), "FleetCluster big") {
		t.Errorf("got %v", err)
	}
}

// A selector that suddenly matches nothing is a mistake until somebody says that it is none.
func TestEmptying(t *testing.T) {
	units := "units: [" + kustomization("web", "") + "]}"
	for _, tc := range []struct {
		name, reason string
		clusters     int
		// leave is how many of them lose the label.
		leave   int
		asks    bool
		suspend bool
		// alone is that there is no other cluster which the selector matches.
		alone bool
	}{
		{"all of ten", "others take their place, and it is most of them all the same", 10, 10, true, false, false},
		{"all there are", "a selector that matches nothing", 10, 10, true, false, true},
		{"six of ten", "more than half", 10, 6, true, false, false},
		{"half", "a wave of relabelling", 10, 5, false, false, false},
		{"the only one", "it moves to another cluster", 1, 1, false, false, false},
		{"the only one there is", "a selector that matches nothing", 1, 1, true, false, true},
		{"both", "at least two", 2, 2, true, false, false},
		{"none", "nothing leaves", 10, 0, false, false, true},
		{"suspended", "it leaves nothing", 10, 10, false, true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			current := map[string]*v1alpha1.ClusterAssignmentSpec{}
			var clusters []*v1alpha1.FleetCluster
			full := placement.New([]*v1alpha1.Placement{placementOf(t, "p", "{clusters: {}, "+units)}, sources(git()), template.NewCompiler())
			for i := range tc.clusters {
				c := cluster(fmt.Sprint("c", i), "env=prod")
				spec := assign(t, full, c, nil).Spec
				current[c.Name] = &spec
				if i < tc.leave {
					c.Labels["env"] = "test"
				}
				clusters = append(clusters, c)
			}
			if !tc.alone {
				clusters = append(clusters, cluster("new", "env=prod"))
			}
			f := placement.New([]*v1alpha1.Placement{placementOf(t, "p", fmt.Sprintf("{clusters: {matchLabels: {env: prod}}, suspend: %v, %s", tc.suspend, units))}, sources(git()), template.NewCompiler())
			of := func(c string) *v1alpha1.ClusterAssignmentSpec { return current[c] }
			e, asks := f.Emptying("p", clusters, of)
			if asks != tc.asks || asks && (len(e.Clusters) != tc.leave || e.Of != tc.clusters) {
				t.Fatalf("%s: asks %v, %+v", tc.reason, asks, e)
			}
			slices.Reverse(clusters)
			if again, _ := f.Emptying("p", clusters, of); again.Digest != e.Digest {
				t.Error("the order of the clusters changes what is approved")
			}
			if tc.leave > 0 {
				delete(current, "c0")
				if other, _ := f.Emptying("p", clusters, of); !tc.suspend && other.Digest == e.Digest {
					t.Error("an approval covers another list")
				}
			}
		})
	}
}

package hub

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/placement"
)

// Departures are judged by lists that have been the same for a while.
func TestDepartures(t *testing.T) {
	t.Parallel()
	const settle = 2 * time.Second
	type step struct {
		after    time.Duration
		clusters string
		of       int
		approved string
		// released are the clusters that may go, again after what time to ask, and awaits whether approval is.
		released string
		again    time.Duration
		awaits   bool
	}
	for _, tc := range []struct {
		name, reason string
		steps        []step
	}{
		{"nothing", "nothing leaves", []step{{of: 3}}},
		{"one", "it goes when it has been the same for a while", []step{
			{clusters: "a", of: 3, again: settle}, {after: time.Second, clusters: "a", of: 3, again: time.Second}, {after: time.Second, clusters: "a", of: 3, released: "a"}}},
		{"one by one", "labels that go one after the other are one step", []step{
			{clusters: "a", of: 3, again: settle}, {after: time.Second, clusters: "a b", of: 3, again: settle}, {after: time.Second, clusters: "a b c", of: 3, again: settle},
			{after: settle, clusters: "a b c", of: 3, awaits: true}, {after: time.Hour, clusters: "a b c", of: 3, awaits: true}}},
		{"half", "half of them is not most of them", []step{{clusters: "a b", of: 4, again: settle}, {after: settle, clusters: "a b", of: 4, released: "a b"}}},
		{"approved", "exactly this list", []step{
			{clusters: "a b", of: 2, again: settle}, {after: settle, clusters: "a b", of: 2, awaits: true}, {clusters: "a b", of: 2, approved: "a b", released: "a b"}}},
		{"approved something else", "another list is another approval", []step{
			{clusters: "a b", of: 3, again: settle}, {after: settle, clusters: "a b", of: 3, approved: "a b c", awaits: true}}},
		{"approved, and more", "of two digests one fits", []step{{clusters: "a b", of: 2, approved: "x,a b", released: "a b"}}},
		{"grows", "what awaits approval goes on to, with the new list", []step{
			{clusters: "a b", of: 3, again: settle}, {after: settle, clusters: "a b", of: 3, awaits: true}, {clusters: "a b c", of: 3, again: settle, awaits: true}}},
		{"approved, and once more", "what was approved is done", []step{
			{clusters: "a b", of: 2, approved: "a b", released: "a b"}, {of: 2, approved: "a b"},
			{clusters: "a b", of: 2, approved: "a b", again: settle}, {after: settle, clusters: "a b", of: 2, approved: "a b", awaits: true},
			{clusters: "a b", of: 2, awaits: true}, {clusters: "a b", of: 2, approved: "a b", released: "a b"}}},
		{"comes back", "there is nothing to approve any more", []step{{clusters: "a b", of: 2, again: settle}, {after: settle, clusters: "a b", of: 2, awaits: true}, {of: 2}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d, now := departures{released: sets.New[string]()}, time.Unix(0, 0)
			var all []string
			for i, s := range tc.steps {
				now = now.Add(s.after)
				clusters := strings.Fields(s.clusters)
				digest := strings.ReplaceAll(s.clusters, " ", "+")
				e := placement.Emptying{Clusters: clusters, Of: s.of, Digest: digest}
				released, again := d.judge(e, len(clusters) >= 2 && 2*len(clusters) > s.of, strings.ReplaceAll(s.approved, " ", "+"), now, settle)
				if got := strings.Join(released, " "); got != s.released || again != s.again || (d.approval != nil) != s.awaits {
					t.Errorf("step %d: released %q, again %s, awaits %v: %s", i, got, again, d.approval, tc.reason)
				}
				if d.approval != nil && d.approval.Digest != digest {
					t.Errorf("step %d: awaits approval of %s, want %s", i, d.approval.Digest, digest)
				}
				all = append(all, released...)
			}
			if !d.released.Equal(sets.New(all...)) {
				t.Errorf("remembered %v, released %v", d.released, all)
			}
		})
	}
}

// A revision counts for the spec that it was fetched by.
func TestSee(t *testing.T) {
	t.Parallel()
	repository := func(generation, observed int64, ready metav1.ConditionStatus, revision string) *sourcev1.GitRepository {
		o := &sourcev1.GitRepository{ObjectMeta: metav1.ObjectMeta{Name: "fleet", UID: "1", Generation: generation}}
		o.Spec.URL = fmt.Sprint("https://git.example.org/", generation)
		o.Status.ObservedGeneration = observed
		if revision != "" {
			o.Status.Artifact = &meta.Artifact{Revision: revision}
		}
		if ready != "" {
			apimeta.SetStatusCondition(&o.Status.Conditions, metav1.Condition{Type: meta.ReadyCondition, Status: ready, Reason: "Any", Message: "the message"})
		}
		return o
	}
	before := see(repository(1, 1, metav1.ConditionTrue, first), seen{})
	for _, tc := range []struct {
		name, reason string
		o            *sourcev1.GitRepository
		before       seen
		revision     string
		url, why     string
	}{
		{"ready", "it was fetched", repository(1, 1, metav1.ConditionTrue, first), seen{}, first, "https://git.example.org/1", ""},
		{"new", "nothing was fetched", repository(1, 0, "", ""), seen{}, "", "https://git.example.org/1", ""},
		{"failing", "nothing was fetched, and why", repository(1, 1, metav1.ConditionFalse, ""), seen{}, "", "https://git.example.org/1", "the message"},
		{"commit", "a new revision", repository(1, 1, metav1.ConditionTrue, second), before, second, "https://git.example.org/1", ""},
		{"fails now", "the last revision of the same spec goes on", repository(1, 1, metav1.ConditionFalse, first), before, first, "https://git.example.org/1", ""},
		{"another spec", "the revision is of the old one, and so is the URL", repository(2, 1, metav1.ConditionTrue, first), before, first, "https://git.example.org/1", ""},
		{"another spec fails", "as long as it does, the old one goes on", repository(2, 2, metav1.ConditionFalse, first), before, first, "https://git.example.org/1", ""},
		{"another spec fetched", "now it counts", repository(2, 2, metav1.ConditionTrue, second), before, second, "https://git.example.org/2", ""},
		{"fails after a restart", "of which spec the revision is, nobody knows", repository(2, 2, metav1.ConditionFalse, first), seen{}, "", "https://git.example.org/2", "the message"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := see(tc.o, tc.before)
			if url := got.Spec.(*sourcev1.GitRepositorySpec).URL; got.Revision != tc.revision || url != tc.url || got.Why != tc.why {
				t.Errorf("%s at %q, why %q: %s", url, got.Revision, got.Why, tc.reason)
			}
		})
	}
	other := repository(1, 0, "", "")
	other.UID = "2"
	if got := see(other, before); got.Revision != "" {
		t.Errorf("another source of the name has the revision %s", got.Revision)
	}
}

// Ready and the phase come of the conditions that there are.
func TestConclude(t *testing.T) {
	t.Parallel()
	ready := v1alpha1.ClusterReportStatus{Assignment: "d", Units: v1alpha1.UnitCounts{Total: 3, Ready: 2, Suspended: 1}}
	with := func(change func(*v1alpha1.ClusterReportStatus)) v1alpha1.ClusterReportStatus {
		r := ready
		change(&r)
		return r
	}
	for _, tc := range []struct {
		name, reason string
		others       string // type=status=reason
		report       v1alpha1.ClusterReportStatus
		problem      error
		want         string
	}{
		{"nothing yet", "it was only declared", "", v1alpha1.ClusterReportStatus{}, nil, "Pending Unknown AwaitingReport the cluster has not reported yet"},
		{"ready", "suspended units hold nobody up", "", ready, nil, "Ready True Succeeded 2 units are ready, 1 suspended"},
		{"ready with all", "all conditions are true", "Provisioned=True=Provisioned Joined=True=Joined Reachable=True=LeaseRenewed", ready, nil, "Ready True Succeeded 2 units are ready, 1 suspended"},
		{"joined", "the report is on its way", "Joined=True=Joined", v1alpha1.ClusterReportStatus{}, nil, "Syncing Unknown AwaitingReport the cluster has not reported yet"},
		{"provisioning", "the first that is not true says so", "Provisioned=False=Provisioning Joined=False=AwaitingJoin", v1alpha1.ClusterReportStatus{}, nil, "Provisioning False Provisioning message"},
		{"not provisioned", "it failed", "Provisioned=False=ProvisioningFailed", v1alpha1.ClusterReportStatus{}, nil, "Failing False ProvisioningFailed message"},
		{"joining", "nobody joined yet", "Provisioned=True=Provisioned Joined=False=AwaitingJoin", v1alpha1.ClusterReportStatus{}, nil, "Joining False AwaitingJoin message"},
		{"two claim it", "somebody has to decide", "Joined=False=IdentityConflict", ready, nil, "Failing False IdentityConflict message"},
		{"lost", "what it reported last does not count", "Joined=True=Joined Reachable=False=LeaseExpired", ready, nil, "Unreachable False LeaseExpired message"},
		{"wrong parameters", "nothing can be made", "Rendered=False=InvalidParameters", v1alpha1.ClusterReportStatus{}, nil, "Failing False InvalidParameters message"},
		{"failed", "one unit failed", "", with(func(r *v1alpha1.ClusterReportStatus) {
			r.Units.Failed = 1
			r.Assigned = []v1alpha1.UnitReport{{Kind: "HelmRelease", Namespace: "n", Name: "db", State: v1alpha1.UnitFailed, Message: "no chart"}}
		}), nil, "Failing False UnitsFailed 1 of 3 units failed: HelmRelease/n/db no chart"},
		{"progressing", "one unit is on its way", "", with(func(r *v1alpha1.ClusterReportStatus) { r.Units.Ready, r.Units.Progressing = 1, 1 }), nil, "Syncing False Progressing 1 of 3 units are ready"},
		{"behind", "there is a newer assignment", "", with(func(r *v1alpha1.ClusterReportStatus) { r.Assignment = "older" }), nil, "Syncing False Progressing the cluster has not carried out its newest assignment yet"},
		{"agent's problem", "it cannot carry out what it is told", "", with(func(r *v1alpha1.ClusterReportStatus) { r.Problem = "no rights" }), nil, "Failing False UnitsFailed no rights"},
		{"hub's problem", "it cannot be told", "", ready, errors.New("spec.sync[0]: no source"), "Failing False UnitsFailed spec.sync[0]: no source"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := &v1alpha1.FleetCluster{}
			for _, o := range strings.Fields(tc.others) {
				parts := strings.Split(o, "=")
				set(c, metav1.Condition{Type: parts[0], Status: metav1.ConditionStatus(parts[1]), Reason: parts[2], Message: "message"})
			}
			conclude(c, unitsReady(&tc.report, state{digest: "d", problems: map[string]error{"": tc.problem}}))
			r := apimeta.FindStatusCondition(c.Status.Conditions, meta.ReadyCondition)
			if got := fmt.Sprintf("%s %s %s %s", c.Status.Phase, r.Status, r.Reason, r.Message); got != tc.want {
				t.Errorf("got  %s\nwant %s: %s", got, tc.want, tc.reason)
			}
		})
	}
}

// What a Placement says of its clusters.
func TestConclusion(t *testing.T) {
	t.Parallel()
	reports := func(digest string, states ...v1alpha1.UnitState) *v1alpha1.ClusterReportStatus {
		r := &v1alpha1.ClusterReportStatus{Assignment: digest, Assigned: []v1alpha1.UnitReport{{Placement: "another", Name: "x", State: v1alpha1.UnitFailed}}}
		for i, s := range states {
			r.Assigned = append(r.Assigned, v1alpha1.UnitReport{Placement: "apps", Name: fmt.Sprint("unit-", i), State: s, Message: "broken"})
		}
		return r
	}
	on := func(name string, r *v1alpha1.ClusterReportStatus) member {
		return member{name: name, selected: true, units: 1, digest: "d", report: r}
	}
	good := reports("d", v1alpha1.UnitReady)
	var failing []member
	for i := range 12 {
		failing = append(failing, on(fmt.Sprintf("c%02d", i), reports("d", v1alpha1.UnitFailed)))
	}
	empty := &v1alpha1.ClusterReportStatus{}
	for _, tc := range []struct {
		name, reason string
		members      []member
		want         string
	}{
		{"ready", "all report it", []member{on("a", good), on("b", good)}, "2/2 0 True True Succeeded ready on 2 clusters"},
		{"older", "it is ready as it was before", []member{on("a", good), on("b", reports("c", v1alpha1.UnitReady))}, "1/2 0 True False Progressing ready on 1 of 2 clusters; waiting for b"},
		{"some of it", "all units have to be", []member{{name: "a", selected: true, units: 2, digest: "d", report: good}}, "0/1 0 True False Progressing ready on 0 of 1 cluster; waiting for a"},
		{"progressing", "not there yet", []member{on("a", reports("d", v1alpha1.UnitProgressing))}, "0/1 0 True False Progressing ready on 0 of 1 cluster; waiting for a"},
		{"suspended there", "nobody knows whether it would be", []member{on("a", reports("d", v1alpha1.UnitSuspended))}, "0/1 0 True False Progressing ready on 0 of 1 cluster; waiting for a"},
		{"no report", "nobody has said anything", []member{on("a", empty)}, "0/1 0 True False Progressing ready on 0 of 1 cluster; waiting for a"},
		{"more than a report holds", "the count says it", []member{on("a", &v1alpha1.ClusterReportStatus{Assignment: "d", Units: v1alpha1.UnitCounts{Total: 600, Ready: 600}})}, "1/1 0 True True Succeeded ready on 1 cluster"},
		{"failing", "ten are named, and the same problem once", failing, "0/12 10 True False UnitsFailed units fail on all of 12 clusters: c00, c01, c02 and 9 more: unit unit-0: broken"},
		{"agent's problem", "it is told", []member{on("a", good), on("b", &v1alpha1.ClusterReportStatus{Problem: "no rights"})}, "1/2 1 True False UnitsFailed units fail on 1 of 2 clusters: b: no rights"},
		{"none", "no cluster matches", nil, "0/0 0 False False NoClusterMatches no cluster of the namespace has the labels that spec.clusters asks for"},
		{"being placed", "not all were told yet", []member{on("a", good), {name: "b", selected: true, pending: true, report: empty}}, "1/1 0 False False Progressing the units are being placed on b"},
		{"problem", "one cluster cannot be told", []member{on("a", good), {name: "b", selected: true, problem: placement.ErrTaken, report: empty}},
			"1/1 1 False False Conflict on 1 of 2 clusters the units are not as they should be: b: the name is taken"},
		{"left out", "the unit's condition is false there", []member{{name: "a", selected: true, report: empty}}, "0/0 0 True True Succeeded ready on 0 clusters"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &v1alpha1.Placement{ObjectMeta: metav1.ObjectMeta{Name: "apps", Namespace: "fleet"}}
			conclusion(p, view{fleet: placement.New(nil, nil, nil)}, sum("apps", tc.members))
			s := p.Status
			placed, ready := apimeta.FindStatusCondition(s.Conditions, v1alpha1.PlacedCondition), apimeta.FindStatusCondition(s.Conditions, meta.ReadyCondition)
			if got := fmt.Sprintf("%d/%d %d %s %s %s %s", s.ReadyClusters, s.Clusters, len(s.Failing), placed.Status, ready.Status, ready.Reason, ready.Message); got != tc.want {
				t.Errorf("got  %s\nwant %s: %s", got, tc.want, tc.reason)
			}
		})
	}
}

// What happened is written down once for each period, by the clock that is passed in.
func TestMoments(t *testing.T) {
	t.Parallel()
	m, key, now := newMoments(), types.NamespacedName{Name: "a"}, time.Unix(100, 0)
	var waits []time.Duration
	for _, after := range []time.Duration{0, 300 * time.Millisecond, 700 * time.Millisecond, 5 * time.Second} {
		now = now.Add(after)
		wait := m.left(key, now, time.Second)
		if waits = append(waits, wait); wait == 0 {
			m.mark(key, now)
		}
	}
	m.begin(key, now.Add(time.Hour))
	if got := m.left(key, now, time.Second); got != time.Second {
		t.Errorf("what has begun began anew: %s", got)
	}
	m.forget(key)
	if want := []time.Duration{0, 700 * time.Millisecond, 0, 0}; !slices.Equal(waits, want) || m.left(key, now, time.Second) != 0 {
		t.Errorf("waits are %v, want %v", waits, want)
	}
}

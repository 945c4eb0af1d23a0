package link

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

func condition(status metav1.ConditionStatus, reason, message string) *metav1.Condition {
	return &metav1.Condition{Type: meta.ReadyCondition, Status: status, Reason: reason, Message: message}
}

var fleetSource = sourceKey{sourcev1.GitRepositoryKind, "bowline-system", "fleet"}

func TestUnitState(t *testing.T) {
	failing := map[sourceKey]sourceView{fleetSource: {ready: condition(metav1.ConditionFalse, "GitOperationFailed", "no such branch")}}
	fetching := map[sourceKey]sourceView{fleetSource: {ready: condition(metav1.ConditionFalse, meta.ProgressingReason, "fetching")}}
	tests := []struct {
		name, reason string
		unit         unit
		sources      map[sourceKey]sourceView
		want         v1alpha1.UnitState
		message      string
	}{
		{"new", "nobody has looked at it", unit{}, nil, v1alpha1.UnitProgressing, ""},
		{"ready", "it says so", unit{ready: condition(metav1.ConditionTrue, "Succeeded", "done")}, nil, v1alpha1.UnitReady, ""},
		{"old", "what it says is about an older spec", unit{generation: 1, ready: condition(metav1.ConditionTrue, "Succeeded", "done")}, nil, v1alpha1.UnitProgressing, "newest spec"},
		{"on its way", "it says so", unit{ready: condition(metav1.ConditionUnknown, "Progressing", "applying")}, nil, v1alpha1.UnitProgressing, "applying"},
		{"waiting", "a dependency ends by itself", unit{ready: condition(metav1.ConditionFalse, meta.DependencyNotReadyReason, "db is not ready")}, nil, v1alpha1.UnitProgressing, "db"},
		{"failed", "it says so", unit{ready: condition(metav1.ConditionFalse, "BuildFailed", "no such file")}, nil, v1alpha1.UnitFailed, "no such file"},
		{"suspended", "somebody wants it so, whatever is the matter", unit{suspended: true, ready: condition(metav1.ConditionFalse, "BuildFailed", "x")}, nil, v1alpha1.UnitSuspended, ""},
		{"stale", "a unit whose source fails is not what it should be", unit{source: fleetSource, ready: condition(metav1.ConditionTrue, "Succeeded", "done")}, failing,
			v1alpha1.UnitFailed, "GitRepository/bowline-system/fleet: no such branch"},
		{"fetching", "a source that is on its way is no failure", unit{source: fleetSource, ready: condition(metav1.ConditionTrue, "Succeeded", "done")}, fetching, v1alpha1.UnitReady, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, _, message := tt.unit.state(tt.sources)
			if got != tt.want || !strings.Contains(message, tt.message) {
				t.Errorf("%s: %s %q, want %s %q", tt.reason, got, message, tt.want, tt.message)
			}
		})
	}
}

func kustomization(path, revision string) *kustomizev1.Kustomization {
	return &kustomizev1.Kustomization{
		ObjectMeta: metav1.ObjectMeta{Namespace: "bowline-system", Name: "app", UID: "u"},
		Spec: kustomizev1.KustomizationSpec{
			Path: path, Interval: metav1.Duration{Duration: time.Minute}, Prune: true, Force: true, // one more than was assigned
			SourceRef: kustomizev1.CrossNamespaceSourceReference{Kind: fleetSource.kind, Name: fleetSource.name},
		},
		Status: kustomizev1.KustomizationStatus{LastAppliedRevision: revision, Conditions: []metav1.Condition{*condition(metav1.ConditionTrue, "Succeeded", "")}},
	}
}

// A unit counts as ready only as it was assigned.
func TestAssigned(t *testing.T) {
	own := &v1alpha1.ClusterAssignment{Spec: v1alpha1.ClusterAssignmentSpec{
		Sources: []v1alpha1.AssignedSource{{Kind: fleetSource.kind, Namespace: fleetSource.namespace, Name: fleetSource.name, Revision: "main@sha1:two"}},
		Placements: []v1alpha1.AssignedPlacement{{Name: "apps", Units: []v1alpha1.AssignedUnit{{Kind: kustomizev1.KustomizationKind, Namespace: "bowline-system", Name: "app",
			Spec: apiextensionsv1.JSON{Raw: []byte(`{"interval":"1m","prune":true,"path":"./app","sourceRef":{"kind":"GitRepository","name":"fleet"}}`)}}}}},
	}}
	tests := []struct {
		name, reason string
		unit         *kustomizev1.Kustomization
		fetched      string
		want         v1alpha1.UnitState
		message      string
	}{
		{"missing", "it is still to be made", nil, "main@sha1:two", v1alpha1.UnitProgressing, "not there yet"},
		{"other spec", "it is as it was before", kustomization("./old", "main@sha1:two"), "main@sha1:two", v1alpha1.UnitProgressing, "spec"},
		{"source behind", "what is pinned is not fetched", kustomization("./app", "main@sha1:one"), "main@sha1:one", v1alpha1.UnitProgressing, "is not at main@sha1:two"},
		{"unit behind", "what is fetched is not applied", kustomization("./app", "main@sha1:one"), "main@sha1:two", v1alpha1.UnitProgressing, "is not at main@sha1:two"},
		{"as assigned", "the name of the branch is not what counts", kustomization("./app", "sha1:two"), "sha1:two", v1alpha1.UnitReady, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			units := map[unitKey]unit{}
			if tt.unit != nil {
				noteKustomization(units, tt.unit)
			}
			l := New(Options{})
			for range 2 { // the second time from what is remembered
				got := l.assigned(own, units, map[sourceKey]sourceView{fleetSource: {revision: tt.fetched}})
				if len(got) != 1 || got[0].Placement != "apps" || got[0].State != tt.want || !strings.Contains(got[0].Message, tt.message) {
					t.Errorf("%s: %+v, want %s %q", tt.reason, got, tt.want, tt.message)
				}
			}
		})
	}
}

func TestNoteRelease(t *testing.T) {
	units := map[unitKey]unit{}
	noteRelease(units, &helmv2.HelmRelease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "apps", Name: "web"},
		Spec:       helmv2.HelmReleaseSpec{ChartRef: &helmv2.CrossNamespaceSourceReference{Kind: sourcev1.OCIRepositoryKind, Name: "chart"}},
		Status:     helmv2.HelmReleaseStatus{LastAttemptedRevisionDigest: "sha256:two", History: helmv2.Snapshots{{ChartVersion: "1.2.3"}}},
	})
	u := units[unitKey{helmv2.HelmReleaseKind, "apps", "web"}]
	if u.revision != "1.2.3" || u.content != "sha256:two" || u.source != (sourceKey{sourcev1.OCIRepositoryKind, "apps", "chart"}) {
		t.Errorf("it is %+v", u)
	}
}

func TestCount(t *testing.T) {
	units := map[unitKey]unit{}
	for name, u := range map[string]unit{
		"fleet-sync": {wrapper: true}, "a": {ready: condition(metav1.ConditionTrue, "", "")}, "b": {ready: condition(metav1.ConditionTrue, "", "")},
		"c": {suspended: true}, "d": {ready: condition(metav1.ConditionFalse, "BuildFailed", "")},
	} {
		units[unitKey{kustomizev1.KustomizationKind, "x", name}] = u
	}
	got := count(units, []v1alpha1.UnitReport{
		{Kind: kustomizev1.KustomizationKind, Namespace: "x", Name: "b", State: v1alpha1.UnitProgressing}, // ready, and not as it was assigned
		{Kind: kustomizev1.KustomizationKind, Namespace: "x", Name: "e", State: v1alpha1.UnitProgressing}, // not there
	}, nil)
	if want := (v1alpha1.UnitCounts{Total: 5, Ready: 1, Progressing: 2, Failed: 1, Suspended: 1, Summary: "1/5"}); got != want {
		t.Errorf("it counts %+v, want %+v", got, want)
	}
}

func TestBounds(t *testing.T) {
	sources := map[sourceKey]sourceView{{sourcev1.HelmRepositoryKind, "z", "mine"}: {revision: "r"}, {sourcev1.BucketKind, "z", "new"}: {}}
	for i := range 200 {
		sources[sourceKey{sourcev1.GitRepositoryKind, "a", fmt.Sprint(i)}] = sourceView{revision: "r"}
	}
	own := &v1alpha1.ClusterAssignment{Spec: v1alpha1.ClusterAssignmentSpec{Sources: []v1alpha1.AssignedSource{{Kind: sourcev1.HelmRepositoryKind, Namespace: "z", Name: "mine"}}}}
	if got := revisions(own, sources); len(got) != mostSources || got[0].Name != "mine" {
		t.Errorf("it has %d sources, the first is %+v", len(got), got[0])
	}
	pending := slices.Repeat([]v1alpha1.PendingDeletion{{Message: strings.Repeat("ü", 1000)}}, 30)
	got := bounded(pending)
	if len(got) != mostPending || len(got[0].Message) > mostHeld || !strings.HasSuffix(got[0].Message, "ü…") {
		t.Errorf("it has %d, the first of %d bytes", len(got), len(got[0].Message))
	}
	if len(pending[0].Message) != 2000 {
		t.Error("what the engine has was changed")
	}
}

func TestProblem(t *testing.T) {
	own := func(status metav1.ConditionStatus, reason, message string) *v1alpha1.ClusterAssignment {
		return &v1alpha1.ClusterAssignment{Status: v1alpha1.ClusterAssignmentStatus{Conditions: []metav1.Condition{*condition(status, reason, message)}}}
	}
	wrapper := func(reason string) map[unitKey]unit {
		return map[unitKey]unit{{kustomizev1.KustomizationKind, "bowline-system", "fleet-sources"}: {wrapper: true, ready: condition(metav1.ConditionFalse, reason, "forbidden")}}
	}
	tests := []struct {
		name, reason string
		own          *v1alpha1.ClusterAssignment
		units        map[unitKey]unit
		want         string
	}{
		{"none", "all is well", own(metav1.ConditionTrue, "Succeeded", "done"), nil, ""},
		{"copy", "the copy cannot be carried out", own(metav1.ConditionFalse, v1alpha1.ReasonNameTaken, "taken"), nil, "taken"},
		{"on its way", "it ends by itself", own(metav1.ConditionFalse, meta.ProgressingReason, "being deleted"), nil, ""},
		{"delivery", "what is assigned cannot be made", own(metav1.ConditionTrue, "Succeeded", "done"), wrapper(meta.ReconciliationFailedReason), "Kustomization/bowline-system/fleet-sources: forbidden"},
		{"health", "units that fail are told as such", own(metav1.ConditionTrue, "Succeeded", "done"), wrapper(meta.HealthCheckFailedReason), ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := problem(tt.own, tt.units); got != tt.want {
				t.Errorf("%s: %q, want %q", tt.reason, got, tt.want)
			}
		})
	}
}

func TestRollUp(t *testing.T) {
	cluster := func(name string, ready, reachable metav1.ConditionStatus, units int32, below *v1alpha1.FleetCounts) v1alpha1.FleetCluster {
		c := v1alpha1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Namespace: "fleet", Name: name}, Status: v1alpha1.FleetClusterStatus{
			Phase: v1alpha1.PhaseSyncing, Units: &v1alpha1.UnitCounts{Total: units, Ready: units, Summary: "all"}, Fleet: below}}
		c.Status.Conditions = []metav1.Condition{{Type: meta.ReadyCondition, Status: ready, Message: strings.Repeat("why", 100)}, {Type: v1alpha1.ReachableCondition, Status: reachable}}
		return c
	}
	why := strings.Repeat("why", 84) + "w…"
	below := &v1alpha1.FleetCounts{Clusters: 4, Ready: 3, Unreachable: 1, Levels: 2, Units: v1alpha1.UnitCounts{Total: 10, Failed: 1, Ready: 9},
		Members: []v1alpha1.FleetMember{{Name: "a/deep", Namespace: "team", Message: "lost"}, {Name: "b", Namespace: "team", Ready: true}}}
	got := rollUp([]v1alpha1.FleetCluster{
		cluster("fine", metav1.ConditionTrue, metav1.ConditionTrue, 3, nil),
		cluster("hub", metav1.ConditionFalse, metav1.ConditionFalse, 2, below),
	})
	want := &v1alpha1.FleetCounts{Clusters: 6, Ready: 4, Unreachable: 2, Levels: 3, Units: v1alpha1.UnitCounts{Total: 15, Ready: 14, Failed: 1, Summary: "14/15"},
		Members: []v1alpha1.FleetMember{
			{Name: "hub", Namespace: "fleet", Phase: v1alpha1.PhaseSyncing, Units: "all", Message: why},
			{Name: "hub/a/deep", Namespace: "team", Message: "lost"},
			{Name: "fine", Namespace: "fleet", Phase: v1alpha1.PhaseSyncing, Units: "all", Ready: true},
			{Name: "hub/b", Namespace: "team", Ready: true},
		}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("it is\n%+v, want\n%+v", got, want)
	}
	if len(why) != mostWhy || below.Members[0].Name != "a/deep" {
		t.Errorf("the message has %d bytes; what the cache has is %+v", len(why), below.Members)
	}
	var many []v1alpha1.FleetCluster
	for i := range mostMembers {
		many = append(many, cluster(fmt.Sprint("fine-", i), metav1.ConditionTrue, metav1.ConditionTrue, 1, nil))
	}
	many = append(many, cluster("poor", metav1.ConditionFalse, metav1.ConditionTrue, 1, nil))
	if got := rollUp(many); len(got.Members) != mostMembers || got.Members[0].Name != "poor" || got.Clusters != mostMembers+1 {
		t.Errorf("of more clusters than there is room for it says %+v", got)
	}
}

func TestBackoff(t *testing.T) {
	b := backoff{most: 15 * time.Second}
	for _, least := range []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second, 15 * time.Second} {
		if got := b.step(); got < least || got > least*3/2 {
			t.Errorf("it waits %s, want %s and up to half as much more", got, least)
		}
	}
	if b.reset(); b.step() > time.Second {
		t.Error("it does not begin anew")
	}
}

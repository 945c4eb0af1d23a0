package report

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/apply"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
)

// shape is the conditions as a line: "Ready=False/reason Stalled=True/reason".
func shape(k *kustomizev1.Kustomization) string {
	var parts []string
	for _, c := range k.Status.Conditions {
		parts = append(parts, fmt.Sprintf("%s=%s/%s", c.Type, c.Status, c.Reason))
	}
	slices.Sort(parts)
	return strings.Join(parts, " ")
}

func TestConditions(t *testing.T) {
	ready := func(k *kustomizev1.Kustomization) { Ready(k, "Done", "m") }
	progressing := func(k *kustomizev1.Kustomization) { Progressing(k, "Busy", "m") }
	waiting := func(k *kustomizev1.Kustomization) { Waiting(k, "Dependency", "m") }
	failed := func(k *kustomizev1.Kustomization) { Failed(k, "Broken", "m", false) }
	stalled := func(k *kustomizev1.Kustomization) { Failed(k, "Broken", "m", true) }
	cases := []struct {
		name, reason string
		steps        []func(*kustomizev1.Kustomization)
		want         string
	}{
		{"ready", "one condition says all", []func(*kustomizev1.Kustomization){ready}, "Ready=True/Done"},
		{"progressing", "kstatus reads Reconciling", []func(*kustomizev1.Kustomization){progressing}, "Ready=Unknown/Busy Reconciling=True/Busy"},
		{"waiting", "it goes on by itself", []func(*kustomizev1.Kustomization){waiting}, "Ready=False/Dependency Reconciling=True/ProgressingWithRetry"},
		{"failed", "it is tried again", []func(*kustomizev1.Kustomization){failed}, "Ready=False/Broken Reconciling=True/ProgressingWithRetry"},
		{"stalled", "it is not tried again", []func(*kustomizev1.Kustomization){stalled}, "Ready=False/Broken Stalled=True/Broken"},
		{"stalled, then ready", "the trouble is over", []func(*kustomizev1.Kustomization){stalled, ready}, "Ready=True/Done"},
		{"stalled, then progressing", "a new attempt", []func(*kustomizev1.Kustomization){stalled, progressing}, "Ready=Unknown/Busy Reconciling=True/Busy"},
		{"failed, then stalled", "it is given up", []func(*kustomizev1.Kustomization){failed, stalled}, "Ready=False/Broken Stalled=True/Broken"},
		{"healthy beside ready", "health has a condition of its own", []func(*kustomizev1.Kustomization){ready, func(k *kustomizev1.Kustomization) {
			Healthy(k, metav1.ConditionTrue, "Healthy", "m")
		}}, "Healthy=True/Healthy Ready=True/Done"},
		{"health no more", "there is nothing to check", []func(*kustomizev1.Kustomization){func(k *kustomizev1.Kustomization) {
			Healthy(k, metav1.ConditionFalse, "Sick", "m")
		}, func(k *kustomizev1.Kustomization) { NoHealth(k) }}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			k := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Generation: 3}}
			for _, step := range c.steps {
				step(k)
			}
			if got := shape(k); got != c.want {
				t.Errorf("got %q, want %q: %s", got, c.want, c.reason)
			}
			for _, condition := range k.Status.Conditions {
				if condition.ObservedGeneration != 3 {
					t.Errorf("%s names generation %d, want 3", condition.Type, condition.ObservedGeneration)
				}
			}
		})
	}
}

// The same outcome again is no change: it would cost a status write.
func TestSameOutcomeChangesNothing(t *testing.T) {
	k := &kustomizev1.Kustomization{}
	Failed(k, "Broken", "m", false)
	Healthy(k, metav1.ConditionFalse, "Sick", "m")
	before := k.DeepCopy()
	before.Status.Conditions[0].LastTransitionTime = metav1.NewTime(time.Unix(1, 0))
	after := before.DeepCopy()
	Failed(after, "Broken", "m", false)
	Healthy(after, metav1.ConditionFalse, "Sick", "m")
	if fmt.Sprint(before.Status) != fmt.Sprint(after.Status) {
		t.Errorf("from %v to %v", before.Status, after.Status)
	}
	shared := before.Status.Conditions
	Ready(before, "Done", "m")
	if shared[0].Reason != "Broken" {
		t.Error("conditions that others hold were changed in place")
	}
}

func TestIsReady(t *testing.T) {
	k := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Generation: 2}}
	if IsReady(k, 2) {
		t.Error("without a condition it is ready")
	}
	Ready(k, "Done", "m")
	if !IsReady(k, 2) || IsReady(k, 1) {
		t.Error("readiness counts at the newest generation and at no other")
	}
	Failed(k, "Broken", "m", false)
	if IsReady(k, 2) {
		t.Error("what failed is ready")
	}
}

func TestLongMessages(t *testing.T) {
	k := &kustomizev1.Kustomization{}
	Ready(k, "Done", "x"+strings.Repeat("é", maxMessage))
	message := Condition(k, meta.ReadyCondition).Message
	if len(message) > maxMessage+len("…") || !utf8.ValidString(message) || !strings.HasSuffix(message, "…") {
		t.Errorf("cut to %d bytes, valid %v", len(message), utf8.ValidString(message))
	}
}

func result(verb plan.Verb, name string, err error) apply.Result {
	return apply.Result{Action: plan.Action{Verb: verb, ID: object.ID{Kind: "ConfigMap", Namespace: "apps", Name: name}}, Err: err}
}

func TestChanges(t *testing.T) {
	many := apply.ChangeSet{}
	for i := range maxEventNames + 2 {
		many = append(many, result(plan.Update, fmt.Sprint(i), nil))
	}
	cases := []struct {
		name, reason string
		changes      apply.ChangeSet
		want         string
	}{
		{"nothing", "there is nothing to tell", apply.ChangeSet{result(plan.Keep, "a", nil), result(plan.Skip, "b", nil), result(plan.Release, "c", nil)}, ""},
		{"each verb", "in the order of the work", apply.ChangeSet{result(plan.Delete, "d", nil), result(plan.Create, "a", nil), result(plan.Heal, "h", nil), result(plan.Update, "u", nil)},
			"1 created (ConfigMap/apps/a), 1 configured (ConfigMap/apps/u), 1 healed (ConfigMap/apps/h), 1 deleted (ConfigMap/apps/d)"},
		{"failures", "what failed is not a change", apply.ChangeSet{result(plan.Create, "a", errors.New("no"))}, ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := Changes(c.changes); got != c.want {
				t.Errorf("got %q, want %q: %s", got, c.want, c.reason)
			}
		})
	}
	if got := Changes(many); !strings.HasSuffix(got, ", and 2 more)") || !strings.HasPrefix(got, fmt.Sprintf("%d configured (", len(many))) {
		t.Errorf("many changes read %q", got)
	}
}

func TestNamesLeavesItsInputAlone(t *testing.T) {
	names := make([]string, maxEventNames+1, maxEventNames+5)
	for i := range names {
		names[i] = "n"
	}
	_ = Names(names)
	if names[maxEventNames] != "n" {
		t.Error("the caller's names were overwritten")
	}
}

func TestHeldSaysHowToApprove(t *testing.T) {
	for _, tt := range []struct {
		name, reason string
		id           object.ID
		want         string
	}{
		{"namespace", "what it holds is what was delivered", object.ID{Kind: "Namespace", Name: "x"},
			"deleting it needs approval; waiting to delete Namespace/x; approve with: bowline approve kustomization apps -n flux-system --plan abc"},
		{"cluster", "what runs there is nowhere in the plan", object.ID{Group: "fleet.bowline.dev", Kind: "FleetCluster", Namespace: "fleet", Name: "edge"},
			"deleting it needs approval; waiting to delete FleetCluster/fleet/edge; what goes with it: bowline approve kustomization apps -n flux-system --show; " +
				"approve with: bowline approve kustomization apps -n flux-system --plan abc"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Held("kustomization", "apps", "flux-system", &plan.Plan{HeldReason: "deleting it needs approval", HeldDigest: "abc", Held: []plan.Action{{ID: tt.id}}})
			if got != tt.want {
				t.Errorf("got %q, want %q: %s", got, tt.want, tt.reason)
			}
		})
	}
}

func TestInventoryThereAndBack(t *testing.T) {
	entries := []plan.Entry{
		{ID: object.ID{Group: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "system:node"}, Version: "v1"},
		{ID: object.ID{Kind: "ConfigMap", Namespace: "apps", Name: "web.x"}, Version: "v1"},
	}
	written := Inventory(entries)
	written.Entries = append(written.Entries, kustomizev1.ResourceRef{ID: "nonsense", Version: "v1"})
	got, unreadable := Entries(written)
	if !slices.Equal(got, entries) {
		t.Errorf("got %v, want %v", got, entries)
	}
	if len(unreadable) != 1 || unreadable[0].ID != "nonsense" {
		t.Errorf("unreadable entries are lost: %v", unreadable)
	}
	if got, unreadable := Entries(nil); got != nil || unreadable != nil {
		t.Errorf("without an inventory: %v, %v", got, unreadable)
	}
}

func TestHistoryNamesTheRevision(t *testing.T) {
	k := &kustomizev1.Kustomization{}
	History(k, "sha256:a", time.Unix(100, 0), 1234567*time.Nanosecond, meta.ReconciliationSucceededReason, "main@sha1:1")
	History(k, "sha256:a", time.Unix(200, 0), time.Millisecond, meta.ReconciliationSucceededReason, "main@sha1:2")
	if len(k.Status.History) != 1 || k.Status.History[0].Metadata["revision"] != "main@sha1:2" || k.Status.History[0].TotalReconciliations != 2 {
		t.Errorf("got %+v, want one snapshot, seen twice, at the newest revision", k.Status.History)
	}
}

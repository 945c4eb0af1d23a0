package plan

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/ignore"
	"github.com/bowline-dev/bowline/internal/object"
)

var (
	unit  = types.NamespacedName{Namespace: "apps", Name: "unit"}
	other = types.NamespacedName{Namespace: "apps", Name: "other"}
)

func id(kind, name string) object.ID { return object.ID{Kind: kind, Namespace: "apps", Name: name} }

var web = id("ConfigMap", "web")

// facts is a ledger and a cluster written down as values.
type facts struct {
	known    map[object.ID]Known
	claims   map[object.ID]types.NamespacedName
	byOther  map[object.ID]bool
	waits    map[object.ID]time.Duration
	adopts   State
	exists   bool
	settled  bool
	probeErr error

	asked, settles int
}

func (f *facts) Known(id object.ID) (Known, bool)      { k, ok := f.known[id]; return k, ok }
func (f *facts) Adopt(object.ID, map[string]any) State { return f.adopts }
func (f *facts) Settle(object.ID)                      { f.settles++ }
func (f *facts) Claimant(id object.ID) (types.NamespacedName, bool) {
	u, ok := f.claims[id]
	return u, ok
}
func (f *facts) WantedByOther(id object.ID, _ types.NamespacedName) bool { return f.byOther[id] }
func (f *facts) HealAfter(id object.ID) time.Duration                    { return f.waits[id] }
func (f *facts) Settled(context.Context, *unstructured.Unstructured, *ignore.Paths) (bool, error) {
	f.asked++
	return f.settled, f.probeErr
}

func (f *facts) Exists(context.Context, schema.GroupVersionKind, object.ID) (bool, error) {
	f.asked++
	return f.exists, f.probeErr
}

func TestWant(t *testing.T) {
	synced := Known{UID: "u", Digest: "d", Owner: unit, State: InSync}
	with := func(edit func(*Known)) map[object.ID]Known {
		k := synced
		edit(&k)
		return map[object.ID]Known{web: k}
	}
	state := func(s State) map[object.ID]Known {
		return with(func(k *Known) { k.State = s; k.Contender = "kubectl-edit" })
	}
	refused := &failure.Error{Op: "dry run", Kind: failure.Invalid, Err: errors.New("no")}
	away := &failure.Error{Op: "dry run", Kind: failure.Unavailable, Err: errors.New("away")}
	cases := []struct {
		name, reason string
		facts        facts
		mode         Mode
		blind        bool // plan without the objects at hand
		recheck      bool
		verb         Verb // "" for none
		words        string
		asks         int
		fails        bool
		conflict     bool
		healAfter    time.Duration
	}{
		{name: "absent", reason: "it is not there", verb: Create},
		{name: "in sync", reason: "steady state asks nobody", facts: facts{known: with(func(*Known) {})}, verb: Keep},
		{name: "in sync, blind", reason: "nothing has to be built", facts: facts{known: with(func(*Known) {})}, blind: true, verb: Keep},
		{name: "other digest", reason: "what is wanted changed", facts: facts{known: with(func(k *Known) { k.Digest = "old" })}, verb: Update},
		{name: "other owner", reason: "it is taken over", facts: facts{known: with(func(k *Known) { k.Owner = other })}, verb: Update},
		{name: "drifted", reason: "the reason names who", facts: facts{known: state(Drifted)}, verb: Heal, words: "changed by kubectl-edit"},
		{name: "drifted by nobody known", reason: "there is not always a name", facts: facts{known: with(func(k *Known) { k.State = Drifted })}, verb: Heal, words: "changed by somebody"},
		{name: "drifted, blind", reason: "it has to be sent whatever it is", facts: facts{known: state(Drifted)}, blind: true, verb: Heal},
		{name: "contested", reason: "healing waits, and says who for", facts: facts{known: state(Drifted), waits: map[object.ID]time.Duration{web: time.Minute}},
			verb: Keep, words: "kubectl-edit keeps changing it", healAfter: time.Minute},
		{name: "contested, blind", reason: "nothing is built to find that it waits", facts: facts{known: state(Drifted), waits: map[object.ID]time.Duration{web: time.Minute}},
			blind: true, verb: Keep, healAfter: time.Minute},
		{name: "contested, removed", reason: "making it again waits too", facts: facts{waits: map[object.ID]time.Duration{web: time.Second}},
			verb: Keep, words: "somebody keeps removing it", healAfter: time.Second},
		{name: "contested, but other digest", reason: "a commit does not wait", facts: facts{known: with(func(k *Known) { k.Digest = "old" }),
			waits: map[object.ID]time.Duration{web: time.Minute}}, verb: Update},
		{name: "unproven, covered", reason: "adopted without a request", facts: facts{known: state(Unproven), adopts: InSync}, verb: Keep},
		{name: "unproven, not covered", reason: "somebody changed it while nobody looked", facts: facts{known: state(Unproven), adopts: Drifted}, verb: Heal},
		{name: "unproven, undecided, settled", reason: "a dry run tells", facts: facts{known: state(Unproven), adopts: Unproven, settled: true}, verb: Keep, asks: 1},
		{name: "unproven, undecided, changed", reason: "a dry run tells", facts: facts{known: state(Unproven), adopts: Unproven}, verb: Heal, asks: 1},
		{name: "unproven, blind", reason: "the objects are asked for, and nobody else", facts: facts{known: state(Unproven)}, blind: true, verb: Heal, words: "compared"},
		{name: "dry run refused", reason: "one object's refusal is reported by its apply, beside all others",
			facts: facts{known: state(Unproven), adopts: Unproven, probeErr: refused}, verb: Heal, asks: 1},
		{name: "dry run unanswered", reason: "without an answer there is no plan", facts: facts{known: state(Unproven), adopts: Unproven, probeErr: away}, asks: 1, fails: true},
		{name: "no field ownership", reason: "between the intervals it is taken as it is", facts: facts{known: state(Unowned)}, verb: Keep},
		{name: "no field ownership, interval", reason: "only a dry run can tell", facts: facts{known: state(Unowned)}, recheck: true, verb: Heal, asks: 1},
		{name: "no field ownership, interval, settled", reason: "a dry run tells", facts: facts{known: state(Unowned), settled: true}, recheck: true, verb: Keep, asks: 1},
		{name: "no field ownership, interval, blind", reason: "the objects are needed to ask", facts: facts{known: state(Unowned)}, recheck: true, blind: true, verb: Heal},
		{name: "hands off", reason: "the live object says so", facts: facts{known: with(func(k *Known) { k.Marks = HandsOff; k.Digest = "old" })}, verb: Skip},
		{name: "ignore", reason: "the desired object says so", mode: Ignore, verb: Skip},
		{name: "if not present, absent", reason: "it is made once", mode: IfNotPresent, verb: Create, asks: 1},
		{name: "if not present, there", reason: "it is somebody else's", facts: facts{exists: true}, mode: IfNotPresent, verb: Skip, asks: 1},
		{name: "if not present, ours", reason: "it was made once and is left alone", facts: facts{known: with(func(k *Known) { k.Digest = "old"; k.State = Drifted })},
			mode: IfNotPresent, verb: Keep},
		{name: "if not present, another's", reason: "it is there, and that is all that is asked", facts: facts{known: with(func(k *Known) { k.Owner, k.Digest = other, "theirs" }),
			claims: map[object.ID]types.NamespacedName{web: other}}, mode: IfNotPresent, verb: Keep},
		{name: "if not present, unanswered", reason: "what may be there is not overwritten", facts: facts{probeErr: away}, mode: IfNotPresent, asks: 1, fails: true},
		{name: "claimed by another", reason: "who has it keeps it", facts: facts{claims: map[object.ID]types.NamespacedName{web: other}}, conflict: true},
		{name: "claimed by us", reason: "the claim is ours", facts: facts{claims: map[object.ID]types.NamespacedName{web: unit}}, verb: Create},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			in := Input{Unit: unit, Wants: []Want{{ID: web, Version: "v1", Digest: "d", Mode: c.mode}}, Recheck: c.recheck}
			if !c.blind {
				in.Objects = Objects{web: &unstructured.Unstructured{Object: map[string]any{}}}
			}
			p, err := Make(t.Context(), in, &c.facts, &c.facts)
			if (err != nil) != c.fails {
				t.Fatalf("got error %v: %s", err, c.reason)
			}
			if c.facts.asked != c.asks {
				t.Errorf("%d requests, want %d: %s", c.facts.asked, c.asks, c.reason)
			}
			if err != nil {
				return
			}
			if (len(p.Conflicts) > 0) != c.conflict || p.HealAfter != c.healAfter {
				t.Errorf("conflicts %v, heal after %s; want %v, %s: %s", p.Conflicts, p.HealAfter, c.conflict, c.healAfter, c.reason)
			}
			if c.verb == "" {
				if len(p.Actions) > 0 {
					t.Errorf("got %+v, want no action: %s", p.Actions, c.reason)
				}
				return
			}
			if len(p.Actions) != 1 || p.Actions[0].Verb != c.verb || !strings.Contains(p.Actions[0].Reason, c.words) {
				t.Errorf("got %+v, want %s because of %q: %s", p.Actions, c.verb, c.words, c.reason)
			}
			if quiet := c.verb == Keep || c.verb == Skip; p.Quiet() != quiet || p.Sends() != (!quiet) {
				t.Errorf("quiet %v, sends %v for %s", p.Quiet(), p.Sends(), c.verb)
			}
		})
	}
}

func TestRemoval(t *testing.T) {
	ours := Known{UID: "u", Owner: unit}
	with := func(edit func(*Known)) *Known { k := ours; edit(&k); return &k }
	cases := []struct {
		name, reason string
		known        *Known
		byOther      bool
		verb         Verb
	}{
		{"ours", "all proof is there", &ours, false, Delete},
		{"unknown", "an unknown is never a deletion", nil, false, Release},
		{"labels of another", "it belongs to somebody else now", with(func(k *Known) { k.Owner = other }), false, Release},
		{"wanted by another", "it is handed over", &ours, true, Release},
		{"kept on prune", "its annotation says so", with(func(k *Known) { k.Marks = KeepOnPrune }), false, Release},
		{"hands off", "its annotation says so", with(func(k *Known) { k.Marks = HandsOff }), false, Release},
		{"going", "somebody deleted it already; that needs nobody's approval", with(func(k *Known) { k.Terminating = true }), false, Release},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			f := &facts{known: map[object.ID]Known{}, byOther: map[object.ID]bool{web: c.byOther}}
			if c.known != nil {
				f.known[web] = *c.known
			}
			got := Removal(unit, Entry{ID: web, Version: "v1"}, f)
			if got.Verb != c.verb || (got.Verb == Delete) != (got.UID == "u") || (got.Verb == Release) != (got.Reason != "") {
				t.Errorf("got %+v, want %s, with the uid as proof or a reason: %s", got, c.verb, c.reason)
			}
		})
	}
}

// deletions returns what a plan deletes.
func deletions(p *Plan) []object.ID {
	var out []object.ID
	for _, a := range p.Actions {
		if a.Verb == Delete {
			out = append(out, a.ID)
		}
	}
	return out
}

func TestPrune(t *testing.T) {
	namespace := object.ID{Kind: "Namespace", Name: "apps"}
	old := id("ConfigMap", "old")
	f := func() *facts {
		return &facts{known: map[object.ID]Known{
			web: {UID: "1", Owner: unit, Digest: "d"}, old: {UID: "2", Owner: unit}, namespace: {UID: "3", Owner: unit},
		}}
	}
	budget := Policy{Prune: true, Budget: DefaultBudget()}
	held := func() string {
		p, err := Make(t.Context(), Input{Unit: unit, Inventory: []Entry{{ID: namespace}, {ID: old}}, Policy: budget}, f(), f())
		if err != nil || p.HeldDigest == "" {
			t.Fatalf("nothing is held: %v", err)
		}
		return p.HeldDigest
	}()
	cases := []struct {
		name, reason string
		in           Input
		facts        func(*facts)
		deletes      []object.ID
		holds        int
	}{
		{name: "gone from Git", reason: "it is pruned", in: Input{Inventory: []Entry{{ID: old}}, Policy: budget}, deletes: []object.ID{old}},
		{name: "prune is off", reason: "nothing is deleted", in: Input{Inventory: []Entry{{ID: old}}}},
		{name: "still wanted", reason: "it stays", in: Input{Wants: []Want{{ID: web, Digest: "d"}}, Inventory: []Entry{{ID: web}, {ID: old}}, Policy: budget}, deletes: []object.ID{old}},
		{name: "a conflict", reason: "a plan that cannot succeed as a whole deletes nothing",
			in:    Input{Wants: []Want{{ID: web, Digest: "d"}}, Inventory: []Entry{{ID: old}}, Policy: budget},
			facts: func(f *facts) { f.claims = map[object.ID]types.NamespacedName{web: other} }},
		{name: "guarded", reason: "a Namespace takes everything with it; all deletions wait together", in: Input{Inventory: []Entry{{ID: namespace}, {ID: old}}, Policy: budget}, holds: 2},
		{name: "approved", reason: "somebody approved this list", in: Input{Inventory: []Entry{{ID: old}, {ID: namespace}},
			Policy: Policy{Prune: true, Budget: DefaultBudget(), Approved: held}}, deletes: []object.ID{namespace, old}},
		{name: "another list approved", reason: "an approval covers exactly its list", in: Input{Inventory: []Entry{{ID: namespace}},
			Policy: Policy{Prune: true, Budget: DefaultBudget(), Approved: held}}, holds: 1},
		{name: "made anew since the approval", reason: "another object of the name is another deletion", in: Input{Inventory: []Entry{{ID: old}, {ID: namespace}},
			Policy: Policy{Prune: true, Budget: DefaultBudget(), Approved: held}}, facts: func(f *facts) { f.known[old] = Known{UID: "9", Owner: unit} }, holds: 2},
		{name: "budget off", reason: "the setting says so", in: Input{Inventory: []Entry{{ID: namespace}}, Policy: Policy{Prune: true, Budget: Budget{Off: true}}},
			deletes: []object.ID{namespace}},
		{name: "taken by a neighbour", reason: "the same commit moved it", in: Input{Inventory: []Entry{{ID: old}}, Policy: budget,
			Foresight: &Foresight{Taken: map[object.ID]bool{old: true}}}},
		{name: "neighbour unknown", reason: "an unknown is never a deletion", in: Input{Inventory: []Entry{{ID: old}}, Policy: budget, Foresight: &Foresight{Unknown: "broken"}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.in.Unit = unit
			known := f()
			if c.facts != nil {
				c.facts(known)
			}
			p, err := Make(t.Context(), c.in, known, known)
			if err != nil {
				t.Fatal(err)
			}
			got := deletions(p)
			slices.SortFunc(got, object.Compare)
			slices.SortFunc(c.deletes, object.Compare)
			if !slices.Equal(got, c.deletes) || len(p.Held) != c.holds {
				t.Errorf("deletes %v, holds %d; want %v, %d: %s", got, len(p.Held), c.deletes, c.holds, c.reason)
			}
		})
	}
}

func TestBudget(t *testing.T) {
	many := func(n int) []Action {
		var out []Action
		for range n {
			out = append(out, Action{Verb: Delete, ID: web})
		}
		return out
	}
	cases := []struct {
		name, reason string
		budget       string
		deletions    []Action
		inventory    int
		exceeded     bool
	}{
		{"none", "there is nothing to hold", "50%", nil, 10, false},
		{"five of five", "a share of few says little", "50%", many(5), 5, false},
		{"six of six", "more than half", "50%", many(6), 6, true},
		{"half", "half is within half", "50%", many(10), 20, false},
		{"more than half", "it is more than half", "50%", many(11), 20, true},
		{"zero", "nothing but a few", "0%", many(6), 1000, true},
		{"all", "everything may go", "100%", many(1000), 1000, false},
		{"volume claim", "data goes with it", "100%", []Action{{ID: id("PersistentVolumeClaim", "data")}}, 100, true},
		{"definition", "its objects go with it", "100%", []Action{{ID: object.ID{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition", Name: "x"}}}, 100, true},
		{"cluster", "all that runs on it goes with it", "100%", []Action{{ID: object.ID{Group: "fleet.bowline.dev", Kind: "FleetCluster", Namespace: "fleet", Name: "edge"}}}, 100, true},
		{"placement", "its units go from every cluster", "100%", []Action{{ID: object.ID{Group: "fleet.bowline.dev", Kind: "Placement", Namespace: "fleet", Name: "apps"}}}, 100, true},
		{"control plane", "its cluster goes with it", "100%", []Action{{ID: object.ID{Group: "controlplane.cluster.x-k8s.io", Kind: "AWSManagedControlPlane", Namespace: "fleet", Name: "edge"}}}, 100, true},
		{"control plane among infrastructure", "AKS has it there", "100%", []Action{{ID: object.ID{Group: "infrastructure.cluster.x-k8s.io", Kind: "AzureASOManagedControlPlane", Namespace: "fleet", Name: "edge"}}}, 100, true},
		{"infrastructure of a cluster", "its network goes with it", "100%", []Action{{ID: object.ID{Group: "infrastructure.cluster.x-k8s.io", Kind: "VSphereCluster", Namespace: "fleet", Name: "edge"}}}, 100, true},
		{"machine pool", "its nodes go with all that runs on them", "100%", []Action{{ID: object.ID{Group: "cluster.x-k8s.io", Kind: "MachinePool", Namespace: "fleet", Name: "edge-work"}}}, 100, true},
		{"machine pool of a provider", "the same", "100%", []Action{{ID: object.ID{Group: "infrastructure.cluster.x-k8s.io", Kind: "AWSManagedMachinePool", Namespace: "fleet", Name: "edge-work"}}}, 100, true},
		{"machine deployment", "the same", "100%", []Action{{ID: object.ID{Group: "cluster.x-k8s.io", Kind: "MachineDeployment", Namespace: "fleet", Name: "edge-work"}}}, 100, true},
		{"Fargate profile", "it runs pods, as nodes do", "100%", []Action{{ID: object.ID{Group: "infrastructure.cluster.x-k8s.io", Kind: "AWSFargateProfile", Namespace: "fleet", Name: "edge-jobs"}}}, 100, true},
		{"template of machines", "nothing that runs goes with it", "100%", []Action{{ID: object.ID{Group: "infrastructure.cluster.x-k8s.io", Kind: "VSphereMachineTemplate", Namespace: "fleet", Name: "edge"}}}, 100, false},
		{"template of control planes", "nothing that runs goes with it", "100%", []Action{{ID: object.ID{Group: "controlplane.cluster.x-k8s.io", Kind: "KubeadmControlPlaneTemplate", Namespace: "fleet", Name: "edge"}}}, 100, false},
		{"health check", "it is made anew", "100%", []Action{{ID: object.ID{Group: "cluster.x-k8s.io", Kind: "MachineHealthCheck", Namespace: "fleet", Name: "edge"}}}, 100, false},
		{"namesake of a cluster", "the group counts", "100%", []Action{{ID: object.ID{Group: "postgresql.cnpg.io", Kind: "Cluster", Namespace: "shop", Name: "db"}}}, 100, false},
		{"namesake of a guarded kind", "the group counts", "100%", []Action{{ID: object.ID{Group: "example.com", Kind: "Namespace", Name: "x"}}}, 100, false},
		{"off", "the setting says so", "off", []Action{{ID: object.ID{Kind: "Namespace", Name: "x"}}}, 1, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			budget, err := ParseBudget(c.budget)
			if err != nil {
				t.Fatal(err)
			}
			if got := budget.Exceeded(c.deletions, c.inventory); (got != "") != c.exceeded {
				t.Errorf("got %q: %s", got, c.reason)
			}
		})
	}
	for _, bad := range []string{"", "50", "-1%", "101%", "NaN%", "x%", "%"} {
		if _, err := ParseBudget(bad); failure.KindOf(err) != failure.Invalid {
			t.Errorf("%q is read without complaint", bad)
		}
	}
}

func TestDigest(t *testing.T) {
	a := Action{Verb: Update, ID: web, Version: "v1", Digest: "1", UID: "u", Reason: "one"}
	b := Action{Verb: Delete, ID: id("ConfigMap", "old"), Version: "v1", UID: "v"}
	keep := Action{Verb: Keep, ID: id("ConfigMap", "kept"), Digest: "x"}
	with := func(edit func(*Action)) Action { c := a; edit(&c); return c }
	base := digestOf([]Action{a, b})
	cases := []struct {
		name, reason string
		actions      []Action
		same         bool
	}{
		{"order", "the order is not part of what is done", []Action{b, a}, true},
		{"reason", "words are not part of what is done", []Action{with(func(a *Action) { a.Reason = "two" }), b}, true},
		{"kept", "what does nothing is no part", []Action{a, keep, b}, true},
		{"content", "other content is another plan", []Action{with(func(a *Action) { a.Digest = "2" }), b}, false},
		{"uid", "another object is another plan", []Action{with(func(a *Action) { a.UID = "w" }), b}, false},
		{"less", "less is another plan", []Action{a}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := digestOf(c.actions) == base; got != c.same {
				t.Errorf("same digest: %v, want %v: %s", got, c.same, c.reason)
			}
		})
	}
}

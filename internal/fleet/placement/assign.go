package placement

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// MaxBytes is how large an assignment may be as JSON. The API server takes one and a half million
// bytes, and keeps who owns which field besides.
const MaxBytes = 1 << 20

// Input is what Assign needs to know of one cluster.
type Input struct {
	Cluster *v1alpha1.FleetCluster
	// Parameters are those of the template that it is made from, with defaults; may be nil.
	Parameters map[string]any
	// Unknown is why the parameters are not known, where they are not: what asks for them
	// then stays as it is.
	Unknown error
	// Current is what the cluster has now; nil when it has nothing yet.
	Current *v1alpha1.ClusterAssignmentSpec
	// Hub says that the cluster is the hub itself. What its units use of the sources beside the Placements is there already, and is nobody
	// else's to write: the hub follows it, and does not pin it.
	Hub bool
	// Held says of a Placement that does not select the cluster any more whether it stays
	// all the same, because leaving waits for approval. May be nil.
	Held func(placement string) bool
	// Memo is that of the cluster, and saves work; may be nil.
	Memo *Memo
}

// Result is what one cluster is to run.
type Result struct {
	// Spec has neither incarnation nor approvals: who writes it knows them.
	Spec v1alpha1.ClusterAssignmentSpec
	// Problems say of a Placement why it is not on the cluster as it should be; that of
	// the name "" is about what the FleetCluster syncs. What the cluster had of it stays.
	Problems map[string]error
}

// assignment is one on its way.
type assignment struct {
	fleet *Fleet
	Input
	variables template.Variables
	out       v1alpha1.ClusterAssignmentSpec
	problems  map[string]error
	// taken says whose the units are.
	taken map[string]string
	// before are the units that were made for the cluster before, and made those that are made now.
	before, made map[string]made
}

// Assign says what a cluster is to run. What cannot be told leaves the cluster as it is.
func (f *Fleet) Assign(ctx context.Context, in Input) (Result, error) {
	a := &assignment{fleet: f, Input: in, variables: template.ClusterVariables(in.Cluster, in.Parameters), problems: map[string]error{}, taken: map[string]string{}, made: map[string]made{}}
	a.withoutParameters()
	a.before = in.Memo.recalled(a.variables)
	if a.Current == nil {
		a.Current = &v1alpha1.ClusterAssignmentSpec{}
	}
	var kept []*placed
	a.attempt("", func() error { return a.sync(ctx) }, a.keepSync)
	for _, p := range f.placed {
		selects := p.selects(in.Cluster)
		switch {
		case selects && p.broken == nil && !p.Spec.Suspend:
			if err := a.place(ctx, p); err != nil {
				a.problems[p.Name] = err
				kept = append(kept, p)
			}
		case p.broken != nil:
			if selects {
				a.problems[p.Name] = p.broken
			}
			kept = append(kept, p)
		case p.Spec.Suspend, in.Held != nil && in.Held(p.Name):
			kept = append(kept, p)
		}
	}
	in.Memo.note(a.variables, a.made)
	// What stays comes last, so that it does not hold on to a name that something new has.
	for _, p := range kept {
		a.keep(p)
	}
	if err := a.finish(); err != nil {
		return Result{}, err
	}
	if a.Unknown != nil {
		for name, err := range a.problems {
			a.problems[name] = fmt.Errorf("%w; the cluster's parameters are not known: %w", err, a.Unknown)
		}
	}
	return Result{Spec: a.out, Problems: a.problems}, ctx.Err()
}

// withoutParameters takes away the variables of a cluster whose parameters are not known, so that no expression takes them for absent.
func (a *assignment) withoutParameters() {
	if a.Unknown == nil {
		return
	}
	delete(a.variables, "parameters")
	if facts, ok := a.variables["cluster"].(map[string]any); ok {
		delete(facts, "parameters")
	}
}

// attempt adds something as a whole, or leaves what was there.
func (a *assignment) attempt(name string, add func() error, keep func()) {
	sources := len(a.out.Sources)
	if err := add(); err != nil {
		a.problems[name] = err
		a.out.Sources = a.out.Sources[:sources]
		keep()
	}
}

// sync adds what the FleetCluster syncs.
func (a *assignment) sync(ctx context.Context) error {
	var units []v1alpha1.AssignedUnit
	for i := range a.Cluster.Spec.Sync {
		u, err := a.syncUnit(ctx, a.Cluster.Spec.Sync[i].DeepCopy(), fmt.Sprintf("spec.sync[%d]", i))
		if err != nil {
			return err
		}
		units = append(units, u)
	}
	for _, u := range units {
		if err := a.take(u, "the FleetCluster's spec.sync"); err != nil {
			return err
		}
	}
	a.out.Sync = units
	return nil
}

func (a *assignment) syncUnit(ctx context.Context, s *v1alpha1.SyncSpec, field string) (v1alpha1.AssignedUnit, error) {
	for name, text := range map[string]*string{"path": &s.Path, "branch": &s.Branch, "namespace": &s.Namespace, "serviceAccountName": &s.ServiceAccountName} {
		value, err := a.fleet.compiler.ExpandString(ctx, field+"."+name, *text, a.variables)
		if err != nil {
			return v1alpha1.AssignedUnit{}, err
		}
		*text = value
	}
	v := none
	if s.Branch != "" {
		v = variant{branch: s.Branch, as: s.Name}
	}
	namespace := namespaceOf(s.Namespace)
	if err := a.source(SourceKey{s.Source.Kind, s.Source.Name}, namespace, v); err != nil {
		return v1alpha1.AssignedUnit{}, fmt.Errorf("%s: %w", field, err)
	}
	spec := kustomizev1.KustomizationSpec{
		Interval: s.Interval, Path: s.Path, Prune: s.Prune == nil || *s.Prune, ServiceAccountName: s.ServiceAccountName, Wait: s.Wait,
		SourceRef: kustomizev1.CrossNamespaceSourceReference{Kind: s.Source.Kind, Name: orElse(v.as, s.Source.Name)},
	}
	if spec.Prune {
		// A cluster has left when what it delivered is gone: clusters that it manages need it for that.
		spec.DeletionPolicy = kustomizev1.DeletionPolicyWaitForTermination
	}
	raw, err := canonical(spec)
	return v1alpha1.AssignedUnit{Kind: kustomizev1.KustomizationKind, Namespace: namespace, Name: s.Name, Spec: apiextensionsv1.JSON{Raw: raw}}, err
}

// place adds the units of a Placement, or nothing.
func (a *assignment) place(ctx context.Context, p *placed) error {
	group := v1alpha1.AssignedPlacement{Name: p.Name}
	var needs []SourceKey
	for i := range p.units {
		u, ok, err := p.units[i].on(ctx, a, p)
		if err != nil {
			return err
		}
		if ok {
			group.Units = append(group.Units, u.AssignedUnit)
			needs = append(needs, u.needs...)
		}
	}
	for _, u := range group.Units {
		if owner, ok := a.taken[idOf(u)]; ok {
			return taken(u, owner)
		}
	}
	sources := len(a.out.Sources)
	for _, n := range needs {
		if err := a.source(n, namespaceOf(p.Spec.Namespace), none); err != nil {
			a.out.Sources = a.out.Sources[:sources]
			return err
		}
	}
	if len(group.Units) > 0 {
		a.add(group)
	}
	return nil
}

func (a *assignment) add(group v1alpha1.AssignedPlacement) {
	for _, u := range group.Units {
		a.taken[idOf(u)] = "Placement " + group.Name
	}
	a.out.Placements = append(a.out.Placements, group)
}

func (a *assignment) take(u v1alpha1.AssignedUnit, owner string) error {
	if other, ok := a.taken[idOf(u)]; ok {
		return taken(u, other)
	}
	a.taken[idOf(u)] = owner
	return nil
}

func taken(u v1alpha1.AssignedUnit, owner string) error {
	return &failure.Error{Op: "place", Object: idOf(u), Kind: failure.Conflict, Err: fmt.Errorf("%w by %s", ErrTaken, owner),
		Remedy: "give one of the units another name, or another namespace"}
}

func idOf(u v1alpha1.AssignedUnit) string { return u.Kind + "/" + u.Namespace + "/" + u.Name }

// keep leaves what the cluster has of a Placement as it is.
func (a *assignment) keep(p *placed) {
	i := slices.IndexFunc(a.Current.Placements, func(g v1alpha1.AssignedPlacement) bool { return g.Name == p.Name })
	if i < 0 {
		return
	}
	group := *a.Current.Placements[i].DeepCopy()
	group.Units = slices.DeleteFunc(group.Units, func(u v1alpha1.AssignedUnit) bool { _, ok := a.taken[idOf(u)]; return ok })
	for i := range group.Units {
		a.keepSources(&group.Units[i])
	}
	if len(group.Units) > 0 {
		a.add(group)
	}
}

func (a *assignment) keepSync() {
	a.out.Sync = nil
	for _, u := range a.Current.Sync {
		u := *u.DeepCopy()
		a.keepSources(&u)
		a.taken[idOf(u)] = "the FleetCluster's spec.sync"
		a.out.Sync = append(a.out.Sync, u)
	}
}

// keepSources leaves the sources of a unit that stays as they are. Where something new has another source of
// the same name, the unit's own goes on under another one.
func (a *assignment) keepSources(u *v1alpha1.AssignedUnit) {
	var value any
	if json.Unmarshal(u.Spec.Raw, &value) != nil {
		return
	}
	_, needs, err := readSpec(u.Kind, "spec", value)
	if err != nil {
		return // it was written by a version that knew more
	}
	for _, n := range needs {
		if name := a.keepSource(n.SourceKey, u.Namespace); name != n.Name {
			rename(value.(map[string]any), name)
			if raw, err := json.Marshal(value); err == nil {
				u.Spec.Raw = raw
			}
		}
	}
}

func (a *assignment) keepSource(key SourceKey, namespace string) string {
	same := func(name string) func(v1alpha1.AssignedSource) bool {
		return func(s v1alpha1.AssignedSource) bool {
			return s.Kind == key.Kind && s.Namespace == namespace && s.Name == name
		}
	}
	i := slices.IndexFunc(a.Current.Sources, same(key.Name))
	if i < 0 || a.own(key, namespace, key.Name) {
		return key.Name
	}
	s := *a.Current.Sources[i].DeepCopy()
	if j := slices.IndexFunc(a.out.Sources, same(s.Name)); j >= 0 {
		if slices.Equal(a.out.Sources[j].Spec.Raw, s.Spec.Raw) {
			return s.Name
		}
		s.Name += "-" + hash(s.Spec.Raw)[:8]
		if slices.ContainsFunc(a.out.Sources, same(s.Name)) {
			return s.Name
		}
	}
	a.out.Sources = append(a.out.Sources, s)
	for _, f := range furtherOf(s) {
		a.keepSource(f, namespace)
	}
	return s.Name
}

// finish puts what was found into its order, and gives it a digest.
func (a *assignment) finish() error {
	out := &a.out
	slices.SortFunc(out.Sources, func(x, y v1alpha1.AssignedSource) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Name, y.Name))
	})
	slices.SortFunc(out.Placements, func(x, y v1alpha1.AssignedPlacement) int { return cmp.Compare(x.Name, y.Name) })
	for i := range out.Placements {
		out.Placements[i].DependsOn = a.dependsOn(out.Placements[i].Name)
		out.UnitCount += int32(len(out.Placements[i].Units)) //nolint:gosec // the size of an assignment is bounded
	}
	out.UnitCount += int32(len(out.Sync)) //nolint:gosec // as above
	raw, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("write the assignment of %s: %w", a.Cluster.Name, err)
	}
	if len(raw) > MaxBytes {
		return &failure.Error{Op: "assign to", Object: "FleetCluster " + a.Cluster.Name, Kind: failure.Invalid,
			Err:    fmt.Errorf("its %d units and %d sources take %d bytes, and %d is the limit", out.UnitCount, len(out.Sources), len(raw), MaxBytes),
			Remedy: "place fewer units, or deliver them from one folder in Git with spec.sync"}
	}
	out.Digest = "sha256:" + hash(raw)
	return nil
}

// dependsOn returns those that a Placement waits for, as far as they are on the cluster.
func (a *assignment) dependsOn(name string) []string {
	var all []string
	for _, d := range a.fleet.find(name).Spec.DependsOn {
		if slices.ContainsFunc(a.out.Placements, func(g v1alpha1.AssignedPlacement) bool { return g.Name == d.Name }) {
			all = append(all, d.Name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func hash(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// furtherOf returns the sources that an assigned source refers to.
func furtherOf(s v1alpha1.AssignedSource) []SourceKey {
	spec, err := specOf(s.Kind)
	if err != nil || json.Unmarshal(s.Spec.Raw, spec) != nil {
		return nil
	}
	return refersTo(spec)
}

// rename changes the name of the source that the spec of a unit refers to.
func rename(spec map[string]any, name string) {
	for _, path := range []string{"sourceRef", "chartRef", "chart.spec.sourceRef"} {
		m, ok := spec, true
		for _, p := range strings.Split(path, ".") {
			if m, ok = m[p].(map[string]any); !ok {
				break
			}
		}
		if ok {
			m["name"] = name
		}
	}
}

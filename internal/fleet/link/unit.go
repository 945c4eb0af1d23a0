package link

import (
	"cmp"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// unitKey and sourceKey name objects of the member.
type (
	unitKey   struct{ kind, namespace, name string }
	sourceKey struct{ kind, namespace, name string }
)

func (k unitKey) String() string   { return k.kind + "/" + k.namespace + "/" + k.name }
func (k sourceKey) String() string { return k.kind + "/" + k.namespace + "/" + k.name }

// unit is what a report needs of a Kustomization or HelmRelease.
type unit struct {
	uid        types.UID
	generation int64
	spec       any // a pointer to it
	// wrapper: it was made of the copy and delivers assigned units.
	wrapper, suspended bool
	ready              *metav1.Condition
	observed           int64
	source             sourceKey
	// revision is the one that was last applied, and content what names its content in the way of the source's
	// revision; empty where that cannot be told.
	revision, content string
}

// sourceView is what a report needs of a source.
type sourceView struct {
	revision string
	ready    *metav1.Condition
}

// noteSource returns what adds the sources of a list.
func noteSource(all map[sourceKey]sourceView, kind string) func(runtime.Object) error {
	return func(o runtime.Object) error {
		s, ok := o.(interface {
			client.Object
			GetArtifact() *meta.Artifact
			GetConditions() []metav1.Condition
		})
		if !ok {
			return fmt.Errorf("%T is no source", o)
		}
		v := sourceView{ready: apimeta.FindStatusCondition(s.GetConditions(), meta.ReadyCondition)}
		if v.ready != nil && v.ready.ObservedGeneration != s.GetGeneration() {
			v.ready = nil
		}
		if a := s.GetArtifact(); a != nil {
			v.revision = a.Revision
		}
		all[sourceKey{kind, s.GetNamespace(), s.GetName()}] = v
		return nil
	}
}

func sourceList(kind string) client.ObjectList {
	switch kind {
	case sourcev1.GitRepositoryKind:
		return &sourcev1.GitRepositoryList{}
	case sourcev1.OCIRepositoryKind:
		return &sourcev1.OCIRepositoryList{}
	case sourcev1.BucketKind:
		return &sourcev1.BucketList{}
	case sourcev1.HelmRepositoryKind:
		return &sourcev1.HelmRepositoryList{}
	}
	return nil
}

func noteKustomization(all map[unitKey]unit, k *kustomizev1.Kustomization) {
	ref := k.Spec.SourceRef
	all[unitKey{kustomizev1.KustomizationKind, k.Namespace, k.Name}] = unit{
		uid: k.UID, generation: k.Generation, spec: &k.Spec, suspended: k.Spec.Suspend,
		wrapper: k.Namespace == v1alpha1.MemberNamespace && k.Labels[v1alpha1.LabelMadeBy] == v1alpha1.MadeByAssignment,
		ready:   apimeta.FindStatusCondition(k.Status.Conditions, meta.ReadyCondition), observed: k.Status.ObservedGeneration,
		source:   sourceKey{ref.Kind, cmp.Or(ref.Namespace, k.Namespace), ref.Name},
		revision: k.Status.LastAppliedRevision, content: content(k.Status.LastAppliedRevision),
	}
}

func noteRelease(all map[unitKey]unit, h *helmv2.HelmRelease) {
	u := unit{
		uid: h.UID, generation: h.Generation, spec: &h.Spec, suspended: h.Spec.Suspend,
		ready: apimeta.FindStatusCondition(h.Status.Conditions, meta.ReadyCondition), observed: h.Status.ObservedGeneration,
	}
	if latest := h.Status.History.Latest(); latest != nil {
		u.revision = latest.ChartVersion
	}
	switch {
	case h.Spec.ChartRef != nil:
		u.source = sourceKey{h.Spec.ChartRef.Kind, cmp.Or(h.Spec.ChartRef.Namespace, h.Namespace), h.Spec.ChartRef.Name}
		if h.Spec.ChartRef.Kind == sourcev1.OCIRepositoryKind {
			u.content = h.Status.LastAttemptedRevisionDigest
		}
	case h.Spec.Chart != nil:
		ref := h.Spec.Chart.Spec.SourceRef
		u.source = sourceKey{ref.Kind, cmp.Or(ref.Namespace, h.Namespace), ref.Name}
	}
	all[unitKey{helmv2.HelmReleaseKind, h.Namespace, h.Name}] = u
}

// content is the part of a revision that names content: main@sha1:abc and v1@sha1:abc are the same.
func content(revision string) string { return revision[strings.LastIndexByte(revision, '@')+1:] }

// state says how a unit is, by its own status and that of its source.
func (u unit) state(sources map[sourceKey]sourceView) (state v1alpha1.UnitState, reason, message string) {
	if u.suspended {
		return v1alpha1.UnitSuspended, "Suspended", ""
	}
	if s, ok := sources[u.source]; ok && s.ready != nil && s.ready.Status == metav1.ConditionFalse && !passing(s.ready.Reason) {
		return v1alpha1.UnitFailed, s.ready.Reason, u.source.String() + ": " + s.ready.Message
	}
	switch {
	case u.ready == nil:
		return v1alpha1.UnitProgressing, meta.ProgressingReason, ""
	case u.observed != u.generation || u.ready.ObservedGeneration != u.generation:
		return v1alpha1.UnitProgressing, meta.ProgressingReason, "its newest spec has not been looked at yet"
	case u.ready.Status == metav1.ConditionTrue:
		return v1alpha1.UnitReady, "", ""
	case u.ready.Status == metav1.ConditionFalse && !passing(u.ready.Reason):
		return v1alpha1.UnitFailed, u.ready.Reason, u.ready.Message
	}
	return v1alpha1.UnitProgressing, u.ready.Reason, u.ready.Message
}

// passing reports whether what a reason says ends by itself. Of a source that fails its units say so.
func passing(reason string) bool {
	switch reason {
	case meta.ProgressingReason, meta.ProgressingWithRetryReason, meta.DependencyNotReadyReason, helmv2.ArtifactFailedReason:
		return true
	}
	return false
}

// carried is what became of comparing a unit with what was assigned.
type carried struct {
	uid        types.UID
	generation int64
	assigned   string
	same       bool
}

// assigned are the units of the member's copy, in its order. One counts as ready only as it was assigned: the spec is the
// assigned one, and its source and what was last applied are at the pinned revision.
func (l *Link) assigned(own *v1alpha1.ClusterAssignment, units map[unitKey]unit, sources map[sourceKey]sourceView) []v1alpha1.UnitReport {
	pins := map[sourceKey]string{}
	for i := range own.Spec.Sources {
		s := &own.Spec.Sources[i]
		pins[sourceKey{s.Kind, s.Namespace, s.Name}] = s.Revision
	}
	known := l.carried
	l.carried = map[unitKey]carried{}
	var all []v1alpha1.UnitReport
	note := func(placement string, list []v1alpha1.AssignedUnit) {
		for i := range list {
			a := &list[i]
			key := unitKey{a.Kind, a.Namespace, a.Name}
			u, there := units[key]
			r := v1alpha1.UnitReport{Placement: placement, Kind: a.Kind, Namespace: a.Namespace, Name: a.Name, State: v1alpha1.UnitProgressing, Reason: meta.ProgressingReason}
			switch {
			case own.Spec.Leave != "" && !there:
				continue
			case !there:
				r.Message = "it is not there yet"
			default:
				r.Revision = u.revision
				r.State, r.Reason, r.Message = u.state(sources)
			}
			if there && r.State == v1alpha1.UnitReady {
				r.State, r.Reason, r.Message = u.asAssigned(pins, sources, l.carries(known, key, u, a))
			}
			r.Message = cut(r.Message, mostMessage)
			all = append(all, r)
		}
	}
	note("", own.Spec.Sync)
	for i := range own.Spec.Placements {
		note(own.Spec.Placements[i].Name, own.Spec.Placements[i].Units)
	}
	return all
}

// asAssigned says what is still to come for a unit that is ready by its own account.
func (u unit) asAssigned(pins map[sourceKey]string, sources map[sourceKey]sourceView, same bool) (state v1alpha1.UnitState, reason, message string) {
	pin := pins[u.source]
	switch {
	case !same:
		return v1alpha1.UnitProgressing, meta.ProgressingReason, "it does not have the spec that is assigned yet"
	case pin == "":
	case content(sources[u.source].revision) != content(pin):
		return v1alpha1.UnitProgressing, meta.ProgressingReason, u.source.String() + " is not at " + pin + " yet"
	case u.content != "" && u.content != content(pin):
		return v1alpha1.UnitProgressing, meta.ProgressingReason, "it is not at " + pin + " yet"
	}
	return v1alpha1.UnitReady, "", ""
}

// carries reports whether a unit has the spec that was assigned; what is known already is not compared again.
func (l *Link) carries(known map[unitKey]carried, key unitKey, u unit, a *v1alpha1.AssignedUnit) bool {
	c, ok := known[key]
	if !ok || c.uid != u.uid || c.generation != u.generation || c.assigned != string(a.Spec.Raw) {
		c = carried{uid: u.uid, generation: u.generation, assigned: string(a.Spec.Raw), same: hasSpec(u.spec, a)}
	}
	l.carried[key] = c
	return c.same
}

// hasSpec reports whether a spec has all that was assigned. It may have more: defaults of its definition.
func hasSpec(spec any, a *v1alpha1.AssignedUnit) bool {
	var want any = &kustomizev1.KustomizationSpec{}
	if a.Kind == helmv2.HelmReleaseKind {
		want = &helmv2.HelmReleaseSpec{}
	}
	if json.Unmarshal(a.Spec.Raw, want) != nil {
		return true // it cannot be there otherwise
	}
	var values [2]any
	for i, v := range []any{want, spec} {
		raw, err := json.Marshal(v)
		if err != nil || json.Unmarshal(raw, &values[i]) != nil {
			return true
		}
	}
	return within(values[0], values[1])
}

// within reports whether all of a is in b.
func within(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		of, ok := b.(map[string]any)
		for key, v := range a {
			if !ok || !within(v, of[key]) {
				return false
			}
		}
		return ok
	case []any:
		of, ok := b.([]any)
		if !ok || len(a) != len(of) {
			return false
		}
		for i := range a {
			if !within(a[i], of[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(a, b)
}

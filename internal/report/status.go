// Package report is the last stage of the main loop: it tells people what
// happened. One status write per outcome, none when nothing changed, and every
// status names the revision that it was observed at.
package report

import (
	"slices"
	"strings"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
)

// Reasons that the toolkit does not have.
const (
	// ReasonApprovalRequired: deletions exceed the budget and wait for approval.
	ReasonApprovalRequired = "ApprovalRequired"
	// ReasonNotSupported: the spec asks for something that this version lacks.
	ReasonNotSupported = "NotSupported"
	// ReasonCircularDependency: dependsOn forms a cycle.
	ReasonCircularDependency = "CircularDependency"
	// ReasonDriftContested: somebody keeps changing an object that is healed.
	ReasonDriftContested = "DriftContested"
	// ReasonTargetChanged: it is delivered to another cluster from now on.
	ReasonTargetChanged = "TargetChanged"
)

// Conditioned is an object with conditions, such as the toolkit's kinds.
type Conditioned interface {
	GetGeneration() int64
	GetConditions() []metav1.Condition
	SetConditions([]metav1.Condition)
}

// maxMessage keeps messages within what the toolkit writes.
const maxMessage = 20000

// Ready marks the object as reconciled.
func Ready(o Conditioned, reason, message string) {
	Mark(o, meta.ReadyCondition, metav1.ConditionTrue, reason, message)
	Unmark(o, meta.ReconcilingCondition, meta.StalledCondition)
}

// Progressing marks the object as on its way.
func Progressing(o Conditioned, reason, message string) {
	Mark(o, meta.ReconcilingCondition, metav1.ConditionTrue, reason, message)
	Mark(o, meta.ReadyCondition, metav1.ConditionUnknown, reason, message)
	Unmark(o, meta.StalledCondition)
}

// Waiting marks the object as waiting for another object: not ready, and
// reconciling by itself as soon as that changes.
func Waiting(o Conditioned, reason, message string) {
	Mark(o, meta.ReadyCondition, metav1.ConditionFalse, reason, message)
	Mark(o, meta.ReconcilingCondition, metav1.ConditionTrue, meta.ProgressingWithRetryReason, message)
	Unmark(o, meta.StalledCondition)
}

// Failed marks the object as failed. A terminal failure is not tried again
// until its input changes.
func Failed(o Conditioned, reason, message string, terminal bool) {
	if !terminal {
		Waiting(o, reason, message)
		return
	}
	Mark(o, meta.ReadyCondition, metav1.ConditionFalse, reason, message)
	Mark(o, meta.StalledCondition, metav1.ConditionTrue, reason, message)
	Unmark(o, meta.ReconcilingCondition)
}

// Healthy sets the toolkit's Healthy condition, which says how the health
// checks of a Kustomization went.
func Healthy(o Conditioned, status metav1.ConditionStatus, reason, message string) {
	Mark(o, meta.HealthyCondition, status, reason, message)
}

// NoHealth removes the Healthy condition of an object without health checks.
func NoHealth(o Conditioned) { Unmark(o, meta.HealthyCondition) }

// Stored sets the source kinds' condition that says whether an artifact is held.
// A fetch that succeeded also ends the conditions that say why one failed.
func Stored(o Conditioned, reason, message string) {
	Mark(o, sourcev1.ArtifactInStorageCondition, metav1.ConditionTrue, reason, message)
	Unmark(o, sourcev1.FetchFailedCondition, sourcev1.BuildFailedCondition)
}

// Included ends the conditions that say why what a source includes is not in it.
func Included(o Conditioned) {
	Unmark(o, sourcev1.IncludeUnavailableCondition, sourcev1.StorageOperationFailedCondition)
}

// NotIncluded sets one of those conditions. The fetch did not fail.
func NotIncluded(o Conditioned, condition, reason, message string) {
	Included(o)
	Mark(o, condition, metav1.ConditionTrue, reason, message)
	Unmark(o, sourcev1.FetchFailedCondition)
}

// SourceVerified sets the source kinds' condition that says whether the signatures
// that were asked for were found good. Whatever is the matter with one, the fetch did not fail.
func SourceVerified(o Conditioned, status metav1.ConditionStatus, reason, message string) {
	Mark(o, sourcev1.SourceVerifiedCondition, status, reason, message)
	Unmark(o, sourcev1.FetchFailedCondition)
}

// NotVerified removes that condition from an object that asks for no signatures.
func NotVerified(o Conditioned) { Unmark(o, sourcev1.SourceVerifiedCondition) }

// FetchFailed sets the source kinds' condition that says why a fetch failed.
func FetchFailed(o Conditioned, reason, message string) {
	Mark(o, sourcev1.FetchFailedCondition, metav1.ConditionTrue, reason, message)
	Unmark(o, sourcev1.BuildFailedCondition)
}

// BuildFailed sets the charts' condition that says why what was fetched made no artifact.
func BuildFailed(o Conditioned, reason, message string) {
	Mark(o, sourcev1.BuildFailedCondition, metav1.ConditionTrue, reason, message)
	Unmark(o, sourcev1.FetchFailedCondition)
}

// Condition returns the condition of a type, and nil when there is none.
func Condition(o Conditioned, kind string) *metav1.Condition {
	return apimeta.FindStatusCondition(o.GetConditions(), kind)
}

// IsReady reports whether the object is ready at its newest generation.
func IsReady(o Conditioned, observed int64) bool {
	c := Condition(o, meta.ReadyCondition)
	return c != nil && c.Status == metav1.ConditionTrue && observed == o.GetGeneration()
}

// Mark sets a condition. What it means is for the functions above to say, and for the
// kinds that alone have it.
func Mark(o Conditioned, kind string, status metav1.ConditionStatus, reason, message string) {
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	conditions := slices.Clone(o.GetConditions())
	apimeta.SetStatusCondition(&conditions, metav1.Condition{
		Type: kind, Status: status, Reason: reason, Message: message, ObservedGeneration: o.GetGeneration(),
	})
	o.SetConditions(conditions)
}

// Unmark removes conditions.
func Unmark(o Conditioned, kinds ...string) {
	conditions := slices.DeleteFunc(slices.Clone(o.GetConditions()), func(c metav1.Condition) bool {
		return slices.Contains(kinds, c.Type)
	})
	o.SetConditions(conditions)
}

// Inventory writes the inventory in the toolkit's form.
func Inventory(entries []plan.Entry) *kustomizev1.ResourceInventory {
	out := &kustomizev1.ResourceInventory{Entries: make([]kustomizev1.ResourceRef, 0, len(entries))}
	for _, e := range entries {
		out.Entries = append(out.Entries, kustomizev1.ResourceRef{ID: e.ID.Inventory(), Version: e.Version})
	}
	return out
}

// Entries reads an inventory. Entries that cannot be read are returned too, so
// that they are not lost.
func Entries(inventory *kustomizev1.ResourceInventory) (entries []plan.Entry, unreadable []kustomizev1.ResourceRef) {
	if inventory == nil {
		return nil, nil
	}
	entries = make([]plan.Entry, 0, len(inventory.Entries))
	for _, ref := range inventory.Entries {
		id, err := object.ParseInventory(ref.ID)
		if err != nil {
			unreadable = append(unreadable, ref)
			continue
		}
		entries = append(entries, plan.Entry{ID: id, Version: ref.Version})
	}
	return entries, unreadable
}

// History adds an outcome to the history of a Kustomization.
func History(k *kustomizev1.Kustomization, digest string, now time.Time, took time.Duration, status, revision string) {
	k.Status.History.Upsert(digest, now, took.Round(time.Millisecond), status, map[string]string{"revision": revision})
}

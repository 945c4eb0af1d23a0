package release

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	"helm.sh/helm/v4/pkg/release/common"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Manager is the field manager with which records are written, and objects and hooks
// applied: the toolkit's own.
const Manager = "helm-controller"

// MarksAnnotation holds, on the Secret of a revision, what the engine has to know to
// go on with it. Helm's own executable and the toolkit's engine drop it when they write the
// revision, so that it also says that nobody else wrote it since.
const MarksAnnotation = "fleet.bowline.dev/release"

// Record is one revision of a release as the storage holds it.
type Record struct {
	*Release
	// Marks are what the engine wrote beside it; the zero value where somebody
	// else wrote the revision last.
	Marks Marks
	// ResourceVersion is that of the Secret; an update is refused when the Secret
	// has another one. Empty: not stored yet.
	ResourceVersion string
	// Writer is the field manager that wrote last, and WrittenAt when; both are
	// empty where the server keeps no such thing.
	Writer    string
	WrittenAt time.Time
	// unsaved: the record says more than the storage.
	unsaved bool
}

// Marks are what the engine writes beside a revision of its own.
type Marks struct {
	// Unit is the HelmRelease, as namespace/name, that the revision was made for.
	Unit string `json:"unit,omitempty"`
	// Inputs is the caller's digest of all that the revision was rendered from.
	Inputs string `json:"inputs,omitempty"`
	// Action is what made the revision.
	Action v2.ReleaseAction `json:"action,omitempty"`
	// Event is the hook event that runs or ran last, and Since when it began: the runs of
	// hooks that started before belong to an earlier event.
	Event helmrelease.HookEvent `json:"event,omitempty"`
	Since metav1.MicroTime      `json:"since,omitzero"`
	// Created is the hook that runs, once its object was made.
	Created string `json:"created,omitempty"`
	// Done are the events whose hooks have all ended well.
	Done []helmrelease.HookEvent `json:"done,omitempty"`
}

// Of reports whether the unit wrote the revision last.
func (m Marks) Of(unit types.NamespacedName) bool { return m.Unit == unit.String() }

// Ended reports whether all hooks of the event have ended well.
func (m Marks) Ended(event helmrelease.HookEvent) bool { return slices.Contains(m.Done, event) }

// Key returns the name of the release with the namespace of the storage.
func (r *Record) Key(storage string) Key { return Key{Namespace: storage, Name: r.Name} }

// Pending reports whether the revision is under way: being installed, upgraded, rolled
// back or uninstalled.
func (r *Record) Pending() bool { return underway(r.Info.Status) }

func underway(s common.Status) bool { return s.IsPending() || s == common.StatusUninstalling }

// recordOf reads what the Secret says besides the release.
func recordOf(rel *Release, secret *corev1.Secret) *Record {
	r := &Record{Release: rel, ResourceVersion: secret.ResourceVersion, Marks: marksOf(secret.Annotations)}
	for _, entry := range secret.ManagedFields {
		if entry.Time == nil || entry.Time.Time.Before(r.WrittenAt) {
			continue
		}
		// Times are told in seconds. Of two in one, the engine's was the earlier: what it
		// writes after somebody else bears its marks, and nobody asks then who wrote.
		if entry.Time.After(r.WrittenAt) || entry.Manager != Manager {
			r.Writer, r.WrittenAt = entry.Manager, entry.Time.Time
		}
	}
	return r
}

// marksOf reads the marks; what cannot be read was not written by the engine.
func marksOf(annotations map[string]string) Marks {
	var m Marks
	if err := json.Unmarshal([]byte(annotations[MarksAnnotation]), &m); err != nil {
		return Marks{}
	}
	return m
}

// maxName is how long the name of a release may be, by Helm's rule.
const maxName = 53

// MaxDescription bounds what is written as the description of a revision, in bytes.
const MaxDescription = 2048

// Fresh returns the first state of a revision that the engine is about to make:
// pending, with everything in it; of a rollback, rel is the revision that it goes back to. History is what the storage holds, newest first.
// Hooks are copied without what an earlier run left in them.
func Fresh(rel *Release, marks Marks, history []Seen, now time.Time) *Record {
	next := *rel
	info := helmrelease.Info{}
	if rel.Info != nil {
		info = *rel.Info
	}
	next.Info, next.Hooks = &info, unrun(rel.Hooks)
	next.Version = 1
	if len(history) > 0 {
		next.Version = history[0].Version + 1
	}
	info.LastDeployed, info.Deleted = now, time.Time{}
	if info.FirstDeployed.IsZero() {
		info.FirstDeployed = now
	}
	next.ApplyMethod = string(helmrelease.ApplyMethodServerSideApply)
	info.Status, info.Description = pendingOf(marks.Action)
	info.RollbackRevision = 0
	if marks.Action == v2.ReleaseActionRollback {
		info.RollbackRevision = rel.Version
	}
	marks.Event, marks.Since, marks.Created, marks.Done = "", metav1.MicroTime{}, "", nil
	return &Record{Release: &next, Marks: marks}
}

func pendingOf(action v2.ReleaseAction) (common.Status, string) {
	switch action {
	case v2.ReleaseActionInstall:
		return common.StatusPendingInstall, "Initial install underway"
	case v2.ReleaseActionRollback:
		return common.StatusPendingRollback, "Rollback underway"
	default:
		return common.StatusPendingUpgrade, "Preparing upgrade"
	}
}

func unrun(hooks []*helmrelease.Hook) []*helmrelease.Hook {
	out := make([]*helmrelease.Hook, 0, len(hooks))
	for _, h := range hooks {
		clean := *h
		clean.LastRun = helmrelease.HookExecution{}
		out = append(out, &clean)
	}
	return out
}

// SetStatus sets the status with the words that people see in Helm's history.
func (r *Record) SetStatus(status common.Status, description string) {
	info := *r.Info
	info.Status, info.Description = status, short(description)
	r.Info = &info
}

// short keeps a description small: it is stored with each revision.
func short(s string) string {
	s = strings.ToValidUTF8(strings.TrimSpace(s), "")
	if len(s) <= MaxDescription {
		return s
	}
	return strings.ToValidUTF8(s[:MaxDescription-len("…")], "") + "…"
}

package controller

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"helm.sh/helm/v4/pkg/release/common"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/release"
)

// releaseMemory is what is remembered of a release between two reconciles. All of it can
// be read back from the release storage. It belongs to the reconcile of its unit.
type releaseMemory struct {
	// target and key are where the release was when it was last looked at.
	target  *delivery
	key     release.Key
	store   *release.Store
	storage *storage

	// known says that last and previous are what the storage held when it looked like
	// seen and the status like told.
	known          bool
	seen           []release.Seen
	told           string
	last, previous *release.Revision
	// record is the newest revision, whole, while it is worked on.
	record *release.Record
	// outcome is what the last run of the pipeline for the record came to.
	outcome pipeline.Outcome

	// definitions is the step that installs the chart's definitions, and defined, owned and
	// housed say which of the first steps for the record are done.
	definitions            *release.Definitions
	defined, owned, housed bool
	// released identifies what was last released by this process: the same is not released
	// again only because it is recorded in other words.
	released string
	// removal is the uninstalling under way; restart says that the last one failed.
	removal *removal
	restart bool

	// began is when this process began to work on the record, and ended when the
	// last attempt did.
	began, ended time.Time
	// waitingSince is when the wait for health began; zero when none is on.
	waitingSince time.Time
}

// releaseMemories holds those of all units.
type releaseMemories struct {
	mu     sync.Mutex
	byUnit map[types.NamespacedName]*releaseMemory // guarded by mu
}

func newReleaseMemories() *releaseMemories {
	return &releaseMemories{byUnit: map[types.NamespacedName]*releaseMemory{}}
}

func (m *releaseMemories) of(unit types.NamespacedName) *releaseMemory {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byUnit[unit] == nil {
		m.byUnit[unit] = &releaseMemory{}
	}
	return m.byUnit[unit]
}

func (m *releaseMemories) forget(unit types.NamespacedName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.byUnit, unit)
}

// releaseKey says under which name the release is in which storage.
func releaseKey(h *helmv2.HelmRelease) release.Key {
	return release.Key{Namespace: h.GetStorageNamespace(), Name: release.ShortName(h.GetReleaseName())}
}

// locate opens the storage of the release.
func (r *helmReleaseRun) locate() error {
	key := releaseKey(r.h)
	m := r.memory
	there := r.storages.use(r.unit(), r.target.access.station, key)
	if m.target == r.target && m.key == key && m.storage == there {
		return nil
	}
	store, err := release.NewStore(r.target.Cluster, key.Namespace, there.watch)
	if err != nil {
		return err
	}
	*m = releaseMemory{target: r.target, key: key, store: store, storage: there}
	return nil
}

// look brings what is remembered up to date with the storage. It reads a revision only
// when somebody wrote it since.
func (r *helmReleaseRun) look(ctx context.Context) error {
	m := r.memory
	seen, err := m.store.Revisions(ctx, m.key.Name)
	if err != nil {
		return err
	}
	told := toldOf(r.h)
	if m.known && slices.Equal(seen, m.seen) && told == m.told {
		return nil
	}
	m.known, m.last, m.previous = false, nil, nil
	if len(seen) > 0 {
		if err := r.lookAt(ctx, seen[0]); err != nil {
			return err
		}
	} else {
		m.record = nil
	}
	m.known, m.seen, m.told = true, seen, told
	return nil
}

// lookAt reads the newest revision, and the one that a rollback would go back to if
// there is reason for one.
func (r *helmReleaseRun) lookAt(ctx context.Context, newest release.Seen) error {
	m := r.memory
	if m.record == nil || m.record.Seen() != newest {
		var err error
		if m.record, err = m.store.Get(ctx, m.key.Name, newest.Version); err != nil {
			return err
		}
	}
	var err error
	if m.last, err = release.Of(m.record, r.h); err != nil {
		return err
	}
	if !m.record.Pending() {
		m.record = nil
	}
	target := release.RollbackTarget(r.h)
	if target == nil || m.last.Status != common.StatusFailed && !hasFailedTest(r.h) {
		return nil
	}
	previous, err := m.store.Get(ctx, m.key.Name, target.Version)
	if isAbsent(err) {
		return nil
	}
	if err == nil {
		m.previous, err = release.Of(previous, r.h)
	}
	return err
}

// hasFailedTest reports whether a test of the newest revision failed.
func hasFailedTest(h *helmv2.HelmRelease) bool {
	return slices.Clone(h.Status.History).Latest().HasTestInPhase(helmrelease.HookPhaseFailed.String())
}

// toldOf identifies what the status says of revisions.
func toldOf(h *helmv2.HelmRelease) string {
	var b strings.Builder
	for _, s := range h.Status.History {
		fmt.Fprintf(&b, "%s %s %v\n", s.FullReleaseName(), s.Digest, s.HasTestInPhase(helmrelease.HookPhaseFailed.String()))
	}
	return b.String()
}

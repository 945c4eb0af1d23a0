package link

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// tell writes reports, the newest only, until the member has left and the hub knows.
func (l *Link) tell(ctx context.Context) {
	b := backoff{most: l.Timing.Retry}
	var base *v1alpha1.ClusterReport // what the hub has, as far as is known
	told := ""
	for l.telling.wait(ctx) {
		next, err := l.build(ctx)
		if err == nil && next != nil {
			var wrote bool
			base, wrote, err = l.report(ctx, base, next)
			if err == nil && next.Left || l.dismissed(next, err) {
				l.mu.Lock()
				l.left = true
				l.mu.Unlock()
				return
			}
			rest := l.Timing.Report / 10 // what changed was nothing to report: looking at it costs little
			if wrote {
				rest = l.Timing.Report
			}
			if !pause(ctx, rest) {
				return
			}
		}
		switch {
		case err == nil:
			if told != "" {
				l.Log.Info("the hub takes reports again")
			}
			told = ""
			b.reset()
			continue
		case ctx.Err() != nil:
			return
		case told == "" && !apierrors.IsConflict(err):
			told = err.Error()
			l.Log.Error(l.explained(err), "the hub does not take the report: the newest is kept for when it does")
		}
		base = nil
		if !pause(ctx, b.step()) {
			return
		}
		l.telling.up()
	}
}

// dismissed reports whether a member that has left has nobody any more to say that to: the hub let the FleetCluster go when
// it was told, and the answer was lost.
func (l *Link) dismissed(next *v1alpha1.ClusterReportStatus, err error) bool {
	return next != nil && next.Left && (apierrors.IsNotFound(err) || apierrors.IsForbidden(err))
}

// report writes a report where it differs from what the hub has, and returns what the hub has then.
func (l *Link) report(ctx context.Context, base *v1alpha1.ClusterReport, next *v1alpha1.ClusterReportStatus) (has *v1alpha1.ClusterReport, wrote bool, err error) {
	c, err := l.hub.get()
	if err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, answering)
	defer cancel()
	l.mu.Lock()
	rebase := l.rebase
	l.rebase = false
	l.mu.Unlock()
	if base == nil || rebase {
		base = &v1alpha1.ClusterReport{}
		if err := c.Get(ctx, l.Cluster, base); err != nil {
			return nil, false, fmt.Errorf("read ClusterReport %s on the hub: %w", l.Cluster, err)
		}
	}
	next.ReportedAt = base.Status.ReportedAt
	if equality.Semantic.DeepEqual(base.Status, *next) {
		return base, false, nil
	}
	next.ReportedAt = metav1.NewTime(l.Clock.Now().Truncate(time.Second))
	has = base.DeepCopy()
	has.Status = *next
	if err := c.Status().Update(ctx, has, owner); err != nil {
		return nil, false, fmt.Errorf("write ClusterReport %s on the hub: %w", l.Cluster, err)
	}
	return has, true, nil
}

// versionInterval is how often the member's API server is asked for its version: an upgrade is not an event.
const versionInterval = 10 * time.Minute

// know finds out what the member is.
func (l *Link) know(ctx context.Context) {
	b := backoff{most: l.Timing.Retry}
	for {
		wait := versionInterval
		facts, err := l.ask(ctx)
		if err == nil {
			b.reset()
			l.mu.Lock()
			changed := facts != l.facts
			l.facts = facts
			l.mu.Unlock()
			if changed {
				l.telling.up()
			}
		} else {
			if b.next == 0 && ctx.Err() == nil {
				l.Log.Error(err, "the cluster does not say what it is")
			}
			wait = b.step()
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// ask asks the member for what does not come by events.
func (l *Link) ask(ctx context.Context) (v1alpha1.ClusterFacts, error) {
	ctx, cancel := context.WithTimeout(ctx, answering)
	defer cancel()
	system := &metav1.PartialObjectMetadata{}
	system.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	if err := l.Direct.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, system); err != nil {
		return v1alpha1.ClusterFacts{}, fmt.Errorf("read Namespace %s: %w", metav1.NamespaceSystem, err)
	}
	version, err := l.Version(ctx)
	if err != nil {
		return v1alpha1.ClusterFacts{}, fmt.Errorf("ask for the version of the API server: %w", err)
	}
	return v1alpha1.ClusterFacts{ID: string(system.UID), KubernetesVersion: version, AgentVersion: l.AgentVersion}, nil
}

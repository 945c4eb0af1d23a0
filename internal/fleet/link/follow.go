package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// follow watches the assignment on the hub, over connections that break. A watch begins with what there is, so it is
// the only request.
func (l *Link) follow(ctx context.Context) {
	b := backoff{most: l.Timing.Retry}
	told := ""
	for {
		began := time.Now()
		err := l.watch(ctx, func() {
			if told != "" {
				l.Log.Info("the hub answers again")
				told = ""
			}
		})
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > l.Timing.Retry {
			b.reset() // it had been good for a while
		}
		if err != nil && told == "" {
			told = err.Error()
			l.Log.Error(l.explained(err), "the hub does not tell what is assigned: what was copied before goes on")
		}
		if !pause(ctx, b.step()) {
			return
		}
	}
}

var errEnded = errors.New("the hub sent an error")

// watch follows the assignment for as long as one connection lasts.
func (l *Link) watch(ctx context.Context, open func()) error {
	c, err := l.hub.get()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	late := time.AfterFunc(answering, cancel)
	w, err := c.Watch(ctx, &v1alpha1.ClusterAssignmentList{}, client.InNamespace(l.Cluster.Namespace), client.MatchingFields{"metadata.name": l.Cluster.Name})
	late.Stop()
	if err != nil {
		return fmt.Errorf("watch ClusterAssignment %s on the hub: %w", l.Cluster, err)
	}
	defer w.Stop()
	open()
	// The hub may have lost what was reported while nobody was connected.
	l.askForReport()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, ok := <-w.ResultChan():
			switch {
			case !ok:
				return nil
			case e.Type == watch.Error:
				return fmt.Errorf("watch ClusterAssignment %s on the hub: %w: %w", l.Cluster, errEnded, apierrors.FromObject(e.Object))
			case e.Type == watch.Added, e.Type == watch.Modified:
				if a, ok := e.Object.(*v1alpha1.ClusterAssignment); ok {
					l.take(a)
				}
			}
		}
	}
}

// take takes an assignment that the hub told. That one is deleted says nothing about what is to run, so
// the one before it stays. One that is for nobody yet is waited for.
func (l *Link) take(a *v1alpha1.ClusterAssignment) {
	l.mu.Lock()
	switch a.Spec.Incarnation {
	case l.Incarnation:
		l.wanted, l.refused = a, ""
	case "":
	default:
		l.refused = fmt.Sprintf("the assignment is for another cluster of this name (incarnation %s, and this one is %s); if this is the one that is meant: bowline join %s -n %s --replace",
			a.Spec.Incarnation, l.Incarnation, l.Cluster.Name, l.Cluster.Namespace)
	}
	l.mu.Unlock()
	l.copying.up()
	l.telling.up()
}

func (l *Link) askForReport() {
	l.mu.Lock()
	l.rebase = true
	l.mu.Unlock()
	l.telling.up()
}

// explained says what to do about an answer that will stay the same.
func (l *Link) explained(err error) error {
	if refused(err) {
		return fmt.Errorf("%w; the hub does not know this agent, or not any more: bowline join %s -n %s", err, l.Cluster.Name, l.Cluster.Namespace)
	}
	return err
}

func refused(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) }

package controller

import (
	"context"
	"fmt"
	"maps"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fluxcd/pkg/apis/meta"

	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/report"
)

// newRecorder returns a recorder of Kubernetes Events in the form that
// `kubectl events` and the toolkit's CLI read. Without a connection to send
// them, events are logged.
func newRecorder(ctx context.Context, scheme *runtime.Scheme, cluster *kube.Cluster, component string, log logr.Logger) record.EventRecorder {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	core, err := typedcorev1.NewForConfigAndClient(rest.CopyConfig(cluster.Config), cluster.HTTP)
	if err != nil {
		broadcaster.StartLogging(func(format string, args ...any) { log.Info("event", "text", format, "args", args) })
	} else {
		broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: core.Events("")})
	}
	return broadcaster.NewRecorder(scheme, corev1.EventSource{Component: component})
}

// onNews wakes those whom a change of a Kustomization concerns: its dependents
// when it became ready or moved on, and all that share a cycle with it when its
// dependencies changed.
func (r *kustomizations) onNews() handler.EventHandler {
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, _ queue) {
			if k, ok := e.Object.(*kustomizev1.Kustomization); ok && !e.IsInInitialList {
				r.wakeDependents(ctx, client.ObjectKeyFromObject(k))
				r.wakeReachable(ctx, k)
			}
		},
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, _ queue) {
			before, ok1 := e.ObjectOld.(*kustomizev1.Kustomization)
			after, ok2 := e.ObjectNew.(*kustomizev1.Kustomization)
			if !ok1 || !ok2 {
				return
			}
			r.written.seen(after)
			if standing(before) != standing(after) {
				r.wakeDependents(ctx, client.ObjectKeyFromObject(after))
			} else {
				r.wakeReaders(ctx, client.ObjectKeyFromObject(after))
			}
			if !maps.Equal(before.Labels, after.Labels) && readsAny(after) {
				r.self.add(client.ObjectKeyFromObject(after), soon)
			}
			if before.Generation != after.Generation {
				r.wakeReachable(ctx, before)
				r.wakeReachable(ctx, after)
			}
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, _ queue) {
			if k, ok := e.Object.(*kustomizev1.Kustomization); ok {
				r.wakeDependents(ctx, client.ObjectKeyFromObject(k))
				r.wakeReachable(ctx, k)
			}
		},
	}
}

// onSource wakes the Kustomizations that have to say why their source has no
// artifact. Those whose source has one are woken when it changes.
func (r *kustomizations) onSource(kind string) handler.EventHandler {
	return handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, o client.Object) []reconcile.Request {
		key := sourceKey{Kind: kind, NamespacedName: client.ObjectKeyFromObject(o)}
		if _, ok := r.artifacts.get(key); !ok {
			r.wakeUsers(ctx, key)
		}
		return nil
	})
}

// standing is what dependents look at.
func standing(k *kustomizev1.Kustomization) string {
	c := report.Condition(k, meta.ReadyCondition)
	if c == nil {
		return ""
	}
	return fmt.Sprintf("%s %s %d", c.Status, k.Status.LastAppliedRevision, k.Status.ObservedGeneration)
}

package controller

import (
	"context"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/record"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/bowline-dev/bowline/internal/kube"
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

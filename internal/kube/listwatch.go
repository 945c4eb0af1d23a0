package kube

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// Lister is a client of whole objects or of metadata: they differ in the type of their lists.
type Lister[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// ListWatch lets a reflector ask the client for what these selectors select. note is told
// how each question ended.
func ListWatch[L runtime.Object](client Lister[L], only metav1.ListOptions, note func(error)) cache.ListerWatcher {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector, o.FieldSelector = only.LabelSelector, only.FieldSelector
			out, err := client.List(ctx, o)
			note(err)
			return out, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector, o.FieldSelector = only.LabelSelector, only.FieldSelector
			out, err := client.Watch(ctx, o)
			note(err)
			return out, err
		},
	}
}

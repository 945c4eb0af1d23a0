// Package standing is the room in which an engine learns that it is to stand still: while its cluster's management plane
// moves, neither the hub that is left nor the one that comes may act. A ConfigMap on the cluster says so, so
// that it holds for whichever engine is started there, and for as long as it is there.
package standing

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// Runner runs an engine whenever none is told to stand still.
type Runner struct {
	// Config reaches the cluster that the engine works on.
	Config *rest.Config
	Log    logr.Logger
	// Run is the engine: it runs until its context is done.
	Run func(context.Context) error
	// Idle runs instead for as long as the engine stands still; nil for nothing.
	Idle func(context.Context)
}

// Start runs the engine until ctx is done or it ends by itself. When a mark appears on the cluster the engine is ended, which is noted on
// the mark once nothing of it runs any more; when the mark goes it is run again.
func (r Runner) Start(ctx context.Context) error {
	c, err := kubernetes.NewForConfig(r.Config)
	if err != nil {
		return fmt.Errorf("look whether the engine is to stand still: %w", err)
	}
	s := &state{news: make(chan struct{})}
	// Where it cannot be read the engine says what is wrong with its cluster.
	if mark, err := c.CoreV1().ConfigMaps(v1alpha1.MemberNamespace).Get(ctx, v1alpha1.PivotMark, metav1.GetOptions{}); err == nil {
		s.set(mark)
	}
	watching, end := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { s.watch(watching, c) })
	defer watch.Wait()
	defer end()
	for ctx.Err() == nil {
		mark, news := s.get()
		if mark != nil {
			r.stand(ctx, c, mark, news)
			continue
		}
		stood, err := r.run(ctx, s)
		if !stood {
			return err
		}
	}
	return nil
}

// run runs the engine until a mark appears, which it reports, or it ends.
func (r Runner) run(ctx context.Context, s *state) (stood bool, err error) {
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- r.Run(running) }()
	for {
		mark, news := s.get()
		if mark != nil {
			r.Log.Info("the engine ends, because its management plane moves", "mark", v1alpha1.MemberNamespace+"/"+v1alpha1.PivotMark, "to", mark.Data[v1alpha1.PivotTo])
			cancel()
			return true, <-ended
		}
		select {
		case err := <-ended:
			return false, err
		case <-news:
		}
	}
}

// stand stands still until there is news of the mark, and notes on it that the engine does.
func (r Runner) stand(ctx context.Context, c kubernetes.Interface, mark *corev1.ConfigMap, news <-chan struct{}) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if mark.Annotations[v1alpha1.PivotStanding] == "" {
		if err := acknowledge(ctx, c, mark.UID); err != nil && !apierrors.IsNotFound(err) {
			r.Log.Error(err, "the engine stands still, and cannot say so")
		}
	}
	r.Log.Info("the engine stands still: its management plane moves, or has moved", "to", mark.Data[v1alpha1.PivotTo])
	var idle sync.WaitGroup
	if r.Idle != nil {
		idle.Go(func() { r.Idle(ctx) })
	}
	select {
	case <-ctx.Done():
	case <-news:
	}
	cancel()
	idle.Wait()
}

func acknowledge(ctx context.Context, c kubernetes.Interface, uid types.UID) error {
	host, err := os.Hostname()
	if err != nil {
		host = "engine"
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": uid, "annotations": map[string]string{v1alpha1.PivotStanding: fmt.Sprintf("%s %d", host, os.Getpid())}}})
	if err != nil {
		return err
	}
	_, err = c.CoreV1().ConfigMaps(v1alpha1.MemberNamespace).Patch(ctx, v1alpha1.PivotMark, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "bowline-standing"})
	return err
}

// state is what is known of the mark.
type state struct {
	mu   sync.Mutex
	mark *corev1.ConfigMap // guarded by mu; nil where there is none
	news chan struct{}     // guarded by mu; closed when another mark is there, or none any more
}

func (s *state) get() (*corev1.ConfigMap, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mark, s.news
}

func (s *state) set(mark *corev1.ConfigMap) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if (s.mark == nil) == (mark == nil) && (mark == nil || s.mark.UID == mark.UID) {
		return
	}
	s.mark = mark
	close(s.news)
	s.news = make(chan struct{})
}

// watch follows the mark until ctx is done.
func (s *state) watch(ctx context.Context, c kubernetes.Interface) {
	tell := func(o any) {
		if mark, ok := o.(*corev1.ConfigMap); ok {
			s.set(mark)
		}
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(c.CoreV1().RESTClient(), "configmaps", v1alpha1.MemberNamespace, fields.OneTermEqualSelector("metadata.name", v1alpha1.PivotMark)),
		ObjectType:    &corev1.ConfigMap{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: tell, UpdateFunc: func(_, o any) { tell(o) }, DeleteFunc: func(any) { s.set(nil) },
		},
	})
	// A mark that went between the first look and the watch is told by no event.
	synced := make(chan struct{})
	go func() {
		defer close(synced)
		if cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			if mark, _ := s.get(); mark != nil {
				if _, err := c.CoreV1().ConfigMaps(v1alpha1.MemberNamespace).Get(ctx, v1alpha1.PivotMark, metav1.GetOptions{}); apierrors.IsNotFound(err) {
					s.set(nil)
				}
			}
		}
	}()
	informer.RunWithContext(ctx)
	<-synced
}

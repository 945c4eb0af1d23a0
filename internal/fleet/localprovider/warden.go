package localprovider

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/go-logr/logr"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
)

// A process that ends is started again after a second, and after twice as long each time that it
// ends soon.
const (
	firstPause = time.Second
	lastPause  = time.Minute
	// longRun is how long it has to run for its earlier ends to be forgotten.
	longRun = time.Minute
)

// errEnded is said of a process that ended although it is to run.
var errEnded = errors.New("the process ended")

// warden keeps one process of a control plane running.
type warden struct {
	title   string
	service background.Service
	// launch starts the process with what its arguments are by the newest wish; one that it started and that
	// failed all the same is ended.
	launch func(ctx context.Context, arguments []string) (<-chan struct{}, error)
	// watch says until ctx is done with what arguments the process is to run, nil for not at all; without it,
	// it is to run always.
	watch func(ctx context.Context, wishes chan []string) error
	// after, where there is one, is waited for before the first start, and up is closed after it.
	after <-chan struct{}
	up    chan struct{}
	clock clock.Clock
	log   logr.Logger
	// pause is how long it takes until the process is started again.
	pause time.Duration
}

// run works until ctx is done; the process has ended then.
func (w *warden) run(ctx context.Context) {
	// Of one that an earlier provider left it is not known what it was told.
	w.stop(ctx)
	wishes := make(chan []string, 1)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		w.listen(ctx, wishes)
	}()
	defer func() { <-watching }()
	w.pause = firstPause
	var wanted []string
	for {
		ended := w.start(ctx, wanted)
		begun := w.clock.Now()
		select {
		case <-ctx.Done():
			w.stop(ctx)
			return
		case wanted = <-wishes:
			w.stop(ctx)
			w.pause = firstPause
		case <-ended:
			wanted = w.rest(ctx, wanted, wishes, w.clock.Since(begun))
		}
	}
}

// listen has the wishes told.
func (w *warden) listen(ctx context.Context, wishes chan []string) {
	if w.after != nil {
		select {
		case <-w.after:
		case <-ctx.Done():
			return
		}
	}
	if w.watch == nil {
		wishes <- []string{}
		return
	}
	if err := w.watch(ctx, wishes); err != nil {
		w.log.Error(err, "it is not run")
	}
}

// start starts the process with the arguments, and returns a channel that is closed when it ends. Without
// arguments none is to run.
func (w *warden) start(ctx context.Context, arguments []string) <-chan struct{} {
	if arguments == nil || ctx.Err() != nil {
		return nil
	}
	ended, err := w.launch(ctx, arguments)
	if err != nil {
		if ctx.Err() == nil {
			w.log.Error(err, "it was not started")
		}
		w.stop(ctx)
		at := make(chan struct{})
		close(at)
		return at
	}
	w.log.Info("it was started", "log", w.service.Log())
	select {
	case <-w.up:
	default:
		close(w.up)
	}
	return ended
}

// rest waits before a process is started again that has ended, unless something else is wanted meanwhile.
func (w *warden) rest(ctx context.Context, wanted []string, wishes <-chan []string, ran time.Duration) []string {
	if ctx.Err() != nil {
		return wanted
	}
	if ran >= longRun {
		w.pause = firstPause
	}
	w.log.Error(errEnded, "it is started again", "after", w.pause.String(), "log", w.service.Log())
	timer := w.clock.NewTimer(w.pause)
	defer timer.Stop()
	w.pause = min(2*w.pause, lastPause)
	select {
	case <-ctx.Done():
	case <-timer.C():
	case wanted = <-wishes:
		w.pause = firstPause
	}
	return wanted
}

// stop ends the process, where one runs. It takes as long as it takes.
func (w *warden) stop(ctx context.Context) {
	if _, err := w.service.Stop(context.WithoutCancel(ctx)); err != nil {
		w.log.Error(err, "it was not ended")
	}
}

// watchDeployment tells with what arguments an agent is to run, whenever that changes, until ctx is done: nil is
// none. It goes on when the API server comes back.
func watchDeployment(ctx context.Context, config *rest.Config, wishes chan []string) error {
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("watch the agent's Deployment: %w", err)
	}
	var last []string
	tell := func(arguments []string) {
		if slices.Equal(arguments, last) {
			return
		}
		last = arguments
		select { // what nobody has heard yet is old
		case <-wishes:
		default:
		}
		wishes <- arguments
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(c.AppsV1().RESTClient(), "deployments", fleetv1.MemberNamespace, fields.OneTermEqualSelector("metadata.name", agent.Name)),
		ObjectType:    &appsv1.Deployment{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { tell(wish(o)) },
			UpdateFunc: func(_, o any) { tell(wish(o)) },
			DeleteFunc: func(any) { tell(nil) },
		},
	})
	informer.RunWithContext(ctx)
	return nil
}

// wish returns the arguments that a Deployment gives its agent; nil where none is to run.
func wish(o any) []string {
	d, ok := o.(*appsv1.Deployment)
	if !ok || d.DeletionTimestamp != nil || d.Spec.Replicas != nil && *d.Spec.Replicas == 0 || len(d.Spec.Template.Spec.Containers) == 0 {
		return nil
	}
	return d.Spec.Template.Spec.Containers[0].Args
}

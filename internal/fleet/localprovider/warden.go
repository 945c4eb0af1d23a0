package localprovider

import (
	"context"
	"fmt"
	"path/filepath"
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
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
)

// An agent that ends is started again after a second, and after twice as long each time that it
// ends soon.
const (
	firstPause = time.Second
	lastPause  = time.Minute
	// longRun is how long it has to run for its earlier ends to be forgotten.
	longRun = time.Minute
)

// warden runs the agent of one control plane as its Deployment says.
type warden struct {
	service    background.Service
	executable string
	clock      clock.Clock
	log        logr.Logger
	// pause is how long it takes until the agent is started again.
	pause time.Duration
}

// run works until ctx is done; the agent has ended then.
func (w *warden) run(ctx context.Context, config *rest.Config) {
	wishes := make(chan []string, 1)
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		if err := watchDeployment(ctx, config, wishes); err != nil {
			w.log.Error(err, "no agent is run")
		}
	}()
	defer func() { <-watching }()
	// Of an agent that an earlier provider left it is not known what it was told.
	w.stop(ctx)
	w.pause = firstPause
	var wanted []string
	for {
		ended := w.start(wanted)
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

// start starts the agent with the arguments, and returns a channel that is closed when it ends. Without
// arguments none is to run.
func (w *warden) start(arguments []string) <-chan struct{} {
	if arguments == nil {
		return nil
	}
	ended, err := w.service.Start(w.executable, w.arguments(arguments), []string{"RUNTIME_NAMESPACE=" + fleetv1.MemberNamespace})
	if err != nil {
		w.log.Error(err, "the agent was not started")
		at := make(chan struct{})
		close(at)
		return at
	}
	w.log.Info("the agent was started", "log", w.service.Log())
	return ended
}

// rest waits before an agent is started again that has ended, unless something else is wanted meanwhile.
func (w *warden) rest(ctx context.Context, wanted []string, wishes <-chan []string, ran time.Duration) []string {
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

// stop ends the agent, where one runs. It takes as long as it takes.
func (w *warden) stop(ctx context.Context) {
	if _, err := w.service.Stop(context.WithoutCancel(ctx)); err != nil {
		w.log.Error(err, "the agent was not ended")
	}
}

func (w *warden) kubeconfig() string { return filepath.Join(w.service.Dir, "kubeconfig") }

func (w *warden) writeKubeconfig(data []byte) error {
	if err := background.WriteFile(w.kubeconfig(), data); err != nil {
		return &failure.Error{Op: "write", Object: w.kubeconfig(), Kind: failure.Denied, Err: err}
	}
	return nil
}

// arguments are those of the Deployment, with what is another on this machine: the last one of a flag counts.
func (w *warden) arguments(of []string) []string {
	return append(slices.Clone(of), "--kubeconfig="+w.kubeconfig(), "--data-dir="+filepath.Join(w.service.Dir, "data"),
		"--metrics-addr=0", "--health-addr=0", "--storage-addr=127.0.0.1:0")
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

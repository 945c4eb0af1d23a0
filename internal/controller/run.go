package controller

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/artifactserve"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/admission"
	"github.com/bowline-dev/bowline/internal/fleet/join"
	fleetstanding "github.com/bowline-dev/bowline/internal/fleet/standing"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/source/reach"
)

// Run runs the engine until ctx is done. It fails early, and says what is
// missing, when the cluster cannot be reached or lacks the kinds that the engine
// serves. While the cluster's management plane moves it stands still.
func Run(ctx context.Context, o Options) error {
	o = o.withDefaults()
	if o.guest != nil {
		return run(ctx, o) // it stands still with its host
	}
	return fleetstanding.Runner{
		Config: o.RestConfig, Log: o.Logger,
		Run:  func(ctx context.Context) error { return run(ctx, o) },
		Idle: func(ctx context.Context) { alive(ctx, o) },
	}.Start(ctx)
}

// alive answers that an engine which stands still is well, so that nobody starts it again.
func alive(ctx context.Context, o Options) {
	if orOff(o.HealthAddr) == "0" {
		return
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.HealthAddr)
	if err != nil {
		o.Logger.Error(err, "nobody is told that the engine is well")
		return
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	_ = server.Serve(listener)
}

func run(ctx context.Context, o Options) error {
	budget, err := plan.ParseBudget(o.DeletionBudget)
	if err != nil {
		return fmt.Errorf("--deletion-budget: %w", err)
	}
	if err := o.Tenancy.Validate(); err != nil {
		return err
	}
	mirrors, err := parseMirrors(o.Mirrors)
	if err != nil {
		return err
	}
	scheme, err := NewScheme()
	if err != nil {
		return err
	}
	if err := served(ctx, o.RestConfig, scheme); err != nil {
		return err
	}
	webhooks, err := listen(ctx, o)
	if err != nil {
		return err
	}
	mgr, err := newManager(o, scheme, webhooks)
	if err != nil {
		return err
	}
	cluster, err := kube.NewCluster(o.RestConfig)
	if err != nil {
		return err
	}
	// The clients of the two share connections, unless the cluster is reached without TLS.
	defer utilnet.CloseIdleConnectionsFor(cluster.HTTP.Transport)
	h, closeHost, err := hostOf(o, mirrors)
	if err != nil {
		return err
	}
	defer closeHost()
	served, err := serveArtifacts(ctx, o, mgr)
	if err != nil {
		return err
	}
	// What watches beside the manager ends with it, whatever ended that.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e := newEngine(ctx, o, mgr, cluster, h, served, budget)
	if err := e.register(ctx); err != nil {
		return err
	}
	defer h.meters.join(e.objects)()
	return mgr.Start(ctx)
}

// hostOf returns what the engine shares with others in its process; what is its own is closed in the end.
func hostOf(o Options, mirrors reach.Mirrors) (h *host, end func(), err error) {
	if o.guest != nil {
		return o.guest.host, func() {}, nil
	}
	store, err := git.New(git.Options{DataDir: filepath.Join(o.DataDir, "git"), Mirrors: mirrors, MaxFileSize: o.MaxFileSize})
	if err != nil {
		return nil, nil, err
	}
	h = &host{repositories: store, meters: newMeters(), turns: &atomic.Uint64{}}
	unregister, err := h.meters.register(o.Registry)
	if err != nil {
		store.Close()
		return nil, nil, err
	}
	return h, func() { unregister(); store.Close() }, nil
}

// NewScheme returns the types that the engine reads and writes as Go values.
func NewScheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, appsv1.AddToScheme, sourcev1.AddToScheme, kustomizev1.AddToScheme, swapi.AddToScheme, helmv2.AddToScheme, admission.AddToScheme, fleetv1.AddToScheme, join.AddToScheme,
	} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("register API types: %w", err)
		}
	}
	return s, nil
}

func newManager(o Options, scheme *runtime.Scheme, webhooks webhook.Server) (ctrl.Manager, error) {
	config := rest.CopyConfig(o.RestConfig)
	config.QPS, config.Burst = -1, -1
	// The server's advice on the toolkit's own kinds helps nobody here.
	config.WarningHandler, config.WarningHandlerWithContext = rest.NoWarnings{}, nil
	grace := 10 * time.Second
	if o.guest != nil {
		grace = guestGrace
	}
	mgr, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme, Logger: o.Logger,
		// Names of controllers are unique by construction; the check is per
		// process and would refuse a second engine.
		Controller:             ctrlconfig.Controller{SkipNameValidation: ptr.To(true)},
		Cache:                  cache.Options{DefaultTransform: cache.TransformStripManagedFields(), ByObject: admission.CacheOptions()},
		WebhookServer:          webhooks,
		Metrics:                metricsserver.Options{BindAddress: orOff(o.MetricsAddr)},
		HealthProbeBindAddress: orOff(o.HealthAddr),
		PprofBindAddress:       orOff(o.PProfAddr),
		LeaderElection:         o.LeaderElect, LeaderElectionNamespace: o.LeaderElectNamespace,
		LeaderElectionID: LeaseName, LeaderElectionReleaseOnCancel: true,
		GracefulShutdownTimeout: &grace,
	})
	if err != nil {
		return nil, &failure.Error{Op: "start the engine", Kind: failure.Unavailable, Object: "on " + o.RestConfig.Host, Err: err}
	}
	if err := mgr.AddHealthzCheck("alive", healthz.Ping); err != nil {
		return nil, err
	}
	return mgr, nil
}

// listen opens the address of webhooks; nil where there are none.
func listen(ctx context.Context, o Options) (webhook.Server, error) {
	if orOff(o.Webhooks.Listen) == "0" {
		return nil, nil
	}
	return admission.Listen(ctx, o.Webhooks)
}

// LeaseName is the name of the lease by which engines on one cluster take turns.
const LeaseName = "bowline.fleet.bowline.dev"

// serveArtifacts starts to serve artifacts with the manager, and returns nil where
// they are not to be served.
func serveArtifacts(ctx context.Context, o Options, mgr ctrl.Manager) (*artifactserve.Server, error) {
	if orOff(o.StorageAddr) == "0" {
		return nil, nil
	}
	listener, address, err := artifactserve.Listen(ctx, o.StorageAddr, o.StorageAdvAddr)
	if err != nil {
		return nil, err
	}
	server := artifactserve.NewServer(address, o.Logger.WithName("artifacts"))
	return server, mgr.Add(serving(func(ctx context.Context) error { return artifactserve.Serve(ctx, listener, server) }))
}

// serving runs on engines that stand by, too: whoever asks one is told at once that
// it has nothing.
type serving func(context.Context) error

// Start implements manager.Runnable.
func (s serving) Start(ctx context.Context) error { return s(ctx) }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (s serving) NeedLeaderElection() bool { return false }

func orOff(addr string) string {
	if addr == "" {
		return "0"
	}
	return addr
}

// Definitions that were installed a moment ago are not served at once.
const (
	servedPatience = 15 * time.Second
	servedPoll     = 200 * time.Millisecond
)

// served waits until the cluster serves the kinds that the engine reconciles.
func served(ctx context.Context, config *rest.Config, scheme *runtime.Scheme) error {
	var last error
	err := wait.PollUntilContextTimeout(ctx, servedPoll, servedPatience, true, func(ctx context.Context) (bool, error) {
		var wanting bool
		wanting, last = missing(ctx, config, scheme)
		return last == nil, onlyIf(!wanting, last)
	})
	if err != nil && last != nil {
		return last
	}
	return err
}

func onlyIf(cond bool, err error) error {
	if cond {
		return err
	}
	return nil
}

// missing says what keeps the engine from reading its kinds, and whether that may
// pass by itself. The client is a new one, which has no discovery cached.
func missing(ctx context.Context, config *rest.Config, scheme *runtime.Scheme) (passing bool, err error) {
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		return false, &failure.Error{Op: "start the engine", Kind: failure.Unavailable, Object: "on " + config.Host, Err: err}
	}
	for _, list := range []client.ObjectList{&sourcev1.GitRepositoryList{}, &kustomizev1.KustomizationList{}} {
		err := c.List(ctx, list, client.Limit(1))
		switch {
		case err == nil:
		case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
			return false, &failure.Error{Op: "start the engine", Kind: failure.Denied, Err: err, Remedy: "give its identity the rights to do this"}
		case isNoMatch(err):
			return true, &failure.Error{Op: "start the engine", Kind: failure.NotFound, Err: err,
				Remedy: "install the definitions: bowline crds | kubectl apply --server-side -f -"}
		default:
			return false, &failure.Error{Op: "start the engine", Kind: failure.Unavailable, Object: "on " + config.Host, Err: err,
				Remedy: "check that the API server runs and that the kubeconfig names it"}
		}
	}
	return false, nil
}

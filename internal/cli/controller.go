package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
)

type controllerOptions struct {
	clusterFlags
	engine         controller.Options
	tenancy        string
	settings       string
	noRemoteBases  bool
	featureGates   []string
	stageKinds     []string
	ageSecret      string
	vaultConfig    string
	webhookService string
	logLevel       string
	logFormat      string
}

func (a *app) controllerCommand() *cobra.Command {
	o := &controllerOptions{}
	cmd := &cobra.Command{
		Use:     "controller [flags]",
		Short:   "Run the engine",
		GroupID: groupEngine,
		Long: "Run the engine in this process until it is interrupted, on the cluster of the kubeconfig or,\n" +
			"in a pod, on the pod's own. It serves /metrics, /healthz and /readyz.\n\n" +
			"Tenants are locked in: units outside the platform namespaces are delivered as a service account\n" +
			"of their own namespace, and refer to their own namespace only. --tenancy=open ends that.\n\n" +
			"A cluster may keep settings for its engine in the ConfigMap that --settings names: a key is the\n" +
			"name of a flag. It is read at the start, and flags that are given win.",
		Example: "  bowline controller --kubeconfig ./kubeconfig --data-dir ./data\n" +
			"  bowline controller --leader-elect --concurrency 40\n" +
			"  bowline controller --platform-namespaces flux-system,monitoring\n" +
			"  bowline controller --mirror https://github.com/=https://git.example.com/github/ --mirror oci://ghcr.io/=oci://registry.example.com/ghcr/",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.runController(cmd.Context(), o, cmd.Flags())
		},
	}
	o.addConnection(cmd)
	o.addEngine(cmd)
	return cmd
}

func (o *controllerOptions) addEngine(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.engine.DataDir, "data-dir", "", "`folder` for copies of repositories; it may be lost at any time (default: below the user's cache folder)")
	f.StringVar(&o.engine.MetricsAddr, "metrics-addr", ":8080", "`address` to serve /metrics on; 0 turns it off")
	f.StringVar(&o.engine.HealthAddr, "health-addr", ":9440", "`address` to serve /healthz and /readyz on; 0 turns it off")
	f.StringVar(&o.engine.StorageAddr, "storage-addr", ":9090", "`address` to serve the artifacts of sources on, for other controllers; 0 turns it off")
	f.StringVar(&o.engine.StorageAdvAddr, "storage-adv-addr", "", "`address` in the URLs of artifacts (default: that of --storage-addr)")
	f.StringVar(&o.engine.Webhooks.Listen, "webhook-addr", "", "`address` at which a hub checks what is written of the fleet's kinds before the API server stores it; 0 turns it off (default: off)")
	f.StringVar(&o.engine.Webhooks.URL, "webhook-url", "", "https `URL` where the API server finds --webhook-addr (default: that address)")
	f.StringVar(&o.webhookService, "webhook-service", "", "Service, with port 443, where the API server finds --webhook-addr instead, as `NAMESPACE/NAME`, or a name in RUNTIME_NAMESPACE")
	f.StringVar(&o.engine.PProfAddr, "pprof-addr", "", "`address` to serve profiles on (default: off)")
	f.BoolVar(&o.engine.LeaderElect, "leader-elect", false, "let several engines on one cluster take turns")
	f.StringVar(&o.engine.LeaderElectNamespace, "leader-elect-namespace", "", "`namespace` of the lease (default: the engine's own)")
	f.IntVar(&o.engine.Concurrency, "concurrency", 0, "how many Kustomizations are worked on at one time; 0 means the default")
	f.StringArrayVar(&o.engine.Mirrors, "mirror", nil, "replace a prefix of source URLs, as `FROM=TO`; may be repeated, the longest match wins")
	f.BoolVar(&o.noRemoteBases, "no-remote-bases", true, "refuse kustomize bases that are named by URL")
	f.StringVar(&o.tenancy, "tenancy", "locked", "`mode`: locked confines tenants to their own namespace and its accounts, open confines nobody")
	f.StringSliceVar(&o.engine.Tenancy.PlatformNamespaces, "platform-namespaces", controller.DefaultPlatformNamespaces(), "`namespaces` that are no tenant's: locked tenancy leaves their units alone")
	f.StringVar(&o.engine.Tenancy.DefaultServiceAccount, "default-service-account", "", "`name` of the service account that delivers every Kustomization which names none")
	f.BoolVar(&o.engine.Tenancy.NoCrossNamespaceRefs, "no-cross-namespace-refs", false, "refuse references to sources of other namespaces, in platform namespaces too")
	f.StringVar(&o.engine.DefaultDecryptionAccount, "default-decryption-service-account", "", "`name` of the service account that asks key services for every Kustomization whose spec.decryption names none")
	f.StringVar(&o.ageSecret, "sops-age-secret", "", "Secret with age keys for Kustomizations whose spec.decryption names none, as `NAMESPACE/NAME`, or a name in RUNTIME_NAMESPACE; no tenant gets them")
	f.StringVar(&o.vaultConfig, "sops-vault-configmap", "", "ConfigMap with the Vault and OpenBao servers at which service accounts may log in to decrypt, as `NAMESPACE/NAME`, or a name in RUNTIME_NAMESPACE")
	f.BoolVar(&o.engine.Kubeconfigs.AllowExec, "insecure-kubeconfig-exec", false, "let kubeconfigs of other clusters name a program, which runs with the rights of the engine")
	f.BoolVar(&o.engine.Kubeconfigs.AllowInsecureTLS, "insecure-kubeconfig-tls", false, "let kubeconfigs of other clusters do without TLS, or without checking who answers")
	f.StringVar(&o.settings, "settings", defaultSettings, "ConfigMap with settings of the engine, as `NAMESPACE/NAME`; empty means none")
	f.StringVar(&o.engine.Hub.URL, "hub-url", "", "`URL` at which members of the fleet reach this cluster's API server (default: the one that the engine uses)")
	f.StringVar(&o.engine.Hub.CAFile, "hub-ca", "", "`file` with the certificates by which members know that API server (default: those that the engine uses)")
	f.StringVar(&o.engine.Hub.AgentImage, "agent-image", "", "`image` that agents run on members (default: "+agent.Repository+" with the version of this engine as its tag)")
	f.DurationVar(&o.engine.Hub.Lease, "member-lease", 0, "for tests")
	_ = f.MarkHidden("member-lease")
	f.StringVar(&o.engine.DeletionBudget, "deletion-budget", "50%", "`share` of a Kustomization's objects that may be deleted without approval, or off")
	f.DurationVar(&o.engine.AuditInterval, "audit-interval", 0, "how often a sample of what is known is compared with dry runs; 0 means the default, negative never")
	f.Int64Var(&o.engine.MaxFileSize, "max-file-size", 0, "largest `size` in bytes of a file that is read from a repository; 0 means the default")
	f.StringSliceVar(&o.stageKinds, "custom-apply-stage-kinds", nil, "`kinds` as GROUP/KIND, or KIND for the core group, that are applied before the rest, after definitions and classes")
	f.StringSliceVar(&o.featureGates, "feature-gates", nil, "the toolkit's feature gates, as `NAME=true`: AdditiveCELDependencyCheck (a readyExpr is asked besides whether the dependency is ready); StrictPostBuildSubstitutions, on unless set to false (a variable with neither value nor default is an error)")
	f.StringVar(&o.logLevel, "log-level", "info", "`level` from which on to log: debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "json", "`format` of the log: json or text")
}

func (a *app) runController(ctx context.Context, o *controllerOptions, flags *pflag.FlagSet) error {
	opts, err := a.engineOptions(ctx, o, flags)
	if err != nil {
		return err
	}
	return controller.Run(ctx, opts)
}

// engineOptions makes of flags and settings what the engine takes, and sets up the log.
func (a *app) engineOptions(ctx context.Context, o *controllerOptions, flags *pflag.FlagSet) (controller.Options, error) {
	logger, err := newLogger(a.Err, o.logLevel, o.logFormat)
	if err != nil {
		return controller.Options{}, err
	}
	klog.SetLogger(logger)
	ctrllog.SetLogger(logger)
	if err := o.readSettings(ctx, flags); err != nil {
		return controller.Options{}, err
	}
	opts := o.engine
	opts.Logger = logger
	opts.AllowRemoteBases = !o.noRemoteBases
	opts.Version = buildVersion(a.version).Version
	opts.Hub.AgentImage = cmp.Or(opts.Hub.AgentImage, agent.DefaultImage(buildVersion(a.version).Version))
	if opts.RestConfig, err = o.restConfig(); err != nil {
		return controller.Options{}, err
	}
	opts.DataDir, err = dataDir(opts.DataDir)
	return opts, err
}

// readSettings sets the flags that the cluster keeps for its engine.
func (o *controllerOptions) readSettings(ctx context.Context, flags *pflag.FlagSet) error {
	name, err := settingsName(o.settings)
	if err != nil {
		return err
	}
	c, err := o.connect()
	if err != nil {
		return err
	}
	kept, err := readSettings(ctx, c, name)
	if err != nil {
		return err
	}
	return o.settle(kept, flags)
}

// settle takes what the cluster keeps, and reads the flags that decide what others
// mean.
func (o *controllerOptions) settle(kept engineSettings, flags *pflag.FlagSet) (err error) {
	if err := kept.apply(flags); err != nil {
		return err
	}
	if err := setFeatureGates(&o.engine, o.featureGates); err != nil {
		return err
	}
	if o.engine.StageKinds, err = controller.ParseStageKinds(o.stageKinds); err != nil {
		return err
	}
	own := os.Getenv("RUNTIME_NAMESPACE")
	if o.engine.AgeSecret, err = nameOfOwn("--sops-age-secret", o.ageSecret, own); err != nil {
		return err
	}
	if o.engine.VaultConfig, err = nameOfOwn("--sops-vault-configmap", o.vaultConfig, own); err != nil {
		return err
	}
	if o.engine.Webhooks.Service, err = nameOfOwn("--webhook-service", o.webhookService, own); err != nil {
		return err
	}
	if o.engine.Tenancy.Open, err = controller.ParseTenancy(o.tenancy); err != nil {
		return err
	}
	if len(kept.values) > 0 && !o.engine.Tenancy.Platform(kept.name.Namespace) {
		return &failure.Error{Op: "read", Object: kept.String(), Kind: failure.Refused,
			Err:    errors.New("it is in no platform namespace, where tenants might write it"),
			Remedy: "add " + kept.name.Namespace + " to --platform-namespaces, or name another ConfigMap with --settings"}
	}
	return nil
}

// nameOfOwn reads the value of a flag that names an object. The toolkit's engine takes a
// name in its own namespace, which its deployment states in RUNTIME_NAMESPACE.
func nameOfOwn(flag, s, own string) (types.NamespacedName, error) {
	if s == "" {
		return types.NamespacedName{}, nil
	}
	namespace, name, ok := strings.Cut(s, "/")
	if !ok {
		namespace, name = own, s
	}
	if namespace == "" || name == "" || strings.Contains(name, "/") {
		return types.NamespacedName{}, &failure.Error{Op: "read flag", Object: flag, Kind: failure.Invalid,
			Err: fmt.Errorf("%q names no object", s), Remedy: "write it as NAMESPACE/NAME"}
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, nil
}

func dataDir(dir string) (string, error) {
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", &failure.Error{Op: "find the cache folder", Kind: failure.NotFound, Err: err, Remedy: "pass --data-dir"}
		}
		dir = filepath.Join(cache, "bowline")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", &failure.Error{Op: "make folder", Object: dir, Kind: failure.Denied, Err: err, Remedy: "pass --data-dir"}
	}
	return filepath.Abs(dir)
}

func newLogger(w io.Writer, level, format string) (logr.Logger, error) {
	var threshold slog.Level
	if err := threshold.UnmarshalText([]byte(level)); err != nil {
		return logr.Logger{}, &failure.Error{Op: "read flag", Object: "--log-level", Kind: failure.Invalid,
			Err: fmt.Errorf("unknown level %q", level), Remedy: "use debug, info, warn or error"}
	}
	opts := &slog.HandlerOptions{Level: threshold}
	switch format {
	case "json":
		return logr.FromSlogHandler(slog.NewJSONHandler(w, opts)), nil
	case "text":
		return logr.FromSlogHandler(slog.NewTextHandler(w, opts)), nil
	}
	return logr.Logger{}, &failure.Error{Op: "read flag", Object: "--log-format", Kind: failure.Invalid,
		Err: fmt.Errorf("unknown format %q", format), Remedy: "use json or text"}
}

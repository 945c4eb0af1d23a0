// Command engine measures how fast an engine delivers Kustomizations from Git, and releases of a chart:
// the same fleet, the same control plane and the same clock for any engine that
// serves the toolkit's APIs. docs/benchmarks.md says what each figure means.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// config is what the command line chooses.
type config struct {
	engine       string
	localkube    string
	components   string
	install      string
	namespace    string
	jsonOut      string
	profile      string
	units        int
	clusters     int
	readers      int
	helm         int
	rounds       int
	heals        int
	workers      int
	settle       time.Duration
	idle         time.Duration
	timeout      time.Duration
	healTimeout  time.Duration
	baselineOnly bool
	noBaseline   bool
	keep         bool
	helmOnly     bool
	members      int
	membersOnly  bool
}

// defaultEngine runs Bowline with its default settings.
const defaultEngine = "bin/bowline controller --kubeconfig {kubeconfig} --data-dir {data-dir}" +
	" --metrics-addr 127.0.0.1:{metrics-port} --storage-addr 127.0.0.1:0 --health-addr 127.0.0.1:{health-port}"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, err := parse(args, stderr)
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "bowline-bench-")
	if err != nil {
		return fmt.Errorf("make a work folder: %w", err)
	}
	log := &progress{out: stderr, start: time.Now()}
	if cfg.keep {
		log.printf("work folder %s is kept", work)
	} else {
		defer func() { _ = os.RemoveAll(work) }()
	}
	rep := newReport(cfg)
	measured := measure(ctx, cfg, work, rep, log)
	// What was measured before something failed is still worth reading.
	if err := rep.write(cfg, stdout); err != nil {
		return errors.Join(measured, err)
	}
	return measured
}

func parse(args []string, stderr io.Writer) (*config, error) {
	cfg := &config{}
	set := flag.NewFlagSet("engine", flag.ContinueOnError)
	set.SetOutput(stderr)
	set.StringVar(&cfg.engine, "engine", defaultEngine, "shell `command` that runs the engine in the foreground;\n"+
		"{kubeconfig} {data-dir} {metrics-port} {health-port} {pprof-port} are filled in")
	set.StringVar(&cfg.localkube, "localkube", "bin/localkube", "the control plane's executable")
	set.StringVar(&cfg.components, "components", "all", "what the control plane runs, as `localkube start --components`")
	set.StringVar(&cfg.install, "install-crds", "bowline", "definitions to install first: bowline, none, or a `path` to YAML")
	set.StringVar(&cfg.namespace, "namespace", "flux-system", "namespace of the GitRepository and the Kustomizations")
	set.StringVar(&cfg.jsonOut, "json", "", "`file` to write all figures to; - for standard output instead of the table")
	set.StringVar(&cfg.profile, "profile", "", "`folder` for a CPU profile of each measure's first 15 s and a heap profile at its end;\n"+
		"needs an engine that serves profiles on 127.0.0.1:{pprof-port}; costs the engine a little")
	set.IntVar(&cfg.units, "units", 300, "number of Kustomizations, of 10 objects each")
	set.IntVar(&cfg.clusters, "clusters", 1, "with 2, measure one cluster while a second one is served and while it hangs, and nothing else")
	set.IntVar(&cfg.readers, "readers", 1000, "number of Kustomizations that read one ConfigMap; 0 leaves that measure out")
	set.IntVar(&cfg.helm, "helm", 100, "number of HelmReleases, of 8 objects each, measured by themselves afterwards; 0 leaves them out")
	set.BoolVar(&cfg.helmOnly, "helm-only", false, "measure the HelmReleases and nothing else")
	set.IntVar(&cfg.members, "members", 1000, "number of clusters of a fleet, measured by themselves afterwards; 0 leaves them out")
	set.BoolVar(&cfg.membersOnly, "members-only", false, "measure the fleet's clusters and nothing else")
	set.IntVar(&cfg.rounds, "rounds", 3, "how often to measure a commit and a reconcile request; the median counts")
	set.IntVar(&cfg.heals, "heals", 5, "how many objects to delete and how many to edit; the median counts")
	set.IntVar(&cfg.workers, "workers", 20, "parallel requests of the bare client")
	set.DurationVar(&cfg.settle, "settle", 5*time.Second, "pause between measures")
	set.DurationVar(&cfg.idle, "idle", 30*time.Second, "window over which idling is measured")
	set.DurationVar(&cfg.timeout, "timeout", 10*time.Minute, "how long one measure may take")
	set.DurationVar(&cfg.healTimeout, "heal-timeout", 20*time.Second, "how long to wait for one object to be healed")
	set.BoolVar(&cfg.baselineOnly, "baseline-only", false, "measure the bare client only, no engine")
	set.BoolVar(&cfg.noBaseline, "no-baseline", false, "leave the bare client out")
	set.BoolVar(&cfg.keep, "keep", false, "keep the work folder with the engine's log")
	if err := set.Parse(args); err != nil {
		return nil, err
	}
	if cfg.profile != "" && cfg.engine == defaultEngine {
		cfg.engine += " --pprof-addr 127.0.0.1:{pprof-port}"
	}
	if set.NArg() > 0 {
		return nil, fmt.Errorf("unknown argument %q; all choices are flags, see --help", set.Arg(0))
	}
	if err := cfg.check(); err != nil {
		return nil, err
	}
	return cfg, nil
}

// check says which choice makes no sense.
func (cfg *config) check() error {
	switch {
	case cfg.clusters < 1 || cfg.clusters > 2:
		return errors.New("--clusters must be 1 or 2")
	case cfg.helm < 0 || cfg.helmOnly && cfg.helm == 0:
		return errors.New("--helm must be at least 0, and 1 with --helm-only")
	case cfg.members < 0 || cfg.membersOnly && (cfg.members == 0 || cfg.helmOnly):
		return errors.New("--members must be at least 0, and 1 with --members-only, which goes without --helm-only")
	case cfg.units < 1 || cfg.rounds < 1 || cfg.heals < 1 || cfg.workers < 1 || cfg.readers < 0:
		return errors.New("--units, --rounds, --heals and --workers must be at least 1, --readers at least 0")
	}
	return nil
}

// progress prints what is going on, with the time since the start.
type progress struct {
	out   io.Writer
	start time.Time
}

func (p *progress) printf(format string, args ...any) {
	fmt.Fprintf(p.out, "%6.1fs  %s\n", time.Since(p.start).Seconds(), fmt.Sprintf(format, args...))
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}

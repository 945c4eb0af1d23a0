package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bowline-dev/bowline/internal/cli/flux"
	"github.com/bowline-dev/bowline/internal/failure"
)

type migrateOptions struct {
	clusterFlags
	fluxNamespace string
	settings      string
	back          bool
	dryRun        bool
	yes           bool
	leaveUnserved bool
	allowChanges  bool
	run           bool
	timeout       time.Duration
	engineArgs    []string
}

func (a *app) migrateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "migrate (flux | helm-operator | flux-v1) [flags]",
		Short:   "Take over a cluster or a repository from another engine",
		GroupID: groupEngine,
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.migrateFluxCommand(), a.migrateHelmOperatorCommand(), a.migrateFluxV1Command())
	return cmd
}

func (a *app) migrateFluxCommand() *cobra.Command {
	o := &migrateOptions{}
	cmd := &cobra.Command{
		Use:   "flux [flags] [-- ENGINE-FLAGS]",
		Short: "Take over a cluster from Flux, or give it back",
		Long: "Take over a cluster that Flux serves: look at what it is, show what would change, ask, and stop the\n" +
			"controllers that do what Bowline does. Nothing that they delivered is deleted, restarted or\n" +
			"rewritten: Bowline reads the same inventories and owns the same fields by the same name.\n\n" +
			"Tenancy stays as the cluster had it: it is written to a ConfigMap that the engine reads at its start.\n" +
			"A call that was interrupted can be repeated at any time. --back starts Flux again as it was.",
		Example: "  bowline migrate flux --dry-run\n" +
			"  bowline migrate flux --yes --run -- --data-dir ./data\n" +
			"  bowline migrate flux --back",
		Args: func(cmd *cobra.Command, args []string) error {
			if before := cmd.ArgsLenAtDash(); before > 0 || before < 0 && len(args) > 0 {
				return fmt.Errorf("unknown argument %q", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.engineArgs = args
			return a.migrateFlux(cmd.Context(), o)
		},
	}
	o.addConnection(cmd)
	f := cmd.Flags()
	f.StringVarP(&o.fluxNamespace, "namespace", "n", "flux-system", "`namespace` in which Flux runs")
	f.StringVar(&o.settings, "settings", "", "ConfigMap to keep the engine's settings in, as `NAMESPACE/NAME` (default: bowline-settings where Flux runs)")
	f.BoolVar(&o.back, "back", false, "give the cluster back to Flux")
	f.BoolVar(&o.dryRun, "dry-run", false, "look and show, and change nothing")
	f.BoolVarP(&o.yes, "yes", "y", false, "do not ask")
	f.BoolVar(&o.leaveUnserved, "leave-unserved", false, "go on although there are objects that nobody serves then; they stay as they are")
	f.BoolVar(&o.allowChanges, "allow-changes", false, "go on although delivered objects would change, or cannot be looked at")
	f.BoolVar(&o.run, "run", false, "run the engine in this process afterwards, with the flags after --")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "how long controllers may take to stop or start")
	cmd.MarkFlagsMutuallyExclusive("back", "run")
	cmd.MarkFlagsMutuallyExclusive("back", "allow-changes")
	cmd.MarkFlagsMutuallyExclusive("back", "leave-unserved")
	cmd.MarkFlagsMutuallyExclusive("dry-run", "run")
	return cmd
}

// migration is one call of migrate: what it was asked for and what it found out so far.
type migration struct {
	*app
	options *migrateOptions
	cluster *cluster
	flux    *flux.Installation
	// definitions are the kinds of the toolkit on the cluster.
	definitions []flux.Definition
	// settings are what the engine will be told.
	settings map[string]string
	// changes is how many delivered objects would change, unseen how many
	// Kustomizations could not be looked at.
	changes, unseen int
}

func (a *app) migrateFlux(ctx context.Context, o *migrateOptions) error {
	if o.settings == "" {
		o.settings = o.fluxNamespace + "/bowline-settings"
	}
	if _, err := settingsName(o.settings); err != nil {
		return err
	}
	c, err := o.connect()
	if err != nil {
		return err
	}
	m := &migration{app: a, options: o, cluster: c}
	if o.back {
		return m.giveBack(ctx)
	}
	if err := m.engineFlags().Parse(o.engineArgs); err != nil {
		return err
	}
	if err := m.takeOver(ctx); err != nil || !o.run || o.dryRun {
		return err
	}
	return m.runEngine()
}

// steps carries steps out and prints what each found or did.
func (m *migration) steps(ctx context.Context, steps []step) error {
	for _, s := range steps {
		line, err := s.run(ctx)
		if err != nil {
			return err
		}
		printf(m.Out, "%-12s %s\n", s.name, line)
	}
	return nil
}

// takeOver looks at everything before it changes anything.
func (m *migration) takeOver(ctx context.Context) error {
	err := m.steps(ctx, []step{
		{"cluster", m.reach}, {"rights", m.mayDo}, {"flux", m.findFlux}, {"kinds", m.readKinds},
		{"objects", m.readObjects}, {"unserved", m.findUnserved}, {"settings", m.readTenancy}, {"changes", m.preview},
	})
	if err != nil {
		return err
	}
	if m.options.dryRun {
		printf(m.Out, "\nThis was a dry run: nothing was changed.\n")
		return nil
	}
	if err := m.refuseChanges(); err != nil {
		return err
	}
	if err := m.ask("Stop " + m.replaced() + ", and take over?"); err != nil {
		return err
	}
	err = m.steps(ctx, []step{
		{"settings", m.writeTenancy}, {"stop", m.stopFlux}, {"kinds", m.installKinds}, {"ownership", m.ownership},
	})
	if err != nil {
		printf(m.Err, "Flux is stopped in part or as a whole, and no engine runs. What was delivered stays as it is.\n"+
			"Run this again to go on, or `%s migrate flux --back` to return.\n", m.name)
		return err
	}
	m.farewell()
	return nil
}

// refuseChanges stops before a fleet is touched that would not stay as it is.
func (m *migration) refuseChanges() error {
	if m.changes+m.unseen == 0 || m.options.allowChanges {
		return nil
	}
	return &failure.Error{Op: "take over from Flux", Kind: failure.Conflict,
		Err:    fmt.Errorf("%s would change, and %s could not be looked at", count(m.changes, "object"), count(m.unseen, "Kustomization")),
		Remedy: "nothing was changed; mend that first, or go on with --allow-changes"}
}

// ask returns an error unless the user agrees.
func (m *migration) ask(question string) error {
	if m.options.yes {
		return nil
	}
	printf(m.Out, "\n%s [y/N] ", question)
	line, _ := bufio.NewReader(m.In).ReadString('\n') // no answer is an answer
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		printf(m.Out, "\n")
		return nil
	}
	printf(m.Out, "\n")
	return &failure.Error{Op: "migrate", Kind: failure.NeedsApproval, Err: errors.New("not agreed to, and nothing was changed"), Remedy: "answer y, or pass --yes"}
}

// farewell says what to do next.
func (m *migration) farewell() {
	if m.options.run {
		return
	}
	printf(m.Out, "\nNo engine runs now. Start Bowline's, and stop it before you go back:\n\n"+
		"  %s controller --leader-elect --leader-elect-namespace %s%s\n"+
		"  %s migrate flux --back\n", m.name, m.options.fluxNamespace, m.settingsFlag(), m.name)
}

// settingsFlag tells the engine where its settings are, if it needs to be told.
func (m *migration) settingsFlag() string {
	if m.options.settings == defaultSettings {
		return ""
	}
	return " --settings " + m.options.settings
}

// count is a number of things for people.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/cli/flux"
	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/failure"
)

// writeTenancy keeps on the cluster what the engine has to be told.
func (m *migration) writeTenancy(ctx context.Context) (string, error) {
	name, err := settingsName(m.options.settings)
	if err != nil {
		return "", err
	}
	if err := writeSettings(ctx, m.cluster, name, m.settings); err != nil {
		return "", err
	}
	return "written to ConfigMap/" + name.String(), nil
}

// stopFlux stops the controllers that Bowline replaces, who uses sources first, and
// waits until no request of theirs can be under way.
func (m *migration) stopFlux(ctx context.Context) (string, error) {
	controllers := m.flux.Replaced()
	for _, c := range controllers {
		if err := c.Stop(ctx, m.cluster); err != nil {
			return "", err
		}
	}
	if err := flux.AwaitStopped(ctx, m.cluster, controllers, m.options.timeout); err != nil {
		return "", err
	}
	return m.replaced() + ": no pod is left, and nobody holds their leases", nil
}

// installKinds adds definitions of kinds that the cluster lacks. It changes none
// that is there: Flux's own, which Git may deliver, serve the engine as well.
func (m *migration) installKinds(ctx context.Context) (string, error) {
	all, err := crds.All()
	if err != nil {
		return "", err
	}
	missing := slices.DeleteFunc(all, func(u *unstructured.Unstructured) bool {
		return slices.ContainsFunc(m.definitions, func(d flux.Definition) bool { return d.Name == u.GetName() })
	})
	if len(missing) == 0 {
		return "all there", nil
	}
	if err := crds.Install(ctx, m.cluster.config, missing); err != nil {
		return "", err
	}
	var names []string
	for _, u := range missing {
		names = append(names, u.GetName())
	}
	return "installed " + strings.Join(names, ", "), nil
}

// ownership has nothing to rewrite, and says so.
func (m *migration) ownership(context.Context) (string, error) {
	return "inventories are read as they are, and fields are owned as " + controller.FieldManager + " by both engines", nil
}

// engineFlags are the engine's own flags, as the controller command has them.
func (m *migration) engineFlags() *pflag.FlagSet {
	cmd := &cobra.Command{}
	(&controllerOptions{}).addEngine(cmd)
	return cmd.Flags()
}

// runEngine turns this process into one that runs the engine: nothing of what looking
// at the cluster left behind, such as watches, lives on in it.
func (m *migration) runEngine() error {
	path, err := executable()
	if err != nil {
		return err
	}
	argv := []string{os.Args[0], "controller", "--leader-elect", "--leader-elect-namespace", m.options.fluxNamespace, "--settings", m.options.settings}
	for flag, value := range map[string]string{"--kubeconfig": m.options.kubeconfig, "--context": m.options.context} {
		if value != "" {
			argv = append(argv, flag, value)
		}
	}
	printf(m.Out, "\nThe engine runs, until it is interrupted.\n")
	if err := syscall.Exec(path, append(argv, m.options.engineArgs...), os.Environ()); err != nil {
		return &failure.Error{Op: "start", Object: path, Kind: failure.Unavailable, Err: err, Remedy: "start the engine with `" + m.name + " controller`"}
	}
	return nil
}

// giveBack starts the controllers again that were stopped. The settings go last: until
// Flux runs, Bowline's engine may be needed once more, with the tenancy that was.
func (m *migration) giveBack(ctx context.Context) error {
	err := m.steps(ctx, []step{{"cluster", m.reach}, {"flux", m.findStopped}, {"engine", m.noEngine}})
	if err != nil {
		return err
	}
	if m.options.dryRun {
		printf(m.Out, "\nThis was a dry run: nothing was changed.\n")
		return nil
	}
	if err := m.ask("Let " + m.replaced() + " run again?"); err != nil {
		return err
	}
	if err := m.steps(ctx, []step{{"start", m.startFlux}, {"settings", m.removeTenancy}}); err != nil {
		printf(m.Err, "Flux may run in part only, and settings of Bowline's engine be left. Run this again to go on.\n")
		return err
	}
	printf(m.Out, "\nFlux serves the cluster again. With its next apply it drops the digests that Bowline left at what it\n"+
		"delivered; nothing else changes.\n")
	return nil
}

// findStopped finds the controllers that were stopped by migrate, or the settings that
// an earlier call left when it had started them.
func (m *migration) findStopped(ctx context.Context) (string, error) {
	var err error
	if m.flux, err = flux.Find(ctx, m.cluster, m.options.fluxNamespace); err != nil {
		return "", err
	}
	var words []string
	for _, c := range m.flux.Replaced() {
		if c.Recorded() != "" {
			words = append(words, fmt.Sprintf("%s (replicas: %s)", c.Name, c.Recorded()))
		}
	}
	if len(words) > 0 {
		return "stopped: " + strings.Join(words, ", "), nil
	}
	name, err := settingsName(m.options.settings)
	if err != nil {
		return "", err
	}
	switch left, err := keptByMigrate(ctx, m.cluster, name); {
	case err != nil:
		return "", err
	case left != nil:
		return "started already; settings of Bowline's engine are left in ConfigMap/" + name.String(), nil
	}
	return "", &failure.Error{Op: "give back to Flux", Object: "in namespace " + m.flux.Namespace, Kind: failure.NotFound,
		Err: errors.New("no controller there was stopped by this command"), Remedy: "nothing was changed; Flux runs as its deployments say"}
}

// noEngine makes sure that Bowline's engine has stopped, as far as the cluster tells.
func (m *migration) noEngine(ctx context.Context) (string, error) {
	if err := flux.RefuseEngine(ctx, m.cluster, controller.LeaseName); err != nil {
		return "", err
	}
	return "nobody holds a lease " + controller.LeaseName + "; one without --leader-elect is not seen, so make sure that none runs", nil
}

// startFlux starts the controllers, who fetches sources first.
func (m *migration) startFlux(ctx context.Context) (string, error) {
	controllers := m.flux.Replaced()
	slices.Reverse(controllers)
	for _, c := range controllers {
		if c.Recorded() == "" {
			continue
		}
		if err := c.Start(ctx, m.cluster); err != nil {
			return "", err
		}
	}
	if err := flux.AwaitStarted(ctx, m.cluster, controllers, m.options.timeout); err != nil {
		return "", err
	}
	return m.replaced() + ": all replicas are ready", nil
}

// removeTenancy removes the settings, which the next engine could take for its own.
func (m *migration) removeTenancy(ctx context.Context) (string, error) {
	name, err := settingsName(m.options.settings)
	if err != nil {
		return "", err
	}
	return removeSettings(ctx, m.cluster, name)
}

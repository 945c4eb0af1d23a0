package cli

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/background"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/failure"
)

func (b *bringUp) startEngine(ctx context.Context) (string, error) {
	var err error
	if _, running := b.plane.Engine().Running(); !running {
		if b.settings.MetricsAddr, err = background.FreeAddr(ctx); err != nil {
			return "", err
		}
	}
	args := []string{"controller", "--data-dir", b.plane.Path("engine"), "--metrics-addr", b.settings.MetricsAddr, "--storage-addr", "127.0.0.1:0"}
	if !b.existing() { // the API server is here, too, and finds it
		args = append(args, "--webhook-addr", "127.0.0.1:0")
	}
	return b.startProgram(ctx, "the engine", b.plane.Engine(), &b.settings.Program, &b.settings.HealthAddr, args...)
}

// startProvider starts what makes Cluster API's clusters on this machine.
func (b *bringUp) startProvider(ctx context.Context) (string, error) {
	return b.startProgram(ctx, "the local provider", b.plane.Provider(), &b.settings.ProviderProgram, &b.settings.ProviderAddr,
		"local-provider", "--root", b.plane.Members())
}

// startProgram starts a command of this program in the background, or leaves it as it is where it runs and the program is
// still the same. What was started, and where it answers, is remembered.
func (b *bringUp) startProgram(ctx context.Context, title string, service background.Service, program, address *string, args ...string) (string, error) {
	self, err := executable()
	if err != nil {
		return "", err
	}
	now, verb := fingerprint(self), "started"
	if _, running := service.Running(); running {
		if now == *program {
			return "runs already", b.remember()
		}
		if _, err := service.Stop(ctx); err != nil {
			return "", err
		}
		verb = "started again, because the program changed"
	}
	*program = now
	if *address, err = background.FreeAddr(ctx); err != nil {
		return "", err
	}
	if err := b.remember(); err != nil {
		return "", err
	}
	exited, err := service.Start(self, slices.Concat(args, []string{"--health-addr", *address}, b.connectionArgs()), b.connectionEnv())
	if err != nil {
		return "", err
	}
	if err := awaitHealthy(ctx, "http://"+*address+"/readyz", exited); err != nil {
		return "", &failure.Error{Op: "start", Object: title, Kind: failure.Unavailable,
			Err: fmt.Errorf("%w: %s", err, service.LastWords()), Remedy: "read " + service.Log()}
	}
	return verb + ", log in " + service.Log(), nil
}

// startClusterAPI starts what builds clusters.
func (b *bringUp) startClusterAPI(ctx context.Context) (string, error) {
	manager, err := b.plane.ClusterAPI(b.settings.Hub)
	if err != nil {
		return "", err
	}
	started, err := manager.Start(ctx, b.cluster.config, b.settings.Kubeconfig)
	if err != nil {
		return "", err
	}
	if !started {
		return "runs already", nil
	}
	return "started, log in " + manager.Log(), nil
}

// engineOfHub looks after the engine of a plane that was moved into a cluster that it made: the local provider runs it.
func (b *bringUp) engineOfHub(context.Context) (string, error) {
	return "is the agent of " + b.settings.Hub + ", log in " + b.plane.Agent(b.settings.Hub).Log(), b.remember()
}

// installAPIs installs the definitions. Those of clusters on this machine are for a hub that is on it.
func (b *bringUp) installAPIs(ctx context.Context) (string, error) {
	type definitions struct {
		of  string
		all func() ([]*unstructured.Unstructured, error)
	}
	kinds := []definitions{{"the toolkit", crds.All}, {"the fleet", crds.Fleet}}
	if !b.existing() {
		kinds = append(kinds, definitions{"the local provider", crds.Local})
	}
	var all []*unstructured.Unstructured
	words := make([]string, 0, len(kinds))
	for _, k := range kinds {
		some, err := k.all()
		if err != nil {
			return "", err
		}
		all = append(all, some...)
		words = append(words, fmt.Sprintf("%d of %s", len(some), k.of))
	}
	return "definitions: " + strings.Join(words, ", "), crds.Install(ctx, b.cluster.config, all)
}

// fingerprint tells one build of a program from another, without reading it.
func fingerprint(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return ""
	}
	return fmt.Sprintf("%s %d %s", path, info.Size(), info.ModTime().UTC().Format(time.RFC3339Nano))
}

func (b *bringUp) remember() error { return b.plane.Remember(b.settings) }

// connectionArgs and connectionEnv make a service reach the plane's cluster.
func (b *bringUp) connectionArgs() []string {
	var args []string
	if b.settings.Kubeconfig != "" {
		args = append(args, "--kubeconfig", b.settings.Kubeconfig)
	}
	if b.settings.Context != "" {
		args = append(args, "--context", b.settings.Context)
	}
	return args
}

func (b *bringUp) connectionEnv() []string {
	if b.settings.KubeconfigEnv == "" {
		return nil
	}
	return []string{"KUBECONFIG=" + b.settings.KubeconfigEnv}
}

// engineStart is how long the engine may take to answer.
const engineStart = 30 * time.Second

// awaitHealthy asks url until it answers 200, the process has exited or the
// time is over.
func awaitHealthy(ctx context.Context, url string, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, engineStart)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !healthy(ctx, url) {
		select {
		case <-exited:
			return errors.New("it ended at once")
		case <-ctx.Done():
			return fmt.Errorf("it does not answer at %s", url)
		case <-tick.C:
		}
	}
	return nil
}

func healthy(ctx context.Context, url string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

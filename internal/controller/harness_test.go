package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) {
	if task := os.Getenv(childLogin); task != "" {
		os.Exit(runLogin(task))
	}
	klog.SetLogger(logr.Discard())
	ctrllog.SetLogger(logr.Discard())
	testkit.Main(m, testkit.WithControllers(), testkit.AtEnd(stopShared))
}

// liveEngine is an engine that runs in this process.
type liveEngine struct {
	config   *rest.Config
	registry *prometheus.Registry
	log      *logbook
	stop     func() error
}

// startEngine installs the definitions and runs an engine on the cluster.
func startEngine(config *rest.Config, dataDir string, change ...func(*Options)) (*liveEngine, error) {
	if err := crds.Apply(context.Background(), config); err != nil {
		return nil, err
	}
	return runEngine(config, dataDir, change...), nil
}

// runEngine runs an engine on a cluster as it is.
func runEngine(config *rest.Config, dataDir string, change ...func(*Options)) *liveEngine {
	e := &liveEngine{config: config, registry: prometheus.NewRegistry(), log: &logbook{}}
	o := Options{
		RestConfig: rest.CopyConfig(config), DataDir: dataDir, Registry: e.registry, AuditInterval: -1,
		Tenancy: Tenancy{Open: true}, // what locking does has tests of its own
		Logger:  logr.FromSlogHandler(slog.NewTextHandler(e.log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	for _, c := range change {
		c(&o)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	var err error
	go func() {
		defer close(ended)
		err = Run(ctx, o)
	}()
	e.stop = sync.OnceValue(func() error {
		cancel()
		<-ended
		return err
	})
	return e
}

// engineFor starts an engine for one test, on a cluster that no other engine
// serves, and stops it with the test.
func engineFor(t *testing.T, config *rest.Config, change ...func(*Options)) *liveEngine {
	t.Helper()
	e, err := startEngine(config, t.TempDir(), change...)
	if err != nil {
		t.Fatalf("start the engine: %v", err)
	}
	t.Cleanup(func() {
		if err := e.stop(); err != nil {
			t.Errorf("the engine ended with: %v", err)
		}
	})
	return e
}

// shared is the engine on the cluster of the package, which serves all tests
// that do not need one of their own.
var shared struct {
	sync.Mutex
	engine *liveEngine
	dir    string
	err    error
	// program is the engine that can be killed, in a folder of its own, when a test has asked for it.
	program    string
	programErr error
}

func sharedEngine(t *testing.T) *liveEngine {
	t.Helper()
	config := testkit.Cluster(t)
	shared.Lock()
	defer shared.Unlock()
	if shared.engine == nil && shared.err == nil {
		if shared.dir, shared.err = os.MkdirTemp("", "bowline-engine-"); shared.err == nil { //nolint:usetesting // it outlives the test
			shared.engine, shared.err = startEngine(config, shared.dir)
		}
	}
	if shared.err != nil {
		t.Fatalf("start the engine: %v", shared.err)
	}
	return shared.engine
}

func stopShared() {
	shared.Lock()
	defer shared.Unlock()
	if shared.engine != nil {
		if err := shared.engine.stop(); err != nil {
			fmt.Fprintln(os.Stderr, "the engine ended with:", err)
		}
	}
	_ = os.RemoveAll(shared.dir)
	if shared.program != "" {
		_ = os.RemoveAll(filepath.Dir(shared.program))
	}
}

// count returns the sum of a meter, over all series or those with this value of
// their one label.
func (e *liveEngine) count(t *testing.T, name, label string) float64 {
	t.Helper()
	families, err := e.registry.Gather()
	if err != nil {
		t.Fatalf("read the meters: %v", err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			if label == "" || len(m.GetLabel()) == 1 && m.GetLabel()[0].GetValue() == label {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// logbook keeps what an engine logs, for tests that fail.
type logbook struct {
	mu   sync.Mutex
	text bytes.Buffer // guarded by mu
}

// Write implements io.Writer.
func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// about returns the lines that mention a word.
func (l *logbook) about(word string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var lines []string
	for line := range strings.Lines(l.text.String()) {
		if strings.Contains(line, word) {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

// child is an engine in a process of its own, which can be killed.
type child struct {
	process *exec.Cmd
	output  *logbook
}

// engineProgram is the program that is killed: testdata/engine, built without the race detector. What
// that had to say would end with the process, and it takes five times as long to start.
func engineProgram(t testing.TB) string {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.program == "" && shared.programErr == nil {
		shared.program, shared.programErr = buildEngine()
	}
	if shared.programErr != nil {
		t.Fatalf("build the engine that is killed: %v", shared.programErr)
	}
	return shared.program
}

func buildEngine() (string, error) {
	dir, err := os.MkdirTemp("", "bowline-engine-")
	if err != nil {
		return "", err
	}
	program := filepath.Join(dir, "engine")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", program, "./testdata/engine")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as all that is not under the race detector: it is compiled already
	if output, err := build.CombinedOutput(); err != nil {
		return program, fmt.Errorf("%w\n%s", err, output)
	}
	return program, nil
}

// startChild runs an engine in another process, on a data folder that outlives it.
func startChild(t testing.TB, kubeconfig, dataDir string) *child {
	t.Helper()
	c := &child{process: exec.Command(engineProgram(t), kubeconfig, dataDir), output: &logbook{}}
	c.process.Stdout, c.process.Stderr = c.output, c.output
	c.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := c.process.Start(); err != nil {
		t.Fatalf("start an engine: %v", err)
	}
	return c
}

// kill ends the engine as a power cut would.
func (c *child) kill(t testing.TB) {
	t.Helper()
	if err := c.process.Process.Kill(); err != nil {
		t.Errorf("kill the engine: %v", err)
	}
	var ended *exec.ExitError
	if err := c.process.Wait(); !errors.As(err, &ended) || ended.ProcessState.ExitCode() != -1 {
		t.Errorf("the engine ended before it was killed: %v\n%s", err, c.output.about(""))
	}
}

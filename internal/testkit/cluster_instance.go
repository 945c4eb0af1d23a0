package testkit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// startPatience is how long a cluster may take to start: far above what it takes, so that a busy
// machine fails no test.
const startPatience = 5 * time.Minute

// instanceName names the cluster within its own root.
const instanceName = "test"

// Instance is a cluster of one test, which the test may stop, kill and start again. It keeps its
// data and its address throughout. The methods are for one goroutine at a time.
type Instance struct {
	Config     *rest.Config // the administrator, unthrottled
	Kubeconfig string       // path

	t          testing.TB // nil for the cluster of a package
	executable string
	root       string
	options    options
	process    *exec.Cmd
	stdin      io.Closer     // closing it stops the process
	exited     chan struct{} // closed when the process has ended
	exitErr    error         // how it ended; read after exited
}

// Start starts a cluster for this test alone and stops it when the test ends.
func Start(t testing.TB, opts ...Option) *Instance {
	t.Helper()
	executable := Localkube(t)
	// Not t.TempDir: its path, which holds the name of the test, may be too long for a socket.
	root, err := os.MkdirTemp("", "bowline-test-")
	if err != nil {
		t.Fatalf("testkit: make a folder for the cluster: %v", err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(root) })
	instance, err := newInstance(executable, root, newOptions(opts))
	if err != nil {
		t.Fatalf("testkit: %v", err)
	}
	instance.t = t
	t.Cleanup(func() {
		if err := instance.stop(); err != nil {
			t.Errorf("testkit: stop the cluster: %v", err)
		}
	})
	return instance
}

// Start starts the cluster again after Stop or Kill: same data, same address, same certificates.
func (i *Instance) Start() {
	i.t.Helper()
	if err := i.start(); err != nil {
		i.t.Fatalf("testkit: %v", err)
	}
}

// Stop stops the cluster in good order and waits until it has.
func (i *Instance) Stop() {
	i.t.Helper()
	if err := i.stop(); err != nil {
		i.t.Fatalf("testkit: stop the cluster: %v", err)
	}
}

// Kill ends the process of the cluster as a power cut would, and waits until it is gone.
func (i *Instance) Kill() {
	i.t.Helper()
	i.Signal(syscall.SIGKILL)
	<-i.exited
	_ = i.stdin.Close()
	i.process = nil
}

// Signal sends a signal to the process of the cluster: SIGSTOP makes it hang, SIGCONT go on.
func (i *Instance) Signal(s os.Signal) {
	i.t.Helper()
	if i.process == nil {
		i.t.Fatalf("testkit: send %v: the cluster is not running", s)
	}
	if err := i.process.Process.Signal(s); err != nil {
		i.t.Fatalf("testkit: send %v: %v", s, err)
	}
}

func newInstance(executable, root string, chosen options) (*Instance, error) {
	instance := &Instance{executable: executable, root: root, options: chosen}
	if err := instance.start(); err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", instance.Kubeconfig)
	if err != nil {
		_ = instance.stop()
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	config.QPS, config.Burst = -1, -1
	instance.Config = config
	return instance, nil
}

func (i *Instance) start() error {
	if i.process != nil {
		return errors.New("start the cluster: it is running")
	}
	// The process ends with its standard input, so it cannot outlive the tests. Writing to disk
	// is left to the operating system: tests survive a kill, and nobody needs their data after that.
	arguments := []string{"start", instanceName, "--root", i.root, "--foreground", "--until-stdin-closes",
		"--quiet", "--no-fsync", "--components", i.options.components, "--timeout", startPatience.String()}
	if i.options.nodes > 0 {
		arguments = append(arguments, "--nodes", strconv.Itoa(i.options.nodes))
	}
	process := exec.Command(i.executable, arguments...)
	var stderr strings.Builder
	process.Stderr = &stderr
	stdin, err := process.StdinPipe()
	if err != nil {
		return fmt.Errorf("start the cluster: %w", err)
	}
	stdout, err := process.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start the cluster: %w", err)
	}
	if err := process.Start(); err != nil {
		return fmt.Errorf("start the cluster: %w", err)
	}
	// It prints one line when it is ready, or ends.
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	exited := make(chan struct{})
	go func() {
		i.exitErr = process.Wait()
		close(exited)
	}()
	kubeconfig, ready := strings.CutPrefix(strings.TrimSpace(line), "ready kubeconfig=")
	if !ready {
		_ = stdin.Close()
		<-exited
		return fmt.Errorf("start the cluster: %q, %w: %s", line, i.exitErr, stderr.String())
	}
	i.process, i.stdin, i.exited, i.Kubeconfig = process, stdin, exited, kubeconfig
	return nil
}

func (i *Instance) stop() error {
	if i.process == nil {
		return nil
	}
	_ = i.stdin.Close()
	<-i.exited
	i.process = nil
	if i.exitErr != nil {
		return fmt.Errorf("%w; last line of its log: %s", i.exitErr, i.lastLogLine())
	}
	return nil
}

func (i *Instance) lastLogLine() string {
	data, err := os.ReadFile(filepath.Join(i.root, instanceName, "localkube.log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return lines[len(lines)-1]
}

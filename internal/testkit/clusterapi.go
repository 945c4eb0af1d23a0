package testkit

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/bowline-dev/bowline/internal/fleet/capi/install"
	"github.com/bowline-dev/bowline/internal/testkit/front"
)

// The time that a manager of Cluster API gets to start, and for its webhooks to be taken away. It
// starts in a second or two; the machine may be busy.
const (
	managerStart = time.Minute
	managerEnd   = 10 * time.Second
)

// ProviderManager is the manager of a Cluster API provider, in a process of its own that ends with
// the test. The methods are for one goroutine at a time.
type ProviderManager struct {
	t          testing.TB
	manager    install.Manager
	executable string
	kubeconfig string
	config     *rest.Config
	dir        string

	process *exec.Cmd
	ended   chan struct{}
}

// NewClusterAPI installs Cluster API on the cluster with the kubeconfig at that path and starts its
// own manager beside it. It returns when clusters can be made: see Kubeconfig and Instance. At
// the end of the test its webhooks are taken away again, so that other tests can write its
// kinds; the definitions stay. Without the executable the test is skipped.
func NewClusterAPI(t testing.TB, kubeconfig string) *ProviderManager {
	t.Helper()
	manager, err := install.CoreManager()
	front.Must(t, err)
	return newProviderManager(t, manager, kubeconfig)
}

// NewClusterAPIProviderAWS is NewClusterAPI for the provider for AWS, with the kinds of EKS. The
// cluster needs the kinds of Cluster API itself: call NewClusterAPI first. It has no
// credentials, so that what it judges is real and what it builds is nothing.
func NewClusterAPIProviderAWS(t testing.TB, kubeconfig string) *ProviderManager {
	t.Helper()
	components, err := os.ReadFile(Tool(t, "capa-components.yaml"))
	front.Must(t, err)
	manager, err := install.AWSManager(bytes.NewReader(components))
	front.Must(t, err)
	// It finds none of those of whoever runs the tests either.
	manager.Environment = append(manager.Environment, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null",
		"AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY=", "AWS_PROFILE=", "AWS_WEB_IDENTITY_TOKEN_FILE=")
	return newProviderManager(t, manager, kubeconfig)
}

func newProviderManager(t testing.TB, manager install.Manager, kubeconfig string) *ProviderManager {
	t.Helper()
	p := &ProviderManager{t: t, manager: manager, executable: Tool(t, manager.Name), kubeconfig: kubeconfig, dir: t.TempDir()}
	var err error
	p.config, err = clientcmd.BuildConfigFromFlags("", kubeconfig)
	front.Must(t, err)
	p.config.QPS, p.config.Burst = -1, -1
	t.Cleanup(p.end)
	p.Start()
	return p
}

// Start starts the manager again after Kill, at another address, and returns when it is ready.
func (p *ProviderManager) Start() {
	p.t.Helper()
	webhooks, health := freeAddr(p.t), freeAddr(p.t)
	ctx, cancel := context.WithTimeout(p.t.Context(), managerStart)
	defer cancel()
	if err := p.start(ctx, webhooks, health); err != nil {
		p.t.Fatalf("testkit: start %s: %v\n%s", p.manager.Name, err, p.Log())
	}
}

func freeAddr(t testing.TB) string {
	t.Helper()
	port, err := front.FreePort()
	front.Must(t, err)
	return fmt.Sprintf("127.0.0.1:%d", port)
}

func (p *ProviderManager) start(ctx context.Context, webhooks, health string) error {
	server, err := install.NewServer(filepath.Join(p.dir, "webhooks"), webhooks, time.Now())
	if err != nil {
		return err
	}
	if err := p.manager.Components.Install(ctx, p.config, server); err != nil {
		return err
	}
	arguments, err := p.manager.Arguments(p.kubeconfig, server, health)
	if err != nil {
		return err
	}
	if err := p.run(arguments); err != nil {
		return err
	}
	return p.manager.Ready(ctx, health, p.ended)
}

func (p *ProviderManager) run(arguments []string) error {
	log, err := os.OpenFile(p.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	process := exec.Command(p.executable, arguments...)
	process.Env = append(os.Environ(), p.manager.Environment...)
	process.Stdout, process.Stderr = log, log
	// It ends with the tests, however they end.
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	go func() {
		_ = process.Wait() // how it ended stands in its log
		close(ended)
	}()
	p.process, p.ended = process, ended
	return nil
}

// Kill ends the process as a power cut would, and waits until it is gone. Its webhooks stay in
// place: until it runs again, nobody can write its kinds.
func (p *ProviderManager) Kill() {
	p.t.Helper()
	if p.process == nil {
		p.t.Fatalf("testkit: kill %s: it is not running", p.manager.Name)
	}
	_ = p.process.Process.Kill()
	<-p.ended
	p.process = nil
}

// Log returns what the manager has written since the first start.
func (p *ProviderManager) Log() string {
	text, err := os.ReadFile(p.logFile())
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func (p *ProviderManager) logFile() string { return filepath.Join(p.dir, "log") }

func (p *ProviderManager) end() {
	if p.process != nil {
		p.Kill()
	}
	ctx, cancel := context.WithTimeout(context.Background(), managerEnd)
	defer cancel()
	// The test may have ended its cluster.
	if err := p.manager.Components.Withdraw(ctx, p.config); err != nil {
		p.t.Logf("testkit: take away the webhooks of %s: %v", p.manager.Name, err)
	}
}

// Package controlplane is the engine room of a local cluster: a real etcd, kube-apiserver,
// kube-controller-manager and kube-scheduler in this process, set up by the same flags as
// their commands. One process can hold one control plane, because these components keep
// feature gates, metrics and logging in globals.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/bowline-dev/bowline/localkube/internal/pki"
)

// stopLimit bounds how long the components may take to stop before the store is closed under
// them. Whatever they had acknowledged is in the store by then.
const stopLimit = 4 * time.Second

// readyPoll is the pause between two looks at whether the API server is ready.
const readyPoll = 20 * time.Millisecond

// Config says what to run and where.
type Config struct {
	Name     string       // of the cluster, for its kubeconfigs
	Dir      string       // the folder of the cluster: holds etcd/, and the kubeconfigs of the components
	Keys     pki.Folder   // its certificates
	Listener net.Listener // where the API server listens; owned by the control plane from here on

	ControllerManager bool // run kube-controller-manager
	Scheduler         bool // run kube-scheduler
	// UnsafeNoFsync leaves it to the operating system when to write to disk: faster, and safe
	// when the process is killed, but not when the machine goes down.
	UnsafeNoFsync bool
	// Emulate is the minor version to behave like, such as 1.35; empty is that of the build.
	Emulate string
}

// ControlPlane is a running control plane.
type ControlPlane struct {
	config  Config
	ca      []byte // of the API server
	store   *etcd
	cancel  context.CancelFunc
	running sync.WaitGroup
	failed  chan error // holds the first failure of a component
}

// Start starts the store and the API server, waits until the API is ready, and starts the other
// components. They stop with Stop, not with ctx, which only bounds the start.
func Start(ctx context.Context, config Config) (*ControlPlane, error) {
	store, err := startEtcd(ctx, config.Dir, config.UnsafeNoFsync)
	if err != nil {
		_ = config.Listener.Close()
		return nil, err
	}
	// Read once: a client that reads the file itself asks a feature which an emulated version may lack,
	// and whether it does is settled while the API server starts.
	ca, err := os.ReadFile(config.Keys.Cert(pki.CA))
	if err != nil {
		store.stop()
		_ = config.Listener.Close()
		return nil, fmt.Errorf("read the certificate authority: %w", err)
	}
	lifetime, cancel := context.WithCancel(context.WithoutCancel(ctx))
	plane := &ControlPlane{config: config, ca: ca, store: store, cancel: cancel, failed: make(chan error, 1)}
	flags := apiServerFlags(config.Keys, store.endpoint, config.ControllerManager)
	if config.Emulate != "" {
		// The components of one process share what they emulate.
		flags = append(flags, "--emulated-version="+config.Emulate)
	}
	plane.run(func() error { return runAPIServer(lifetime, config.Listener, flags) })
	if err := plane.waitReady(ctx); err != nil {
		plane.Stop()
		return nil, err
	}
	if err := plane.startComponents(lifetime); err != nil {
		plane.Stop()
		return nil, err
	}
	return plane, nil
}

func (p *ControlPlane) startComponents(lifetime context.Context) error {
	if p.config.ControllerManager {
		kubeconfig, err := p.kubeconfigFor(pki.ControllerManager)
		if err != nil {
			return err
		}
		flags := controllerManagerFlags(p.config.Keys, kubeconfig)
		p.run(func() error { return runControllerManager(lifetime, flags) })
	}
	if p.config.Scheduler {
		kubeconfig, err := p.kubeconfigFor(pki.Scheduler)
		if err != nil {
			return err
		}
		file := filepath.Join(p.config.Dir, "scheduler.yaml")
		if err := os.WriteFile(file, []byte(schedulerConfiguration(kubeconfig)), 0o600); err != nil {
			return fmt.Errorf("write the configuration of the scheduler: %w", err)
		}
		p.run(func() error { return runScheduler(lifetime, file) })
	}
	return nil
}

// URL returns the address of the API server.
func (p *ControlPlane) URL() string { return "https://" + p.config.Listener.Addr().String() }

// ClientConfig returns how the owner of a key pair talks to the API server, unthrottled.
func (p *ControlPlane) ClientConfig(pair string) *rest.Config {
	return &rest.Config{
		Host:  p.URL(),
		QPS:   -1,
		Burst: -1,
		TLSClientConfig: rest.TLSClientConfig{
			CAData:   p.ca,
			CertFile: p.config.Keys.Cert(pair),
			KeyFile:  p.config.Keys.Key(pair),
		},
	}
}

// Failed yields the error of a component that ended by itself.
func (p *ControlPlane) Failed() <-chan error { return p.failed }

// Stop ends all components and closes the store.
func (p *ControlPlane) Stop() {
	p.cancel()
	stopped := make(chan struct{})
	go func() {
		p.running.Wait()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(stopLimit):
		klog.InfoS("Components still running; closing the store under them", "after", stopLimit)
	}
	p.store.stop()
}

func (p *ControlPlane) run(component func() error) {
	p.running.Go(func() {
		if err := component(); err != nil {
			select {
			case p.failed <- err:
			default:
				klog.ErrorS(err, "A component failed after another one had")
			}
		}
	})
}

func (p *ControlPlane) kubeconfigFor(pair string) (string, error) {
	path := filepath.Join(p.config.Dir, "pki", pair+".kubeconfig")
	return path, p.config.Keys.WriteKubeconfig(path, p.config.Name, p.URL(), pair)
}

func (p *ControlPlane) waitReady(ctx context.Context) error {
	client, err := rest.HTTPClientFor(p.ClientConfig(pki.Admin))
	if err != nil {
		return fmt.Errorf("wait for kube-apiserver: %w", err)
	}
	defer client.CloseIdleConnections()
	for {
		if err := Ready(ctx, client, p.URL()); err == nil {
			return nil
		}
		select {
		case err := <-p.failed:
			return err
		case <-ctx.Done():
			return fmt.Errorf("wait for kube-apiserver: %w", context.Cause(ctx))
		case <-time.After(readyPoll):
		}
	}
}

// Ready asks the API server at url whether it is ready, and returns why it is not.
func Ready(ctx context.Context, client *http.Client, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/readyz", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return errors.New("the API server answers " + response.Status)
	}
	return nil
}

// ClientFromKubeconfig reads how to talk to the API server of a kubeconfig, unthrottled.
func ClientFromKubeconfig(path string) (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", path, err)
	}
	config.QPS, config.Burst = -1, -1
	return config, nil
}

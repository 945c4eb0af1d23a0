package controlplane

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// maxSocketPath is how long the path of a unix socket may be: sun_path holds 108 bytes on
// Linux and 104 on macOS, the final zero included.
const maxSocketPath = 103

// etcdQuotaBytes is the size at which etcd refuses writes. Its default of 2 GiB is for disks
// shared by others; 8 GiB is the largest that its makers suggest.
const etcdQuotaBytes = 8 << 30

// slowRequest is how long a request to the store takes before it is worth a line in the log.
const slowRequest = time.Second

// etcd is the running store of one cluster.
type etcd struct {
	server   *embed.Etcd
	endpoint string // for --etcd-servers
	tempDir  string // of the socket, when the cluster folder is too deep for one
}

// startEtcd opens the store in <dir>/etcd and serves it on a unix socket in a folder that
// only this user may enter: no port, no certificate, and nobody else on the machine reads it.
// With unsafeNoFsync a crash of the machine (not of the process) may lose or break the data.
func startEtcd(ctx context.Context, dir string, unsafeNoFsync bool) (*etcd, error) {
	socket, tempDir, err := socketPath(dir)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	if err := os.RemoveAll(socket); err != nil {
		return nil, fmt.Errorf("start etcd: remove stale socket: %w", err)
	}
	listen := url.URL{Scheme: "unix", Path: socket}
	// One member needs no peers, but a member has to have a peer address: nobody listens there,
	// nor at the advertised client address, which has to be a host and a port.
	nowhere := url.URL{Scheme: "http", Host: "localhost:2380"}

	config := embed.NewConfig()
	config.Name = "localkube"
	config.Dir = filepath.Join(dir, "etcd")
	config.ListenPeerUrls = nil
	config.AdvertisePeerUrls = []url.URL{nowhere}
	config.ListenClientUrls = []url.URL{listen}
	config.AdvertiseClientUrls = []url.URL{nowhere}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.EnableGRPCGateway = false
	config.UnsafeNoFsync = unsafeNoFsync
	config.QuotaBackendBytes = etcdQuotaBytes
	config.LogLevel = "warn"
	// Only its command has a default for this; at zero every request is logged as a slow one.
	config.WarningUnaryRequestDuration = slowRequest
	// A single member elects itself; waiting the default second for other candidates is idle time.
	config.TickMs, config.ElectionMs = 10, 100

	server, err := embed.StartEtcd(config)
	if err != nil {
		return nil, fmt.Errorf("start etcd in %s: %w", config.Dir, err)
	}
	running := &etcd{server: server, endpoint: listen.String(), tempDir: tempDir}
	select {
	case <-server.Server.ReadyNotify():
		return running, nil
	case err := <-server.Err():
		running.stop()
		return nil, fmt.Errorf("start etcd in %s: %w", config.Dir, err)
	case <-time.After(time.Minute):
		running.stop()
		return nil, fmt.Errorf("start etcd in %s: not ready after a minute", config.Dir)
	case <-ctx.Done():
		running.stop()
		return nil, ctx.Err()
	}
}

// stop closes the store; what was written stays.
func (e *etcd) stop() {
	e.server.Close()
	if e.tempDir != "" {
		_ = os.RemoveAll(e.tempDir)
	}
}

// socketPath returns where the socket goes: into the cluster folder, or when its path is too
// long for a socket, into a fresh private folder of its own, which it returns too.
func socketPath(dir string) (socket, tempDir string, err error) {
	socket = filepath.Join(dir, "etcd.sock")
	if len(socket) <= maxSocketPath {
		return socket, "", nil
	}
	tempDir, err = os.MkdirTemp("", "localkube-")
	if err != nil {
		return "", "", fmt.Errorf("make folder for the socket: %w", err)
	}
	return filepath.Join(tempDir, "etcd.sock"), tempDir, nil
}

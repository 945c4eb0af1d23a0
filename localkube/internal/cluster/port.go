package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// Ports are chosen below the range from which systems take the ports of outgoing connections,
// so that the port of a stopped cluster is still free when it starts again.
const (
	firstPort    = 20000
	portCount    = 10000
	portAttempts = 100
)

// listen opens the port of the API server on loopback; with port 0 it chooses a free one.
func (c Cluster) listen(ctx context.Context, port int) (net.Listener, int, error) {
	if port != 0 {
		listener, err := listenLoopback(ctx, port)
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, 0, fmt.Errorf("cluster %q: port %d on 127.0.0.1 is in use by another program: stop that program, or give the cluster another port with: localkube start %s --port 0: %w",
				c.Name, port, c.Name, err)
		}
		if err != nil {
			return nil, 0, fmt.Errorf("cluster %q: open port %d on 127.0.0.1: %w", c.Name, port, err)
		}
		return listener, port, nil
	}
	var lastErr error
	for range portAttempts {
		port := firstPort + rand.IntN(portCount) //nolint:gosec // spreading clusters over ports is no secret
		listener, err := listenLoopback(ctx, port)
		if err == nil {
			return listener, port, nil
		}
		lastErr = err
	}
	return nil, 0, fmt.Errorf("cluster %q: no free port on 127.0.0.1 from %d to %d; choose one with --port: %w",
		c.Name, firstPort, firstPort+portCount-1, lastErr)
}

func listenLoopback(ctx context.Context, port int) (net.Listener, error) {
	return (&net.ListenConfig{}).Listen(ctx, "tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}

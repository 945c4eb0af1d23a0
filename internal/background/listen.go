package background

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"syscall"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Ports are chosen below the range from which systems give them to outgoing
// connections and to whoever asks for any, so that an address is still free when
// a plane comes back to it.
const (
	firstPort = 20000
	lastPort  = 31999
	portTries = 50
)

// Listen opens a port on loopback, to be handed to a service. want is a port
// that must be used, or 0; before is the address used last time, which is used
// again when it is free, because clones of the repository point there.
func Listen(ctx context.Context, want int, before string) (*net.TCPListener, error) {
	if want != 0 {
		return listen(ctx, fmt.Sprintf("127.0.0.1:%d", want))
	}
	if before != "" {
		if l, err := listen(ctx, before); err == nil {
			return l, nil
		}
	}
	var err error
	for range portTries {
		var l *net.TCPListener
		port := firstPort + rand.IntN(lastPort-firstPort+1) //nolint:gosec // a port is no secret
		if l, err = listen(ctx, fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			return l, nil
		}
	}
	return nil, err
}

func listen(ctx context.Context, addr string) (*net.TCPListener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, &failure.Error{Op: "listen on", Object: addr, Kind: failure.Conflict,
			Err: errors.New("the port is in use"), Remedy: "choose another one, or leave the choice to Bowline"}
	}
	if err != nil {
		return nil, &failure.Error{Op: "listen on", Object: addr, Kind: failure.Denied, Err: err}
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("listen on %s: it is a %T", addr, l)
	}
	return tcp, nil
}

// FreeAddr returns an address on loopback that nobody listens on.
func FreeAddr(ctx context.Context) (string, error) {
	l, err := Listen(ctx, 0, "")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// inheritedListener is the first descriptor after the service's lock.
const inheritedListener = 4

// InheritedListener is the listener that a service was given when it was started.
func InheritedListener() (net.Listener, error) {
	f := os.NewFile(inheritedListener, "listener")
	if f == nil {
		return nil, errors.New("no listener was handed over")
	}
	defer func() { _ = f.Close() }()
	return net.FileListener(f)
}

package artifactserve

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Listen opens the address to serve at, such as ":9090". Advertised is the address that others
// are told: advertise where it is given, else the listener's own with the name of this machine, or
// "localhost", in place of an unspecified host, as the toolkit has it.
func Listen(ctx context.Context, address, advertise string) (l net.Listener, advertised string, err error) {
	var config net.ListenConfig
	l, err = config.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, "", &failure.Error{Op: "serve artifacts", Object: "on " + address, Kind: failure.Unavailable, Err: err,
			Remedy: "give another address with --storage-addr, or 0 to serve none"}
	}
	if advertise != "" {
		return l, advertise, nil
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return nil, "", errors.Join(err, l.Close())
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, "", errors.Join(err, l.Close())
	}
	switch host {
	case "":
		host = "localhost"
	case "0.0.0.0", "::":
		if host, err = os.Hostname(); err != nil {
			return nil, "", errors.Join(err, l.Close())
		}
	}
	return l, net.JoinHostPort(host, port), nil
}

// Serve serves until ctx is done.
func Serve(ctx context.Context, l net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, BaseContext: func(net.Listener) context.Context { return ctx }}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return &failure.Error{Op: "serve artifacts", Object: "on " + l.Addr().String(), Kind: failure.Unavailable, Err: err}
	}
	return nil
}

package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/gitserve"
)

// The plane's own repository.
const (
	Repository = "fleet.git"
	Branch     = "main"
)

// GitRoot is the folder of the bare repositories that the plane serves.
func (p *Plane) GitRoot() string { return p.Path("git") }

// Seed makes the plane's repository from files, unless it has a commit already:
// what people pushed is never overwritten. It reports whether it made one.
func (p *Plane) Seed(ctx context.Context, files fs.FS) (bool, error) {
	repo, err := gitserve.Init(ctx, p.GitRoot(), Repository, Branch)
	if err != nil {
		return false, err
	}
	if _, err := repo.Resolve(ctx, "refs/heads/"+Branch); err == nil {
		return false, nil
	}
	c := gitserve.Commit{Branch: Branch, Message: "Start with the example fleet\n", When: time.Now(), Files: map[string]gitserve.File{}}
	err = fs.WalkDir(files, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(files, name)
		c.Files[name] = gitserve.File{Data: data, Mode: mode(data)}
		return err
	})
	if err != nil {
		return false, &failure.Error{Op: "read", Object: "example fleet", Kind: failure.Invalid, Err: err}
	}
	_, err = repo.Commit(ctx, c)
	return err == nil, err
}

// mode is executable for scripts: embedded files carry no mode.
func mode(data []byte) string {
	if bytes.HasPrefix(data, []byte("#!")) {
		return "100755"
	}
	return ""
}

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

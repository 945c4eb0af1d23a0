package localprovider

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/localkube"
)

// Embedded are the control planes of a localkube executable in one folder.
type Embedded struct {
	Executable, Root string
	// Unsynced leaves it to the operating system when to write to disk: for tests.
	Unsynced bool
}

// Ensure implements ControlPlanes. What runs for a control plane is not its business; see Processes.
func (e Embedded) Ensure(ctx context.Context, name string, want Wanted) (ControlPlane, error) {
	plane := e.plane(name)
	built, err := plane.Version(ctx)
	if err != nil {
		return ControlPlane{}, err
	}
	emulate, behaves, err := emulation(built, want.Version)
	if err != nil {
		return ControlPlane{}, err
	}
	state, err := plane.State(ctx)
	if err != nil {
		return ControlPlane{}, err
	}
	if state.Running() && state.Emulate != emulate {
		if err := plane.Stop(ctx); err != nil {
			return ControlPlane{}, err
		}
		state = localkube.State{}
	}
	if !state.Running() {
		if state, err = plane.Start(ctx, localkube.Options{Emulate: &emulate, Unsynced: e.Unsynced}); err != nil {
			return ControlPlane{}, err
		}
	}
	return describePlane(state, behaves)
}

// emulation says what to emulate for a version, and what is behaved like then. There is one build: it can be its
// own minor version and the one before, which is what an upgrade takes.
func emulation(built, wanted string) (emulate, behaves string, err error) {
	own, err := version.ParseSemantic(built)
	if err != nil {
		return "", "", fmt.Errorf("read the version of localkube: %w", err)
	}
	if wanted == "" {
		return "", built, nil
	}
	refuse := func(err error) error {
		return &failure.Error{Op: "start", Object: "Kubernetes " + wanted, Kind: failure.Unsupported, Err: err,
			Remedy: fmt.Sprintf("use v%d.%d or v%d.%d", own.Major(), own.Minor(), own.Major(), own.Minor()-1)}
	}
	want, err := version.ParseSemantic(wanted)
	switch {
	case err != nil:
		return "", "", refuse(fmt.Errorf("%w: %w", ErrVersion, err))
	case want.Major() == own.Major() && want.Minor() == own.Minor():
		return "", built, nil
	case want.Major() == own.Major() && want.Minor()+1 == own.Minor():
		minor := fmt.Sprintf("%d.%d", want.Major(), want.Minor())
		return minor, "v" + minor + ".0", nil
	default:
		return "", "", refuse(ErrVersion)
	}
}

func describePlane(state localkube.State, behaves string) (ControlPlane, error) {
	out := ControlPlane{Version: behaves}
	server, err := url.Parse(state.Server)
	if err != nil {
		return out, fmt.Errorf("read the address of the control plane: %w", err)
	}
	host, port, err := net.SplitHostPort(server.Host)
	if err != nil {
		return out, fmt.Errorf("read the address of the control plane: %w", err)
	}
	number, err := strconv.ParseInt(port, 10, 32)
	if err != nil {
		return out, fmt.Errorf("read the address of the control plane: %w", err)
	}
	out.Host, out.Port = host, int32(number)
	if out.Kubeconfig, err = os.ReadFile(state.Kubeconfig); err != nil {
		return out, fmt.Errorf("read the kubeconfig of the control plane: %w", err)
	}
	return out, nil
}

// Delete implements ControlPlanes.
func (e Embedded) Delete(ctx context.Context, name string) error {
	plane := e.plane(name)
	if !plane.Exists() {
		return plane.Clear()
	}
	return plane.Delete(ctx)
}

func (e Embedded) plane(name string) localkube.ControlPlane {
	return localkube.ControlPlane{Executable: e.Executable, Root: e.Root, Name: name}
}

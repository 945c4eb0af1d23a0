package localprovider

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/localkube"
)

// Stop ends all control planes of a folder with all that runs for them, those of management clusters below included, whoever
// started it; without keep their data is deleted. It returns how many control planes there were. The provider of
// the folder is to be stopped before. executable is that of localkube.
func Stop(ctx context.Context, executable, root string, keep bool) (int, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, &failure.Error{Op: "read folder", Object: root, Kind: failure.Denied, Err: err}
	}
	counts, errs := make([]int, len(entries)), make([]error, len(entries))
	var wg sync.WaitGroup
	for i, e := range entries {
		wg.Go(func() {
			counts[i], errs[i] = stopPlane(ctx, localkube.ControlPlane{Executable: executable, Root: root, Name: e.Name()}, keep)
		})
	}
	wg.Wait()
	total := len(entries)
	for _, below := range counts {
		total += below
	}
	return total, errors.Join(errs...)
}

// stopPlane ends a control plane, and returns how many there were below it.
func stopPlane(ctx context.Context, c localkube.ControlPlane, keep bool) (int, error) {
	below, err := stopProcesses(ctx, c.Executable, c.Root, c.Name, keep)
	switch {
	case err != nil:
		return below, err
	case !c.Exists() && keep:
		return below, nil
	case !c.Exists():
		return below, c.Clear()
	case keep:
		return below, c.Stop(ctx)
	default:
		return below, c.Delete(ctx)
	}
}

// stopProcesses ends what runs for a control plane, and with it the clusters that it manages: their provider first, which
// would start them again.
func stopProcesses(ctx context.Context, executable, root, name string, keep bool) (int, error) {
	h := HubOf(root, name)
	if _, err := h.Provider.Stop(ctx); err != nil {
		return 0, err
	}
	below, err := Stop(ctx, executable, h.Root(), keep)
	if err != nil {
		return below, err
	}
	if _, err := h.ClusterAPI.Stop(ctx); err != nil {
		return below, err
	}
	_, err = AgentOf(root, name).Stop(ctx)
	return below, err
}

package cluster

import (
	"os"

	"golang.org/x/sys/unix"
)

// duplicate returns another descriptor of the same open file, closed on exec.
func duplicate(descriptor int) (*os.File, error) {
	copied, err := unix.FcntlInt(uintptr(descriptor), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(copied), "saved"), nil
}

package cluster

import (
	"bytes"
	"fmt"
	"os"
)

// maxLogBytes is the size beyond which a start puts the log aside, replacing the one before it.
const maxLogBytes = 16 << 20

// redirectStderr sends standard error of this process to the log until restore is called.
// It works on the file descriptor, because the runtime writes panics there.
func (c Cluster) redirectStderr() (restore func(), err error) {
	if info, err := os.Stat(c.Log()); err == nil && info.Size() > maxLogBytes {
		_ = os.Rename(c.Log(), c.Log()+".1")
	}
	log, err := os.OpenFile(c.Log(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("cluster %q: open log: %w", c.Name, err)
	}
	defer log.Close()
	stderr := int(os.Stderr.Fd())
	saved, err := duplicate(stderr)
	if err != nil {
		return nil, fmt.Errorf("cluster %q: redirect log: %w", c.Name, err)
	}
	if err := replace(int(log.Fd()), stderr); err != nil {
		_ = saved.Close()
		return nil, fmt.Errorf("cluster %q: redirect log: %w", c.Name, err)
	}
	return func() {
		_ = replace(int(saved.Fd()), stderr)
		_ = saved.Close()
	}, nil
}

// lastLogLine returns the last line of the log, to say why a process ended unexpectedly.
func (c Cluster) lastLogLine() string {
	data, err := os.ReadFile(c.Log())
	if err != nil {
		return ""
	}
	data = bytes.TrimSpace(data)
	return string(data[bytes.LastIndexByte(data, '\n')+1:])
}

package controller

import (
	"context"
	"runtime/debug"
	"time"

	"k8s.io/utils/clock"
)

// quietFor is how long nothing has to happen until memory is given back.
const quietFor = 5 * time.Second

// giveBack returns memory to the operating system when a burst of work is over.
// The runtime by itself keeps what the burst needed for minutes, and grows from
// there; on a node full of pods that is memory which somebody else could use.
// busy returns a number that moves while there is work.
func giveBack(ctx context.Context, c clock.WithTicker, busy func() uint64) error {
	ticker := c.NewTicker(quietFor)
	defer ticker.Stop()
	var code codePages
	var before uint64
	owed := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C():
		}
		now := busy()
		if now != before {
			before, owed = now, true
			continue
		}
		if owed {
			debug.FreeOSMemory()
			owed = false
		}
		code.release()
	}
}

package link_test

import (
	"testing"

	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// through returns the way to a hub through a network that can be broken.
func through(t testing.TB, e join.Endpoint) (*testkit.Network, join.Endpoint) {
	t.Helper()
	n := testkit.NewNetwork(t, e.Server)
	e.Server = n.URL()
	return n, e
}

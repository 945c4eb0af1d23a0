package controller

import (
	"testing"

	"github.com/go-logr/logr"

	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// The address that pods of a cluster have is told from one that was given.
func TestInside(t *testing.T) {
	for _, tt := range []struct {
		name, reason, host, server string
		want                       bool
	}{
		{"in a pod", "no other cluster has that address", "10.96.0.1", "https://10.96.0.1:443", true},
		{"in a pod of IPv6", "as in one of IPv4", "fd00::1", "https://[fd00::1]:443", true},
		{"given", "it is where members find it", "10.96.0.1", "https://hub.example.com", false},
		{"in no pod", "the address is that of a kubeconfig", "", "https://10.96.0.1:443", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("KUBERNETES_SERVICE_HOST", tt.host)
			t.Setenv("KUBERNETES_SERVICE_PORT", "443")
			e := &engine{log: logr.Discard()}
			if got := e.inside(join.Endpoint{Server: tt.server}); got != tt.want {
				t.Errorf("inside is %t: %s", got, tt.reason)
			}
		})
	}
}

// Package link is the room of the member's side of the exchange with its hub: it copies what the hub assigned
// into the member's own API, reports what became of it, and renews the Lease by which the hub knows that
// somebody is there. Whatever becomes of the hub, what was copied stays and is carried out.
package link

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
)

// Membership says whose member the engine's cluster is.
type Membership struct {
	// Cluster is the FleetCluster on the hub that stands for this cluster.
	Cluster types.NamespacedName
	// Incarnation is the one that the engine speaks for; what is assigned to another is not carried out.
	Incarnation string
	// Hub returns how the hub is reached now. It is asked whenever a connection is needed: certificates are renewed while
	// the engine runs. As long as nothing changed it returns the same pointer.
	Hub func() *rest.Config
	// AgentVersion is what the reports say of the agent.
	AgentVersion string
	// Left is called once, when the member has let go of everything and the hub has been told; nil means that
	// nobody wants to know. The link does nothing more then.
	Left func()
	// Refused is called, as often as it happens, when the hub answers that it does not know the member, or gives it no
	// rights; nil means that nobody wants to know. The link goes on trying.
	Refused func()
	// Timing says how often what is done; the zero value is what agents do.
	Timing Timing
	// Clock says what time reports and the Lease name; nothing is decided by it. Nil means that of the machine.
	Clock clock.PassiveClock
}

// Timing is how often a link does what it does by itself. A zero field means what it says.
type Timing struct {
	// Renew is how often the Lease is renewed; 15 seconds.
	Renew time.Duration
	// Report is the least time between two reports; 2 seconds.
	Report time.Duration
	// Retry is the longest that is waited before the hub is tried again; 15 seconds.
	Retry time.Duration
	// Restored is how long a hub that was restored from a backup has to catch up with Git, before what it tells counts
	// though it is older than what runs here; 10 minutes.
	Restored time.Duration
}

func (t Timing) withDefaults() Timing {
	for at, standard := range map[*time.Duration]time.Duration{
		&t.Renew: 15 * time.Second, &t.Report: 2 * time.Second, &t.Retry: 15 * time.Second, &t.Restored: 10 * time.Minute,
	} {
		if *at <= 0 {
			*at = standard
		}
	}
	return t
}

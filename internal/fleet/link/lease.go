package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// renew renews the Lease on the hub, by which it knows that somebody is there. It is the only request of a member
// at rest. After one that was not answered the connections are made anew: one that went silent would not be noticed for long.
func (l *Link) renew(ctx context.Context) {
	b := backoff{most: l.Timing.Retry}
	for {
		wait := spread(l.Timing.Renew * 4 / 5) // once in that time on average
		if err := l.renewOnce(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			if b.next == 0 {
				l.Log.Error(l.explained(err), "the hub cannot be told that the agent is there")
			}
			switch {
			case unanswered(err):
				l.hub.drop()
			case refused(err) && l.Refused != nil:
				l.Refused()
			}
			wait = b.step()
		} else {
			if b.next != 0 {
				l.Log.Info("the hub is told again that the agent is there")
			}
			b.reset()
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// unanswered reports whether an error is not the hub's own word.
func unanswered(err error) bool {
	var said apierrors.APIStatus
	return !errors.As(err, &said)
}

// renewal is all that is written of the Lease. What time it names does not matter, as long as it is another one.
type renewal struct {
	Spec renewalSpec `json:"spec"`
}

type renewalSpec struct {
	HolderIdentity       string           `json:"holderIdentity"`
	LeaseDurationSeconds int32            `json:"leaseDurationSeconds"`
	RenewTime            metav1.MicroTime `json:"renewTime"`
}

// leaseDuration is what the Lease says of itself. The hub has its own opinion.
const leaseDuration = 60 * time.Second

func (l *Link) renewOnce(ctx context.Context) error {
	c, err := l.hub.get()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answering)
	defer cancel()
	raw, err := json.Marshal(renewal{renewalSpec{
		HolderIdentity: l.Incarnation, LeaseDurationSeconds: int32(leaseDuration.Seconds()), RenewTime: metav1.NewMicroTime(l.Clock.Now()),
	}})
	if err != nil {
		return fmt.Errorf("renew Lease %s on the hub: %w", l.Cluster, err)
	}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: l.Cluster.Namespace, Name: l.Cluster.Name}}
	if err := c.Patch(ctx, lease, client.RawPatch(types.MergePatchType, raw), owner); err != nil {
		return fmt.Errorf("renew Lease %s on the hub: %w", l.Cluster, err)
	}
	return nil
}

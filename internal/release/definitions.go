package release

import (
	"context"
	"errors"
	"fmt"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
)

// Definitions installs the definitions that come in a chart's own folder for them, before
// anything else of a step. They are never removed and are no part of what the unit delivers.
type Definitions struct {
	Live   *Live
	Follow Follower
	Clock  clock.PassiveClock
	Unit   types.NamespacedName
	// Policy is the one of the action: Skip, Create, which is the default, or CreateReplace.
	Policy v2.CRDsPolicy
	// Objects are the definitions; what is none is passed over.
	Objects []*unstructured.Unstructured
	// Timeout bounds the wait for them.
	Timeout time.Duration

	sent  bool
	since time.Time
	left  []*unstructured.Unstructured
}

// Advance does what can be done now. A value is one run: it remembers what it sent, and a new
// one does all again, which changes nothing.
func (d *Definitions) Advance(ctx context.Context) (Progress, error) {
	switch d.Policy {
	case v2.Skip:
		return Progress{Done: true}, nil
	case "", v2.Create, v2.CreateReplace:
	default:
		return Progress{Failed: &failure.Error{
			Op: "install the chart's definitions", Kind: failure.Invalid, Err: fmt.Errorf("there is no policy %q", d.Policy),
			Remedy: "use Skip, Create or CreateReplace",
		}}, nil
	}
	if !d.sent {
		if err := d.send(ctx); err != nil {
			if failure.KindOf(err) == failure.Unavailable || ctx.Err() != nil {
				return Progress{}, err
			}
			return Progress{Failed: err}, nil
		}
	}
	return d.established(ctx)
}

// send applies the definitions that the policy asks for; those that it waits for are left.
func (d *Definitions) send(ctx context.Context) error {
	d.left, d.since = nil, d.Clock.Now()
	for _, o := range d.Objects {
		if !definition(object.IDOf(o)) {
			continue
		}
		u := o.DeepCopy()
		u.SetNamespace("")
		object.SetOwner(u, object.Owner{Group: object.HelmGroup, Name: d.Unit.Name, Namespace: d.Unit.Namespace})
		if d.Policy != v2.CreateReplace {
			live, err := d.Live.metadata(ctx, referenceOf(u))
			if err != nil {
				return err
			}
			if live != nil {
				continue // it is somebody's already, and stays as it is
			}
		}
		if err := d.Live.send(ctx, u); err != nil {
			return err
		}
		d.Live.Cluster.Resources.Learn(u)
		d.left = append(d.left, u)
	}
	d.sent = true
	return nil
}

// established waits for the API server to serve what was sent.
func (d *Definitions) established(ctx context.Context) (Progress, error) {
	for len(d.left) > 0 {
		ref := referenceOf(d.left[0])
		if err := d.Follow.Follow(ctx, d.Unit, []observe.Reference{ref}); err != nil {
			return Progress{}, err
		}
		live, err := d.Live.whole(ctx, ref)
		if err != nil {
			return Progress{}, err
		}
		e := end{}
		if live != nil {
			e = verdict(live)
		}
		until := d.since.Add(d.Timeout)
		switch {
		case e.failed != "":
			return d.failed(ref, failure.Conflict, e.failed), nil
		case e.ended:
			d.left = d.left[1:]
			continue
		case !d.Clock.Now().Before(until):
			return d.failed(ref, failure.Timeout, fmt.Sprintf("it was not established within %s", d.Timeout)), nil
		}
		return Progress{Object: ref, Until: until, Waits: ref.ID.String() + " is not established yet"}, nil
	}
	return Progress{Done: true}, d.Follow.Follow(ctx, d.Unit, nil)
}

func (d *Definitions) failed(ref observe.Reference, kind failure.Kind, why string) Progress {
	return Progress{Object: ref, Failed: &failure.Error{
		Op: "install the chart's definition", Kind: kind, Object: ref.ID.Name, Err: errors.New(why),
	}}
}

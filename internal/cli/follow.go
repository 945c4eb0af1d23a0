package cli

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// change is one state of one object that a follower sees.
type change struct {
	object  client.Object
	deleted bool
}

// follower is told of all objects first, then of each change. It returns true
// when it has seen enough.
type follower struct {
	// listed is called once, with everything that is there at the start. May be
	// nil: each object then comes as a change.
	listed func([]client.Object) (done bool, err error)
	// changed is called for every change after that.
	changed func(change) (done bool, err error)
}

// follow lists and watches until the follower has seen enough or ctx ends. A
// watch that the server ends is taken up again without repeating anything.
func (c *cluster) follow(ctx context.Context, newList func() client.ObjectList, f follower, opts ...client.ListOption) error {
	seen := map[types.UID]string{} // resourceVersion last told
	first := f.listed != nil
	for {
		list := newList()
		if err := c.List(ctx, list, opts...); err != nil {
			return err
		}
		objects, err := items(list)
		if err != nil {
			return err
		}
		done, err := f.start(objects, seen, first)
		if done || err != nil {
			return err
		}
		first = false
		done, err = c.watchOnce(ctx, list, f, seen, opts)
		if done || err != nil {
			return err
		}
	}
}

// start tells the follower of listed objects that it has not seen.
func (f follower) start(objects []client.Object, seen map[types.UID]string, first bool) (bool, error) {
	if first {
		for _, o := range objects {
			seen[o.GetUID()] = o.GetResourceVersion()
		}
		return f.listed(objects)
	}
	for _, o := range objects {
		if done, err := f.tell(change{object: o}, seen); done || err != nil {
			return done, err
		}
	}
	return false, nil
}

func (f follower) tell(ch change, seen map[types.UID]string) (bool, error) {
	uid, version := ch.object.GetUID(), ch.object.GetResourceVersion()
	if !ch.deleted && seen[uid] == version {
		return false, nil
	}
	seen[uid] = version
	return f.changed(ch)
}

// watchOnce passes on events until the watch ends; it returns false and no
// error when the list has to be read again.
func (c *cluster) watchOnce(ctx context.Context, list client.ObjectList, f follower, seen map[types.UID]string, opts []client.ListOption) (bool, error) {
	from := &client.ListOptions{}
	from.ApplyOptions(opts)
	from.Raw = &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()}
	w, err := c.Watch(ctx, list, from)
	if err != nil {
		return false, err
	}
	defer w.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case event, open := <-w.ResultChan():
			if !open {
				return false, pause(ctx, 100*time.Millisecond)
			}
			if event.Type == watch.Error {
				if err := apierrors.FromObject(event.Object); !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
					return false, err
				}
				return false, nil
			}
			o, ok := event.Object.(client.Object)
			if !ok {
				continue
			}
			if done, err := f.tell(change{object: o, deleted: event.Type == watch.Deleted}, seen); done || err != nil {
				return done, err
			}
		}
	}
}

// pause keeps a server that closes every watch at once from being flooded.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

func items(list client.ObjectList) ([]client.Object, error) {
	raw, err := meta.ExtractList(list)
	if err != nil {
		return nil, fmt.Errorf("read list: %w", err)
	}
	out := make([]client.Object, 0, len(raw))
	for _, r := range raw {
		o, ok := r.(client.Object)
		if !ok {
			return nil, fmt.Errorf("read list: %T is not an object", r)
		}
		out = append(out, o)
	}
	return out, nil
}

// named selects one object.
func (c *cluster) named(name string) []client.ListOption {
	return []client.ListOption{
		client.InNamespace(c.namespace),
		client.MatchingFieldsSelector{Selector: fields.OneTermEqualSelector("metadata.name", name)},
	}
}

package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
)

// union returns the inventory with all objects added that the actions may leave
// on the cluster, sorted.
func union(inventory []plan.Entry, actions []plan.Action) []plan.Entry {
	versions := make(map[object.ID]string, len(inventory)+len(actions))
	for _, e := range inventory {
		versions[e.ID] = e.Version
	}
	for _, a := range actions {
		if a.Verb != plan.Delete && a.Verb != plan.Release {
			versions[a.ID] = a.Version
		}
	}
	return entries(versions)
}

// inventoryAfter returns what is on the cluster after the changes: all that is
// wanted, and all that was there and is not known to be gone or let go. What was
// not tried is where it was.
func inventoryAfter(before []plan.Entry, changes []result) []plan.Entry {
	versions := make(map[object.ID]string, len(before)+len(changes))
	for _, e := range before {
		versions[e.ID] = e.Version
	}
	for _, r := range changes {
		switch {
		case r.Err == nil && (r.Verb == plan.Delete || r.Verb == plan.Release):
			delete(versions, r.ID)
		case r.Verb != plan.Delete && r.Verb != plan.Release:
			versions[r.ID] = r.Version
		}
	}
	return entries(versions)
}

func entries(versions map[object.ID]string) []plan.Entry {
	out := make([]plan.Entry, 0, len(versions))
	for id, version := range versions {
		out = append(out, plan.Entry{ID: id, Version: version})
	}
	slices.SortFunc(out, func(x, y plan.Entry) int { return object.Alphabetical(x.ID, y.ID) })
	return out
}

// follow makes sure that the ledger knows what there is of every kind that the
// unit has or wants. Kinds that are not served have no objects.
func follow(ctx context.Context, t Target, wants []plan.Want, inventory []plan.Entry) error {
	kinds := map[schema.GroupKind]string{}
	for _, e := range inventory {
		kinds[e.ID.GroupKind()] = e.Version
	}
	for _, w := range wants {
		kinds[w.ID.GroupKind()] = w.Version
	}
	// In a fixed order, so that of several failures the same one is told.
	order := slices.SortedFunc(maps.Keys(kinds), func(x, y schema.GroupKind) int {
		return cmp.Or(strings.Compare(x.Group, y.Group), strings.Compare(x.Kind, y.Kind))
	})
	for _, gk := range order {
		err := t.Ledger.Watch(ctx, gk.WithVersion(kinds[gk]))
		if errors.Is(err, kube.ErrUnknownKind) {
			err = t.Ledger.Watch(ctx, gk.WithVersion(""))
		}
		if err != nil && !errors.Is(err, kube.ErrUnknownKind) {
			return fmt.Errorf("observe: %w", err)
		}
	}
	return nil
}

// conflicts reports the objects that other units deliver.
func conflicts(u Unit, p *plan.Plan) error {
	var errs []error
	kind := "Kustomization"
	if u.Group == object.HelmGroup {
		kind = "HelmRelease"
	}
	for _, c := range p.Conflicts {
		errs = append(errs, &failure.Error{Op: "deliver", Kind: failure.Conflict, Object: c.ID.String(),
			Err:    fmt.Errorf("it is delivered by %s %s", kind, c.Owner),
			Remedy: "remove it from one of the two"})
	}
	return errors.Join(errs...)
}

// postponed reports the deletions that nobody can say are right.
func postponed(p *plan.Plan) error {
	if len(p.Postponed) == 0 {
		return nil
	}
	return &failure.Error{Op: "delete", Kind: failure.Unavailable, Object: p.Postponed[0].ID.String(),
		Err: errors.New("it may have been handed over: " + p.PostponedReason)}
}

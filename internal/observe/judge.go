package observe

import (
	"context"
	"fmt"
	"maps"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe/health"
)

// Judge tells the ledger the unit's own words for the health of kinds; nil is none.
// Objects are judged by them from now on, with each event. The ledger keeps no
// objects, so those that it has judged by other words are read once; nothing is
// asked while the words stay the same, or while there are no such objects. What the
// unit follows is judged anew after the next Follow.
func (l *Ledger) Judge(ctx context.Context, unit types.NamespacedName, rules *health.Rules) error {
	l.mu.RLock()
	settled := l.rules[unit].Same(rules) && !l.unjudged[unit]
	l.mu.RUnlock()
	if settled {
		return nil
	}
	kinds := l.adoptRules(unit, rules) //nolint:contextcheck // watches outlive the call that starts them
	for _, kind := range kinds {
		if err := l.rejudge(ctx, unit, kind); err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.unjudged, unit)
	return nil
}

// adoptRules takes the rules in force and returns the kinds of which there are objects
// to be judged anew.
func (l *Ledger) adoptRules(unit types.NamespacedName, rules *health.Rules) []kube.Resource {
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.rules[unit]
	if rules == nil {
		delete(l.rules, unit)
	} else {
		l.rules[unit] = rules
	}
	l.unjudged[unit] = true
	for key, f := range l.foreign {
		if key.unit == unit {
			l.unfollow(f, unit)
		}
	}
	have := map[schema.GroupKind]bool{}
	for id, r := range l.records {
		if r.Owner == unit {
			have[id.GroupKind()] = true
		}
	}
	var kinds []kube.Resource
	for gk, w := range l.watches {
		if !before.Judge(gk) && !rules.Judge(gk) {
			continue
		}
		if w.metadataOnly && rules.Judge(gk) {
			l.rewatch(w) // brings all objects of the kind
		} else if have[gk] {
			kinds = append(kinds, w.resource)
		}
	}
	return kinds
}

// rewatch replaces a watch of metadata by one of whole objects; the lock is held. What
// is known stays known meanwhile.
func (l *Ledger) rewatch(w *watch) {
	w.once.Do(func() {
		w.err = errReplaced
		close(w.broken)
	})
	w.stop()
	delete(l.watches, w.resource.GroupKind())
	l.startLocked(w.resource)
}

// rejudge reads the unit's objects of a kind and judges them. What is newer than the
// answer has come as an event meanwhile, and was judged by the same rules.
func (l *Ledger) rejudge(ctx context.Context, unit types.NamespacedName, kind kube.Resource) error {
	l.mu.RLock()
	w := l.watches[kind.GroupKind()]
	l.mu.RUnlock()
	if w == nil {
		return nil
	}
	owner := object.Owner{Group: l.group, Name: unit.Name, Namespace: unit.Namespace}
	list, err := l.cluster.Dynamic.Resource(kind.GroupVersionResource).List(ctx, metav1.ListOptions{
		LabelSelector: labels.SelectorFromSet(owner.Labels()).String(),
	})
	if err != nil {
		return fmt.Errorf("read %s to judge their health: %w", kind.GroupVersionResource.String(), err)
	}
	for i := range list.Items {
		if err := w.Update(&list.Items[i]); err != nil {
			return err
		}
	}
	return nil
}

// rulesOf returns the unit's own words for health.
func (l *Ledger) rulesOf(unit types.NamespacedName) *health.Rules {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.rules[unit]
}

// judged reports whether any unit has its own words for the kind; the lock is held.
func (l *Ledger) judged(gk schema.GroupKind) bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(l.rules)), func(r *health.Rules) bool { return r.Judge(gk) })
}

// judgedBefore reports whether an event was judged by rules that no longer hold, while
// what is known was judged by those that do; the lock is held.
func (l *Ledger) judgedBefore(seen Record, known *Record) bool {
	now := l.rules[seen.Owner]
	return seen.by != now && known.by == now
}

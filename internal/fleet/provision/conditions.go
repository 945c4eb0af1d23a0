package provision

import (
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// condition is one of any provider's object.
type condition struct {
	kind            string
	status          metav1.ConditionStatus
	reason, message string
	// severity is one of the contract v1beta1: Error, Warning or Info; empty in v1beta2.
	severity string
}

// conditionsOf returns the conditions of an object, those of v1beta2 first where a provider keeps them beside others.
func conditionsOf(o *unstructured.Unstructured) (all []condition) {
	for _, path := range [][]string{{"status", "v1beta2", "conditions"}, {"status", "conditions"}} {
		list, _, _ := unstructured.NestedSlice(o.Object, path...)
		for _, item := range list {
			c, ok := item.(map[string]any)
			if !ok {
				continue
			}
			text := func(name string) string { s, _ := c[name].(string); return s }
			all = append(all, condition{
				kind: text("type"), status: metav1.ConditionStatus(text("status")), reason: text("reason"), message: text("message"), severity: text("severity"),
			})
		}
	}
	return all
}

// summaries are the conditions that sum up all others of an object.
var summaries = []string{"Available", "Ready"}

// positive are the ends of the names of conditions that are meant to be true. Of others, such as Deleting or Paused, nobody knows.
var positive = []string{"Available", "Ready", "Initialized", "Provisioned", "Succeeded", "Reconciled", "Created", "Active", "Running"}

// telling returns the condition that says most about why an object is not ready; ok is false where none does. A summary
// that says nothing of its own is no more than the name of what it sums up.
func telling(o *unstructured.Unstructured) (tells condition, ok bool) {
	best := -1
	for _, c := range conditionsOf(o) {
		if c.status == metav1.ConditionTrue || !slices.ContainsFunc(positive, func(end string) bool { return strings.HasSuffix(c.kind, end) }) {
			continue
		}
		points := 0
		for i, holds := range []bool{slices.Contains(summaries, c.kind), c.status == metav1.ConditionFalse, c.message != "", c.severity == "Error"} {
			if holds {
				points += 1 << i
			}
		}
		if points > best {
			best, tells, ok = points, c, true
		}
	}
	return tells, ok
}

// rank says how much a cause explains, the least number the most.
type rank int

const (
	// broken: it will not go on by itself.
	broken rank = iota
	// unready: it is at work, or tells what keeps it from it.
	unready
	// silent: nobody has said anything about it yet.
	silent
	// waits: it waits for something else, which explains more.
	waits
	// nothing: there is nothing to tell of it.
	nothing
)

// rankOf judges what an object says of itself.
func rankOf(c condition) rank {
	switch {
	case c.severity == "Error", strings.HasSuffix(c.reason, "Failed"), strings.HasSuffix(c.reason, "Error"), strings.HasSuffix(c.reason, "Invalid"):
		return broken
	case strings.HasPrefix(c.reason, "Waiting"), strings.HasPrefix(c.reason, "Awaiting"), c.status != metav1.ConditionFalse:
		return waits
	default:
		return unready
	}
}

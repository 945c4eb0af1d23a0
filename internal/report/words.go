package report

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/bowline-dev/bowline/internal/apply"
	"github.com/bowline-dev/bowline/internal/plan"
)

// maxEventNames is how many objects an event names.
const maxEventNames = 20

// Changes says in one line what a run changed: "2 created (Service/a/b, …), 1 deleted (…)".
func Changes(changes apply.ChangeSet) string {
	var parts []string
	for _, verb := range []plan.Verb{plan.Create, plan.Update, plan.Heal, plan.Delete} {
		var names []string
		for _, r := range changes.Changed() {
			if r.Verb == verb {
				names = append(names, r.ID.String())
			}
		}
		if len(names) > 0 {
			parts = append(parts, fmt.Sprintf("%d %s (%s)", len(names), verb, Names(names)))
		}
	}
	return strings.Join(parts, ", ")
}

// Names joins names, leaving out what no reader would read.
func Names(names []string) string {
	if more := len(names) - maxEventNames; more > 0 {
		names = append(names[:maxEventNames:maxEventNames], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, ", ")
}

// Held says which deletions wait for approval and how to approve them. What goes with a cluster of a fleet is
// too much for a line, so it says how that is listed.
func Held(kind, name, namespace string, p *plan.Plan) string {
	what, command := HeldWhat(p), fmt.Sprintf("bowline approve %s %s -n %s", kind, name, namespace)
	if slices.ContainsFunc(p.Held, func(a plan.Action) bool { return a.ID.GroupKind() == fleetCluster }) {
		what += "; what goes with it: " + command + " --show"
	}
	return fmt.Sprintf("%s; approve with: %s --plan %s", what, command, p.HeldDigest)
}

var fleetCluster = schema.GroupKind{Group: "fleet.bowline.dev", Kind: "FleetCluster"}

// HeldWhat says which deletions wait for approval, and why.
func HeldWhat(p *plan.Plan) string {
	names := make([]string, 0, len(p.Held))
	for _, a := range p.Held {
		names = append(names, a.ID.String())
	}
	return fmt.Sprintf("%s; waiting to delete %s", p.HeldReason, Names(names))
}

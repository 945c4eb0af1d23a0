package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Budget is how much a commit may delete without approval. The zero value
// allows nothing but small things: use ParseBudget or DefaultBudget.
type Budget struct {
	// Share of the inventory, between 0 and 1.
	Share float64
	// Off allows every deletion.
	Off bool
}

// DefaultBudget lets a commit delete up to half of what a unit delivered.
func DefaultBudget() Budget { return Budget{Share: 0.5} }

// budgetFloor is the number of objects that may always go: a share of a small
// inventory says little.
const budgetFloor = 5

// guarded lists the kinds that take other things with them or hold data; none
// of them goes without approval.
var guarded = []schema.GroupKind{
	{Kind: "Namespace"},
	{Kind: "PersistentVolume"},
	{Kind: "PersistentVolumeClaim"},
	{Group: "apiextensions.k8s.io", Kind: "CustomResourceDefinition"},
	{Group: "kustomize.toolkit.fluxcd.io", Kind: "Kustomization"},
	{Group: "fleet.bowline.dev", Kind: "FleetCluster"},
	{Group: "fleet.bowline.dev", Kind: "Placement"},
}

// clusterGroup is that of Cluster API; its providers have theirs below it.
const clusterGroup = "cluster.x-k8s.io"

// running are the ends of the names of Cluster API's kinds, and of its providers', with which something goes that runs: a control
// plane, a network, nodes. Templates, identities and health checks are not among them. A changed name in a template of
// clusters, or another template, would replace these in every cluster that is made from it.
var running = []string{"Cluster", "ControlPlane", "Machine", "MachineDeployment", "MachinePool", "MachineSet", "FargateProfile"}

// Guarded reports whether objects of the kind go only with a consent of their own.
func Guarded(gk schema.GroupKind) bool {
	if gk.Group == clusterGroup || strings.HasSuffix(gk.Group, "."+clusterGroup) {
		return slices.ContainsFunc(running, func(end string) bool { return strings.HasSuffix(gk.Kind, end) })
	}
	return slices.Contains(guarded, gk)
}

// ParseBudget reads "50%" or "off".
func ParseBudget(s string) (Budget, error) {
	if s == "off" {
		return Budget{Off: true}, nil
	}
	number, ok := strings.CutSuffix(s, "%")
	share, err := strconv.ParseFloat(number, 64)
	if !ok || err != nil || !(share >= 0 && share <= 100) { // not a number is neither
		return Budget{}, &failure.Error{Op: "read deletion budget", Kind: failure.Invalid, Object: strconv.Quote(s),
			Remedy: `write a share of the inventory such as "50%", or "off"`}
	}
	return Budget{Share: share / 100}, nil
}

// Exceeded says which limit the deletions exceed, and nothing when they are
// within the budget.
func (b Budget) Exceeded(deletions []Action, inventory int) string {
	if b.Off {
		return ""
	}
	for _, a := range deletions {
		if Guarded(a.ID.GroupKind()) {
			return fmt.Sprintf("deleting %s needs approval", a.ID)
		}
	}
	if n := len(deletions); n > budgetFloor && float64(n) > b.Share*float64(inventory) {
		return fmt.Sprintf("deleting %d of %d objects exceeds the budget of %.0f%%", n, inventory, b.Share*100)
	}
	return ""
}

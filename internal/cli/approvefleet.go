package cli

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/provision"
)

// approveCluster approves the deletions that a cluster reports as waiting, all that were printed or the one with the
// digest that the user has seen. The hub passes the digests down; what would go by then must still be the same.
func (a *app) approveCluster(ctx context.Context, c *cluster, o *approveOptions, name string) error {
	of, err := getAs[*fleetv1.FleetCluster](ctx, c, fleetClusterKind(), name)
	if err != nil {
		return err
	}
	var report fleetv1.ClusterReport
	if err := c.Get(ctx, client.ObjectKeyFromObject(of), &report); err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	approved := strings.FieldsFunc(of.Annotations[fleetv1.ApprovedPlanAnnotation], func(r rune) bool { return r == ',' || r == ' ' })
	var waiting, keep []fleetv1.PendingDeletion
	for _, p := range report.Status.Pending {
		switch {
		case slices.Contains(approved, p.Plan):
			keep = append(keep, p)
		default:
			waiting = append(waiting, p)
		}
	}
	own, err := builtWaits(ctx, c, of)
	if err != nil {
		return err
	}
	if len(waiting) == 0 {
		printf(a.Out, "fleetcluster/%s waits for no approval%s\n", name, own)
		return nil
	}
	for _, p := range waiting {
		printf(a.Out, "%s: %s (%s)\n", p.Unit, whatGoes(p.Message), p.Plan)
	}
	if o.show {
		return nil
	}
	if o.plan != "" {
		if waiting = slices.DeleteFunc(waiting, func(p fleetv1.PendingDeletion) bool { return p.Plan != o.plan }); len(waiting) == 0 {
			return &failure.Error{Op: "approve", Object: "fleetcluster/" + name, Kind: failure.Invalid,
				Err: fmt.Errorf("no plan %s waits there now", o.plan), Remedy: "read them with --show"}
		}
	}
	var plans []string
	for _, p := range append(keep, waiting...) {
		plans = append(plans, p.Plan)
	}
	slices.Sort(plans)
	if err := c.annotate(ctx, of, fleetv1.ApprovedPlanAnnotation, strings.Join(slices.Compact(plans), ",")); err != nil {
		return err
	}
	for _, p := range waiting {
		printf(a.Out, "fleetcluster/%s plan %s of %s approved\n", name, p.Plan, p.Unit)
	}
	return nil
}

// builtWaits says how deletions are approved that wait on the hub, of what the cluster itself is built from; "" where none do.
func builtWaits(ctx context.Context, c *cluster, of *fleetv1.FleetCluster) (string, error) {
	if of.Spec.Template == nil {
		return "", nil
	}
	unit := &kustomizev1.Kustomization{}
	if err := c.Get(ctx, client.ObjectKey{Namespace: of.Namespace, Name: provision.UnitName(of.Name)}, unit); err != nil {
		return "", client.IgnoreNotFound(err)
	}
	if ready := apimeta.FindStatusCondition(unit.Status.Conditions, "Ready"); ready == nil || ready.Reason != reasonApprovalRequired {
		return "", nil
	}
	return fmt.Sprintf(" on the cluster; of what it is built from something would go: bowline approve kustomization %s -n %s --show", unit.Name, unit.Namespace), nil
}

// whatGoes leaves out how a deletion is approved on the member itself.
func whatGoes(message string) string {
	what, _, _ := strings.Cut(message, "; approve with: ")
	return what
}

var (
	waitingClusters = regexp.MustCompile(fleetv1.FleetClusterKind + `/([^/\s,;]+)/([^/\s,;]+)`)
	waitingMore     = regexp.MustCompile(`, and \d+ more;`)
)

// showClusters prints what goes with each cluster of the fleet that a message of deletions names.
func (a *app) showClusters(ctx context.Context, c *cluster, message string) error {
	shown := map[client.ObjectKey]bool{}
	for _, m := range waitingClusters.FindAllStringSubmatch(message, -1) {
		key := client.ObjectKey{Namespace: m[1], Name: m[2]}
		if shown[key] {
			continue
		}
		shown[key] = true
		of := &fleetv1.FleetCluster{}
		if err := c.Get(ctx, key, of); apierrors.IsNotFound(err) {
			continue
		} else if err != nil {
			return err
		}
		lines, err := goesWith(ctx, c, of, false)
		if err != nil {
			return err
		}
		printf(a.Out, "with FleetCluster/%s/%s:\n", key.Namespace, key.Name)
		for _, line := range lines {
			printf(a.Out, "  %s\n", line)
		}
	}
	if len(shown) > 0 && waitingMore.MatchString(message) {
		printf(a.Out, "of those that are not named, what goes with a cluster is told by: bowline leave CLUSTER --show\n")
	}
	return nil
}

var waitingEmptying = regexp.MustCompile(`; if that is meant: .*=(sha256:\S+)$`)

// approvePlacement approves that a Placement leaves exactly the clusters which its condition names.
func (a *app) approvePlacement(ctx context.Context, c *cluster, o *approveOptions, name string) error {
	p, err := getAs[*fleetv1.Placement](ctx, c, placementKind(), name)
	if err != nil {
		return err
	}
	ready := apimeta.FindStatusCondition(p.Status.Conditions, "Ready")
	if ready == nil || ready.Reason != fleetv1.AwaitingReason {
		printf(a.Out, "placement/%s waits for no approval\n", name)
		return nil
	}
	m := waitingEmptying.FindStringSubmatchIndex(ready.Message)
	if m == nil {
		return &failure.Error{Op: "approve", Object: "placement/" + name, Kind: failure.Invalid, Err: fmt.Errorf("its condition names no plan: %s", ready.Message)}
	}
	digest := ready.Message[m[2]:m[3]]
	printf(a.Out, "%s (%s)\n", ready.Message[:m[0]], digest)
	switch {
	case o.show:
		return nil
	case o.plan != "" && o.plan != digest:
		return &failure.Error{Op: "approve", Object: "placement/" + name, Kind: failure.Invalid,
			Err: fmt.Errorf("the plan that waits now is %s, not %s", digest, o.plan), Remedy: "read it with --show"}
	}
	if err := c.annotate(ctx, p, fleetv1.ApprovedPlanAnnotation, digest); err != nil {
		return err
	}
	printf(a.Out, "placement/%s plan %s approved\n", name, digest)
	return nil
}

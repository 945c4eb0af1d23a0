package admission

import (
	"context"
	"fmt"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// warned is how many clusters are named for which a template does not fit any more.
const warned = 10

// template judges a ClusterTemplate. That clusters do not fit it any more is a warning: they may be about to change as well, and
// stay as they are until they do.
func (j *judge) template(ctx context.Context, before, t *v1alpha1.ClusterTemplate) (verdict, error) {
	if err := j.compiler.CheckTemplate(ctx, t); err != nil || before == nil {
		return verdict{problems: fieldsOf(err)}, ctx.Err()
	}
	var clusters v1alpha1.FleetClusterList
	if err := j.client.List(ctx, &clusters, client.InNamespace(t.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return verdict{}, fmt.Errorf("read the FleetClusters of %s: %w", t.Namespace, err)
	}
	var v verdict
	more := 0
	for i := range clusters.Items {
		c := &clusters.Items[i]
		if c.Spec.Template == nil || c.Spec.Template.Name != t.Name || !c.DeletionTimestamp.IsZero() {
			continue
		}
		problems, err := rendered(ctx, j.compiler, c, t)
		switch {
		case err != nil:
			return verdict{}, err
		case len(problems) == 0:
		case len(v.warnings) == warned:
			more++
		default:
			v.warnings = append(v.warnings, fmt.Sprintf("FleetCluster %s does not fit it any more, and stays as it is: %v", c.Name, problems))
		}
	}
	if more > 0 {
		v.warnings = append(v.warnings, fmt.Sprintf("and so do %d more", more))
	}
	return v, ctx.Err()
}

package ignore

import (
	"fmt"
	"slices"
	"strings"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Drift is what a HelmRelease leaves to others after it was released.
type Drift struct {
	// Fields are the fields of objects; nil where there are none.
	Fields *Rules
	whole  []*target // nil entries: every object
}

// ForRelease reads spec.driftDetection.ignore. A path that is empty names the object as a
// whole. An error is of kind failure.Invalid and names the field.
func ForRelease(spec []helmv2.IgnoreRule) (Drift, error) {
	const field = "spec.driftDetection.ignore"
	var out Drift
	fields := make([]kustomizev1.IgnoreRule, 0, len(spec))
	for i, s := range spec {
		paths := slices.DeleteFunc(slices.Clone(s.Paths), func(p string) bool { return p == "" })
		if len(paths) < len(s.Paths) {
			t, err := targetOf(fmt.Sprintf("%s[%d].target", field, i), s.Target)
			if err != nil {
				return Drift{}, err
			}
			out.whole = append(out.whole, t)
		}
		// Rules keep their place, which messages name.
		fields = append(fields, kustomizev1.IgnoreRule{Paths: paths, Target: s.Target})
	}
	var err error
	out.Fields, err = of(field, fields)
	return out, err
}

// Whole reports whether what others do to the object as a whole is left to them.
func (d Drift) Whole(desired *unstructured.Unstructured) bool {
	key, off := helmv2.DriftDetectionMetadataKey, helmv2.DriftDetectionDisabledValue
	if strings.EqualFold(desired.GetAnnotations()[key], off) || strings.EqualFold(desired.GetLabels()[key], off) {
		return true
	}
	return slices.ContainsFunc(d.whole, func(t *target) bool { return t.matches(desired) })
}

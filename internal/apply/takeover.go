package apply

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// takeFromKubectl gives us the fields that kubectl owns, whichever way it wrote
// them, and reports whether there were any. The rule is the toolkit's: what
// people changed by hand goes once we apply, unless the object is annotated to
// be merged.
func (a *Applier) takeFromKubectl(ctx context.Context, client metadata.ResourceInterface, live *metav1.PartialObjectMetadata) (bool, error) {
	entries, taken, err := a.takenOver(live.ManagedFields)
	if err != nil || !taken {
		return false, err
	}
	// The version makes the API server refuse what somebody else has changed meanwhile.
	patch, err := json.Marshal([]map[string]any{
		{"op": "replace", "path": "/metadata/managedFields", "value": entries},
		{"op": "replace", "path": "/metadata/resourceVersion", "value": live.ResourceVersion},
	})
	if err != nil {
		return false, err
	}
	_, err = client.Patch(ctx, live.Name, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: a.Manager})
	if apierrors.IsConflict(err) {
		return true, nil // somebody was faster; the second apply settles it
	}
	return err == nil, err
}

// takenOver returns the entries with those of kubectl united with ours, and
// whether there were any. Fields that kubectl wrote in another API version
// cannot be united; they are let go.
func (a *Applier) takenOver(entries []metav1.ManagedFieldsEntry) ([]metav1.ManagedFieldsEntry, bool, error) {
	var own *metav1.ManagedFieldsEntry
	var rest, theirs []metav1.ManagedFieldsEntry
	for _, e := range entries {
		switch {
		case e.Manager == a.Manager && e.Operation == metav1.ManagedFieldsOperationApply && e.Subresource == "":
			own = e.DeepCopy()
		case a.takes(e):
			theirs = append(theirs, e)
		default:
			rest = append(rest, e)
		}
	}
	if own == nil || own.FieldsV1 == nil || len(theirs) == 0 {
		return entries, false, nil
	}
	all, err := setOf(*own)
	if err != nil {
		return nil, false, err
	}
	for _, e := range theirs {
		if e.APIVersion != own.APIVersion || e.FieldsV1 == nil {
			continue
		}
		set, err := setOf(e)
		if err != nil {
			return nil, false, err
		}
		all = all.Union(set)
	}
	data, err := all.ToJSON()
	if err != nil {
		return nil, false, fmt.Errorf("write a field set: %w", err)
	}
	own.FieldsV1 = metav1.NewFieldsV1(string(data))
	return append(rest, *own), true, nil
}

// takes reports whether the fields of the entry become ours: those of kubectl and of
// other tools before us, those from before anybody kept track, and those that an engine
// wrote in our name before it applied server-side.
func (a *Applier) takes(e metav1.ManagedFieldsEntry) bool {
	if e.Subresource != "" {
		return false
	}
	return strings.HasPrefix(e.Manager, "kubectl") || slices.Contains(a.Former, e.Manager) || e.Operation == metav1.ManagedFieldsOperationUpdate &&
		(e.Manager == "before-first-apply" || e.Manager == a.Manager)
}

func setOf(e metav1.ManagedFieldsEntry) (*fieldpath.Set, error) {
	set := fieldpath.NewSet()
	if err := set.FromJSON(bytes.NewReader(e.FieldsV1.GetRawBytes())); err != nil {
		return nil, fmt.Errorf("read the fields of %s: %w", e.Manager, err)
	}
	return set, nil
}

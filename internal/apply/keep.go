package apply

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/metadata"

	"github.com/bowline-dev/bowline/internal/ignore"
	"github.com/bowline-dev/bowline/internal/plan"
)

// patchKeeping sends the object with the values that the fields which are left to
// others have now. It reads them just before, and what is sent names the version that was
// read, so that a change in between is not undone. An object that is not there is
// sent as it is desired.
func (a *Applier) patchKeeping(ctx context.Context, client metadata.ResourceInterface, action plan.Action, desired *unstructured.Unstructured) (*metav1.PartialObjectMetadata, error) {
	if action.Ignored == nil {
		return a.patchOnce(ctx, client, action.ID.Name, desired)
	}
	var answer *metav1.PartialObjectMetadata
	var err error
	for range proofs {
		live, readErr := a.Live(ctx, action)
		if readErr != nil {
			return nil, readErr
		}
		send := a.yield(desired, live, action.Ignored)
		if live != nil {
			send = send.DeepCopy()
			send.SetResourceVersion(live.GetResourceVersion())
		}
		answer, err = a.patchOnce(ctx, client, action.ID.Name, send)
		if !apierrors.IsConflict(err) {
			break
		}
	}
	return answer, err
}

// yield is what to send instead of the desired object so that others keep these fields.
func (a *Applier) yield(desired, live *unstructured.Unstructured, ignored *ignore.Paths) *unstructured.Unstructured {
	return ignored.Yield(desired, live, a.Manager, a.takes)
}

package apply

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"

	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
)

// send applies one object server-side and gives the answer to the journal.
func (a *Applier) send(ctx context.Context, action plan.Action, desired *unstructured.Unstructured) error {
	resource, err := a.Cluster.Resources.Of(ctx, action.GVK())
	if err != nil {
		return failed("apply", action.ID, err)
	}
	if err := a.Observe.Watch(ctx, action.GVK()); err != nil {
		return failed("apply", action.ID, err)
	}
	a.Journal.Applying(action.ID)
	answer, err := a.patch(ctx, resource, action, desired)
	if err != nil {
		a.Journal.NotApplied(action.ID)
		return withoutSecrets(failed("apply", action.ID, err), desired)
	}
	a.Journal.Applied(action.ID, action.Digest, answer)
	return nil
}

// patch sends the object; where a field is immutable and the plan says so, the
// object is replaced; where kubectl owned fields, they become ours first, so that
// what is not desired goes.
func (a *Applier) patch(ctx context.Context, r kube.Resource, action plan.Action, desired *unstructured.Unstructured) (*metav1.PartialObjectMetadata, error) {
	client := a.client(r, action.ID.Namespace)
	answer, err := a.patchKeeping(ctx, client, action, desired)
	if isImmutable(err) && action.Replace {
		return nil, a.makeRoom(ctx, client, action)
	}
	if err != nil || action.Mode == plan.Merge {
		return answer, err
	}
	taken, err := a.takeFromKubectl(ctx, client, answer)
	if err != nil {
		return nil, fmt.Errorf("take over the fields that kubectl owns: %w", err)
	}
	if !taken {
		return answer, nil
	}
	return a.patchKeeping(ctx, client, action, desired)
}

func (a *Applier) patchOnce(ctx context.Context, client metadata.ResourceInterface, name string, desired *unstructured.Unstructured) (*metav1.PartialObjectMetadata, error) {
	data, err := json.Marshal(desired)
	if err != nil {
		return nil, err
	}
	a.Count("apply")
	force := true
	// Fields that the kind lacks are refused by every apply. What else validation looks for, keys that stand twice, cannot be in data that
	// was made here, and the API server would read the object once more for it.
	return client.Patch(ctx, name, types.ApplyPatchType, data, metav1.PatchOptions{FieldManager: a.Manager, Force: &force, FieldValidation: metav1.FieldValidationIgnore})
}

func (a *Applier) client(r kube.Resource, namespace string) metadata.ResourceInterface {
	getter := a.Cluster.Metadata.Resource(r.GroupVersionResource)
	if r.Namespaced {
		return getter.Namespace(namespace)
	}
	return getter
}

// makeRoom deletes an object that is to be replaced. The ledger tells when it is
// gone, and the next plan creates it anew.
func (a *Applier) makeRoom(ctx context.Context, client metadata.ResourceInterface, action plan.Action) error {
	live, err := client.Get(ctx, action.ID.Name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("replace: %w", err)
	}
	if live.DeletionTimestamp == nil {
		a.Count("delete")
		background := metav1.DeletePropagationBackground
		err = client.Delete(ctx, action.ID.Name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &live.UID}, PropagationPolicy: &background,
		})
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("replace: %w", err)
	}
	return fmt.Errorf("%w: an immutable field changed, so the object is deleted and made anew", ErrPending)
}

// remove deletes the object that the plan's uid proves to be ours.
func (a *Applier) remove(ctx context.Context, action plan.Action) error {
	resource, err := a.Cluster.Resources.Of(ctx, action.GVK())
	if errors.Is(err, kube.ErrUnknownKind) {
		resource, err = a.Cluster.Resources.Of(ctx, action.ID.GroupKind().WithVersion(""))
	}
	if errors.Is(err, kube.ErrUnknownKind) {
		a.Journal.Deleted(action.ID) // it went with its kind
		return nil
	}
	if err != nil {
		return failed("delete", action.ID, err)
	}
	if err := a.removeProven(ctx, a.client(resource, action.ID.Namespace), action); err != nil {
		return failed("delete", action.ID, err)
	}
	a.Journal.Deleted(action.ID)
	return nil
}

// errUnproven: the object is no longer what the plan decided to delete.
var errUnproven = errors.New("it changed since its deletion was planned")

// proofs is how often an object that changes all the time is looked at anew
// before its deletion is left to the next plan.
const proofs = 5

// removeProven looks at the object as it is now, since the ledger that the plan was made
// from may be behind, and deletes it in exactly that state. It returns nil as
// well when the object is gone or going.
func (a *Applier) removeProven(ctx context.Context, client metadata.ResourceInterface, action plan.Action) error {
	background := metav1.DeletePropagationBackground
	err := errUnproven
	for range proofs {
		live, getErr := client.Get(ctx, action.ID.Name, metav1.GetOptions{})
		if apierrors.IsNotFound(getErr) {
			return nil
		}
		if getErr != nil {
			return getErr
		}
		if live.UID == action.UID && live.DeletionTimestamp != nil {
			return nil
		}
		if !action.Proves(live, cmp.Or(a.Group, object.KustomizeGroup)) {
			return errUnproven
		}
		a.Count("delete")
		err = client.Delete(ctx, action.ID.Name, metav1.DeleteOptions{
			Preconditions:     &metav1.Preconditions{UID: &action.UID, ResourceVersion: &live.ResourceVersion},
			PropagationPolicy: &background,
		})
		if !apierrors.IsConflict(err) {
			break
		}
	}
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

package release

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/plan"
)

// What Helm writes on the objects of a release, and asks for when it meets them again.
const (
	managedByLabel      = "app.kubernetes.io/managed-by"
	managedByHelm       = "Helm"
	releaseAnnotation   = "meta.helm.sh/release-name"
	namespaceAnnotation = "meta.helm.sh/release-namespace"
)

// Dress writes on an object that it belongs to the release, as Helm does. It is done when the
// object is applied: the manifest that is stored does not have it.
func Dress(u *unstructured.Unstructured, name, namespace string) {
	labels, annotations := u.GetLabels(), u.GetAnnotations()
	if labels == nil {
		labels = map[string]string{}
	}
	if annotations == nil {
		annotations = map[string]string{}
	}
	labels[managedByLabel] = managedByHelm
	annotations[releaseAnnotation], annotations[namespaceAnnotation] = name, namespace
	u.SetLabels(labels)
	u.SetAnnotations(annotations)
}

// Kept reports whether the object says that it outlives its release.
func Kept(m metav1.Object) bool {
	return plan.MarksOf(m, object.HelmGroup).Has(plan.KeepOnPrune)
}

// Belongs reports whether the live object says that it is of the release.
func Belongs(m metav1.Object, name, namespace string) bool {
	a := m.GetAnnotations()
	return m.GetLabels()[managedByLabel] == managedByHelm && a[releaseAnnotation] == name && a[namespaceAnnotation] == namespace
}

// Claim is about the objects that a release would apply for the first time.
type Claim struct {
	// Unit is the HelmRelease; what carries its labels is its own.
	Unit types.NamespacedName
	// Name and Namespace are those of the release.
	Name, Namespace string
	// Objects are what is not in the revision before.
	Objects []observe.Reference
	// Stands reports whether another release, installed in this namespace, is still there; only what is of
	// one that is counts then. Nil: whatever is not the release's own counts.
	Stands func(ctx context.Context, name, namespace string) (bool, error)
	// Waiver is the annotation that lets the release take them; empty: there is none.
	Waiver string
}

func (c Claim) remedy() string {
	if c.Waiver == "" {
		return "remove them, or do not set disableTakeOwnership in spec.install and spec.upgrade"
	}
	return "remove them from the chart or from those releases, or uninstall these, or annotate the HelmRelease with " + c.Waiver + " to take them"
}

// ErrForeign is wrapped by the refusal to take an object that is not the release's.
var ErrForeign = errors.New("exists and belongs to no or another release")

// CheckOwnership returns an error of kind Refused that lists every object which is there and
// belongs to another release, or to none where that counts, and nil where there is none. It reads each
// object once.
func (l *Live) CheckOwnership(ctx context.Context, claim Claim) error {
	owners, errs := make([]string, len(claim.Objects)), make([]error, len(claim.Objects))
	l.each(ctx, claim.Objects, func(i int, ref observe.Reference) {
		owners[i], errs[i] = l.foreign(ctx, claim, ref)
	})
	var lines []string
	for i, owner := range owners {
		if owner != "" {
			lines = append(lines, claim.Objects[i].ID.String()+" ("+owner+")")
		}
	}
	if err := errors.Join(errors.Join(errs...), ctx.Err()); err != nil || len(lines) == 0 {
		return err
	}
	slices.Sort(lines)
	return &failure.Error{
		Op: "take over the objects of release", Kind: failure.Refused, Object: claim.Namespace + "/" + claim.Name,
		Err:    fmt.Errorf("%w: %s", ErrForeign, strings.Join(lines, ", ")),
		Remedy: claim.remedy(),
	}
}

// foreign says whose the object is; "" where it is ours or not there.
func (l *Live) foreign(ctx context.Context, claim Claim, ref observe.Reference) (string, error) {
	live, err := l.metadata(ctx, ref)
	if errors.Is(err, kube.ErrUnknownKind) {
		return "", nil // nothing is there of a kind that is not served
	}
	if claim.Stands != nil && failure.KindOf(err) == failure.Denied {
		return "", nil // applying it says what may not be done
	}
	if err != nil || live == nil || Belongs(live, claim.Name, claim.Namespace) {
		return "", err
	}
	if o, ok := object.OwnerOf(live.Labels, object.HelmGroup); ok && o.Name == claim.Unit.Name && o.Namespace == claim.Unit.Namespace {
		return "", nil
	}
	return claim.owner(ctx, live)
}

// owner says which release an object is of that is not the claim's own; "" where that does
// not count.
func (c Claim) owner(ctx context.Context, live metav1.Object) (string, error) {
	name, namespace := live.GetAnnotations()[releaseAnnotation], live.GetAnnotations()[namespaceAnnotation]
	owner := "of release " + namespace + "/" + name
	if name == "" {
		owner = "of no release"
	}
	if c.Stands == nil {
		return owner, nil
	}
	if name == "" || name == c.Name && namespace == c.Namespace {
		return "", nil
	}
	stands, err := c.Stands(ctx, name, namespace)
	if failure.KindOf(err) == failure.Denied {
		return owner, nil // whether it is gone is not known
	}
	if err != nil || !stands {
		return "", err
	}
	return owner, nil
}

// sideBySide is how many objects one step looks at, at one time.
const sideBySide = 8

// each calls do for all of them, a few at one time.
func (l *Live) each(ctx context.Context, refs []observe.Reference, do func(int, observe.Reference)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, sideBySide)
	for i, ref := range refs {
		if ctx.Err() != nil {
			break
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			do(i, ref)
		})
	}
	wg.Wait()
}

package plan

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/object"
)

// The toolkit's annotations on objects that steer us; labels count as well.
const (
	markPrune     = object.KustomizeGroup + "/prune"
	markReconcile = object.KustomizeGroup + "/reconcile"
	markSSA       = object.KustomizeGroup + "/ssa"
	markForce     = object.KustomizeGroup + "/force"
	markDrift     = object.HelmGroup + "/driftDetection"
)

// resourcePolicy is Helm's annotation on an object that outlives its release.
const resourcePolicy = "helm.sh/resource-policy"

// markedIn tells of marks of the object whether they have a value, whatever its case.
func markedIn(m metav1.Object) func(key, value string) bool {
	labels, annotations := m.GetLabels(), m.GetAnnotations()
	return func(key, value string) bool {
		return strings.EqualFold(annotations[key], value) || strings.EqualFold(labels[key], value)
	}
}

// Asked is what a desired object says of how it is to be delivered; see Want.
type Asked struct {
	Mode         Mode
	Replace, Lax bool
}

// AskedOf reads what a desired object of a unit of the group asks for. How a chart has
// Kustomizations apply its objects is nothing to a release; that one may be replaced is a
// consent all the same.
func AskedOf(m metav1.Object, group string) Asked {
	marked := markedIn(m)
	asked := Asked{Replace: marked(markForce, "enabled")}
	if group == object.HelmGroup {
		asked.Lax = marked(markDrift, "disabled")
		return asked
	}
	if marked(markReconcile, "disabled") {
		asked.Mode = Ignore
		return asked
	}
	for _, mode := range []Mode{Merge, IfNotPresent, Ignore} {
		if marked(markSSA, string(mode)) {
			asked.Mode = mode
			break
		}
	}
	return asked
}

// MarksOf reads the marks of a live object that belongs to a unit of the group.
func MarksOf(m metav1.Object, group string) Marks {
	if group == object.HelmGroup {
		if strings.EqualFold(strings.TrimSpace(m.GetAnnotations()[resourcePolicy]), "keep") {
			return KeepOnPrune
		}
		return 0
	}
	marked := markedIn(m)
	var marks Marks
	if marked(markPrune, "disabled") {
		marks |= KeepOnPrune
	}
	if marked(markReconcile, "disabled") || marked(markSSA, string(Ignore)) {
		marks |= HandsOff
	}
	if marked(markForce, "enabled") {
		marks |= MayReplace
	}
	return marks
}

// Proves reports whether the live object still is what the deletion was decided
// on: the one with the uid, owned by the unit, which is of this group, and not marked to
// be left alone.
func (a Action) Proves(live metav1.Object, group string) bool {
	owner, _ := object.OwnerOf(live.GetLabels(), group)
	return live.GetUID() == a.UID &&
		types.NamespacedName{Namespace: owner.Namespace, Name: owner.Name} == a.Owner &&
		!MarksOf(live, group).Has(KeepOnPrune) && !MarksOf(live, group).Has(HandsOff)
}

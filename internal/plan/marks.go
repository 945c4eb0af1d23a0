package plan

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/object"
)

// The toolkit's annotations on live objects that steer us; labels count as well.
const (
	markPrune     = object.KustomizeGroup + "/prune"
	markReconcile = object.KustomizeGroup + "/reconcile"
	markSSA       = object.KustomizeGroup + "/ssa"
	markForce     = object.KustomizeGroup + "/force"
)

// MarksOf reads the marks of a live object.
func MarksOf(m metav1.Object) Marks {
	labels, annotations := m.GetLabels(), m.GetAnnotations()
	marked := func(key, value string) bool {
		return strings.EqualFold(annotations[key], value) || strings.EqualFold(labels[key], value)
	}
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
// on: the one with the uid, owned by the unit, and not marked to be left alone.
func (a Action) Proves(live metav1.Object) bool {
	owner, _ := object.OwnerOf(live.GetLabels(), object.KustomizeGroup)
	return live.GetUID() == a.UID &&
		types.NamespacedName{Namespace: owner.Namespace, Name: owner.Name} == a.Owner &&
		!MarksOf(live).Has(KeepOnPrune) && !MarksOf(live).Has(HandsOff)
}

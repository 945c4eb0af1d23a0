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

// resourcePolicy is Helm's annotation on an object that outlives its release.
const resourcePolicy = "helm.sh/resource-policy"

// MarksOf reads the marks of a live object that belongs to a unit of the group.
func MarksOf(m metav1.Object, group string) Marks {
	if group == object.HelmGroup {
		if strings.EqualFold(strings.TrimSpace(m.GetAnnotations()[resourcePolicy]), "keep") {
			return KeepOnPrune
		}
		return 0
	}
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
// on: the one with the uid, owned by the unit, which is of this group, and not marked to
// be left alone.
func (a Action) Proves(live metav1.Object, group string) bool {
	owner, _ := object.OwnerOf(live.GetLabels(), group)
	return live.GetUID() == a.UID &&
		types.NamespacedName{Namespace: owner.Namespace, Name: owner.Name} == a.Owner &&
		!MarksOf(live, group).Has(KeepOnPrune) && !MarksOf(live, group).Has(HandsOff)
}

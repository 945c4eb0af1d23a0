package release

import (
	"cmp"
	"slices"
	"strconv"

	"helm.sh/helm/v4/pkg/release/common"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ofHelm selects the Secrets of Helm's storage by their type.
const ofHelm = "type=helm.sh/release.v1"

var secretResource = corev1.SchemeGroupVersion.WithResource("secrets")

// Seen is what the metadata of a stored revision says. It is comparable.
type Seen struct {
	Version int
	Status  common.Status
	// ResourceVersion is that of the Secret; empty: the revision is gone.
	ResourceVersion string
}

// Seen returns what the metadata of the record's Secret says.
func (r *Record) Seen() Seen {
	return Seen{Version: r.Version, Status: r.Info.Status, ResourceVersion: r.ResourceVersion}
}

// reduce reads the metadata of a Secret; ok is false where it is none of Helm's storage.
func reduce(m metav1.Object) (Key, Seen, bool) {
	l := m.GetLabels()
	version, err := strconv.Atoi(l["version"])
	if err != nil || l["owner"] != "helm" || m.GetName() != SecretName(l["name"], version) {
		return Key{}, Seen{}, false
	}
	return Key{Namespace: m.GetNamespace(), Name: l["name"]},
		Seen{Version: version, Status: common.Status(l["status"]), ResourceVersion: m.GetResourceVersion()}, true
}

func sortSeen(seen []Seen) {
	slices.SortFunc(seen, func(a, b Seen) int { return cmp.Compare(b.Version, a.Version) })
}

// newer reports whether resource version a came after b; what cannot be read is
// newer, so that it is looked at.
func newer(a, b string) bool {
	x, errA := strconv.ParseUint(a, 10, 64)
	y, errB := strconv.ParseUint(b, 10, 64)
	return errA != nil || errB != nil || x > y
}

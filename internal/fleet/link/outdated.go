package link

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// behind is since when the hub tells an assignment that is older than the copy.
type behind struct {
	uid   types.UID
	since time.Time
}

// heard notes on a copy what it was copied from.
func heard(own, from *v1alpha1.ClusterAssignment) {
	metav1.SetMetaDataAnnotation(&own.ObjectMeta, v1alpha1.HeardAnnotation, fmt.Sprintf("%s/%d", from.UID, from.Generation))
}

// outdated says why what the hub tells is not copied yet: it is older than the copy. A generation never goes back, unless the hub was restored
// from a backup. It does not know then what was assigned since, and what it leaves out would go from here; so it is given time to
// read Git again.
func (l *Link) outdated(own, told *v1alpha1.ClusterAssignment) string {
	uid, number, _ := strings.Cut(own.Annotations[v1alpha1.HeardAnnotation], "/")
	has, err := strconv.ParseInt(number, 10, 64)
	if err != nil || types.UID(uid) != told.UID || told.Generation >= has {
		l.behind = behind{}
		return ""
	}
	if l.behind.uid != told.UID {
		l.behind = behind{uid: told.UID, since: time.Now()}
		time.AfterFunc(l.Timing.Restored, l.copying.up)
	}
	until := l.behind.since.Add(l.Timing.Restored)
	if !time.Now().Before(until) {
		return ""
	}
	return fmt.Sprintf("the hub tells an assignment that is older than the one that runs here (generation %d after %d), as it does when it was restored from a backup; "+
		"what runs goes on, and what the hub says counts from %s on", told.Generation, has, until.UTC().Format(time.RFC3339))
}

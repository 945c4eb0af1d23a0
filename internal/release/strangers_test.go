package release

import (
	"testing"

	"helm.sh/helm/v4/pkg/release/common"
	"k8s.io/apimachinery/pkg/types"
)

func TestStrangers(t *testing.T) {
	t.Parallel()
	unit, key := types.NamespacedName{Namespace: "a", Name: "web"}, Key{Namespace: "a", Name: "web"}
	for _, row := range []struct {
		name, reason         string
		synced, used, marked bool
		older, newest        common.Status
		want                 bool
	}{
		{"unknown", "nobody vouches for the storage", false, true, true, "", common.StatusDeployed, true},
		{"ours", "the ledger knows its objects", true, true, true, common.StatusSuperseded, common.StatusDeployed, false},
		{"left", "its HelmRelease is gone", true, false, true, "", common.StatusDeployed, true},
		{"theirs", "Helm made it", true, true, false, "", common.StatusDeployed, true},
		{"gone", "it was uninstalled and its history kept", true, false, false, common.StatusDeployed, common.StatusUninstalled, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			w := NewWatch(t.Context(), WatchOptions{})
			w.synced = row.synced
			if row.used {
				w.users[unit] = key
			}
			r := newRevisions()
			if row.older != "" {
				r.stored[1] = Seen{Version: 1, Status: row.older}
			}
			r.stored[2] = Seen{Version: 2, Status: row.newest}
			r.note(2, row.marked)
			w.known[key] = r
			if got := w.Strangers(); got != row.want {
				t.Errorf("%s: %v", row.reason, got)
			}
		})
	}
}

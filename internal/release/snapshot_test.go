package release

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
)

// stored is a release as the storage holds it.
func stored(t *testing.T) *Release {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "release.json"))
	if err != nil {
		t.Fatal(err)
	}
	var rel Release
	if err := json.Unmarshal(data, &rel); err != nil {
		t.Fatal(err)
	}
	return &rel
}

// TestDigestsAreTheToolkits compares with what helm-controller 1.6 made of the same release.
func TestDigestsAreTheToolkits(t *testing.T) {
	for _, c := range []struct {
		name           string
		oci            string
		change         func(*Release)
		digest, config string
		reason         string
	}{
		{
			"whole", "", func(*Release) {},
			"sha256:1f56c2e8956329c1730c4c04afbe1e12465d3d9fc23ffd6bdcbe5c6692248594",
			"sha256:86e84f6e76c3af8cd1318fb077e8c708f613d0ede55a86096e8481a104407329", "all fields are set",
		},
		{
			"artifact", "sha256:0123", func(*Release) {},
			"sha256:10625ccaaf2d1d137f08279dabc67ac5c5eab6aec317a18ec3bce08d7a9ddbed",
			"sha256:86e84f6e76c3af8cd1318fb077e8c708f613d0ede55a86096e8481a104407329", "the artifact's digest is part of it",
		},
		{
			"bare", "", func(rel *Release) { rel.Config, rel.Hooks = nil, rel.Hooks[1:] },
			"sha256:f54a8a423dce80cf1745d0e614618841760f51f1c3d87711f52345d481d1d1b4",
			"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", "no values, and no hook but a test",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			rel := stored(t)
			c.change(rel)
			s, err := Snapshot(rel, c.oci, v2.ReleaseActionUpgrade)
			if err != nil {
				t.Fatal(err)
			}
			if s.Digest != c.digest || s.ConfigDigest != c.config {
				t.Errorf("digests are %s and %s, want %s and %s: %s", s.Digest, s.ConfigDigest, c.digest, c.config, c.reason)
			}
			if s.APIVersion != "v2" || s.Name != "demo" || s.Namespace != "apps" || s.Version != 7 || s.Status != "superseded" ||
				s.ChartName != "demo" || s.ChartVersion != "1.2.3+0a1b2c" || s.AppVersion != "7" || s.OCIDigest != c.oci || s.Action != v2.ReleaseActionUpgrade {
				t.Errorf("the snapshot is %+v", s)
			}
			if want := time.Date(2026, 3, 1, 10, 0, 0, 123456789, time.UTC); !s.LastDeployed.Time.Equal(want) || s.FirstDeployed.IsZero() || s.Deleted.IsZero() {
				t.Errorf("times are %v, %v, %v", s.FirstDeployed, s.LastDeployed, s.Deleted)
			}
		})
	}
}

func TestVerified(t *testing.T) {
	for _, c := range []struct {
		name     string
		release  func(*Release)
		snapshot func(*v2.Snapshot)
		want     bool
		reason   string
	}{
		{"unchanged", nil, nil, true, "it is the same"},
		{"tests were run", func(r *Release) { r.Hooks[1].LastRun.Phase = helmrelease.HookPhaseFailed }, nil, true, "anybody may run helm test"},
		{"a hook ran", func(r *Release) { r.Hooks[0].LastRun.Phase = helmrelease.HookPhaseFailed }, nil, false, "somebody wrote it"},
		{"another status", func(r *Release) { r.Info.Status = "failed" }, nil, false, "somebody wrote it"},
		{"another revision", func(r *Release) { r.Version++ }, nil, false, "it is another"},
		{"older form", func(r *Release) { r.Info.Status = "failed" }, func(s *v2.Snapshot) { s.APIVersion = "" }, true, "nobody can take such a digest any more"},
		{"no digest", nil, func(s *v2.Snapshot) { s.Digest = "nonsense" }, false, "it proves nothing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			rel := stored(t)
			s, err := Snapshot(rel, "sha256:0123", "")
			if err != nil {
				t.Fatal(err)
			}
			if c.release != nil {
				c.release(rel)
			}
			if c.snapshot != nil {
				c.snapshot(s)
			}
			if got := Verified(s, rel); got != c.want {
				t.Errorf("verified is %v: %s", got, c.reason)
			}
		})
	}
	if Verified(nil, stored(t)) {
		t.Error("no snapshot verifies a release")
	}
}

func TestNoteKeepsWhatTestsGave(t *testing.T) {
	tested := &v2.Snapshot{Name: "demo", Namespace: "apps", Version: 1, Status: "deployed"}
	tested.SetTestHooks(map[string]*v2.TestHookStatus{"t": {Phase: "Succeeded"}})
	history := v2.Snapshots{tested}
	out := Note(history,
		&v2.Snapshot{Name: "demo", Namespace: "apps", Version: 1, Status: "superseded"},
		&v2.Snapshot{Name: "demo", Namespace: "apps", Version: 2, Status: "deployed"})
	if len(out) != 2 || out[0].Version != 2 || out[1].Status != "superseded" || !out[1].HasBeenTested() {
		t.Errorf("noted %+v", out)
	}
	if history[0].Status != "deployed" || len(history) != 1 {
		t.Error("the history before was changed")
	}
}

func TestSelectedTests(t *testing.T) {
	for _, c := range []struct {
		name    string
		filters []v2.Filter
		want    bool
		reason  string
	}{
		{"no filter", nil, true, "all run"},
		{"included", []v2.Filter{{Name: "other"}, {Name: "it"}}, true, "it is named"},
		{"others included", []v2.Filter{{Name: "other"}}, false, "only what is named runs"},
		{"excluded", []v2.Filter{{Name: "it", Exclude: true}}, false, "it is named"},
		{"others excluded", []v2.Filter{{Name: "other", Exclude: true}}, true, "all but those run"},
		{"both", []v2.Filter{{Name: "it"}, {Name: "it", Exclude: true}}, false, "an exclusion wins"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := TestSelected("it", c.filters); got != c.want {
				t.Errorf("selected is %v: %s", got, c.reason)
			}
		})
	}
}

func TestShortName(t *testing.T) {
	for name, want := range map[string]string{
		"short":                 "short",
		strings.Repeat("a", 53): strings.Repeat("a", 53),
		"some-front-appended-namespace-release-with-a-very-long-name": "some-front-appended-namespace-release-wi-b9152014cc9c",
	} {
		if got := ShortName(name); got != want || len(got) > 53 {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestFresh(t *testing.T) {
	old := stored(t)
	for _, c := range []struct {
		name     string
		action   v2.ReleaseAction
		history  []Seen
		version  int
		status   string
		rollback int
		reason   string
	}{
		{"install", v2.ReleaseActionInstall, nil, 1, "pending-install", 0, "the first revision"},
		{"install after an uninstall", v2.ReleaseActionInstall, []Seen{{Version: 4}}, 5, "pending-install", 0, "history goes on"},
		{"upgrade", v2.ReleaseActionUpgrade, []Seen{{Version: 9}, {Version: 7}}, 10, "pending-upgrade", 0, "the next one"},
		{"rollback", v2.ReleaseActionRollback, []Seen{{Version: 9}, {Version: 7}}, 10, "pending-rollback", 7, "it tells what it goes back to"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Fresh(old, Marks{Unit: "apps/demo", Action: c.action, Done: []helmrelease.HookEvent{helmrelease.HookPreInstall}}, c.history, day)
			if r.Version != c.version || r.Info.Status.String() != c.status || r.Info.RollbackRevision != c.rollback || !r.Pending() {
				t.Errorf("made revision %d, %s, back to %d: %s", r.Version, r.Info.Status, r.Info.RollbackRevision, c.reason)
			}
			if r.Hooks[0].LastRun.Phase != "" || len(r.Marks.Done) != 0 || !r.Info.Deleted.IsZero() || !r.Info.LastDeployed.Equal(day) {
				t.Errorf("something of before is left: %+v, %+v, %+v", r.Hooks[0].LastRun, r.Marks, r.Info)
			}
			if old.Version != 7 || old.Hooks[0].LastRun.Phase == "" || old.Info.Status != "superseded" {
				t.Error("the old one was changed")
			}
		})
	}
}

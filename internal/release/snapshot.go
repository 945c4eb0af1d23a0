package release

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/chartutil"
	"github.com/opencontainers/go-digest"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// observation is what the digest of a snapshot is taken of. Its fields, their order and
// their names are those of the toolkit, so that the digests are the same: a release that
// changes engine is no changed release.
type observation struct {
	Name          string             `json:"name"`
	Version       int                `json:"version"`
	Info          helmrelease.Info   `json:"info"`
	ChartMetadata chart.Metadata     `json:"chartMetadata"`
	Config        map[string]any     `json:"config"`
	Manifest      string             `json:"manifest"`
	Hooks         []helmrelease.Hook `json:"hooks"`
	Namespace     string             `json:"namespace"`
	OCIDigest     string             `json:"ociDigest,omitempty"`
}

// observationOf leaves out what does not count: the chart's content, the hooks that are
// tests, which anybody may run at any time, and the revision that was rolled back to, which
// the Helm that helm-controller 1.6 is made with does not know.
func observationOf(rel *Release, ociDigest string) observation {
	o := observation{Name: rel.Name, Version: rel.Version, Manifest: rel.Manifest, Namespace: rel.Namespace, OCIDigest: ociDigest}
	if rel.Info != nil {
		o.Info = *rel.Info
		o.Info.RollbackRevision = 0
	}
	if rel.Chart != nil && rel.Chart.Metadata != nil {
		o.ChartMetadata = *rel.Chart.Metadata
	}
	if len(rel.Config) > 0 {
		o.Config = rel.Config
	}
	for _, h := range rel.Hooks {
		if !slices.Contains(h.Events, helmrelease.HookTest) {
			o.Hooks = append(o.Hooks, *h)
		}
	}
	return o
}

func (o observation) write(w io.Writer) error {
	if err := json.NewEncoder(w).Encode(o); err != nil {
		return fmt.Errorf("take the digest of release %s/%s.v%d: %w", o.Namespace, o.Name, o.Version, err)
	}
	return nil
}

// Snapshot returns what the status of a HelmRelease tells of a revision. The digest of the
// chart's OCI artifact, if any, and the action that made the revision are not in the
// record that Helm keeps.
func Snapshot(rel *Release, ociDigest string, action v2.ReleaseAction) (*v2.Snapshot, error) {
	o := observationOf(rel, ociDigest)
	digester := digest.SHA256.Digester()
	if err := o.write(digester.Hash()); err != nil {
		return nil, err
	}
	return &v2.Snapshot{
		APIVersion: v2.CurrentSnapshotAPIVersion, Digest: digester.Digest().String(),
		Name: o.Name, Namespace: o.Namespace, Version: o.Version, Status: o.Info.Status.String(), Action: action,
		ChartName: o.ChartMetadata.Name, ChartVersion: o.ChartMetadata.Version, AppVersion: o.ChartMetadata.AppVersion,
		ConfigDigest:  chartutil.DigestValues(digest.SHA256, o.Config).String(),
		FirstDeployed: metav1.NewTime(o.Info.FirstDeployed), LastDeployed: metav1.NewTime(o.Info.LastDeployed),
		Deleted: metav1.NewTime(o.Info.Deleted), OCIDigest: ociDigest,
	}, nil
}

// Verified reports whether the revision still is what the snapshot was taken of. A snapshot
// of an older form has a digest that nobody can take any more; it is believed, as in the toolkit.
func Verified(snapshot *v2.Snapshot, rel *Release) bool {
	if snapshot == nil || !snapshot.Targets(rel.Name, rel.Namespace, rel.Version) {
		return false
	}
	if snapshot.APIVersion != v2.CurrentSnapshotAPIVersion {
		return true
	}
	taken, err := digest.Parse(snapshot.Digest)
	if err != nil {
		return false
	}
	o := observationOf(rel, snapshot.OCIDigest)
	if verifier := taken.Verifier(); o.write(verifier) == nil && verifier.Verified() {
		return true
	}
	if rel.Info == nil || rel.Info.RollbackRevision == 0 {
		return false
	}
	o.Info.RollbackRevision = rel.Info.RollbackRevision // as a newer one takes it
	verifier := taken.Verifier()
	return o.write(verifier) == nil && verifier.Verified()
}

// ManifestDigest identifies what a revision installs: its manifest and its hooks, without
// what became of them.
func ManifestDigest(rel *Release) string {
	h := sha256.New()
	manifest := strings.TrimSpace(rel.Manifest)
	fmt.Fprintf(h, "%d %s", len(manifest), manifest)
	hooks := unrun(rel.Hooks)
	slices.SortStableFunc(hooks, func(a, b *helmrelease.Hook) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind))
	})
	for _, hook := range hooks {
		fmt.Fprintf(h, "\n%s %d %s", hook.Path, len(hook.Manifest), strings.TrimSpace(hook.Manifest))
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil))
}

// TestHooks returns what became of the tests of a revision, of those that the filters select.
func TestHooks(rel *Release, filters []v2.Filter) map[string]*v2.TestHookStatus {
	hooks := map[string]*v2.TestHookStatus{}
	for _, h := range rel.Hooks {
		if slices.Contains(h.Events, helmrelease.HookTest) && TestSelected(h.Name, filters) {
			hooks[h.Name] = &v2.TestHookStatus{
				LastStarted: metav1.NewTime(h.LastRun.StartedAt), LastCompleted: metav1.NewTime(h.LastRun.CompletedAt),
				Phase: h.LastRun.Phase.String(),
			}
		}
	}
	return hooks
}

// TestSelected reports whether the filters select the test of this name: an exclusion wins,
// and where anything is included, only that is.
func TestSelected(name string, filters []v2.Filter) bool {
	includes, included := false, false
	for _, f := range filters {
		switch {
		case f.Exclude && f.Name == name:
			return false
		case !f.Exclude:
			includes = true
			included = included || f.Name == name
		}
	}
	return included || !includes
}

// Note puts snapshots into the history of a status: one of a revision that is there takes its
// place and keeps what its tests gave and its artifact, others come first.
func Note(history v2.Snapshots, snapshots ...*v2.Snapshot) v2.Snapshots {
	out := slices.Clone(history)
	for _, s := range snapshots {
		at := slices.IndexFunc(out, func(have *v2.Snapshot) bool { return have.Targets(s.Name, s.Namespace, s.Version) })
		if at < 0 {
			out = append(out, s)
			continue
		}
		if s.TestHooks == nil {
			kept := *s
			kept.TestHooks = out[at].TestHooks
			s = &kept
		}
		out[at] = s
	}
	out.SortByVersion()
	return out
}

// ShortName returns the name under which a release of this name is stored: one that is too
// long for Helm is cut and ends in a part of its hash, as in the toolkit.
func ShortName(name string) string {
	const hashed = 12
	if len(name) <= maxName {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:maxName-hashed-1] + "-" + hex.EncodeToString(sum[:])[:hashed]
}

package helm

import (
	"fmt"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Chart is a chart that was read. It never changes and is safe for use by many
// goroutines.
type Chart struct {
	chart   *chartv2.Chart
	digest  string
	version string
	size    int // of its files, in bytes
	// base is the chart that this is another version of: while one is used, so is the other.
	base *Chart
}

// Name returns the name that Chart.yaml gives.
func (c *Chart) Name() string { return c.chart.Name() }

// Version returns the version that Chart.yaml gives, or the one of AtRevision.
func (c *Chart) Version() string { return c.version }

// AppVersion returns what Chart.yaml says of the version of what is in the chart.
func (c *Chart) AppVersion() string { return c.chart.AppVersion() }

// Digest identifies what the chart holds, its version included.
func (c *Chart) Digest() string { return c.digest + "+" + c.version }

// revisionDigits is how many digits of a digest the toolkit adds to a version.
const revisionDigits = 12

// AtRevision returns the chart as the toolkit sees one from an OCI repository or an
// external artifact: the digest in the artifact's revision becomes the build metadata of the chart's version,
// so that a tag that was moved is another version. It also returns that
// digest, which statuses call ociDigest. A revision that holds no digest changes nothing. One that
// names another version than the chart has is a failure of kind Invalid.
func (c *Chart) AtRevision(revision string) (*Chart, string, error) {
	if !strings.Contains(revision, ":") {
		return c, "", nil
	}
	refuse := func(err error) (*Chart, string, error) {
		return nil, "", &failure.Error{Op: "read", Kind: failure.Invalid, Object: "chart " + c.Name(), Err: err,
			Remedy: "push the chart under the tag of its version"}
	}
	version, err := semver.NewVersion(c.chart.Metadata.Version)
	if err != nil {
		return refuse(fmt.Errorf("its version %q is not a semantic one", c.chart.Metadata.Version))
	}
	digest, told := revision, ""
	if tag, rest, found := strings.Cut(revision, "@"); found {
		digest = rest
		// Tags cannot hold a plus sign.
		tagged, err := semver.NewVersion(strings.ReplaceAll(tag, "_", "+"))
		if err == nil && !tagged.Equal(version) {
			return refuse(fmt.Errorf("the tag %s is not its version %s", tag, version.Original()))
		}
		if err != nil {
			told = revision // the toolkit tells such a tag as well
		}
	}
	_, hash, _ := strings.Cut(digest, ":")
	if len(hash) < revisionDigits {
		return refuse(fmt.Errorf("the revision %q holds no digest", revision))
	}
	exact, err := version.SetMetadata(hash[:revisionDigits])
	if err != nil {
		return refuse(fmt.Errorf("the revision %q: %w", revision, err))
	}
	if told == "" {
		told = digest
	}
	return &Chart{chart: c.chart, digest: c.digest, version: exact.String(), size: c.size, base: c}, told, nil
}

// copied returns a copy that rendering may change: Helm writes to the metadata, to the
// list of dependencies, and replaces the values. Files and values themselves are shared;
// nobody writes to those.
func (c *Chart) copied() *chartv2.Chart {
	chart := copyChart(c.chart)
	chart.Metadata.Version = c.version
	return chart
}

// Chosen returns the chart with the subcharts that it has with these values, as a rendering has it.
// The charts in Helm's release storage have none.
func (c *Chart) Chosen(config map[string]any) (*chartv2.Chart, error) {
	req := Request{Chart: c, Values: Of(config)}
	chart, _, err := req.prepare(&secrets{})
	return chart, err
}

func copyChart(c *chartv2.Chart) *chartv2.Chart {
	out := *c
	metadata := *c.Metadata
	metadata.Dependencies = make([]*chartv2.Dependency, len(c.Metadata.Dependencies))
	for i, d := range c.Metadata.Dependencies {
		if d != nil {
			dependency := *d
			metadata.Dependencies[i] = &dependency
		}
	}
	if c.Metadata.Dependencies == nil {
		metadata.Dependencies = nil
	}
	out.Metadata = &metadata
	children := make([]*chartv2.Chart, len(c.Dependencies()))
	for i, child := range c.Dependencies() {
		children[i] = copyChart(child)
	}
	out.SetDependencies(children...)
	return &out
}

// missingDependencies names the dependencies that are enabled and not there, in a chart
// whose dependencies were chosen.
func missingDependencies(c *chartv2.Chart) []string {
	var missing []string
	for _, want := range c.Metadata.Dependencies {
		if want == nil || slices.ContainsFunc(c.Dependencies(), func(have *chartv2.Chart) bool { return have.Name() == want.Name }) {
			continue
		}
		missing = append(missing, want.Name)
	}
	for _, child := range c.Dependencies() {
		missing = append(missing, missingDependencies(child)...)
	}
	return missing
}

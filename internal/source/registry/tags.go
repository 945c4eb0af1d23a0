package registry

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/Masterminds/semver/v3"

	"github.com/bowline-dev/bowline/internal/failure"
)

// ChartLayer is the media type of the layer that holds a Helm chart.
const ChartLayer = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"

// ChartTag returns the tag of a chart's version: a plus is no character of tags, and an
// underscore none of versions, so Helm puts the one for the other.
func ChartTag(version string) string { return strings.ReplaceAll(version, "+", "_") }

// ChartVersion is the version that a chart's tag stands for; see ChartTag.
func ChartVersion(tag string) string { return strings.ReplaceAll(tag, "_", "+") }

// Newest returns the tag with the highest version in a range, among those that match the
// regular expression filter, "" for all. With charts set tags are read as ChartVersion does. Tags that are no
// versions are passed over. Errors are of kind failure.Invalid, for a range or a filter that cannot be read, and
// failure.NotFound.
func Newest(tags []string, within, filter string, charts bool) (string, error) {
	constraint, err := semver.NewConstraint(within)
	if err != nil {
		return "", &failure.Error{Op: "read version range", Object: fmt.Sprintf("%q", within), Kind: failure.Invalid, Err: err, Remedy: "write it like >=1.2.0 <2.0.0 or 1.x"}
	}
	matches, err := regexp.Compile(filter)
	if err != nil {
		return "", &failure.Error{Op: "read tag filter", Object: fmt.Sprintf("%q", filter), Kind: failure.Invalid, Err: err, Remedy: "write a regular expression, as Go has them"}
	}
	var newest *semver.Version
	tag := ""
	for _, t := range tags {
		if !matches.MatchString(t) {
			continue
		}
		text := t
		if charts {
			text = ChartVersion(t)
		}
		// Strictly but for a leading v: "1" and "1.2" are names that move.
		v, err := semver.StrictNewVersion(strings.TrimPrefix(text, "v"))
		if err != nil || !constraint.Check(v) {
			continue
		}
		if newest == nil || v.GreaterThan(newest) || v.Equal(newest) && v.Original() > newest.Original() {
			newest, tag = v, t
		}
	}
	if newest != nil {
		return tag, nil
	}
	why := fmt.Errorf("none of %d tags is a version in the range", len(tags))
	if filter != "" {
		why = fmt.Errorf("none of %d tags is a version in the range and matches %q", len(tags), filter)
	}
	return "", &failure.Error{Op: "find a tag in", Object: fmt.Sprintf("%q", within), Kind: failure.NotFound, Err: why, Remedy: "push one, or widen the range"}
}

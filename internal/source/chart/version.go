package chart

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/Masterminds/semver/v3"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Version is one version of a chart that a repository offers.
type Version struct {
	// Version is written as the repository writes it.
	Version string
	// Created is when it was packaged; the zero time where nobody says.
	Created time.Time
	// Digest is the SHA-256 of the archive that the repository promises, in hex with or
	// without "sha256:" before it; "" where it promises none.
	Digest string
	// URLs are where the archive is, absolute or relative to the repository.
	URLs []string
}

// toList is how many versions a message lists.
const toList = 5

// Pick returns the version that a constraint asks for: the one that is written just so; else the
// newest that fits, of two that are equal in order the one that was created last. An empty
// constraint or "*" asks for the newest that is no prerelease. Versions that are not semantic
// ones count only when they are asked for as they are written.
func Pick(name string, versions []Version, constraint string) (Version, error) {
	for _, v := range versions {
		if v.Version == constraint && constraint != "" {
			return v, nil
		}
	}
	if constraint == "" {
		constraint = "*"
	}
	wanted, err := semver.NewConstraint(constraint)
	if err != nil {
		return Version{}, &failure.Error{Op: "read version", Object: fmt.Sprintf("%q", constraint), Kind: failure.Invalid, Err: err,
			Remedy: "write spec.version as a version or a range such as >=1.2.0 <2.0.0"}
	}
	sorted := bySemver(versions)
	for _, p := range sorted {
		if wanted.Check(p.parsed) {
			return p.Version, nil
		}
	}
	return Version{}, &failure.Error{Op: "find chart", Object: name, Kind: failure.NotFound,
		Err: fmt.Errorf("no version matches %q: %s", constraint, offered(sorted)), Remedy: "correct spec.version, or publish such a version"}
}

type parsed struct {
	Version
	parsed *semver.Version
}

// bySemver returns the versions that are semantic ones, the newest first.
func bySemver(versions []Version) []parsed {
	sorted := make([]parsed, 0, len(versions))
	for _, v := range versions {
		if p, err := semver.StrictNewVersion(strings.TrimPrefix(v.Version, "v")); err == nil {
			sorted = append(sorted, parsed{v, p})
		}
	}
	slices.SortStableFunc(sorted, func(a, b parsed) int {
		return cmp.Or(b.parsed.Compare(a.parsed), b.Created.Compare(a.Created))
	})
	return sorted
}

func offered(sorted []parsed) string {
	if len(sorted) == 0 {
		return "the repository has none"
	}
	names := make([]string, 0, toList)
	for _, p := range sorted[:min(toList, len(sorted))] {
		names = append(names, p.Version.Version)
	}
	if more := len(sorted) - len(names); more > 0 {
		return fmt.Sprintf("there are %s and %d older ones", strings.Join(names, ", "), more)
	}
	return "there are " + strings.Join(names, ", ")
}

// WithMetadata returns a version with build metadata in place of its own.
func WithMetadata(version, metadata string) (string, error) {
	v, err := semver.NewVersion(version)
	if err != nil {
		return "", invalid(metadataFile, fmt.Errorf("version %q: %w", version, err))
	}
	with, err := v.SetMetadata(metadata)
	if err != nil {
		return "", invalid(metadataFile, fmt.Errorf("version %q cannot have the metadata %q: %w", version, metadata, err))
	}
	return with.String(), nil
}

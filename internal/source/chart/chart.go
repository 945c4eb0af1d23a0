// Package chart is the room of Helm charts as sources: archives are checked to be charts, stored
// once by digest and read lazily; folders are packaged, always to the same bytes. It knows nothing of where
// charts come from: backends for repositories and registries bring the bytes.
//
// Nothing is rendered here, and a chart's templates are never looked at.
package chart

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"go.yaml.in/yaml/v3"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/archive"
)

// Limits of charts, in bytes. Those of what is unpacked are Helm's own.
const (
	// MaxArchive is the size of an archive.
	MaxArchive = 20 << 20
	// MaxUnpacked is the size of all files together.
	MaxUnpacked = 100 << 20
	// MaxFile is the size of one file.
	MaxFile = 5 << 20
)

// The files that say what a chart is.
const (
	metadataFile     = "Chart.yaml"
	lockFile         = "Chart.lock"
	requirementsFile = "requirements.yaml" // of charts with apiVersion v1
	requirementsLock = "requirements.lock"
	valuesFile       = "values.yaml"
)

// Metadata is what Chart.yaml says, as far as it matters here.
type Metadata struct {
	Name         string       `yaml:"name"`
	Version      string       `yaml:"version"`
	AppVersion   string       `yaml:"appVersion"`
	Dependencies []Dependency `yaml:"dependencies"`
}

// Dependency is a chart that another one needs.
type Dependency struct {
	Name       string `yaml:"name"`
	Version    string `yaml:"version"`
	Repository string `yaml:"repository"`
	Alias      string `yaml:"alias"`
}

// Chart is an archive that holds a chart.
type Chart struct {
	Metadata
	// Digest is "sha256:<hex>" of the archive, and Size its length in bytes.
	Digest string
	Size   int64
	// Folder is the folder in the archive that holds the chart.
	Folder string
	// Tree shows what is in the archive.
	Tree source.Tree
}

// Files returns the files of the chart by their path in it.
func (c Chart) Files() (map[string][]byte, error) {
	files := map[string][]byte{}
	err := fs.WalkDir(c.Tree, c.Folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		files[strings.TrimPrefix(name, c.Folder+"/")], err = c.Tree.ReadFile(name)
		return err
	})
	return files, err
}

// Read reads an archive that has to hold one chart. Anything else is an error of kind failure.Invalid.
//
//nolint:contextcheck,nolintlint // all of it is in memory: there is nothing to wait for
func Read(data []byte) (Chart, error) {
	if len(data) > MaxArchive {
		return Chart{}, invalid("", fmt.Errorf("the archive has more than %d bytes", MaxArchive))
	}
	a, err := archive.Read(bytes.NewReader(data), archive.Limits{MaxBytes: MaxUnpacked, MaxFileSize: MaxFile})
	if err != nil {
		return Chart{}, err
	}
	sum := sha256.Sum256(data)
	c := Chart{Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: int64(len(data)), Tree: a.Tree}
	if c.Folder, err = folderIn(a.Tree); err != nil {
		return Chart{}, err
	}
	c.Metadata, err = MetadataOf(a.Tree, c.Folder)
	return c, err
}

// folderIn finds the one folder with a chart.
func folderIn(tree source.Tree) (string, error) {
	entries, err := tree.ReadDir(".")
	if err != nil {
		return "", err
	}
	var found []string
	for _, e := range entries {
		if _, err := tree.Stat(path.Join(e.Name(), metadataFile)); e.IsDir() && err == nil {
			found = append(found, e.Name())
		}
	}
	if len(found) != 1 {
		return "", invalid("", fmt.Errorf("the archive holds %d folders with a %s, and a chart is one", len(found), metadataFile))
	}
	return found[0], nil
}

// MetadataOf reads what the chart in a folder says of itself.
func MetadataOf(tree source.Tree, folder string) (Metadata, error) {
	return readMetadata(func(name string) ([]byte, error) { return tree.ReadFile(path.Join(folder, name)) }, folder)
}

func readMetadata(read func(string) ([]byte, error), folder string) (Metadata, error) {
	file := path.Join(folder, metadataFile)
	text, err := read(metadataFile)
	if errors.Is(err, fs.ErrNotExist) {
		return Metadata{}, &failure.Error{Op: "read chart", Object: folder, Kind: failure.NotFound,
			Err: fmt.Errorf("there is no %s: %w", metadataFile, err), Remedy: "correct the path in spec.chart, or add the file"}
	}
	if err != nil {
		return Metadata{}, err
	}
	var m Metadata
	if err := yaml.Unmarshal(text, &m); err != nil {
		return Metadata{}, invalid(file, err)
	}
	if requirements, err := read(requirementsFile); err == nil && len(m.Dependencies) == 0 {
		var r struct {
			Dependencies []Dependency `yaml:"dependencies"`
		}
		if err := yaml.Unmarshal(requirements, &r); err != nil {
			return Metadata{}, invalid(path.Join(folder, requirementsFile), err)
		}
		m.Dependencies = r.Dependencies
	}
	return m, m.check(file)
}

// check refuses what Helm would refuse later, or what would be dangerous in a file name.
func (m Metadata) check(file string) error {
	switch {
	case m.Name == "":
		return invalid(file, errors.New("it names no chart: name is missing"))
	case strings.ContainsAny(m.Name, "/\\\n") || m.Name == "." || m.Name == "..":
		return invalid(file, fmt.Errorf("%q is no name for a chart", m.Name))
	case m.Version == "":
		return invalid(file, errors.New("version is missing"))
	}
	if _, err := semver.NewVersion(m.Version); err != nil {
		return invalid(file, fmt.Errorf("version %q: %w", m.Version, err))
	}
	return nil
}

func invalid(object string, err error) error {
	return &failure.Error{Op: "read chart", Object: object, Kind: failure.Invalid, Err: err, Remedy: "correct the chart"}
}

// Missing returns the dependencies that are not in the chart's folder charts/. A lock file
// says which versions are meant.
func Missing(files map[string][]byte, m Metadata) ([]Dependency, error) {
	wanted, err := locked(files, m.Dependencies)
	if err != nil {
		return nil, err
	}
	present := map[string]bool{}
	for name, data := range files {
		rest, ok := strings.CutPrefix(name, "charts/")
		switch {
		case !ok:
		case path.Base(rest) == metadataFile && strings.Count(rest, "/") == 1:
			var sub Metadata
			if yaml.Unmarshal(data, &sub) == nil {
				present[sub.Name] = true
			}
		case strings.HasSuffix(rest, ".tgz") && !strings.Contains(rest, "/"):
			if sub, err := Read(data); err == nil {
				present[sub.Name] = true
			}
		}
	}
	return slices.DeleteFunc(wanted, func(d Dependency) bool { return present[d.Name] || d.Alias != "" && present[d.Alias] }), nil
}

// locked returns the dependencies with the versions that the lock file has settled on.
func locked(files map[string][]byte, dependencies []Dependency) ([]Dependency, error) {
	name := lockFile
	text, ok := files[name]
	if !ok {
		name = requirementsLock
		text, ok = files[name]
	}
	wanted := slices.Clone(dependencies)
	if !ok {
		return wanted, nil
	}
	var lock struct {
		Dependencies []Dependency `yaml:"dependencies"`
	}
	if err := yaml.Unmarshal(text, &lock); err != nil {
		return nil, invalid(name, err)
	}
	for i := range wanted {
		for _, l := range lock.Dependencies {
			if l.Name == wanted[i].Name && l.Repository == wanted[i].Repository && satisfies(l.Version, wanted[i].Version) {
				wanted[i].Version = l.Version
			}
		}
	}
	return wanted, nil
}

func satisfies(version, constraint string) bool {
	c, err := semver.NewConstraint(constraint)
	if err != nil {
		return version == constraint
	}
	v, err := semver.NewVersion(version)
	return err == nil && c.Check(v)
}

package testkit

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bowline-dev/bowline/internal/testkit/front"
)

// Chart is a chart that a test makes.
type Chart struct {
	Name, Version string
	// AppVersion and Type ("application" or "library") may be empty.
	AppVersion, Type string
	// Metadata is YAML that is added to Chart.yaml, such as a list of dependencies.
	Metadata string
	// Files are the files of the chart by their path in it, such as "values.yaml" or
	// "templates/config.yaml". A Chart.yaml among them takes the place of the one that is made.
	Files map[string]string
	// Subcharts are put below charts/, as folders.
	Subcharts []Chart
}

// all returns every file by its path within the chart.
func (c Chart) all() map[string]string {
	meta := fmt.Sprintf("apiVersion: v2\nname: %s\nversion: %s\n", c.Name, c.Version)
	if c.AppVersion != "" {
		meta += fmt.Sprintf("appVersion: %q\n", c.AppVersion)
	}
	if c.Type != "" {
		meta += "type: " + c.Type + "\n"
	}
	files := map[string]string{"Chart.yaml": meta + c.Metadata}
	maps.Copy(files, c.Files)
	for _, sub := range c.Subcharts {
		for name, content := range sub.all() {
			files[path.Join("charts", sub.Name, name)] = content
		}
	}
	return files
}

// Archive returns the chart as a .tgz, the same bytes for the same chart.
func (c Chart) Archive(t testing.TB) []byte {
	t.Helper()
	files := map[string]string{}
	for name, content := range c.all() {
		files[c.Name+"/"+name] = content
	}
	return TarGz(t, files)
}

// File is the usual name of the chart's archive: "<name>-<version>.tgz".
func (c Chart) File() string { return c.Name + "-" + c.Version + ".tgz" }

// WriteFolder writes the chart as a folder below dir that has its name, and returns the folder's path.
func (c Chart) WriteFolder(t testing.TB, dir string) string {
	t.Helper()
	folder := filepath.Join(dir, c.Name)
	for name, content := range c.all() {
		file := filepath.Join(folder, filepath.FromSlash(name))
		front.Must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		front.Must(t, os.WriteFile(file, []byte(content), 0o644))
	}
	return folder
}

// In returns the files of the chart by their path below a folder of a repository, for a commit.
func (c Chart) In(folder string) map[string]string {
	files := map[string]string{}
	for name, content := range c.all() {
		files[path.Join(folder, c.Name, name)] = content
	}
	return files
}

// TarGz packs files into a .tar.gz, the same bytes for the same files. A content that begins with
// "link:" makes a symbolic link to the rest of it.
func TarGz(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	w := tar.NewWriter(zipped)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		h := &tar.Header{Name: name, Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(files[name]))}
		content := files[name]
		if to, ok := strings.CutPrefix(content, "link:"); ok {
			h.Typeflag, h.Linkname, h.Size, content = tar.TypeSymlink, to, 0, ""
		}
		front.Must(t, w.WriteHeader(h))
		_, err := w.Write([]byte(content))
		front.Must(t, err)
	}
	front.Must(t, errors.Join(w.Close(), zipped.Close()))
	return out.Bytes()
}

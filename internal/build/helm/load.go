package helm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
)

// The limits of a chart with its subcharts, so that a small archive cannot fill the memory.
const (
	maxChartBytes = 100 << 20
	maxChartFiles = 20_000
	// maxNesting is how deep charts, folders and archives may be in one another.
	maxNesting = 32
)

// chartFile is the file that makes a folder a chart.
const chartFile = "Chart.yaml"

var utf8Mark = []byte{0xEF, 0xBB, 0xBF}

// Load reads the chart that an artifact holds: at dir, or, where dir is empty, at its
// root, in the one folder there that is a chart, or in the one chart archive there. Errors are of
// kind NotFound where there is none and Invalid for one that cannot be read, that is of a type that
// cannot be installed, or that is beyond the limits.
func Load(artifact source.Artifact, dir string) (*Chart, error) {
	fail := func(kind failure.Kind, err error, remedy string) (*Chart, error) {
		return nil, &failure.Error{Op: "load", Kind: kind, Object: "chart of " + artifact.Revision, Err: err, Remedy: remedy}
	}
	files, err := chartFiles(artifact.Tree, strings.Trim(path.Clean("/"+dir), "/"))
	if errors.Is(err, fs.ErrNotExist) {
		return fail(failure.NotFound, fmt.Errorf("there is no %s: %w", path.Join(dir, chartFile), err), "correct the path of the chart, or push a packaged chart")
	}
	if err == nil {
		files, err = unpacked(files)
	}
	if err != nil {
		return fail(failure.Invalid, err, "package the chart again")
	}
	chart, err := loader.LoadFiles(files)
	if err != nil {
		return fail(failure.Invalid, errors.New(oneLine(err.Error())), "correct the chart")
	}
	if kind := chart.Metadata.Type; kind != "" && kind != "application" {
		return fail(failure.Invalid, fmt.Errorf("%s is a chart of type %s, which cannot be installed", chart.Name(), kind), "use a chart that depends on it")
	}
	settle(chart)
	size := 0
	for _, f := range files {
		size += len(f.Data)
	}
	return &Chart{chart: chart, digest: artifact.Digest + "/" + dir, version: chart.Metadata.Version, size: size}, nil
}

// settle gives a chart an order that does not change from one load to the next, and
// drops what only packaging needs.
func settle(c *chartv2.Chart) {
	c.Raw = nil
	children := slices.Clone(c.Dependencies())
	slices.SortStableFunc(children, func(a, b *chartv2.Chart) int {
		return strings.Compare(a.Name()+"@"+a.Metadata.Version, b.Name()+"@"+b.Metadata.Version)
	})
	c.SetDependencies(children...)
	for _, child := range children {
		settle(child)
	}
}

// chartFiles returns the files of the chart in tree, named from its root on.
func chartFiles(tree source.Tree, dir string) ([]*archive.BufferedFile, error) {
	if dir != "" {
		if _, err := tree.Stat(path.Join(dir, chartFile)); err != nil {
			return nil, err
		}
		return filesOf(tree, dir)
	}
	if _, err := tree.Stat(chartFile); err == nil {
		return filesOf(tree, ".")
	}
	entries, err := tree.ReadDir(".")
	if err != nil {
		return nil, err
	}
	var folders, archives []string
	for _, e := range entries {
		if _, err := tree.Stat(path.Join(e.Name(), chartFile)); err == nil {
			folders = append(folders, e.Name())
		} else if strings.HasSuffix(e.Name(), ".tgz") || strings.HasSuffix(e.Name(), ".tar.gz") {
			archives = append(archives, e.Name())
		}
	}
	switch {
	case len(folders) == 1:
		return filesOf(tree, folders[0])
	case len(folders) > 1:
		return nil, fmt.Errorf("it holds more than one chart: %s", strings.Join(folders, ", "))
	case len(archives) == 1:
		data, err := tree.ReadFile(archives[0])
		if err != nil {
			return nil, err
		}
		return unzip(archives[0], data, &budget{bytes: maxChartBytes, files: maxChartFiles})
	case len(archives) > 1:
		return nil, fmt.Errorf("it holds more than one chart: %s", strings.Join(archives, ", "))
	}
	return nil, fs.ErrNotExist
}

// filesOf reads the files of a folder and all below it.
func filesOf(tree source.Tree, root string) ([]*archive.BufferedFile, error) {
	left := &budget{bytes: maxChartBytes, files: maxChartFiles}
	var files []*archive.BufferedFile
	var walk func(dir string, depth int) error
	walk = func(dir string, depth int) error {
		if depth > maxNesting {
			return fmt.Errorf("%s: folders are more than %d deep", dir, maxNesting)
		}
		entries, err := tree.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := path.Join(dir, e.Name())
			info, err := tree.Stat(name) // links are followed
			if err != nil {
				return err
			}
			if info.IsDir() {
				if err := walk(name, depth+1); err != nil {
					return err
				}
				continue
			}
			if err := left.take(info.Size()); err != nil {
				return err
			}
			data, err := tree.ReadFile(name)
			if err != nil {
				return err
			}
			inChart := name
			if root != "." {
				inChart = strings.TrimPrefix(name, root+"/")
			}
			files = append(files, &archive.BufferedFile{Name: inChart, ModTime: info.ModTime(), Data: bytes.TrimPrefix(data, utf8Mark)})
		}
		return nil
	}
	return files, walk(root, 0)
}

// budget is what may still be read.
type budget struct {
	bytes int64
	files int
}

func (b *budget) take(bytes int64) error {
	b.bytes -= bytes
	b.files--
	switch {
	case b.bytes < 0:
		return fmt.Errorf("the chart is larger than %d MB unpacked", maxChartBytes>>20)
	case b.files < 0:
		return fmt.Errorf("the chart has more than %d files", maxChartFiles)
	}
	return nil
}

// unpacked puts the files of packaged subcharts in the place of their archives, so that
// all of them together keep to the limits. Helm's own loader would open each with limits
// of its own.
func unpacked(files []*archive.BufferedFile) ([]*archive.BufferedFile, error) {
	left := &budget{bytes: maxChartBytes, files: maxChartFiles}
	for _, f := range files {
		if err := left.take(int64(len(f.Data))); err != nil {
			return nil, err
		}
	}
	return unpackInto(nil, files, "", left, 0)
}

func unpackInto(all, files []*archive.BufferedFile, prefix string, left *budget, depth int) ([]*archive.BufferedFile, error) {
	if depth > maxNesting {
		return nil, fmt.Errorf("charts are more than %d deep in one another", maxNesting)
	}
	for _, f := range files {
		name := prefix + f.Name
		if !isPackedSubchart(f.Name) {
			all = append(all, &archive.BufferedFile{Name: name, ModTime: f.ModTime, Data: f.Data})
			continue
		}
		inside, err := unzip(name, f.Data, left)
		if err != nil {
			return nil, err
		}
		// The folder may have any name, but for one that is there already.
		if all, err = unpackInto(all, inside, strings.TrimSuffix(name, ".tgz")+"~tgz/", left, depth+1); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// isPackedSubchart reports whether the loader would open a file of a chart as a
// subchart. It passes over names that begin with a dot or an underscore.
func isPackedSubchart(name string) bool {
	for {
		rest, ok := strings.CutPrefix(name, "charts/")
		if !ok {
			return false
		}
		dir, below, nested := strings.Cut(rest, "/")
		if strings.IndexAny(dir, "_.") == 0 {
			return false
		}
		if !nested {
			return path.Ext(dir) == ".tgz"
		}
		name = below
	}
}

// unzip reads a chart archive: a folder of any name that holds the chart.
func unzip(name string, data []byte, left *budget) ([]*archive.BufferedFile, error) {
	zipped, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s is not compressed with gzip: %w", name, err)
	}
	var files []*archive.BufferedFile
	for r := tar.NewReader(io.LimitReader(zipped, 2*maxChartBytes)); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if header.Typeflag != tar.TypeReg {
			continue
		}
		inChart, err := nameInChart(header.Name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if err := left.take(header.Size); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		files = append(files, &archive.BufferedFile{Name: inChart, ModTime: header.ModTime, Data: bytes.TrimPrefix(content, utf8Mark)})
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s holds no files", name)
	}
	return files, nil
}

// nameInChart returns the name of an entry without the folder that an archive begins with.
func nameInChart(name string) (string, error) {
	slashed := name
	if strings.Contains(name, `\`) {
		slashed = strings.ReplaceAll(name, `\`, "/") // packaged on Windows
	}
	top, rest, found := strings.Cut(strings.TrimPrefix(slashed, "./"), "/")
	if !found || top == "" || !fs.ValidPath(rest) || rest == "." {
		return "", fmt.Errorf("%q is not a file in a chart's folder", name)
	}
	return rest, nil
}

// oneLine folds a message of many lines into one.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

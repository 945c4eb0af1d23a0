package chart

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"helm.sh/helm/v4/pkg/ignore"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
)

// maxDepth is how many folders of a chart may be in one another; links to folders could
// make it endless.
const maxDepth = 32

// Folder reads the files of the chart in a folder of a tree, without those that its .helmignore
// names. Links are followed inside the tree.
func Folder(ctx context.Context, tree source.Tree, folder string) (map[string][]byte, error) {
	rules := ignore.Empty()
	if text, err := tree.ReadFile(path.Join(folder, ignore.HelmIgnore)); err == nil {
		if rules, err = ignore.Parse(bytes.NewReader(text)); err != nil {
			return nil, invalid(path.Join(folder, ignore.HelmIgnore), err)
		}
	}
	rules.AddDefaults()
	w := &walk{ctx: ctx, tree: tree, root: folder, rules: rules, files: map[string][]byte{}}
	return w.files, w.folder("", 0)
}

type walk struct {
	ctx   context.Context //nolint:containedctx // it lives as long as one walk
	tree  source.Tree
	root  string
	rules *ignore.Rules
	files map[string][]byte
	bytes int
}

func (w *walk) folder(name string, depth int) error {
	if depth > maxDepth {
		return invalid(path.Join(w.root, name), fmt.Errorf("there are more than %d folders in one another", maxDepth))
	}
	if err := w.ctx.Err(); err != nil {
		return err
	}
	entries, err := w.tree.ReadDir(path.Join(w.root, name))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := w.entry(path.Join(name, e.Name()), depth); err != nil {
			return err
		}
	}
	return nil
}

func (w *walk) entry(name string, depth int) error {
	full := path.Join(w.root, name)
	info, err := w.tree.Stat(full)
	switch {
	case err != nil:
		return err
	case w.rules.Ignore(name, info):
		return nil
	case info.IsDir():
		return w.folder(name, depth+1)
	case !info.Mode().IsRegular():
		return nil
	case info.Size() > MaxFile:
		return invalid(full, fmt.Errorf("the file has more than %d bytes; name it in .helmignore, or make it smaller", MaxFile))
	}
	data, err := w.tree.ReadFile(full)
	if err != nil {
		return err
	}
	if w.bytes += len(data); w.bytes > MaxArchive {
		return invalid(w.root, fmt.Errorf("the files have more than %d bytes together", MaxArchive))
	}
	w.files[name] = data
	return nil
}

// Add puts the files of a chart into the folder charts/ of another. With more than an archive may hold it is an error of
// kind failure.Invalid: of a chart with very many dependencies, no more is held than that.
func Add(files map[string][]byte, name string, sub map[string][]byte) error {
	for file, data := range sub {
		files[path.Join("charts", name, file)] = data
	}
	return small(files)
}

// AddArchive is Add of a chart as an archive.
func AddArchive(files map[string][]byte, c Metadata, archive []byte) error {
	files[path.Join("charts", c.Name+"-"+c.Version+".tgz")] = archive
	return small(files)
}

func small(files map[string][]byte) error {
	sum := 0
	for _, data := range files {
		sum += len(data)
	}
	if sum > MaxArchive {
		return invalid("", fmt.Errorf("with its dependencies it has more than %d bytes", MaxArchive))
	}
	return nil
}

// Local returns the folder of a dependency that is named by a path relative to the chart's
// folder, as "file://../common".
func Local(folder string, d Dependency) (string, error) {
	to := path.Join(folder, strings.TrimPrefix(d.Repository, "file://"))
	if d.Repository == "" {
		to = path.Join(folder, "charts", d.Name)
	}
	if !fs.ValidPath(to) {
		return "", invalid(path.Join(folder, metadataFile), fmt.Errorf("the repository %q of the dependency %s leads outside of the source", d.Repository, d.Name))
	}
	return to, nil
}

// SetVersion writes another version into the Chart.yaml among the files.
func SetVersion(files map[string][]byte, version string) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(files[metadataFile], &doc); err != nil || len(doc.Content) != 1 {
		return invalid(metadataFile, errors.Join(errors.New("it is no mapping"), err))
	}
	content := doc.Content[0].Content
	for i := 0; i+1 < len(content); i += 2 {
		if content[i].Value == "version" {
			content[i+1].SetString(version)
		}
	}
	text, err := yaml.Marshal(&doc)
	if err != nil {
		return invalid(metadataFile, err)
	}
	files[metadataFile] = text
	return nil
}

// Pack makes an archive of a chart's files, the same bytes for the same files. It compresses nothing:
// what a compressor makes of them differs from one version of it to the next.
func Pack(name string, files map[string][]byte) ([]byte, error) {
	var out bytes.Buffer
	zipped, err := gzip.NewWriterLevel(&out, gzip.NoCompression)
	if err != nil {
		return nil, err
	}
	w := tar.NewWriter(zipped)
	for _, file := range slices.Sorted(maps.Keys(files)) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name + "/" + file, Mode: 0o644, Size: int64(len(files[file]))}
		if err := w.WriteHeader(h); err != nil {
			return nil, packing(name, err)
		}
		if _, err := w.Write(files[file]); err != nil {
			return nil, packing(name, err)
		}
	}
	if err := errors.Join(w.Close(), zipped.Close()); err != nil {
		return nil, packing(name, err)
	}
	return out.Bytes(), nil
}

func packing(name string, err error) error {
	return &failure.Error{Op: "package chart", Object: name, Kind: failure.Invalid, Err: err}
}

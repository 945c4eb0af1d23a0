package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	yamlutil "k8s.io/apimachinery/pkg/util/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
)

// declared is a Kustomization and the file that declares it.
type declared struct {
	file string
	k    *kustomizev1.Kustomization
}

// findKustomization reads the Kustomization called name from file, or else finds
// the one file below root that declares it.
func findKustomization(root, file, namespace, name string) (*kustomizev1.Kustomization, error) {
	files := []string{file}
	if file == "" {
		var err error
		if files, err = manifests(root); err != nil {
			return nil, err
		}
	}
	var found []declared
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			return nil, &failure.Error{Op: "read", Object: f, Kind: failure.NotFound, Err: errors.Unwrap(err)}
		}
		for _, k := range kustomizationsIn(raw) {
			if k.Name == name && (namespace == "" || k.Namespace == "" || k.Namespace == namespace) {
				found = append(found, declared{f, k})
			}
		}
	}
	where := root
	if file != "" {
		where = file
	}
	return theOne(found, name, where)
}

func theOne(found []declared, name, where string) (*kustomizev1.Kustomization, error) {
	switch len(found) {
	case 1:
		return found[0].k, nil
	case 0:
		return nil, &failure.Error{Op: "find", Object: "kustomization/" + name, Kind: failure.NotFound,
			Err: fmt.Errorf("nothing in %s declares it", where), Remedy: "name the file with --kustomization-file"}
	}
	files := make([]string, 0, len(found))
	for _, d := range found {
		files = append(files, d.file)
	}
	return nil, &failure.Error{Op: "find", Object: "kustomization/" + name, Kind: failure.Invalid,
		Err: fmt.Errorf("it is declared more than once, in %s", strings.Join(files, " and ")), Remedy: "choose with --kustomization-file or -n"}
}

// manifests lists the YAML files below root, hidden folders left out.
func manifests(root string) ([]string, error) {
	var out []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != root && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case d.Type().IsRegular() && (strings.HasSuffix(path, ".yaml") || strings.HasSuffix(path, ".yml")):
			out = append(out, path)
		}
		return nil
	})
	if err != nil {
		return nil, &failure.Error{Op: "read folder", Object: root, Kind: failure.Denied, Err: err}
	}
	return out, nil
}

// kustomizationsIn returns the Kustomizations of a file. What cannot be read as
// one is somebody else's, and passed over.
func kustomizationsIn(raw []byte) []*kustomizev1.Kustomization {
	if !bytes.Contains(raw, []byte(kustomizev1.GroupVersion.Group)) {
		return nil
	}
	var out []*kustomizev1.Kustomization
	docs := yamlutil.NewYAMLOrJSONDecoder(bytes.NewReader(raw), 4096)
	for {
		k := &kustomizev1.Kustomization{}
		err := docs.Decode(k)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			return out
		}
		if k.GroupVersionKind() == kustomizationKind().gvk {
			out = append(out, k)
		}
	}
}

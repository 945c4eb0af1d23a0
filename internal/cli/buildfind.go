package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
)

// findDeclared reads the object called name from file, or else finds the one file below root
// that declares it.
func findDeclared[T client.Object](k kind, root, file, namespace, name string) (T, error) {
	var found, none T
	files, where, flag := []string{file}, file, "--"+k.name+"-file"
	if file == "" {
		var err error
		if files, err = manifests(root); err != nil {
			return none, err
		}
		where = root
	}
	var in []string
	for _, f := range files {
		raw, err := os.ReadFile(f)
		if err != nil {
			return none, &failure.Error{Op: "read", Object: f, Kind: failure.NotFound, Err: errors.Unwrap(err)}
		}
		if !bytes.Contains(raw, []byte(k.gvk.Group)) {
			continue
		}
		for _, document := range documents(raw) {
			o, ok := k.newObject().(T)
			// What cannot be read as one is somebody else's, and passed over.
			if !ok || yaml.Unmarshal(document, o) != nil || o.GetObjectKind().GroupVersionKind() != k.gvk || o.GetName() != name {
				continue
			}
			if namespace == "" || o.GetNamespace() == "" || o.GetNamespace() == namespace {
				found, in = o, append(in, f)
			}
		}
	}
	fail := &failure.Error{Op: "find", Object: k.name + "/" + name}
	switch {
	case len(in) == 1:
		return found, nil
	case len(in) > 1:
		fail.Kind, fail.Err, fail.Remedy = failure.Invalid, fmt.Errorf("it is declared more than once, in %s", strings.Join(in, " and ")), "choose with "+flag+" or -n"
	default:
		fail.Kind, fail.Err = failure.NotFound, fmt.Errorf("nothing in %s declares it", where)
		if file == "" {
			fail.Remedy = "name the file with " + flag
		}
	}
	return none, fail
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

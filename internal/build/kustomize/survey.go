package kustomize

import (
	"errors"
	"fmt"
	"path"
	"reflect"
	"strings"

	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/types"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/failure"
)

// survey is what a look at all kustomizations of a build found, before any of
// them is built: nothing remote, nothing missing, nothing outside the tree.
type survey struct {
	r           *reader
	allowRemote bool
	// decrypter is nil where nothing is to be decrypted.
	decrypter build.Decrypter
	// files are the manifests that resources name, in the order in which
	// kustomize reads them.
	files []string
	// plain says that the kustomizations do nothing but list resources.
	plain bool
	// remote says that something outside the tree is named.
	remote bool
	// visited counts the kustomizations, each as often as it is named.
	visited int
	// openAPI says that a kustomization brings a schema of its own.
	openAPI bool
}

// maxDepth bounds how deep kustomizations may lie in one another, so that a
// circle through symbolic links ends, and maxVisited how many there may be, since
// their number can double with every level.
const (
	maxDepth   = 64
	maxVisited = 10_000
)

// place says where something was named: a file and the folder it is in.
type place struct {
	dir, file string
	depth     int
	up        *place // the kustomization that holds this one
}

func (s *survey) kustomization(at place, k *types.Kustomization) error {
	if err := s.admit(at, k); err != nil {
		return err
	}
	for i, p := range resourcesOf(k) {
		if err := s.resource(at, fmt.Sprintf("resources[%d]", i), p); err != nil {
			return err
		}
	}
	for i, p := range k.Components {
		if err := s.folder(at, fmt.Sprintf("components[%d]", i), p); err != nil {
			return err
		}
	}
	for _, ref := range references(k) {
		if err := s.reference(at, ref); err != nil {
			return err
		}
	}
	if err := s.decrypt(at, k); err != nil {
		return err
	}
	for i, p := range k.Patches {
		if err := checkAliases([]byte(p.Patch)); err != nil {
			return invalid(at.file, fmt.Sprintf("patches[%d]", i), err, "use fewer of them")
		}
	}
	s.plain = s.plain && isPlain(k)
	s.openAPI = s.openAPI || len(k.OpenAPI) > 0
	return nil
}

// admit looks at a kustomization itself, and not yet at what it names.
func (s *survey) admit(at place, k *types.Kustomization) error {
	if at.depth > maxDepth {
		return invalid(at.file, "", fmt.Errorf("kustomizations are nested more than %d deep", maxDepth), "look for a circle in resources")
	}
	if s.visited++; s.visited > maxVisited {
		return invalid(at.file, "", fmt.Errorf("more than %d kustomizations are built", maxVisited), "split the folder into several units")
	}
	if len(k.HelmCharts) > 0 || len(k.HelmChartInflationGenerator) > 0 {
		return errHelm(at.file, "helmCharts")
	}
	if errs := k.EnforceFields(); len(errs) > 0 {
		return invalid(at.file, "", errors.New("invalid kustomization: "+strings.Join(errs, ", ")), "correct the file")
	}
	return nil
}

// resourcesOf returns the resources in the order in which kustomize takes them.
func resourcesOf(k *types.Kustomization) []string {
	return append(k.Resources[:len(k.Resources):len(k.Resources)], k.Bases...) //nolint:staticcheck // deprecated, and in use
}

// isPlain reports whether k has resources and nothing else.
func isPlain(k *types.Kustomization) bool {
	if len(resourcesOf(k)) == 0 {
		return false
	}
	rest := *k
	rest.TypeMeta, rest.MetaData, rest.Resources, rest.Bases = types.TypeMeta{}, nil, nil, nil //nolint:staticcheck // deprecated, and in use
	return reflect.ValueOf(rest).IsZero()
}

func errHelm(file, entry string) error {
	return &failure.Error{Op: "build", Kind: failure.Unsupported, Object: file + " (" + entry + ")",
		Err: errors.New("kustomize may not run helm"), Remedy: "use a HelmRelease"}
}

// resource surveys one entry of resources: a manifest or a folder.
func (s *survey) resource(at place, field, p string) error {
	name, err := s.local(at, field, p)
	if err != nil || name == "" {
		return err
	}
	if path.Ext(name) == "" { // a folder, most likely
		if what, err := s.r.look(name); err != nil {
			return err
		} else if what == folder {
			return s.nested(at, field, p, name)
		}
	}
	_, err = s.r.file(name)
	switch {
	case err == nil:
		s.files = append(s.files, name)
	case s.r.err != nil:
		return err
	case errors.Is(err, errIsFolder):
		return s.nested(at, field, p, name)
	default:
		return missing(at, field, p)
	}
	return nil
}

// folder surveys one entry that can only be a folder.
func (s *survey) folder(at place, field, p string) error {
	name, err := s.local(at, field, p)
	if err != nil || name == "" {
		return err
	}
	what, err := s.r.look(name)
	switch {
	case err != nil:
		return err
	case what == folder:
		return s.nested(at, field, p, name)
	case what == file:
		return invalid(at.file, field+": "+p, errors.New("it is a file, not a folder"), "name the folder")
	}
	return missing(at, field, p)
}

func missing(at place, field, p string) error {
	return invalid(at.file, field+": "+p, errors.New("the repository has no such file or folder"), "add it or remove the entry")
}

// local returns the name in the tree of what a kustomization calls p, and ""
// where p is remote and that is allowed.
func (s *survey) local(at place, field, p string) (string, error) {
	if isRemote(p) {
		s.remote, s.plain = true, false
		if s.allowRemote {
			return "", nil
		}
		return "", &failure.Error{Op: "build", Kind: failure.Unsupported, Object: fmt.Sprintf("%s (%s: %s)", at.file, field, p),
			Err: errors.New("remote bases are not allowed"), Remedy: "copy it into the repository, or allow remote bases"}
	}
	name, err := within(at.dir, p)
	if err != nil {
		return "", invalid(at.file, field+": "+p, err, "keep what is built inside it")
	}
	return name, nil
}

// nested surveys the kustomization in the folder at name.
func (s *survey) nested(at place, field, p, name string) error {
	var k *types.Kustomization
	var found string
	for _, base := range konfig.RecognizedKustomizationFileNames() {
		at := path.Join(name, base)
		data, err := s.r.file(at)
		if s.r.err != nil {
			return s.r.err
		}
		if err != nil {
			continue
		}
		if k != nil {
			return invalid(name, "kustomization", fmt.Errorf("the folder holds both %s and %s", found, base), "keep one of them")
		}
		k, found = new(types.Kustomization), base
		if err := k.Unmarshal(data); err != nil {
			return invalidKustomization(at, err)
		}
	}
	if k == nil {
		return invalid(at.file, field+": "+p, errors.New("the folder has no kustomization.yaml"), "add one, or name its files")
	}
	for up := &at; up != nil; up = up.up {
		if name == "." || strings.HasPrefix(up.dir+"/", name+"/") {
			return invalid(at.file, field+": "+p, errors.New("a kustomization cannot hold itself or a folder above it"), "remove the entry")
		}
	}
	s.plain = s.plain && k.Kind != types.ComponentKind
	return s.kustomization(place{dir: name, file: path.Join(name, found), depth: at.depth + 1, up: &at}, k)
}

func invalidKustomization(file string, err error) error {
	msg := strings.TrimPrefix(oneLine(err.Error()), "invalid Kustomization: ")
	if strings.HasPrefix(msg, "yaml: ") {
		return invalidYAML(file, errors.New(msg))
	}
	return invalid(file, "", errors.New("invalid kustomization: "+strings.TrimPrefix(msg, "json: ")), "correct the file")
}

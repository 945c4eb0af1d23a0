package kustomize

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/types"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
)

// decryptAnnotation keeps an object encrypted as it is when its value is disabled.
const decryptAnnotation = "kustomize.toolkit.fluxcd.io/decrypt"

// encryptable is a field of a kustomization that names a file which may be encrypted.
type encryptable struct {
	field, path, as string
	env             bool
}

// encryptables returns the files of k that the toolkit decrypts before kustomize
// reads them: those of Secret generators and patches.
func encryptables(k *types.Kustomization) []encryptable {
	var out []encryptable
	add := func(e encryptable) {
		if e.as == "" {
			e.as = e.path
		}
		if e.path != "" && !strings.Contains(e.path, "\n") {
			out = append(out, e)
		}
	}
	for i, g := range k.SecretGenerator {
		field := fmt.Sprintf("secretGenerator[%d]", i)
		for _, f := range g.FileSources {
			key, file, keyed := strings.Cut(f, "=")
			if !keyed {
				file = key
			}
			add(encryptable{field: field, path: file, as: key})
		}
		for _, f := range append(g.EnvSources[:len(g.EnvSources):len(g.EnvSources)], g.EnvSource) {
			add(encryptable{field: field, path: f, env: true})
		}
	}
	for i, p := range k.Patches {
		add(encryptable{field: fmt.Sprintf("patches[%d].path", i), path: p.Path})
	}
	for i, p := range k.PatchesJson6902 { //nolint:staticcheck // deprecated, and in use
		add(encryptable{field: fmt.Sprintf("patchesJson6902[%d].path", i), path: p.Path})
	}
	for i, p := range k.PatchesStrategicMerge { //nolint:staticcheck // deprecated, and in use
		add(encryptable{field: fmt.Sprintf("patchesStrategicMerge[%d]", i), path: string(p)})
	}
	return out
}

// decrypt puts the plain text of the encrypted files that k names in the place of
// what the tree holds, for this build and in memory only.
func (s *survey) decrypt(at place, k *types.Kustomization) error {
	if s.decrypter == nil {
		return nil
	}
	for _, e := range encryptables(k) {
		name, err := s.local(at, e.field, e.path)
		if err != nil {
			return err
		}
		if name == "" {
			continue
		}
		data, err := s.r.file(name)
		if s.r.err != nil {
			return s.r.err
		}
		if err != nil {
			continue // meant inline, or a folder: kustomize says so
		}
		plain, err := s.decrypter.File(s.r.ctx, build.EncryptedFile{Name: name, As: e.as, Env: e.env, Data: data})
		if err != nil {
			return err
		}
		s.r.data[name] = plain
	}
	return nil
}

// decrypt decrypts the objects that a build made, each in its place.
func decrypt(ctx context.Context, objects []*unstructured.Unstructured, recipe build.Recipe) ([]*unstructured.Unstructured, error) {
	changed := false
	for _, u := range objects {
		if strings.EqualFold(u.GetAnnotations()[decryptAnnotation], "disabled") {
			continue
		}
		if recipe.Decryption != nil {
			did, err := recipe.Decryption.Object(ctx, u)
			if err != nil {
				return nil, err
			}
			changed = changed || did
		}
		if !recipe.LeaveEncrypted && isEncryptedSecret(u) {
			return nil, stillEncrypted(u, recipe.Decryption != nil)
		}
	}
	if !changed {
		return objects, nil
	}
	return onlyObjects(objects, recipe.Path)
}

func isEncryptedSecret(u *unstructured.Unstructured) bool {
	_, there := u.Object["sops"]
	return there && u.GetKind() == "Secret" && u.GetAPIVersion() == "v1"
}

// stillEncrypted says why an encrypted Secret is not delivered as it is.
func stillEncrypted(u *unstructured.Unstructured, tried bool) error {
	f := &failure.Error{Op: "build", Kind: failure.Invalid, Object: object.IDOf(u).String()}
	if tried {
		f.Err, f.Remedy = errors.New("it has a sops section without a MAC, so that it is not encrypted, or not all of it is here"),
			"encrypt it anew with sops, or remove the section"
		return f
	}
	f.Err, f.Remedy = errors.New("it is encrypted with SOPS, and decryption is not set up"), "set spec.decryption of the Kustomization"
	return f
}

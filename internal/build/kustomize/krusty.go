package kustomize

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/openapi"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
)

func tempDir() string { return os.TempDir() }

// turn lets one kustomize build run at a time. kyaml keeps the OpenAPI schema in
// package variables, which builds read without a lock while others may replace
// it; a lock of the process is the only one that can match. It is a channel so
// that waiting for it ends with the context.
var turn = make(chan struct{}, 1)

// runKrusty builds rt with kustomize itself.
func runKrusty(ctx context.Context, s *survey, rt *root) ([]*unstructured.Unstructured, error) {
	manifest, err := yaml.Marshal(rt.kust)
	if err != nil {
		return nil, invalid(rt.file, "", err, "correct the file")
	}
	fsys := &fileSystem{r: s.r, overlay: map[string][]byte{rt.file: manifest}}
	if s.remote {
		fsys.clones = filesys.MakeFsOnDisk()
	}
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return nil, timeout(ctx)
	}
	type outcome struct {
		objects []*unstructured.Unstructured
		err     error
	}
	done := make(chan outcome, 1)
	go func() {
		defer func() { <-turn }()
		objects, err := krustyObjects(fsys, path.Join(mount, rt.dir), s.openAPI || s.remote)
		done <- outcome{objects, err}
	}()
	select {
	case o := <-done:
		return o.objects, o.err
	case <-ctx.Done():
		// The run goes on until it next reads; the reader fails it then.
		return nil, timeout(ctx)
	}
}

// krustyObjects runs kustomize. ownSchema says that the kustomizations may
// replace the global schema, which is then put back.
func krustyObjects(fsys filesys.FileSystem, dir string, ownSchema bool) (objects []*unstructured.Unstructured, err error) {
	defer func() {
		if p := recover(); p != nil {
			// kustomize panics on some malformed objects.
			err = fmt.Errorf("kustomize could not make sense of an object: %v", p)
		}
	}()
	if ownSchema {
		// A schema of one's own adds to the built-in one.
		openapi.ResetOpenAPI()
		_ = openapi.Schema()
		defer openapi.ResetOpenAPI()
	}
	m, err := krusty.MakeKustomizer(&krusty.Options{
		LoadRestrictions: types.LoadRestrictionsNone, // the file system keeps to the tree
		PluginConfig:     types.DisabledPluginConfig(),
	}).Run(fsys, dir)
	if err != nil {
		return nil, err
	}
	return objectsOf(m)
}

func objectsOf(m resmap.ResMap) ([]*unstructured.Unstructured, error) {
	objects := make([]*unstructured.Unstructured, 0, m.Size())
	for _, res := range m.Resources() {
		data, err := res.MarshalJSON()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", res.CurId(), err)
		}
		u := &unstructured.Unstructured{}
		if err := json.Unmarshal(data, &u.Object); err != nil {
			return nil, fmt.Errorf("%s: %w", res.CurId(), err)
		}
		objects = append(objects, u)
	}
	return objects, nil
}

// explain turns what kustomize says into one clear line. It reads the manifests
// once more, since it can name the file and line where kustomize does not.
func explain(s *survey, rt *root, err error) error {
	if s.r.err != nil {
		return s.r.err
	}
	if failure.KindOf(err) != "" {
		return err
	}
	if _, derr := direct(s, true); derr != nil && !errors.Is(derr, errNotDirect) {
		return derr
	}
	msg := strings.NewReplacer(mount+"/", "", "'"+mount+"'", "'.'").Replace(oneLine(err.Error()))
	if len(msg) > maxMessage {
		msg = msg[:maxMessage] + "…"
	}
	return invalid(rt.file, "", errors.New(msg), "")
}

// maxMessage bounds the length of a message of kustomize, which can quote whole
// objects.
const maxMessage = 1000

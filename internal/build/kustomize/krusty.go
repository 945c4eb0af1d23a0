package kustomize

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/semaphore"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/kustomize/kyaml/openapi"
	kyaml "sigs.k8s.io/kustomize/kyaml/yaml"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
)

func tempDir() string { return os.TempDir() }

// schemaGate guards the OpenAPI schema that kyaml keeps in package variables.
// Builds read it without a lock while one that parses or replaces it writes, so
// that only a lock of the whole process can match it. Builds share the gate once
// the built-in schema is there, and have it alone until then, and when they bring
// a schema of their own. It is a semaphore so that waiting ends with the context.
var schemaGate = struct {
	*semaphore.Weighted
	loaded atomic.Bool
}{Weighted: semaphore.NewWeighted(gateAll)}

const gateAll = 1 << 20

// maxCopied is how much, in bytes, the copy operations of one JSON patch may add to an
// object: more than can be stored. Each may double it, so that a few lines could take all
// memory.
const maxCopied = 2 << 20

// boundCopies sets the bound, which the library knows for the whole process only.
var boundCopies = sync.OnceFunc(func() { jsonpatch.AccumulatedCopySizeLimit = maxCopied })

// enter waits for the gate, alone or shared, and returns how to leave it.
func enter(ctx context.Context, ownSchema bool) (leave func(), err error) {
	boundCopies()
	if !ownSchema {
		if err := schemaGate.Acquire(ctx, 1); err != nil {
			return nil, timeout(ctx)
		}
		if schemaGate.loaded.Load() {
			return func() { schemaGate.Release(1) }, nil
		}
		schemaGate.Release(1)
	}
	if err := schemaGate.Acquire(ctx, gateAll); err != nil {
		return nil, timeout(ctx)
	}
	if ownSchema {
		openapi.ResetOpenAPI()
		schemaGate.loaded.Store(false)
	}
	_ = openapi.Schema() // a schema of one's own adds to the built-in one
	schemaGate.loaded.Store(!ownSchema)
	return func() {
		if ownSchema {
			openapi.ResetOpenAPI()
		}
		schemaGate.Release(gateAll)
	}, nil
}

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
	leave, err := enter(ctx, s.openAPI || s.remote)
	if err != nil {
		return nil, err
	}
	type outcome struct {
		objects []*unstructured.Unstructured
		err     error
	}
	done := make(chan outcome, 1)
	go func() {
		defer leave()
		objects, err := krustyObjects(fsys, path.Join(mount, rt.dir))
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

// krustyObjects runs kustomize.
func krustyObjects(fsys filesys.FileSystem, dir string) (objects []*unstructured.Unstructured, err error) {
	defer func() {
		if p := recover(); p != nil {
			// kustomize panics on some malformed objects.
			err = fmt.Errorf("kustomize could not make sense of an object: %v", p)
		}
	}()
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
		obj, err := contentOf(&res.RNode)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", res.CurId(), err)
		}
		objects = append(objects, &unstructured.Unstructured{Object: obj})
	}
	return objects, nil
}

// contentOf returns what the JSON form of n decodes to. Most nodes need not be
// printed and parsed again for that.
func contentOf(n *kyaml.RNode) (map[string]any, error) {
	if node := n.YNode(); node.Kind == kyaml.MappingNode {
		if obj, err := mappingOf(node, false); err == nil {
			return obj, nil
		}
	}
	data, err := n.MarshalJSON()
	if err != nil {
		return nil, err
	}
	var obj map[string]any
	err = json.Unmarshal(data, &obj)
	return obj, err
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
	var copied *jsonpatch.AccumulatedCopySizeError
	if errors.As(err, &copied) {
		return invalid(rt.file, "patches", fmt.Errorf("the copy operations of a patch add more than %d MiB to an object", maxCopied>>20), "copy less")
	}
	msg := err.Error()
	if derr := findFault(s, strings.Contains(msg, "already registered id")); derr != nil {
		return derr
	}
	msg = strings.NewReplacer(mount+"/", "", "'"+mount+"'", "'.'").Replace(msg)
	return invalid(rt.file, "", errors.New(withoutQuotations(msg)), "")
}

// withoutQuotations returns what kustomize says in one line, without what it was given.
func withoutQuotations(msg string) string {
	msg = oneLine(msg)
	for _, q := range quotations {
		msg = q.text.ReplaceAllString(msg, q.with)
	}
	if len(msg) > maxMessage {
		msg = strings.ToValidUTF8(msg[:maxMessage], "") + "…"
	}
	return msg
}

// quotations are where kustomize quotes what it was given, which may be values of
// a Secret, and what stands there instead: the message goes to statuses and events.
var quotations = []struct {
	text *regexp.Regexp
	with string
}{
	{regexp.MustCompile("(?s) with config: `.*`"), ""},
	{regexp.MustCompile(`(?s) from \[patch: .*\]`), ""},
	{regexp.MustCompile(`(?s)literal sources \[.*\]: invalid literal source .*, expected`), "literal sources: one is invalid, expected"},
	{regexp.MustCompile(`(?s): node contents: .*`), ""},
}

// maxMessage bounds the length of a message of kustomize, which can quote whole
// objects.
const maxMessage = 1000

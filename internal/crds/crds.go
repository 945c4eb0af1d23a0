// Package crds is the room of the custom resource definitions that Bowline
// serves: the toolkit's own kinds, generated without descriptions from the
// published Go types, and those of the fleet (`make gen`), embedded, and
// installed with server-side apply.
package crds

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/bowline-dev/bowline/internal/failure"
)

// FieldManager owns the fields of the definitions that Apply installs.
const FieldManager = "bowline"

// establishTimeout bounds the wait for one definition; an API server that is
// up takes well under a second.
const establishTimeout = 30 * time.Second

// discoveryPoll is how long it takes to look again whether discovery tells of a definition.
const discoveryPoll = 20 * time.Millisecond

var definitions = apiextensionsv1.SchemeGroupVersion.WithResource("customresourcedefinitions")

//go:embed *.yaml fleet/*.yaml local/*.yaml
var files embed.FS

// YAML returns all definitions that an engine needs as one stream of YAML
// documents, ready for `kubectl apply -f -`.
func YAML() []byte { return stream("*.yaml") }

// FleetYAML returns the definitions of the fleet's kinds as such a stream.
func FleetYAML() []byte { return stream("fleet/*.yaml") }

// Fleet returns the definitions of the fleet's kinds, in the order of their
// names. The caller owns the objects.
func Fleet() ([]*unstructured.Unstructured, error) {
	return Read(bytes.NewReader(FleetYAML()))
}

// Local returns the definitions of the local provider's kinds, in the order of
// their names. The caller owns the objects.
func Local() ([]*unstructured.Unstructured, error) {
	return Read(bytes.NewReader(stream("local/*.yaml")))
}

// stream returns the embedded files of a pattern, one after the other.
func stream(pattern string) []byte {
	var out bytes.Buffer
	names, err := fs.Glob(files, pattern)
	if err != nil {
		panic(err) // the patterns are constants
	}
	for _, name := range names {
		data, err := files.ReadFile(name)
		if err != nil {
			panic(err) // an embedded file is always readable
		}
		out.Write(data)
	}
	return out.Bytes()
}

// All returns the definitions in the order of their names. The caller owns
// the objects.
func All() ([]*unstructured.Unstructured, error) {
	return Read(bytes.NewReader(YAML()))
}

// Read returns the custom resource definitions in a stream of YAML documents
// and passes over documents of other kinds.
func Read(r io.Reader) ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	dec := yaml.NewYAMLOrJSONDecoder(r, 4096)
	for {
		u := &unstructured.Unstructured{}
		err := dec.Decode(&u.Object)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, &failure.Error{Op: "read", Kind: failure.Invalid, Object: "custom resource definitions", Err: err}
		}
		if u.GetKind() == "CustomResourceDefinition" {
			all = append(all, u)
		}
	}
}

// Apply installs or updates all definitions on the cluster of cfg and returns
// when each is established.
func Apply(ctx context.Context, cfg *rest.Config) error {
	all, err := All()
	if err != nil {
		return err
	}
	return Install(ctx, cfg, all)
}

// Install applies the definitions and returns when each is established and
// discovery tells of it: who asks for a kind then finds it. It
// takes over fields that others own: two engines serving different schemas for
// one kind is never wanted.
func Install(ctx context.Context, cfg *rest.Config, all []*unstructured.Unstructured) error {
	client, err := dynamic.NewForConfig(cfg)
	if err != nil {
		return &failure.Error{Op: "connect", Kind: failure.Invalid, Object: cfg.Host, Err: err}
	}
	crds := client.Resource(definitions)
	for _, u := range all {
		if _, err := crds.Apply(ctx, u.GetName(), u, metav1.ApplyOptions{FieldManager: FieldManager, Force: true}); err != nil {
			return fmt.Errorf("install CustomResourceDefinition/%s: %w", u.GetName(), err)
		}
	}
	for _, u := range all {
		if err := waitEstablished(ctx, crds, u.GetName()); err != nil {
			return err
		}
	}
	return waitDiscovered(ctx, cfg, all)
}

// waitDiscovered asks discovery until it tells of all definitions, which it does a moment after they
// are established. There is nothing to watch.
func waitDiscovered(ctx context.Context, cfg *rest.Config, all []*unstructured.Unstructured) error {
	client, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return &failure.Error{Op: "connect", Kind: failure.Invalid, Object: cfg.Host, Err: err}
	}
	missing := ""
	err = wait.PollUntilContextTimeout(ctx, discoveryPoll, establishTimeout, true, func(context.Context) (bool, error) {
		// Groups whose own servers are away are an error beside the answer, and not ours.
		_, lists, _ := client.ServerGroupsAndResources()
		known := map[string]bool{}
		for _, list := range lists {
			group, _, ok := strings.Cut(list.GroupVersion, "/")
			for _, r := range list.APIResources {
				known[r.Name+"."+group] = ok
			}
		}
		i := slices.IndexFunc(all, func(u *unstructured.Unstructured) bool { return !known[u.GetName()] })
		if i >= 0 {
			missing = all[i].GetName()
		}
		return i < 0, nil
	})
	if err != nil {
		return &failure.Error{Op: "discover", Kind: failure.Timeout, Object: "CustomResourceDefinition/" + missing, Err: err,
			Remedy: "look at the API server, which does not tell of a kind that it has established"}
	}
	return nil
}

// waitEstablished watches one definition until the API server serves it.
func waitEstablished(ctx context.Context, crds dynamic.ResourceInterface, name string) error {
	ctx, cancel := context.WithTimeout(ctx, establishTimeout)
	defer cancel()
	only := fields.OneTermEqualSelector("metadata.name", name).String()
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = only
			return crds.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = only
			return crds.Watch(ctx, o)
		},
	}
	_, err := watchtools.UntilWithSync(ctx, lw, &unstructured.Unstructured{}, nil, func(e watch.Event) (bool, error) {
		u, ok := e.Object.(*unstructured.Unstructured)
		return ok && Established(u), nil
	})
	if err != nil {
		return &failure.Error{Op: "establish", Kind: failure.Timeout, Object: "CustomResourceDefinition/" + name, Err: err,
			Remedy: "read its conditions with `kubectl describe crd " + name + "`"}
	}
	return nil
}

// Established reports whether a definition carries the condition Established=True.
func Established(u *unstructured.Unstructured) bool {
	conditions, _, err := unstructured.NestedSlice(u.Object, "status", "conditions")
	if err != nil {
		return false
	}
	for _, c := range conditions {
		m, ok := c.(map[string]any)
		if ok && m["type"] == string(apiextensionsv1.Established) && m["status"] == string(metav1.ConditionTrue) {
			return true
		}
	}
	return false
}

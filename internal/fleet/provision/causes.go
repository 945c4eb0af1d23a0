package provision

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// tree finds what holds up a cluster: from its Cluster down to the object that is not ready and has none below it that is not.
type tree struct {
	reader client.Reader
	mapper apimeta.RESTMapper
}

// looked is how many objects of one kind below another are looked at: they fail for the same cause, mostly.
const looked = 5

// cause is why a cluster is not ready.
type cause struct {
	rank rank
	// object is "Kind name" of what says so, and says the rest.
	object, says string
}

// String is one line.
func (c cause) String() string {
	if c.object == "" {
		return c.says
	}
	return c.object + ": " + c.says
}

// better returns the one that explains more, the first of two that explain as much.
func better(a, b cause) cause {
	if b.rank < a.rank {
		return b
	}
	return a
}

// reference names an object, in no version or in one.
type reference struct {
	schema.GroupKind
	version, name string
}

// referenceAt reads a reference, of either contract: with apiGroup, or with apiVersion.
func referenceAt(o *unstructured.Unstructured, path ...string) (reference, bool) {
	m, _, _ := unstructured.NestedStringMap(o.Object, path...)
	r := reference{GroupKind: schema.GroupKind{Group: m["apiGroup"], Kind: m["kind"]}, name: m["name"]}
	if v, ok := m["apiVersion"]; ok {
		gv, _ := schema.ParseGroupVersion(v)
		r.Group = gv.Group
	}
	return r, r.Kind != "" && r.name != ""
}

// cause returns why the control plane of a Cluster is not initialized. What there is of providers is read from the API server: nobody
// watches it, and it is asked for only while a cluster is on its way.
func (t tree) cause(ctx context.Context, of *unstructured.Unstructured) (cause, error) {
	best := cause{rank: nothing, says: "waiting for the control plane"}
	for _, look := range []func(context.Context, *unstructured.Unstructured) (cause, error){t.infrastructure, t.controlPlane, t.machines, t.groups, itself} {
		found, err := look(ctx, of)
		if err != nil {
			return cause{}, err
		}
		if best = better(best, found); best.rank == broken {
			break
		}
	}
	return best, nil
}

func (t tree) infrastructure(ctx context.Context, of *unstructured.Unstructured) (cause, error) {
	return t.below(ctx, of, "spec", "infrastructureRef")
}

func (t tree) controlPlane(ctx context.Context, of *unstructured.Unstructured) (cause, error) {
	return t.below(ctx, of, "spec", "controlPlaneRef")
}

// itself is what the Cluster says where nothing below it says more.
func itself(_ context.Context, of *unstructured.Unstructured) (cause, error) {
	c := judge(of)
	if c.rank < waits {
		c.rank = waits
	}
	return c, nil
}

// machines looks at the Machines of the cluster, and at what they are made of.
func (t tree) machines(ctx context.Context, of *unstructured.Unstructured) (cause, error) {
	return t.each(ctx, of, "Machine", func(m *unstructured.Unstructured) (cause, error) {
		best := judge(m)
		for _, path := range [][]string{{"spec", "bootstrap", "configRef"}, {"spec", "infrastructureRef"}} {
			found, err := t.below(ctx, m, path...)
			if err != nil {
				return cause{}, err
			}
			if found.rank != nothing && found.rank <= best.rank { // it is deeper
				best = found
			}
		}
		return best, nil
	})
}

// groups looks at what makes Machines, and at pools that are made of something else.
func (t tree) groups(ctx context.Context, of *unstructured.Unstructured) (cause, error) {
	best := cause{rank: nothing}
	for _, kind := range []string{"MachineDeployment", "MachinePool"} {
		found, err := t.each(ctx, of, kind, func(g *unstructured.Unstructured) (cause, error) {
			below, err := t.below(ctx, g, "spec", "template", "spec", "infrastructureRef")
			if kind != "MachinePool" || below.rank == nothing { // what a MachineDeployment refers to is a pattern
				return judge(g), err
			}
			return below, err
		})
		if err != nil {
			return cause{}, err
		}
		best = better(best, found)
	}
	return best, nil
}

// each asks about the objects of a kind of Cluster API that belong to the cluster and are not ready.
func (t tree) each(ctx context.Context, of *unstructured.Unstructured, kind string, ask func(*unstructured.Unstructured) (cause, error)) (cause, error) {
	best := cause{rank: nothing}
	mapping, err := t.mapper.RESTMapping(schema.GroupKind{Group: clusterGroup, Kind: kind})
	if apimeta.IsNoMatchError(err) {
		return best, nil
	} else if err != nil {
		return best, fmt.Errorf("look for the kind %s: %w", kind, err)
	}
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(mapping.GroupVersionKind)
	if err := t.reader.List(ctx, list, client.InNamespace(of.GetNamespace()), client.MatchingLabels{clusterGroup + "/cluster-name": of.GetName()}); err != nil {
		return best, fmt.Errorf("list the %ss of %s: %w", kind, of.GetName(), err)
	}
	asked := 0
	for i := range list.Items {
		if judge(&list.Items[i]).rank == nothing {
			continue
		}
		found, err := ask(&list.Items[i])
		if err != nil {
			return best, err
		}
		if best = better(best, found); best.rank == broken {
			break
		}
		if asked++; asked == looked {
			break
		}
	}
	return best, nil
}

// below returns what an object says that another one refers to.
func (t tree) below(ctx context.Context, of *unstructured.Unstructured, path ...string) (cause, error) {
	ref, ok := referenceAt(of, path...)
	if !ok {
		return cause{rank: nothing}, nil
	}
	o, c, err := t.follow(ctx, of.GetNamespace(), ref)
	if o == nil {
		return c, err
	}
	if c = judge(o); c.rank == nothing {
		return c, nil
	}
	return t.resources(ctx, o, c)
}

// resources looks at the objects that the provider for Azure lists in a status: what it does is done by them.
func (t tree) resources(ctx context.Context, o *unstructured.Unstructured, best cause) (cause, error) {
	list, _, _ := unstructured.NestedSlice(o.Object, "status", "resources")
	for i, item := range list {
		m, ok := item.(map[string]any)
		if ready, _ := m["ready"].(bool); !ok || ready || i == looked {
			continue
		}
		r, _ := m["resource"].(map[string]any)
		text := func(name string) string { s, _ := r[name].(string); return s }
		ref := reference{GroupKind: schema.GroupKind{Group: text("group"), Kind: text("kind")}, version: text("version"), name: text("name")}
		deeper, found, err := t.follow(ctx, o.GetNamespace(), ref)
		if err != nil {
			return cause{}, err
		}
		if deeper != nil {
			found = judge(deeper)
		}
		if found.rank != nothing && found.rank <= max(best.rank, silent) {
			return found, nil
		}
	}
	return best, nil
}

// follow reads what a reference names. Where that is not there, it returns nil and says so.
func (t tree) follow(ctx context.Context, namespace string, ref reference) (*unstructured.Unstructured, cause, error) {
	object := ref.Kind + " " + ref.name
	versions := []string{}
	if ref.version != "" {
		versions = append(versions, ref.version)
	}
	mapping, err := t.mapper.RESTMapping(ref.GroupKind, versions...)
	if apimeta.IsNoMatchError(err) {
		return nil, cause{broken, object, fmt.Sprintf("the hub does not serve the kind %s of %s; install the provider that defines it", ref.Kind, ref.Group)}, nil
	} else if err != nil {
		return nil, cause{}, fmt.Errorf("look for the kind %s: %w", ref.GroupKind, err)
	}
	o := named(mapping.GroupVersionKind)
	if mapping.Scope.Name() == apimeta.RESTScopeNameRoot {
		namespace = ""
	}
	err = t.reader.Get(ctx, types.NamespacedName{Namespace: namespace, Name: ref.name}, o)
	switch {
	case apierrors.IsNotFound(err):
		return nil, cause{unready, object, "it does not exist"}, nil
	case err != nil:
		return nil, cause{}, fmt.Errorf("read %s: %w", object, err)
	}
	c, err := t.contract(ctx, o, mapping)
	if c.rank == broken {
		return nil, c, err
	}
	return o, cause{}, err
}

// contract says why Cluster API looks at no object of a kind: its definition does not say which contract it follows. The kinds of
// others, such as those that a provider makes, need not.
func (t tree) contract(ctx context.Context, o *unstructured.Unstructured, mapping *apimeta.RESTMapping) (cause, error) {
	fine := cause{rank: nothing}
	if !strings.HasSuffix(mapping.GroupVersionKind.Group, "."+clusterGroup) || len(o.GetOwnerReferences()) > 0 {
		return fine, nil
	}
	definition := &metav1.PartialObjectMetadata{}
	definition.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	name := mapping.Resource.GroupResource().String()
	if err := t.reader.Get(ctx, types.NamespacedName{Name: name}, definition); err != nil {
		return fine, client.IgnoreNotFound(err)
	}
	for label := range definition.Labels {
		if strings.HasPrefix(label, clusterGroup+"/v1") {
			return fine, nil
		}
	}
	return cause{broken, "CustomResourceDefinition " + name,
		"it has no label such as cluster.x-k8s.io/v1beta2, so that Cluster API looks at no " + o.GetKind() + "; install the provider that it belongs to anew"}, nil
}

// judge says what an object tells of itself; nothing where it is as it should be.
func judge(o *unstructured.Unstructured) cause {
	object := o.GetKind() + " " + o.GetName()
	for _, field := range []string{"failureMessage", "failureReason"} {
		if text, _, _ := unstructured.NestedString(o.Object, "status", field); text != "" {
			return cause{broken, object, text}
		}
	}
	tells, ok := telling(o)
	switch {
	case !ok && fulfilled(o):
		return cause{rank: nothing}
	case fulfilled(o) && rankOf(tells) != broken:
		return cause{rank: nothing}
	case ok:
		return cause{rankOf(tells), object, spoken(tells)}
	case len(conditionsOf(o)) > 0:
		return cause{waits, object, "it is not ready, and no condition of it says why"}
	default:
		return cause{silent, object, "nobody has said anything about it yet; is the provider's controller running?"}
	}
}

// spoken is what a condition says.
func spoken(c condition) string {
	text := c.kind + " is " + string(c.status)
	if c.reason != "" {
		text += " (" + c.reason + ")"
	}
	if c.message != "" {
		text += ": " + strings.Join(strings.Fields(c.message), " ")
	}
	return text
}

// fulfilled says whether an object has done what its contract asks: that of v1beta2, else that of v1beta1, else what its
// summary says.
func fulfilled(o *unstructured.Unstructured) bool {
	for _, path := range [][]string{
		{"status", "initialization", "controlPlaneInitialized"}, {"status", "initialization", "provisioned"},
		{"status", "initialization", "dataSecretCreated"}, {"status", "initialization", "infrastructureProvisioned"},
		{"status", "initialized"}, {"status", "ready"}, {"status", "infrastructureReady"},
	} {
		if is, found, _ := unstructured.NestedBool(o.Object, path...); found {
			return is
		}
	}
	for _, c := range conditionsOf(o) {
		if c.status == metav1.ConditionTrue && (c.kind == summaries[0] || c.kind == summaries[1]) {
			return true
		}
	}
	return false
}

// version is that of the control plane, where it says it; reading it fails for nobody.
func (t tree) version(ctx context.Context, of *unstructured.Unstructured) string {
	ref, ok := referenceAt(of, "spec", "controlPlaneRef")
	if !ok {
		return ""
	}
	o, _, err := t.follow(ctx, of.GetNamespace(), ref)
	if err != nil || o == nil {
		return ""
	}
	version, _, _ := unstructured.NestedString(o.Object, "status", "version")
	return version
}

package placement

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	jsonpatch "github.com/evanphx/json-patch/v5"
	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	kjson "sigs.k8s.io/json"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
)

// Errors that say what is wrong, for those who choose a reason by it.
var (
	// ErrCycle: Placements wait for each other.
	ErrCycle = errors.New("these Placements wait for each other")
	// ErrSource: a source is not there, or has nothing yet.
	ErrSource = errors.New("the source cannot be used")
	// ErrTaken: another Placement has a unit of this name.
	ErrTaken = errors.New("the name is taken")
	// errKind: only sources that members can fetch themselves are passed on.
	errKind = errors.New("sources of this kind stay on the hub")
	// errElsewhere: one namespace is one fleet.
	errElsewhere = errors.New("the sources of a Placement are those of its own namespace")
)

// What to do about some of them.
const (
	remedyElsewhere = "leave out the namespace, and declare the source beside the Placement"
	remedyKind      = "refer to a GitRepository, OCIRepository, Bucket, HelmRepository or HelmChart"
)

func invalid(field string, err error, remedy string) error {
	return &failure.Error{Op: "read", Object: field, Kind: failure.Invalid, Err: err, Remedy: remedy}
}

// pattern is one unit of a Placement, before it is one of a cluster.
type pattern struct {
	kind, name string
	// at is where it stands, and field where its spec does, for messages.
	at, field string
	when      string
	raw       []byte
	// value is raw, read. It is not changed.
	value any
	// id names all that the unit is made from but the cluster, and same says that it is the same on all of them.
	id   string
	same bool
}

func patternOf(u *v1alpha1.PlacementUnit, i int) (pattern, error) {
	t := pattern{name: u.Name, when: u.When, at: fmt.Sprintf("spec.units[%d]", i)}
	var spec *apiextensionsv1.JSON
	switch {
	case u.Kustomization != nil && u.HelmRelease == nil:
		t.kind, t.field, spec = kustomizev1.KustomizationKind, t.at+".kustomization", u.Kustomization
	case u.HelmRelease != nil && u.Kustomization == nil:
		t.kind, t.field, spec = helmv2.HelmReleaseKind, t.at+".helmRelease", u.HelmRelease
	default:
		return t, invalid(t.at, errors.New("a unit is either a kustomization or a helmRelease"), "set one of the two")
	}
	t.raw = spec.Raw
	if err := json.Unmarshal(t.raw, &t.value); err != nil {
		return t, invalid(t.field, err, "correct it")
	}
	return t, nil
}

// unit is a template as it is on one cluster.
type unit struct {
	v1alpha1.AssignedUnit
	// needs are the sources that it refers to.
	needs []SourceKey
}

// expanded makes the unit of a cluster; ok is false where it has none.
func (t *pattern) expanded(ctx context.Context, a *assignment, p *placed) (u unit, ok bool, err error) {
	if t.when != "" {
		if ok, err := a.fleet.compiler.True(ctx, t.at+".when", t.when, a.variables); err != nil || !ok {
			return unit{}, false, err
		}
	}
	value, err := t.patched(p, a.Cluster)
	if err != nil {
		return unit{}, false, err
	}
	if value, err = a.fleet.compiler.Expand(ctx, t.field, value, a.variables); err != nil {
		return unit{}, false, err
	}
	raw, needs, err := readSpec(t.kind, t.field, value)
	if err != nil {
		return unit{}, false, err
	}
	for _, n := range needs {
		if n.namespace != "" && n.namespace != p.Namespace {
			return unit{}, false, &failure.Error{Op: "refer to", Object: fmt.Sprintf("%s %s/%s (%s)", n.Kind, n.namespace, n.Name, t.field), Kind: failure.Refused,
				Err: errElsewhere, Remedy: remedyElsewhere}
		}
	}
	u.AssignedUnit = v1alpha1.AssignedUnit{Kind: t.kind, Namespace: namespaceOf(p.Spec.Namespace), Name: t.name, Spec: apiextensionsv1.JSON{Raw: raw}}
	for _, n := range needs {
		u.needs = append(u.needs, n.SourceKey)
	}
	return u, true, nil
}

// patched returns the value with the overrides for the cluster.
func (t *pattern) patched(p *placed, cluster *v1alpha1.FleetCluster) (any, error) {
	patches := p.overriding(t.name, cluster)
	if len(patches) == 0 {
		return t.value, nil
	}
	raw := t.raw
	for _, o := range patches {
		var err error
		if raw, err = jsonpatch.MergePatch(raw, o.Patch.Raw); err != nil {
			return nil, invalid("spec.overrides, for unit "+t.name, err, "correct the patch; it is a JSON merge patch of the unit's spec")
		}
	}
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		return nil, invalid("spec.overrides, for unit "+t.name, err, "correct the patch")
	}
	return value, nil
}

// need is a reference to a source.
type need struct {
	SourceKey
	namespace string
}

// readSpec checks a spec against its type, and returns it as JSON, and what it refers to, which from then
// on is in the unit's own namespace.
func readSpec(kind, field string, value any) ([]byte, []need, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, nil, invalid(field, err, "correct it")
	}
	m, ok := value.(map[string]any)
	if !ok {
		return nil, nil, invalid(field, fmt.Errorf("it is %T and no spec", value), "write the spec of a "+kind)
	}
	var needs []need
	switch kind {
	case kustomizev1.KustomizationKind:
		spec := &kustomizev1.KustomizationSpec{}
		if err := strictly(raw, spec, field, m, "interval", "prune", "sourceRef"); err != nil {
			return nil, nil, err
		}
		ref := spec.SourceRef
		needs = append(needs, need{SourceKey{Kind: ref.Kind, Name: ref.Name}, ref.Namespace})
		unqualify(m, "sourceRef")
	default:
		spec := &helmv2.HelmReleaseSpec{}
		if err := strictly(raw, spec, field, m, "interval"); err != nil {
			return nil, nil, err
		}
		switch {
		case spec.Chart != nil && spec.ChartRef == nil:
			ref := spec.Chart.Spec.SourceRef
			needs = append(needs, need{SourceKey{Kind: orElse(ref.Kind, sourcev1.HelmRepositoryKind), Name: ref.Name}, ref.Namespace})
			unqualify(m, "chart", "spec", "sourceRef")
		case spec.ChartRef != nil && spec.Chart == nil:
			needs = append(needs, need{SourceKey{Kind: spec.ChartRef.Kind, Name: spec.ChartRef.Name}, spec.ChartRef.Namespace})
			unqualify(m, "chartRef")
		default:
			return nil, nil, invalid(field, errors.New("exactly one of chart and chartRef is needed"), "set one of the two")
		}
	}
	raw, err = json.Marshal(m)
	return raw, needs, err
}

func orElse(a, b string) string {
	if a == "" {
		return b
	}
	return a
}

// strictly reads JSON into a type, and refuses what the type does not have, and what is missing.
func strictly(raw []byte, into any, field string, m map[string]any, required ...string) error {
	problems, err := kjson.UnmarshalStrict(raw, into)
	if err != nil {
		return invalid(field, err, "correct it")
	}
	for _, name := range required {
		if _, ok := m[name]; !ok {
			problems = append(problems, fmt.Errorf("missing field %q", name))
		}
	}
	if len(problems) > 0 {
		return invalid(field, errors.Join(problems...), "correct the fields")
	}
	return nil
}

// unqualify takes the namespace from a reference: on the members, sources are in the namespace of the unit.
func unqualify(m map[string]any, path ...string) {
	for _, p := range path {
		next, ok := m[p].(map[string]any)
		if !ok {
			return
		}
		m = next
	}
	delete(m, "namespace")
}

// defaultNamespace is where units live on members where nothing says otherwise, as the API says.
const defaultNamespace = "bowline-system"

func namespaceOf(s string) string { return orElse(s, defaultNamespace) }

package placement

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
)

// SourceKey names a source of the fleet's namespace.
type SourceKey struct{ Kind, Name string }

// String returns Kind/name.
func (k SourceKey) String() string { return k.Kind + "/" + k.Name }

// Source is a source as the hub knows it.
type Source struct {
	// Spec is that of its kind: *sourcev1.GitRepositorySpec, *sourcev1.OCIRepositorySpec,
	// *sourcev1.BucketSpec, *sourcev1.HelmRepositorySpec or *sourcev1.HelmChartSpec. It is not changed.
	Spec any
	// Revision is the one that the hub has fetched; empty while there is none.
	Revision string
	// Why says why there is none, for people.
	Why string
}

// own reports whether a source of a cluster would be the hub's own: the cluster is the hub, and the source has its name and its namespace.
func (a *assignment) own(key SourceKey, namespace, name string) bool {
	return a.Hub && namespace == a.Cluster.Namespace && name == key.Name
}

// assign adds a source, and what it is made of, to those of a cluster. In each namespace of the member
// that refers to it there is one of its own. branch, where it is set, replaces that of the source, which then
// goes by the name as.
func (a *assignment) source(key SourceKey, namespace string, variant variant) error {
	name := orElse(variant.as, key.Name)
	if slices.ContainsFunc(a.out.Sources, func(s v1alpha1.AssignedSource) bool {
		return s.Kind == key.Kind && s.Namespace == namespace && s.Name == name
	}) {
		return nil
	}
	if _, err := specOf(key.Kind); err != nil {
		return &failure.Error{Op: "use", Object: key.String(), Kind: failure.Unsupported, Err: err,
			Remedy: remedyKind}
	}
	s, ok := a.fleet.sources[key]
	if !ok {
		return &failure.Error{Op: "use", Object: key.String(), Kind: failure.NotFound, Err: fmt.Errorf("%w: there is none beside the Placement on the hub", ErrSource),
			Remedy: "declare it, or correct the reference"}
	}
	if a.own(key, namespace, name) {
		return nil
	}
	p, err := a.fleet.common.pinned(key, s, variant)
	if err != nil {
		return err
	}
	a.out.Sources = append(a.out.Sources, v1alpha1.AssignedSource{
		Kind: key.Kind, Namespace: namespace, Name: name, Revision: p.revision, Spec: apiextensionsv1.JSON{Raw: slices.Clone(p.raw)},
	})
	for _, f := range p.refersTo {
		if err := a.source(f, namespace, none); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

// canonical returns a value as the JSON that an API server gives back: with its fields in order. So what a cluster has
// compares with what is made anew.
func canonical(value any) ([]byte, error) {
	raw, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(raw))
	decoder.UseNumber()
	var fields any
	if err := decoder.Decode(&fields); err != nil {
		return nil, err
	}
	return json.Marshal(fields)
}

// variant is how a source differs on a member from the hub's.
type variant struct{ branch, as string }

var none variant

// pin returns the spec for the members, with the hub's revision in it where its kind knows a way to say so,
// and that revision.
func pin(s Source, v variant) (spec any, revision string, err error) {
	notYet := func() error {
		return fmt.Errorf("%w: the hub has fetched nothing of it yet%s", ErrSource, because(s.Why))
	}
	switch spec := s.Spec.(type) {
	case *sourcev1.GitRepositorySpec:
		spec = spec.DeepCopy()
		spec.Suspend = false
		if v.branch != "" {
			// The hub does not fetch it: the members follow the branch themselves.
			spec.Reference = &sourcev1.GitRepositoryRef{Branch: v.branch}
			return spec, "", nil
		}
		if s.Revision == "" {
			return nil, "", notYet()
		}
		pinGit(spec, s.Revision)
		return spec, s.Revision, nil
	case *sourcev1.OCIRepositorySpec:
		spec = spec.DeepCopy()
		spec.Suspend = false
		if s.Revision == "" {
			return nil, "", notYet()
		}
		if spec.Reference == nil {
			spec.Reference = &sourcev1.OCIRepositoryRef{}
		}
		spec.Reference.Digest = s.Revision[strings.LastIndexByte(s.Revision, '@')+1:]
		return spec, s.Revision, nil
	case *sourcev1.BucketSpec:
		spec = spec.DeepCopy()
		spec.Suspend = false
		return spec, "", nil
	case *sourcev1.HelmRepositorySpec:
		spec = spec.DeepCopy()
		spec.Suspend = false
		return spec, "", nil
	case *sourcev1.HelmChartSpec:
		spec = spec.DeepCopy()
		spec.Suspend = false
		return spec, "", nil
	default:
		return nil, "", errKind
	}
}

// specOf returns an empty spec of a kind that can be passed on.
func specOf(kind string) (any, error) {
	switch kind {
	case sourcev1.GitRepositoryKind:
		return &sourcev1.GitRepositorySpec{}, nil
	case sourcev1.OCIRepositoryKind:
		return &sourcev1.OCIRepositorySpec{}, nil
	case sourcev1.BucketKind:
		return &sourcev1.BucketSpec{}, nil
	case sourcev1.HelmRepositoryKind:
		return &sourcev1.HelmRepositorySpec{}, nil
	case sourcev1.HelmChartKind:
		return &sourcev1.HelmChartSpec{}, nil
	default:
		return nil, errKind
	}
}

// refersTo returns the sources that a source is made of.
func refersTo(spec any) []SourceKey {
	var all []SourceKey
	switch spec := spec.(type) {
	case *sourcev1.GitRepositorySpec:
		for _, i := range spec.Include {
			all = append(all, SourceKey{sourcev1.GitRepositoryKind, i.GitRepositoryRef.Name})
		}
	case *sourcev1.HelmChartSpec:
		all = append(all, SourceKey{spec.SourceRef.Kind, spec.SourceRef.Name})
	}
	return all
}

// pinGit sets the commit of a revision such as main@sha1:<commit>. The rest of the reference stays, for
// people and for the branch in the member's revision, except where the signature of the tag is to be verified:
// then the tag is what is pinned.
func pinGit(spec *sourcev1.GitRepositorySpec, revision string) {
	named, commit, ok := strings.Cut(revision, "@")
	if !ok {
		named, commit = "", revision
	}
	ref := spec.Reference
	if ref == nil {
		ref = &sourcev1.GitRepositoryRef{}
		spec.Reference = ref
	}
	tagged := ref.Commit == "" && (ref.Tag != "" || ref.SemVer != "")
	if v := spec.Verification; v != nil && v.VerifyTag() && tagged {
		ref.SemVer, ref.Tag = "", strings.TrimPrefix(named, "refs/tags/")
		return
	}
	ref.Commit = commit[strings.LastIndexByte(commit, ':')+1:]
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return ": " + why
}

func kindOr(err error, other failure.Kind) failure.Kind {
	if k := failure.KindOf(err); k != "" {
		return k
	}
	return other
}

// Package ignore is the room of the fields that a unit leaves to others: which ones
// its rules name, and what that means for an object that is sent, compared, or asked
// who owns it.
package ignore

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/kustomize"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
)

// Rules are the rules of one unit. The nil Rules leave nothing to others.
type Rules struct {
	rules []rule
	text  string
}

type rule struct {
	pointers []pointer
	whole    bool    // the object as a whole, too
	target   *target // nil: all objects
}

// pointer is a JSON pointer (RFC 6901), taken apart.
type pointer []string

// New reads spec.ignore. It returns nil where it is empty. An error is of kind
// failure.Invalid and names the field.
func New(spec []kustomizev1.IgnoreRule) (*Rules, error) { return of("spec.ignore", spec, false) }

// ForRelease reads spec.driftDetection.ignore as New does. A path that is empty names the
// object as a whole.
func ForRelease(spec []helmv2.IgnoreRule) (*Rules, error) {
	rules := make([]kustomizev1.IgnoreRule, 0, len(spec))
	for _, s := range spec {
		rules = append(rules, kustomizev1.IgnoreRule(s))
	}
	return of("spec.driftDetection.ignore", rules, true)
}

// of reads the rules of a field, which may name whole objects.
func of(name string, spec []kustomizev1.IgnoreRule, wholes bool) (*Rules, error) {
	if len(spec) == 0 {
		return nil, nil
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	out := &Rules{text: string(text)}
	for i, s := range spec {
		r := rule{}
		for j, path := range s.Paths {
			if path == "" && wholes {
				r.whole = true
				continue
			}
			field := fmt.Sprintf("%s[%d].paths[%d]", name, i, j)
			p, err := parse(path)
			if err == nil {
				err = p.allowed()
			}
			if err != nil {
				return nil, &failure.Error{Op: "read", Kind: failure.Invalid, Object: field, Err: fmt.Errorf("%q %w", path, err),
					Remedy: "write it as a JSON pointer, such as /spec/replicas"}
			}
			r.pointers = append(r.pointers, p)
		}
		if r.target, err = targetOf(fmt.Sprintf("%s[%d].target", name, i), s.Target); err != nil {
			return nil, err
		}
		out.rules = append(out.rules, r)
	}
	return out, nil
}

// String identifies what the rules say.
func (r *Rules) String() string {
	if r == nil {
		return ""
	}
	return r.text
}

func parse(text string) (pointer, error) {
	if text == "" {
		return nil, errors.New("is the whole object; to leave one alone, annotate it with " + object.KustomizeGroup + "/reconcile: disabled")
	}
	if !strings.HasPrefix(text, "/") {
		return nil, errors.New("does not begin with a slash")
	}
	parts := strings.Split(text[1:], "/")
	for i, part := range parts {
		if badEscape.MatchString(part) {
			return nil, errors.New("has a ~ that is neither ~0 for itself nor ~1 for a slash")
		}
		parts[i] = strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
	}
	return parts, nil
}

var badEscape = regexp.MustCompile(`~([^01]|$)`)

// allowed refuses what makes an object the one that it is, and what says whose it is.
func (p pointer) allowed() error {
	for _, needed := range []pointer{
		{"apiVersion"}, {"kind"}, {"metadata", "name"}, {"metadata", "namespace"},
		{"metadata", "labels", object.KustomizeGroup + "/name"}, {"metadata", "labels", object.KustomizeGroup + "/namespace"},
		{"metadata", "labels", object.HelmGroup + "/name"}, {"metadata", "labels", object.HelmGroup + "/namespace"},
		{"metadata", "annotations", object.AppliedDigestAnnotation},
	} {
		if slices.Equal(p, needed) || len(p) == 1 && p[0] == "metadata" {
			return errors.New("cannot be left to others: it says which object this is, or whose")
		}
	}
	return nil
}

// Of returns the fields of a desired object that are left to others, and nil where
// there are none.
func (r *Rules) Of(desired *unstructured.Unstructured) *Paths {
	if r == nil {
		return nil
	}
	var out Paths
	for _, rule := range r.rules {
		if !rule.target.matches(desired) {
			continue
		}
		for _, p := range rule.pointers {
			for _, q := range p.spread(desired.Object) {
				if path, ok := resolve(desired.Object, q); ok {
					out.all = append(out.all, path)
				}
			}
		}
	}
	if len(out.all) == 0 {
		return nil
	}
	return &out
}

// Whole reports whether what others do to the object as a whole is left to them.
func (r *Rules) Whole(desired *unstructured.Unstructured) bool {
	return r != nil && slices.ContainsFunc(r.rules, func(rule rule) bool { return rule.whole && rule.target.matches(desired) })
}

// spread replaces all labels, or all annotations, by those that are not ours.
func (p pointer) spread(desired map[string]any) []pointer {
	if len(p) != 2 || p[0] != "metadata" || p[1] != "labels" && p[1] != "annotations" {
		return []pointer{p}
	}
	members, _, _ := unstructured.NestedMap(desired, p...)
	var out []pointer
	for name := range members {
		if q := append(slices.Clone(p), name); q.allowed() == nil {
			out = append(out, q)
		}
	}
	slices.SortFunc(out, slices.Compare)
	return out
}

// target selects objects, as the toolkit and kustomize do.
type target struct {
	patterns            map[string]*regexp.Regexp // by field; none: anything
	labels, annotations labels.Selector
}

func targetOf(field string, s *kustomize.Selector) (*target, error) {
	if s == nil {
		return nil, nil
	}
	t := &target{patterns: map[string]*regexp.Regexp{}}
	wrong := func(name string, err error) error {
		return &failure.Error{Op: "read", Kind: failure.Invalid, Object: field + "." + name, Err: err, Remedy: "correct the pattern"}
	}
	var err error
	for name, pattern := range map[string]string{"group": s.Group, "version": s.Version, "kind": s.Kind, "name": s.Name, "namespace": s.Namespace} {
		if pattern == "" {
			continue
		}
		if t.patterns[name], err = regexp.Compile("^(?:" + pattern + ")$"); err != nil {
			return nil, wrong(name, err)
		}
	}
	if t.labels, err = labels.Parse(s.LabelSelector); err != nil {
		return nil, wrong("labelSelector", err)
	}
	if t.annotations, err = labels.Parse(s.AnnotationSelector); err != nil {
		return nil, wrong("annotationSelector", err)
	}
	return t, nil
}

func (t *target) matches(u *unstructured.Unstructured) bool {
	if t == nil {
		return true
	}
	gvk := u.GroupVersionKind()
	for name, value := range map[string]string{"group": gvk.Group, "version": gvk.Version, "kind": gvk.Kind, "name": u.GetName(), "namespace": u.GetNamespace()} {
		if p := t.patterns[name]; p != nil && !p.MatchString(value) {
			return false
		}
	}
	return t.labels.Matches(labels.Set(u.GetLabels())) && t.annotations.Matches(labels.Set(u.GetAnnotations()))
}

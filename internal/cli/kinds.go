package cli

import (
	"fmt"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
)

// kind is one of the kinds that the commands work on.
type kind struct {
	// name is the singular, as printed: "gitrepository".
	name string
	// title is what prose calls it: "source git".
	title string
	// words are the other names that users give it.
	words     []string
	gvk       schema.GroupVersionKind
	newObject func() client.Object
	newList   func() client.ObjectList
	state     func(client.Object) state
}

// state is what the commands show and wait for.
type state struct {
	suspended  bool
	revision   string
	handled    string // last handled reconcile request
	observed   int64  // generation that the status is about
	conditions []metav1.Condition
	from       string // where it comes from, for the wide output
}

// ready returns the Ready condition; its status is Unknown when there is none.
func (s state) ready() metav1.Condition {
	for _, c := range s.conditions {
		if c.Type == "Ready" {
			return c
		}
	}
	return metav1.Condition{Type: "Ready", Status: metav1.ConditionUnknown, Message: "not reconciled yet"}
}

// stalled reports whether trying again cannot help until the object changes.
func (s state) stalled() bool {
	return slices.ContainsFunc(s.conditions, func(c metav1.Condition) bool {
		return c.Type == "Stalled" && c.Status == metav1.ConditionTrue
	})
}

// typed makes a function on one type take any object; one of another type has no
// state.
func typed[T client.Object](of func(T) state) func(client.Object) state {
	return func(o client.Object) state {
		if t, ok := o.(T); ok {
			return of(t)
		}
		return state{}
	}
}

func gitRepositoryKind() kind {
	return kind{
		name:      "gitrepository",
		title:     "source git",
		words:     []string{"gitrepositories", "gitrepo", "gitrepos"},
		gvk:       sourcev1.GroupVersion.WithKind(sourcev1.GitRepositoryKind),
		newObject: func() client.Object { return &sourcev1.GitRepository{} },
		newList:   func() client.ObjectList { return &sourcev1.GitRepositoryList{} },
		state:     typed(gitRepositoryState),
	}
}

func gitRepositoryState(r *sourcev1.GitRepository) state {
	s := state{suspended: r.Spec.Suspend, handled: r.Status.LastHandledReconcileAt,
		observed: r.Status.ObservedGeneration, conditions: r.Status.Conditions, from: r.Spec.URL}
	if r.Status.Artifact != nil {
		s.revision = r.Status.Artifact.Revision
	}
	return s
}

func kustomizationKind() kind {
	return kind{
		name:      "kustomization",
		title:     "kustomization",
		words:     []string{"kustomizations", "ks"},
		gvk:       kustomizev1.GroupVersion.WithKind(kustomizev1.KustomizationKind),
		newObject: func() client.Object { return &kustomizev1.Kustomization{} },
		newList:   func() client.ObjectList { return &kustomizev1.KustomizationList{} },
		state:     typed(kustomizationState),
	}
}

func kustomizationState(k *kustomizev1.Kustomization) state {
	return state{suspended: k.Spec.Suspend, handled: k.Status.LastHandledReconcileAt,
		observed: k.Status.ObservedGeneration, conditions: k.Status.Conditions,
		revision: k.Status.LastAppliedRevision, from: k.Spec.SourceRef.String() + " " + k.Spec.Path}
}

// kinds are all kinds, in the order in which they are printed.
func kinds() []kind { return []kind{gitRepositoryKind(), kustomizationKind()} }

// parseKinds reads what a user asks for: a kind, "sources", "sources git" or
// "all", followed by names; KIND/NAME is allowed for one object.
func parseKinds(args []string) ([]kind, []string, error) {
	word, rest := strings.ToLower(args[0]), args[1:]
	if before, name, ok := strings.Cut(args[0], "/"); ok {
		word, rest = strings.ToLower(before), append([]string{name}, rest...)
	}
	switch word {
	case "all":
		if len(rest) > 0 {
			return nil, nil, &failure.Error{Op: "read arguments", Kind: failure.Invalid,
				Err: fmt.Errorf("a name (%s) needs one kind, not all", rest[0])}
		}
		return kinds(), nil, nil
	case "source", "sources":
		if len(rest) > 0 && rest[0] == "git" {
			rest = rest[1:]
		}
		return []kind{gitRepositoryKind()}, rest, nil
	}
	for _, k := range kinds() {
		if word == k.name || slices.Contains(k.words, word) {
			return []kind{k}, rest, nil
		}
	}
	return nil, nil, &failure.Error{Op: "read arguments", Kind: failure.Invalid,
		Err:    fmt.Errorf("unknown kind %q", word),
		Remedy: "use sources (gitrepositories), kustomizations (ks) or all"}
}

// parseObjects reads arguments that must name objects of exactly one kind.
func parseObjects(args []string) (kind, []string, error) {
	ks, names, err := parseKinds(args)
	if err != nil {
		return kind{}, nil, err
	}
	if len(ks) != 1 {
		return kind{}, nil, &failure.Error{Op: "read arguments", Kind: failure.Invalid,
			Err: fmt.Errorf("%q is not one kind", args[0]), Remedy: "use source git or kustomization"}
	}
	return ks[0], names, nil
}

// parseObject reads arguments that must name exactly one object.
func parseObject(args []string) (kind, string, error) {
	k, names, err := parseObjects(args)
	if err != nil {
		return kind{}, "", err
	}
	if len(names) != 1 {
		return kind{}, "", &failure.Error{Op: "read arguments", Kind: failure.Invalid,
			Err: fmt.Errorf("give one name, as in: %s NAME", k.title)}
	}
	return k, names[0], nil
}

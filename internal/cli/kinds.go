package cli

import (
	"fmt"
	"slices"
	"strings"

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
	// words are the other names that users give it, the plural first.
	words     []string
	gvk       schema.GroupVersionKind
	newObject func() client.Object
	newList   func() client.ObjectList
	state     func(client.Object) state
	// columns are those of its table; nil means those that all deliveries have in common.
	columns []column
}

// state is what the commands show and wait for.
type state struct {
	suspended  bool
	revision   string
	handled    string // last handled reconcile request
	observed   int64  // generation that the status is about
	conditions []metav1.Condition
	from       string // where it comes from, for the wide output
	// outcome is what there is to say of one that is ready, where that is no revision.
	outcome string
	// unasked says that nobody can ask for a reconciliation: the kind has no such request.
	unasked bool
	// static says that nothing is ever fetched for the object, so it has no status.
	static bool
}

// ready returns the Ready condition; its status is Unknown when there is none.
func (s state) ready() metav1.Condition {
	for _, c := range s.conditions {
		if c.Type == "Ready" {
			return c
		}
	}
	if s.static {
		return metav1.Condition{Type: "Ready", Status: metav1.ConditionTrue, Message: "an address only: what is in it is fetched by whoever names it"}
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

// kinds are all kinds, in the order in which they are printed.
func kinds() []kind {
	return slices.Concat(sourceKinds(), []kind{kustomizationKind(), helmReleaseKind()}, fleetKinds())
}

// sourceWords are the words that follow "source".
func sourceWords() []string {
	var out []string
	for _, k := range sourceKinds() {
		out = append(out, strings.TrimPrefix(k.title, "source "))
	}
	return out
}

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
		return parseSources(rest)
	}
	for _, k := range kinds() {
		if word == k.name || slices.Contains(k.words, word) {
			return []kind{k}, rest, nil
		}
	}
	return nil, nil, &failure.Error{Op: "read arguments", Kind: failure.Invalid,
		Err:    fmt.Errorf("unknown kind %q", word),
		Remedy: "use sources (source " + strings.Join(sourceWords(), "|") + "), kustomizations (ks), helmreleases (hr), clusters, placements or all"}
}

// parseSources reads what follows "sources": one kind of them and its names, "all", or nothing.
func parseSources(rest []string) ([]kind, []string, error) {
	if len(rest) == 0 || len(rest) == 1 && rest[0] == "all" {
		return sourceKinds(), nil, nil
	}
	for _, k := range sourceKinds() {
		if k.title == "source "+rest[0] {
			return []kind{k}, rest[1:], nil
		}
	}
	return nil, nil, &failure.Error{Op: "read arguments", Kind: failure.Invalid,
		Err: fmt.Errorf("unknown kind of source %q", rest[0]), Remedy: "use source " + strings.Join(sourceWords(), "|")}
}

// parseObjects reads arguments that must name objects of exactly one kind.
func parseObjects(args []string) (kind, []string, error) {
	ks, names, err := parseKinds(args)
	if err != nil {
		return kind{}, nil, err
	}
	if len(ks) != 1 {
		return kind{}, nil, &failure.Error{Op: "read arguments", Kind: failure.Invalid,
			Err: fmt.Errorf("%q is not one kind", args[0]), Remedy: "use source git, kustomization, helmrelease or the like"}
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

package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	sigsyaml "sigs.k8s.io/yaml"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/admission"
	"github.com/bowline-dev/bowline/internal/fleet/template"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/source"
)

// declaredObject is an object of the fleet's kinds, and where it is declared, as far as that is known.
type declaredObject struct {
	*unstructured.Unstructured
	file string
	node *yaml.Node
}

// fleetFile returns the objects of the fleet's kinds in a file. What is no YAML is somebody else's.
func fleetFile(name string, raw []byte) []declaredObject {
	if !bytes.Contains(raw, []byte(fleetv1.GroupVersion.Group)) {
		return nil
	}
	var all []declaredObject
	for decoder := yaml.NewDecoder(bytes.NewReader(raw)); ; {
		node := &yaml.Node{}
		if err := decoder.Decode(node); err != nil {
			return all
		}
		text, err := yaml.Marshal(node)
		u := &unstructured.Unstructured{}
		if err != nil || sigsyaml.Unmarshal(text, &u.Object) != nil || u.GetAPIVersion() != fleetv1.GroupVersion.String() {
			continue
		}
		all = append(all, declaredObject{Unstructured: u, file: name, node: node})
	}
}

// fleetTree returns those in a whole tree.
func fleetTree(tree source.Tree) ([]declaredObject, error) {
	var all []declaredObject
	err := fs.WalkDir(tree, ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != "." && strings.HasPrefix(d.Name(), "."):
			return fs.SkipDir
		case !d.Type().IsRegular() || !strings.HasSuffix(path, ".yaml") && !strings.HasSuffix(path, ".yml"):
			return nil
		}
		raw, err := tree.ReadFile(path)
		if err == nil {
			all = append(all, fleetFile(path, raw)...)
		}
		return err
	})
	if err != nil {
		return nil, &failure.Error{Op: "look for clusters", Kind: failure.Denied, Err: err}
	}
	return all, nil
}

// at says where a field is declared: as FILE:LINE, of the nearest field around it that is there.
func (o declaredObject) at(path string) string {
	if o.file == "" {
		return ""
	}
	node := o.node
	if len(node.Content) > 0 {
		node = node.Content[0]
	}
	line := node.Line
	for _, step := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		next, on := below(node, step)
		if next == nil {
			break
		}
		node, line = next, on
	}
	return o.file + ":" + strconv.Itoa(line)
}

// below returns a field or an item of a node, and the line on which it begins.
func below(node *yaml.Node, step string) (*yaml.Node, int) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == step {
				return node.Content[i+1], node.Content[i].Line
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(node.Content) {
			return node.Content[i], node.Content[i].Line
		}
	default:
	}
	return nil, 0
}

// problem is the error for one thing that is wrong with an object.
func (o declaredObject) problem(p template.FieldError) error {
	object := strings.TrimSpace(o.at(p.Path) + " " + o.GetKind() + "/" + o.GetName())
	return &failure.Error{Op: "check", Object: object, Kind: failure.Invalid, Err: p}
}

// typed reads an object as its type. Fields that there are not are problems.
func (o declaredObject) typed(into any) error {
	err := runtime.DefaultUnstructuredConverter.FromUnstructuredWithValidation(o.Object, into, true)
	strict, ok := runtime.AsStrictDecodingError(err)
	switch {
	case err == nil:
		return nil
	case !ok:
		return o.problem(template.FieldError{Message: err.Error()})
	}
	var all []error
	for _, e := range strict.Errors() {
		p := template.FieldError{Message: e.Error()}
		if _, path, ok := strings.Cut(p.Message, `unknown field "`); ok {
			p = template.FieldError{Path: strings.TrimSuffix(path, `"`), Message: "a " + o.GetKind() + " has no such field"}
		}
		all = append(all, o.problem(p))
	}
	return errors.Join(all...)
}

// fleetChecked is a build whose objects of the fleet's kinds are checked as a hub would when they come.
func fleetChecked(next pipeline.Builder) pipeline.Builder {
	return func(ctx context.Context, tree source.Tree, recipe build.Recipe) (build.Result, error) {
		result, err := next(ctx, tree, recipe)
		if err != nil {
			return result, err
		}
		return result, checkFleet(ctx, tree, result)
	}
}

// checkFleet says all that is wrong with what was built, at its place in the files that were read.
func checkFleet(ctx context.Context, tree source.Tree, result build.Result) error {
	c := &fleetCheck{compiler: template.NewCompiler(), tree: tree}
	for _, u := range result.Objects {
		if u.GetAPIVersion() == fleetv1.GroupVersion.String() {
			c.objects = append(c.objects, declaredObject{Unstructured: u})
		}
	}
	if len(c.objects) == 0 {
		return nil
	}
	for path := range result.Reads {
		if raw, err := tree.ReadFile(path); err == nil {
			c.declared = append(c.declared, fleetFile(path, raw)...)
		}
	}
	for i := range c.objects {
		o := &c.objects[i]
		if d := slices.IndexFunc(c.declared, func(d declaredObject) bool { return d.GetKind() == o.GetKind() && d.GetName() == o.GetName() }); d >= 0 {
			o.file, o.node = c.declared[d].file, c.declared[d].node
		}
	}
	return c.all(ctx)
}

// fleetCheck checks objects that are delivered together.
type fleetCheck struct {
	compiler *template.Compiler
	tree     source.Tree
	// objects are what is checked, and declared what the files hold that they were built from.
	objects, declared []declaredObject
	// elsewhere is what the whole tree holds; nil until somebody asks.
	elsewhere []declaredObject
}

func (c *fleetCheck) all(ctx context.Context) error {
	placements := map[string][]*fleetv1.Placement{}
	at := map[*fleetv1.Placement]declaredObject{}
	var all []error
	for _, o := range c.objects {
		switch o.GetKind() {
		case fleetv1.ClusterTemplateKind:
			t := &fleetv1.ClusterTemplate{}
			if err := o.typed(t); err != nil {
				all = append(all, err)
				continue
			}
			all = append(all, o.problems(c.compiler.CheckTemplate(ctx, t))...)
		case fleetv1.FleetClusterKind:
			all = append(all, c.cluster(ctx, o))
		case fleetv1.PlacementKind:
			p := &fleetv1.Placement{}
			if err := o.typed(p); err != nil {
				all = append(all, err)
				continue
			}
			placements[p.Namespace] = append(placements[p.Namespace], p)
			at[p] = o
		}
	}
	for _, namespace := range slices.Sorted(maps.Keys(placements)) {
		fleet := placements[namespace]
		for _, p := range fleet {
			problems, _ := admission.CheckPlacement(c.compiler, p, fleet) //nolint:contextcheck // it only compiles
			for _, problem := range problems {
				all = append(all, at[p].problem(problem))
			}
		}
	}
	return errors.Join(all...)
}

func (o declaredObject) problems(err error) []error {
	var fields template.FieldErrors
	if err == nil || !errors.As(err, &fields) {
		return []error{err}
	}
	var all []error
	for _, p := range fields {
		all = append(all, o.problem(p))
	}
	return all
}

// cluster checks a FleetCluster. One whose template is not in the repository is only checked by itself.
func (c *fleetCheck) cluster(ctx context.Context, o declaredObject) error {
	cluster := &fleetv1.FleetCluster{}
	if err := o.typed(cluster); err != nil {
		return err
	}
	t, err := c.templateOf(cluster)
	if err != nil || t != nil && c.compiler.CheckTemplate(ctx, t) != nil {
		t = nil // whoever delivers it is told
	}
	problems, err := admission.CheckCluster(ctx, c.compiler, cluster, t)
	if err != nil {
		return err
	}
	var all []error
	for _, p := range problems {
		all = append(all, o.problem(p))
	}
	return errors.Join(all...)
}

// templateOf finds the template of a cluster among what is delivered with it, or else in the repository; nil where it is in neither.
func (c *fleetCheck) templateOf(cluster *fleetv1.FleetCluster) (*fleetv1.ClusterTemplate, error) {
	if cluster.Spec.Template == nil {
		return nil, nil
	}
	found := templatesOf(c.objects, cluster)
	if len(found) == 0 {
		if c.elsewhere == nil {
			all, err := fleetTree(c.tree)
			if err != nil {
				return nil, err
			}
			c.elsewhere = append([]declaredObject{}, all...)
		}
		found = templatesOf(c.elsewhere, cluster)
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		t := &fleetv1.ClusterTemplate{}
		return t, found[0].typed(t)
	}
	return nil, &failure.Error{Op: "find", Object: "ClusterTemplate/" + cluster.Spec.Template.Name, Kind: failure.Invalid,
		Err:    fmt.Errorf("it is declared more than once, in %s and %s", found[0].at(""), found[1].at("")),
		Remedy: "say in metadata.namespace whose each is"}
}

// templatesOf returns those that may be the template of a cluster. Which namespace an object gets may not be in its file.
func templatesOf(all []declaredObject, cluster *fleetv1.FleetCluster) []declaredObject {
	var found []declaredObject
	for _, o := range all {
		if o.GetKind() != fleetv1.ClusterTemplateKind || o.GetName() != cluster.Spec.Template.Name {
			continue
		}
		if o.GetNamespace() == cluster.Namespace {
			return []declaredObject{o}
		}
		if o.GetNamespace() == "" || cluster.Namespace == "" {
			found = append(found, o)
		}
	}
	return found
}

package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/failure"
)

func addStrictSubstitute(f *pflag.FlagSet, strict *bool) {
	f.BoolVar(strict, "strict-substitute", true, "fail for a variable that has neither a value nor a default, as the engine does")
}

// variableOptions stand in for what a build without a cluster cannot read.
type variableOptions struct {
	vars   []string
	files  []string
	strict bool
}

func (o *variableOptions) add(f *pflag.FlagSet) {
	f.StringArrayVar(&o.vars, "var", nil, "variable of the post-build substitution, as `NAME=VALUE`; may be repeated, and overrides all others")
	f.StringArrayVar(&o.files, "substitute-from", nil, "`file` with ConfigMaps and Secrets that postBuild.substituteFrom or valuesFrom names; may be repeated")
	addStrictSubstitute(f, &o.strict)
}

// values reads --var.
func (o *variableOptions) values() (map[string]string, error) {
	vars := make(map[string]string, len(o.vars))
	for _, pair := range o.vars {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, &failure.Error{Op: "read flag", Object: "--var " + pair, Kind: failure.Invalid,
				Err: errors.New("it has no name or no value"), Remedy: "write it as NAME=VALUE"}
		}
		vars[name] = value
	}
	return vars, nil
}

// folder adds the variables to the recipe of a folder.
func (o *variableOptions) folder(r build.Recipe) (build.Recipe, error) {
	vars, err := o.values()
	if err != nil || len(vars) == 0 {
		return r, err
	}
	r.SubstituteStrategy, r.StrictSubstitution = kustomizev1.SubstituteStrategyWithVariables, o.strict
	return r.WithVariables(vars, nil), nil
}

// prepare reads the Kustomization as the engine does, with files in place of the
// cluster. An object that no file holds is passed over where variables are given
// one by one: one that is wanting then is named by the build.
func (o *variableOptions) prepare(ctx context.Context, k *kustomizev1.Kustomization, options controller.UnitOptions) (r build.Recipe, secrets []string, err error) {
	vars, err := o.values()
	if err != nil {
		return r, nil, err
	}
	objects, err := readObjects(o.files, k.Namespace)
	if err != nil {
		return r, nil, err
	}
	k = k.DeepCopy()
	if k.Spec.PostBuild == nil && len(vars) > 0 {
		k.Spec.PostBuild = &kustomizev1.PostBuild{}
	}
	if k.Spec.PostBuild != nil {
		given := maps.Clone(k.Spec.PostBuild.Substitute)
		if given == nil {
			given = map[string]string{}
		}
		maps.Copy(given, vars)
		k.Spec.PostBuild.Substitute = given
		for i, from := range k.Spec.PostBuild.SubstituteFrom {
			if _, there := objects[objectKey{from.Kind, types.NamespacedName{Namespace: k.Namespace, Name: from.Name}}]; there || from.Optional {
				continue
			}
			if len(vars) == 0 {
				return r, nil, &failure.Error{Op: "read variables of", Kind: failure.NotFound, Object: fmt.Sprintf("spec.postBuild.substituteFrom[%d]", i),
					Err:    fmt.Errorf("%s %s is on the cluster, which a build does not ask", from.Kind, from.Name),
					Remedy: "pass --substitute-from with a file that holds it, or --var for each variable, or use: bowline diff"}
			}
			k.Spec.PostBuild.SubstituteFrom[i].Optional = true
		}
	}
	options.LenientSubstitution = !o.strict
	unit, err := controller.Prepare(ctx, objects, k, options)
	return unit.Recipe, unit.Secrets, err
}

type objectKey struct {
	kind string
	types.NamespacedName
}

// objectFiles are the ConfigMaps and Secrets of files. It implements client.Reader.
type objectFiles map[objectKey]client.Object

// readObjects reads ConfigMaps and Secrets; those without a namespace are taken to
// be of this one.
func readObjects(files []string, namespace string) (objectFiles, error) {
	objects := objectFiles{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			return nil, &failure.Error{Op: "read", Object: file, Kind: failure.NotFound, Err: errors.Unwrap(err), Remedy: "correct --substitute-from"}
		}
		for _, document := range documents(raw) {
			if err := objects.take(document, namespace); err != nil {
				return nil, &failure.Error{Op: "read", Object: file, Kind: failure.Invalid, Err: err}
			}
		}
	}
	return objects, nil
}

// take adds the object of a document, if it is one that can hold variables. What
// the parser says is left out: it may quote a secret.
func (f objectFiles) take(document []byte, namespace string) error {
	var head struct {
		Kind     string `json:"kind"`
		Metadata struct {
			Name, Namespace string
		} `json:"metadata"`
		Sops any `json:"sops"`
	}
	if err := yaml.Unmarshal(document, &head); err != nil {
		return errors.New("a document in it is no valid YAML")
	}
	key := objectKey{head.Kind, types.NamespacedName{Namespace: head.Metadata.Namespace, Name: head.Metadata.Name}}
	if key.Namespace == "" {
		key.Namespace = namespace
	}
	var into client.Object
	switch head.Kind {
	case "ConfigMap":
		into = &corev1.ConfigMap{}
	case "Secret":
		into = &corev1.Secret{}
	default:
		return nil
	}
	if head.Sops != nil {
		return fmt.Errorf("%s %s is encrypted; decrypt it first", head.Kind, head.Metadata.Name)
	}
	if err := yaml.Unmarshal(document, into); err != nil {
		return fmt.Errorf("%s %s is not as the API has it", head.Kind, head.Metadata.Name)
	}
	if s, ok := into.(*corev1.Secret); ok && s.Data == nil {
		s.Data = map[string][]byte{}
	}
	if s, ok := into.(*corev1.Secret); ok {
		for name, text := range s.StringData {
			s.Data[name] = []byte(text)
		}
	}
	f[key] = into
	return nil
}

// Get implements client.Reader.
func (f objectFiles) Get(_ context.Context, key client.ObjectKey, o client.Object, _ ...client.GetOption) error {
	switch into := o.(type) {
	case *corev1.ConfigMap:
		if found, ok := f[objectKey{"ConfigMap", key}].(*corev1.ConfigMap); ok {
			*into = *found.DeepCopy()
			return nil
		}
	case *corev1.Secret:
		if found, ok := f[objectKey{"Secret", key}].(*corev1.Secret); ok {
			*into = *found.DeepCopy()
			return nil
		}
	}
	return apierrors.NewNotFound(corev1.Resource("objects"), key.Name)
}

// List implements client.Reader by refusing: nobody lists files.
func (f objectFiles) List(context.Context, client.ObjectList, ...client.ListOption) error {
	return errors.New("files of variables cannot be listed")
}

// documents splits a file of manifests.
func documents(raw []byte) [][]byte {
	var out [][]byte
	for part := range strings.SplitSeq("\n"+string(raw), "\n---") {
		out = append(out, []byte(part))
	}
	return slices.DeleteFunc(out, func(d []byte) bool { return strings.TrimSpace(string(d)) == "" })
}

package controller

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"strings"

	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/bowline-dev/bowline/internal/source"
)

// template is an artifact to make, with the names that the path pattern captured.
type template struct {
	swapi.OutputArtifact
	labels map[string]string
}

// capture is a placeholder of a path pattern.
var capture = regexp.MustCompile(`\{([^{}]*)\}`)

// captureName is what a placeholder may be called.
var captureName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

const patternField = "spec.pathPattern"

// templates returns the artifacts that a generator is to make: those of its spec,
// or one set of them for each folder that the path pattern matches.
func templates(g *swapi.ArtifactGenerator, sources map[string]source.Artifact) ([]template, error) {
	if g.Spec.PathPattern == "" {
		out := make([]template, 0, len(g.Spec.OutputArtifacts))
		for i := range g.Spec.OutputArtifacts {
			out = append(out, template{OutputArtifact: g.Spec.OutputArtifacts[i]})
		}
		return out, nil
	}
	alias, pattern, _ := strings.Cut(strings.TrimPrefix(g.Spec.PathPattern, "@"), "/")
	a, ok := sources[alias]
	if !ok {
		return nil, unknownAlias(patternField, alias)
	}
	parts, err := segments(pattern)
	if err != nil {
		return nil, err
	}
	folders, err := matchFolders(a.Tree, ".", parts, nil)
	if err != nil {
		return nil, err
	}
	var out []template
	names := map[string]string{}
	for _, f := range folders {
		for i := range g.Spec.OutputArtifacts {
			t, err := fill(&g.Spec.OutputArtifacts[i], f)
			if err != nil {
				return nil, err
			}
			if other, taken := names[t.Name]; taken {
				return nil, invalidSpec(patternField, fmt.Errorf("the folders %q and %q both make an artifact %q", other, f.path, t.Name), "use more of the captures in the name, or rename one of the folders")
			}
			names[t.Name] = f.path
			out = append(out, t)
		}
	}
	return out, nil
}

// segments reads a pattern as one expression for each folder on the way.
func segments(pattern string) ([]*regexp.Regexp, error) {
	seen := map[string]bool{}
	var out []*regexp.Regexp
	for part := range strings.SplitSeq(strings.TrimSuffix(pattern, "/"), "/") {
		if part == "" || part == "." || part == ".." {
			return nil, invalidSpec(patternField, fmt.Errorf("%q is no path of folders in the source", pattern), "write it as @alias/folder/{name}")
		}
		expression, last := "", 0
		for _, at := range capture.FindAllStringSubmatchIndex(part, -1) {
			name := part[at[2]:at[3]]
			if !captureName.MatchString(name) || seen[name] || len(validation.IsQualifiedName(name)) > 0 {
				return nil, invalidSpec(patternField, fmt.Errorf("the capture {%s} is not a name of letters, digits and _, or there are two of it", name), "correct it")
			}
			seen[name] = true
			expression += regexp.QuoteMeta(part[last:at[0]]) + "(?P<" + name + ">.+)"
			last = at[1]
		}
		rest := part[last:]
		if strings.ContainsAny(capture.ReplaceAllString(part, ""), "{}") {
			return nil, invalidSpec(patternField, fmt.Errorf("a brace of %q has no partner", part), "write a capture as {name}")
		}
		out = append(out, regexp.MustCompile("^"+expression+regexp.QuoteMeta(rest)+"$"))
	}
	return out, nil
}

// matched is a folder that a pattern matches, with what was captured.
type matched struct {
	path     string
	captures map[string]string
}

// matchFolders looks for the folders below dir that a pattern matches. Folders that
// cannot be on the way are not looked into.
func matchFolders(tree source.Tree, dir string, parts []*regexp.Regexp, captures map[string]string) ([]matched, error) {
	if len(parts) == 0 {
		return []matched{{dir, captures}}, nil
	}
	entries, err := tree.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var out []matched
	for _, e := range entries {
		found := parts[0].FindStringSubmatch(e.Name())
		if found == nil || !e.IsDir() {
			continue
		}
		now := maps.Clone(captures)
		if now == nil {
			now = map[string]string{}
		}
		for i, name := range parts[0].SubexpNames() {
			if name != "" {
				now[name] = found[i]
			}
		}
		below, err := matchFolders(tree, path.Join(dir, e.Name()), parts[1:], now)
		if err != nil {
			return nil, err
		}
		out = append(out, below...)
	}
	return out, nil
}

// fill puts what was captured into an artifact: as it is into paths, in lower case
// into its name and labels.
func fill(o *swapi.OutputArtifact, f matched) (template, error) {
	t := template{OutputArtifact: *o.DeepCopy(), labels: map[string]string{}}
	for name, value := range f.captures {
		t.labels[name] = strings.ToLower(value)
		if problems := validation.IsValidLabelValue(t.labels[name]); len(problems) > 0 {
			return template{}, invalidSpec(patternField, fmt.Errorf("{%s} is %q in the folder %q, which cannot be a label: %s", name, value, f.path, problems[0]), "rename the folder, or make the pattern narrower")
		}
	}
	var err error
	put := func(text string, values map[string]string) string {
		return capture.ReplaceAllStringFunc(text, func(found string) string {
			value, ok := values[found[1:len(found)-1]]
			if !ok {
				err = errors.Join(err, fmt.Errorf("%q uses %s, which the pattern does not capture", text, found))
			}
			return value
		})
	}
	t.Name = put(o.Name, t.labels)
	for i := range t.Copy {
		t.Copy[i].From, t.Copy[i].To = put(t.Copy[i].From, f.captures), put(t.Copy[i].To, f.captures)
	}
	if err != nil {
		return template{}, invalidSpec("spec.artifacts", err, "capture it in spec.pathPattern")
	}
	if problems := validation.IsDNS1123Subdomain(t.Name); len(problems) > 0 {
		return template{}, invalidSpec(patternField, fmt.Errorf("the folder %q makes an artifact called %q, which cannot be the name of an object: %s", f.path, t.Name, problems[0]), "rename the folder, or make the pattern narrower")
	}
	return t, nil
}

package template

import (
	"context"
	"errors"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/bowline-dev/bowline/internal/failure"
)

// problemsOf returns what the error holds, one line each.
func problemsOf(t *testing.T, err error) []string {
	t.Helper()
	var problems FieldErrors
	if !errors.As(err, &problems) || len(problems) == 0 {
		t.Fatalf("no problems in %v", err)
	}
	lines := make([]string, len(problems))
	for i, p := range problems {
		lines[i] = p.Error()
	}
	return lines
}

func variables() Variables {
	return Variables{
		"cluster": map[string]any{"name": "one", "labels": map[string]any{"zone": "b"}},
		"parameters": map[string]any{
			"size": int64(3), "spot": true, "share": 0.5, "name": "${cluster.name}", "lines": "a: b\nc: \"d\"",
			"zones": []any{"a", "b"}, "taint": map[string]any{"key": "gpu"}, "nothing": nil,
		},
	}
}

func TestExpand(t *testing.T) {
	t.Parallel()
	c := NewCompiler()
	for _, row := range []struct {
		name, reason string
		value, want  any
	}{
		{"plain", "there is nothing to expand", map[string]any{"a": []any{"b", int64(1), nil, 1.5, true}}, map[string]any{"a": []any{"b", int64(1), nil, 1.5, true}}},
		{"whole number", "a string that is one expression has its type", "${parameters.size}", int64(3)},
		{"boolean", "a string that is one expression has its type", "${parameters.spot}", true},
		{"fraction", "a string that is one expression has its type", "${parameters.share}", 0.5},
		{"list", "a string that is one expression has its type", "${parameters.zones}", []any{"a", "b"}},
		{"null", "is a value like others", map[string]any{"a": "${parameters.nothing}"}, map[string]any{"a": nil}},
		{"spaces inside", "belong to the expression", "${ parameters.size }", int64(3)},
		{"spaces outside", "make it a text", " ${parameters.size}", " 3"},
		{"in a text", "values are put in", "n-${parameters.size}-${parameters.spot}-${cluster.name}", "n-3-true-one"},
		{"two side by side", "are a text", "${cluster.name}${parameters.size}", "one3"},
		{"text of a value", "is not expanded again", "${parameters.name}", "${cluster.name}"},
		{"text of a value in a text", "is not expanded again", "is ${parameters.name}", "is ${cluster.name}"},
		{"lines and quotes", "cannot change what surrounds them", map[string]any{"a": "x ${parameters.lines}"}, map[string]any{"a": "x a: b\nc: \"d\""}},
		{"escaped", "is a literal", "$${cluster.name}", "${cluster.name}"},
		{"escaped below", "inside of a map nobody else changes", map[string]any{"a": []any{"$${x}"}}, map[string]any{"a": []any{"${x}"}}},
		{"escaped and not", "one does not change the other", "$${a} ${cluster.name} $${b}", "${a} one ${b}"},
		{"dollar", "is nothing special by itself", "$5 and $x and $", "$5 and $x and $"},
		{"dollar before an expression", "as it says", "$${'a'}${'$'}${parameters.size}", "${'a'}$3"},
		{"braces in maps", "belong to the expression", "${ {'a': {'b': parameters.size}} }", map[string]any{"a": map[string]any{"b": int64(3)}}},
		{"braces in strings", "belong to the string", `${'}' + "}" + '\'}' + "it's {"}`, `}}'}it's {`},
		{"braces in long strings", "belong to the string", `${"""a "}" b""" + '''}'''}`, `a "}" b}`},
		{"raw string", "a backslash ends nothing there", `${r'\' + '}'}`, `\}`},
		{"name that ends in r", "is not the prefix of a raw string", `${[cluster.name].map(br, br == '\'' ? '' : br + '\'}')[0]}`, `one'}`},
		{"comment", "braces and quotes in it are nothing", "${ // it's }\n cluster.name }", "one"},
		{"optional with a value", "is the value", map[string]any{"zone": "${cluster.labels.?zone}"}, map[string]any{"zone": "b"}},
		{"optional without, in a map", "leaves the field out", map[string]any{"a": "${parameters.?missing}", "b": "c"}, map[string]any{"b": "c"}},
		{"optional without, in a list", "leaves the element out", []any{"${parameters.?missing}", "b"}, []any{"b"}},
		{"map as a whole", "the way to keys that are not known", map[string]any{"tags": "${ {'kubernetes.io/cluster/' + cluster.name: 'owned'} }"}, map[string]any{"tags": map[string]any{"kubernetes.io/cluster/one": "owned"}}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, err := c.Expand(t.Context(), "spec", row.value, variables())
			if err != nil || !reflect.DeepEqual(got, row.want) {
				t.Errorf("got %#v, %v; want %#v: %s", got, err, row.want, row.reason)
			}
		})
	}
}

func TestExpandRefuses(t *testing.T) {
	t.Parallel()
	c := NewCompiler()
	for _, row := range []struct {
		name, reason string
		value        any
		want         []string
	}{
		{"list in a text", "what should it look like", map[string]any{"a": "z-${parameters.zones}"}, []string{"spec.a: ${parameters.zones} gives a list; only strings, whole numbers and booleans"}},
		{"map in a text", "what should it look like", map[string]any{"a": "z-${parameters.taint}"}, []string{"spec.a: ${parameters.taint} gives a map; only"}},
		{"null in a text", "it would read as a word", []any{"z-${parameters.nothing}"}, []string{"spec[0]: ${parameters.nothing} gives null; only"}},
		{"fraction in a text", "there are many ways to write it", "z-${parameters.share}", []string{"spec: ${parameters.share} gives a fraction; only"}},
		{"nothing in a text", "a hole would remain", "z-${parameters.?missing}", []string{"spec: ${parameters.?missing} gives no value to put into the text; say what else with .orValue"}},
		{"nothing at all", "there would be no value", "${parameters.?missing}", []string{"spec: the expression gives no value"}},
		{"missing field", "it has to be there, or asked for", map[string]any{"a": []any{map[string]any{"b.c": "${parameters.missing}"}}}, []string{"spec.a[0][b.c]: ${parameters.missing} has no answer: no such key: missing; write a.?b.orValue"}},
		{"unknown variable", "a misspelt one", "${parameter.size}", []string{"spec: ${parameter.size} does not compile: line 1, column 1: undeclared reference to 'parameter' (in container ''); the variables are cluster, parameters"}},
		{"not closed", "it ends too soon", "a ${cluster.name", []string{"spec: there is a ${ without its }; write $${"}},
		{"string not closed", "the brace is part of it", "${'a}", []string{"spec: there is a ${ without its }"}},
		{"long string not closed", "the brace is part of it", "${'''a'}", []string{"spec: there is a ${ without its }"}},
		{"comment not ended", "the brace is part of it", "${cluster.name // }", []string{"spec: there is a ${ without its }"}},
		{"empty", "there is nothing", "${}", []string{"spec: ${} does not compile"}},
		{"key", "keys are as they are", map[string]any{"k/${cluster.name}": "owned"}, []string{"spec[k/${cluster.name}]: keys are not expanded; give the whole map as one expression"}},
		{"no JSON", "whoever calls made a mistake", map[string]any{"a": struct{}{}}, []string{"spec.a: is a Go value of type struct {} and no JSON"}},
		{"endless", "it is stopped by what it costs", "${[0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(b, [0,1,2,3,4,5,6,7,8,9].all(c, [0,1,2,3,4,5,6,7,8,9].all(d, [0,1,2,3,4,5,6,7,8,9].all(e, [0,1,2,3,4,5,6,7,8,9].all(f, true))))))}",
			[]string{"takes more than 50000 steps; make it simpler"}},
		{"all of them", "who corrects one wants to know of the next", map[string]any{"a": "${parameters.x}", "b": "${parameters.y}", "c": "${cluster.name}"},
			[]string{"spec.a: ${parameters.x} has no answer", "spec.b: ${parameters.y} has no answer"}},
		{"all that do not compile", "who corrects one wants to know of the next", []any{"${x}", "${y}"}, []string{"spec[0]: ${x} does not compile", "spec[1]: ${y} does not compile"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			_, err := c.Expand(t.Context(), "spec", row.value, variables())
			got := problemsOf(t, err)
			if !errors.Is(err, failure.Of(failure.Invalid)) || len(got) != len(row.want) {
				t.Fatalf("got %v; want %v: %s", err, row.want, row.reason)
			}
			for i, want := range row.want {
				if !strings.Contains(got[i], want) {
					t.Errorf("got %q; want %q: %s", got[i], want, row.reason)
				}
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
		})
	}
}

// The limits hold for all expressions of a value together.
func TestExpandLimits(t *testing.T) {
	t.Parallel()
	c := NewCompiler()
	costly := "${[0,1,2,3,4,5,6,7,8,9].all(a, [0,1,2,3,4,5,6,7,8,9].all(b, [0,1,2,3,4,5,6,7,8,9].all(c, [0,1,2,3,4,5,6,7,8,9].all(d, true))))}"
	large := strings.Repeat("x", 100_000)
	for _, row := range []struct {
		name, reason, text, want string
	}{
		{"cost", "each is allowed by itself", costly, "take more than 1000000 steps"},
		{"size", "each is allowed by itself", "${parameters.large}", "larger than 4194304 bytes"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			list := make([]any, 200)
			for i := range list {
				list[i] = row.text
			}
			_, err := c.Expand(t.Context(), "spec", list, Variables{"parameters": map[string]any{"large": large}})
			if got := problemsOf(t, err); len(got) != 1 || !strings.Contains(got[0], row.want) {
				t.Errorf("got %v; want %q: %s", got, row.want, row.reason)
			}
			if _, err := c.Expand(t.Context(), "spec", list[:2], Variables{"parameters": map[string]any{"large": large}}); err != nil {
				t.Errorf("two of them: %v", err)
			}
		})
	}
}

func TestExpandCancelled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := NewCompiler().Expand(ctx, "spec", "${cluster.name}", variables())
	if !errors.Is(err, failure.Of(failure.Timeout)) || failure.Terminal(err) {
		t.Errorf("got %v: it may be tried again", err)
	}
}

// What is given out belongs to the caller.
func TestExpandCopies(t *testing.T) {
	t.Parallel()
	given := map[string]any{"a": []any{"b"}, "c": "${cluster.name}"}
	got, err := NewCompiler().Expand(t.Context(), "", given, variables())
	if err != nil {
		t.Fatal(err)
	}
	got.(map[string]any)["a"].([]any)[0] = "changed"
	if given["a"].([]any)[0] != "b" || given["c"] != "${cluster.name}" {
		t.Errorf("the given value became %v", given)
	}
}

func TestExpandString(t *testing.T) {
	t.Parallel()
	c := NewCompiler()
	for _, row := range []struct{ name, reason, text, want, wrong string }{
		{name: "path", reason: "the usual one", text: "clusters/${cluster.name}", want: "clusters/one"},
		{name: "number", reason: "it has to stay a string", text: "${parameters.size}", want: "3"},
		{name: "list", reason: "is no string", text: "${parameters.zones}", wrong: "spec.path: gives a list; a string is needed"},
		{name: "unknown", reason: "is told as by Expand", text: "${no}", wrong: "undeclared reference"},
	} {
		got, err := c.ExpandString(t.Context(), "spec.path", row.text, variables())
		if got != row.want || (err != nil) != (row.wrong != "") || err != nil && !strings.Contains(err.Error(), row.wrong) {
			t.Errorf("%s: got %q, %v: %s", row.name, got, err, row.reason)
		}
	}
}

func TestTrue(t *testing.T) {
	t.Parallel()
	c := NewCompiler()
	for _, row := range []struct {
		name, reason, text string
		want               bool
		wrong              string
	}{
		{name: "so", reason: "the usual one", text: "cluster.labels.zone == 'b'", want: true},
		{name: "not so", reason: "the usual one", text: " parameters.size > 3 "},
		{name: "bare", reason: "a boolean needs no comparison", text: "parameters.spot", want: true},
		{name: "no boolean", reason: "what is meant is not clear", text: "parameters.size", wrong: "gives a whole number and not true or false"},
		{name: "nothing", reason: "what is meant is not clear", text: "parameters.?missing", wrong: "say what else with .orValue(false)"},
		{name: "missing", reason: "it has to be there, or asked for", text: "parameters.missing", wrong: "no such key"},
		{name: "in braces", reason: "it is an expression already", text: "${parameters.spot}", wrong: "write it without ${ }"},
		{name: "does not compile", reason: "ends too soon", text: "parameters.", wrong: "does not compile"},
	} {
		got, err := c.True(t.Context(), "spec.when", row.text, variables())
		if got != row.want || (err != nil) != (row.wrong != "") || err != nil && !strings.Contains(err.Error(), row.wrong) {
			t.Errorf("%s: got %t, %v: %s", row.name, got, err, row.reason)
		}
	}
}

func TestCheckValue(t *testing.T) {
	t.Parallel()
	c := NewCompiler()
	if err := c.Check("spec", map[string]any{"a": "${cluster.name}-${parameters.whatever}"}, "parameters", "cluster"); err != nil {
		t.Error(err)
	}
	err := c.Check("spec", map[string]any{"a": "${item}"}, "parameters", "cluster")
	if got := problemsOf(t, err); !strings.HasPrefix(got[0], "spec.a: ${item} does not compile") {
		t.Errorf("got %v", got)
	}
}

// The same text means something else where other variables are known.
func TestScopesAreKeptApart(t *testing.T) {
	t.Parallel()
	c := NewCompiler()
	if _, err := c.Expand(t.Context(), "", "${a}", Variables{"a": "x"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Expand(t.Context(), "", "${a}", Variables{"b": "x"}); err == nil {
		t.Error("a is no variable here")
	}
}

// Only so much is remembered, and what is forgotten is compiled again.
func TestCompilerIsBounded(t *testing.T) {
	t.Parallel()
	c := NewCompiler()
	for i := range keptExpressions + 10 {
		text := "${cluster.name + '" + strconv.Itoa(i) + "'}"
		if _, err := c.Expand(t.Context(), "", text, variables()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Expand(t.Context(), "", "${'"+strings.Repeat("y", keptLength)+"'}", variables()); err != nil {
		t.Fatal(err)
	}
	if n := c.expressions.Len(); n != keptExpressions {
		t.Errorf("remembers %d expressions", n)
	}
}

package subst

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/failure"
)

func TestApply(t *testing.T) {
	vars := map[string]string{"name": "web", "n": "3", "_u": "under", "empty": "", "lines": "a\nb", "region": "eu-central-1", "list": "[a, b]", "dollar": "$name"}
	tests := []struct {
		name, reason, value, want string
	}{
		{"bare", "the plain case", "${name}", `"web"`},
		{"within", "text around it stays", "a-${name}-b", `"a-web-b"`},
		{"no braces", "only braces make a variable", "$name", `"$name"`},
		{"unknown", "an unknown variable is empty", "x${unknown}x", `"xx"`},
		{"number", "replacing works on text", "${n}", `3`},
		{"quoted number", "a string that looks like a number was quoted only if it looked so before", "0${n}", `3`},
		{"list", "replacing works on text", "${list}", `["a","b"]`},
		{"underscore", "names may start with one", "${_u}", `"under"`},
		{"default", "where there is no value", "${unknown:=d} ${unknown:-e} ${empty:=f}", `"d e f"`},
		{"no default", "where there is a value", "${name:=d}", `"web"`},
		{"slice", "position and length", "${region:0:2} ${region:3}", `"eu central-1"`},
		{"replace", "the first and all", "${region/-/_} ${region//-/_}", `"eu_central-1 eu_central_1"`},
		{"case", "of the shell", "${name^} ${name^^} ${region,,}", `"Web WEB eu-central-1"`},
		{"trim", "of the shell", "${region#*-} ${region##*-} ${region%-*} ${region%%-*}", `"central-1 1 eu-central eu"`},
		{"length", "of the shell", "a${#name}", `"a3"`},
		{"nested", "a default may be a variable", "${unknown:-${name}}", `"web"`},
		{"escaped", "two dollars make one", "$${name}", `"${name}"`},
		{"line break", "values are one line", "${lines}", `"ab"`},
		{"once", "values are not looked through again", "x${dollar}", `"x$name"`},
	}
	v, err := New(vars, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := &unstructured.Unstructured{Object: map[string]any{"kind": "T", "metadata": map[string]any{"name": "x"}, "value": tt.value}}
			if err := v.Apply(u); err != nil {
				t.Fatal(err)
			}
			got, err := json.Marshal(u.Object["value"])
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != tt.want {
				t.Errorf("%s: %s gives %s, want %s", tt.reason, tt.value, got, tt.want)
			}
		})
	}
}

func TestNumbersKeepTheirKind(t *testing.T) {
	v, err := New(map[string]string{"a": "b"}, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"kind": "T", "value": "${a}", "i": int64(3), "f": 0.5, "big": int64(9007199254740993), "s": "3"}}
	if err := v.Apply(u); err != nil {
		t.Fatal(err)
	}
	if u.Object["i"] != int64(3) || u.Object["f"] != 0.5 || u.Object["big"] != int64(9007199254740993) || u.Object["s"] != "3" {
		t.Errorf("got %#v", u.Object)
	}
}

func TestDisabled(t *testing.T) {
	v, err := New(map[string]string{"a": "b"}, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"labels", "annotations"} {
		for value, want := range map[string]string{Disabled: "${a}", "enabled": "b"} {
			u := &unstructured.Unstructured{Object: map[string]any{"kind": "T", "metadata": map[string]any{field: map[string]any{Annotation: value}}, "value": "${a}"}}
			if err := v.Apply(u); err != nil {
				t.Fatal(err)
			}
			if u.Object["value"] != want {
				t.Errorf("%s %s: %v, want %s", field, value, u.Object["value"], want)
			}
		}
	}
}

func TestErrors(t *testing.T) {
	tests := []struct {
		name, reason string
		vars         map[string]string
		strict       bool
		value        string
		fails        bool
	}{
		{"strict", "it has no value", nil, true, "${gone}", true},
		{"strict with default", "a default will do", nil, true, "${gone:=x}", false},
		{"strict with empty value", "empty is a value", map[string]string{"gone": ""}, true, "${gone}", false},
		{"unclosed", "it is no expression", nil, false, "${name", true},
		{"no YAML", "a value can break the text", map[string]string{"a": "\""}, false, "${a}", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := New(tt.vars, nil, tt.strict)
			if err != nil {
				t.Fatal(err)
			}
			u := &unstructured.Unstructured{Object: map[string]any{"kind": "T", "metadata": map[string]any{"name": "x", "namespace": "ns"}, "value": tt.value}}
			err = v.Apply(u)
			if (err != nil) != tt.fails {
				t.Fatalf("%s: %v", tt.reason, err)
			}
			if err != nil && (!errors.Is(err, failure.Of(failure.Invalid)) || !strings.Contains(err.Error(), "T/ns/x")) {
				t.Errorf("%s: %v does not name the object", tt.reason, err)
			}
		})
	}
}

func TestNames(t *testing.T) {
	for name, ok := range map[string]bool{"a": true, "_": true, "A1_b": true, "1a": false, "a-b": false, "a.b": false, "": false, "é": false, "a b": false} {
		if _, err := New(map[string]string{name: "x"}, nil, false); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		} else if err != nil && !errors.Is(err, failure.Of(failure.Invalid)) {
			t.Errorf("%q: kind %s", name, failure.KindOf(err))
		}
	}
}

// A few lines that name a large value often, or that take long to work out, are refused
// before they are, for all objects of a build together.
func TestGrowth(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	tests := []struct {
		name, reason, value string
		objects             int
		fails               bool
	}{
		{"plain", "a large value may be named a few times", strings.Repeat("${a}", 2), 1, false},
		{"often", "it would take gigabytes", strings.Repeat("${a}", 1000), 1, true},
		{"in many objects", "they are one build", "${d#x}", 8, true},
		{"letter by letter", "each is replaced by all of them", "${a//x/${a}}", 1, true},
		{"trimmed", "each prefix is compared", "${a#*y*y*y}", 1, true},
		{"short", "they cost nothing", strings.Repeat("${b//x/yy} ${b#x} ${b%%x} ${c:-x} ", 1000), 10, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := New(map[string]string{"a": long, "b": "xyz", "d": long[:1<<15]}, nil, false)
			if err != nil {
				t.Fatal(err)
			}
			for i := 0; i < tt.objects && err == nil; i++ {
				err = v.Apply(&unstructured.Unstructured{Object: map[string]any{"kind": "T", "metadata": map[string]any{"name": "x", "namespace": "ns"}, "value": tt.value}})
			}
			if (err != nil) != tt.fails {
				t.Fatalf("%s: %v", tt.reason, err)
			}
			if err != nil && (!errors.Is(err, errGrowth) || !errors.Is(err, failure.Of(failure.Invalid)) || !strings.Contains(err.Error(), "T/ns/x")) {
				t.Errorf("%s: %v", tt.reason, err)
			}
		})
	}
}

package expr

import (
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func scope(t testing.TB, variables ...string) *Scope {
	t.Helper()
	s, err := NewScope(variables...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestValue(t *testing.T) {
	t.Parallel()
	s := scope(t, "p")
	wide := map[string]any{}
	for i := range 100 {
		wide[strconv.Itoa(i)] = int64(i)
	}
	variables := map[string]any{"p": map[string]any{
		"wide": wide,
		"n":    int64(3), "f": 1.5, "s": "text", "b": true, "none": nil,
		"list": []any{map[string]any{"name": "a"}, map[string]any{"name": "b", "x": int64(1)}},
		"big":  strings.Repeat("x", SizeLimit/4),
	}}
	for _, row := range []struct {
		name, reason, text string
		want               any
		err                error
	}{
		{name: "whole number", reason: "keeps its type", text: "p.n", want: int64(3)},
		{name: "fraction", reason: "keeps its type", text: "p.f + 1.0", want: 2.5},
		{name: "unsigned", reason: "JSON knows one sort of whole numbers", text: "3u", want: int64(3)},
		{name: "string", reason: "keeps its type", text: "p.s + '-' + string(p.n)", want: "text-3"},
		{name: "boolean", reason: "keeps its type", text: "p.b && p.n > 2", want: true},
		{name: "null", reason: "is a value", text: "p.none", want: nil},
		{name: "map", reason: "with values of several types", text: "{'a': p.n, 'b': [p.s, true]}", want: map[string]any{"a": int64(3), "b": []any{"text", true}}},
		{name: "loop", reason: "makes a list of maps", text: "p.list.map(e, {'id': e.name, ?'x': e.?x})",
			want: []any{map[string]any{"id": "a"}, map[string]any{"id": "b", "x": int64(1)}}},
		{name: "optional with a value", reason: "is that value", text: "p.?n", want: int64(3)},
		{name: "optional without", reason: "whoever asks decides what that means", text: "p.?missing", err: ErrAbsent},
		{name: "optionals in a list", reason: "are left out", text: "[p.?missing, p.?n]", want: []any{int64(3)}},
		{name: "merged", reason: "the second one counts", text: "{'a': 1, 'b': 2}.merge({'b': 3, 'c': p.s})", want: map[string]any{"a": int64(1), "b": int64(3), "c": "text"}},
		{name: "merged with what is given", reason: "its type is not known before", text: "p.list[1].merge({'y': true})", want: map[string]any{"name": "b", "x": int64(1), "y": true}},
		{name: "merged with nothing", reason: "a map is needed", text: "{'a': 1}.merge(p.none)", err: ErrNoAnswer},
		{name: "merged without end", reason: "what it does counts", text: "[0,1,2,3,4,5,6,7,8,9].map(a, [0,1,2,3,4,5,6,7,8,9].map(b, [0,1,2,3,4,5,6,7,8,9].map(c, p.wide.merge(p.wide).size())))", err: ErrTooCostly},
		{name: "digest", reason: "of the first bytes of a SHA-256", text: "digest({'b': 1, 'a': [p.s]})", want: "eb736676"},
		{name: "digest of the same", reason: "the order of keys is nothing", text: "digest({'a': [p.s], 'b': 1}) == digest({'b': 1, 'a': [p.s]}) && digest(1) != digest('1')", want: true},
		{name: "digest of what is no JSON", reason: "there is no digest of it", text: "digest(type(p))", err: ErrNoAnswer},
		{name: "digests without end", reason: "what they do counts", text: "[0,1,2,3,4,5,6,7,8,9].map(a, [0,1,2,3,4,5,6,7,8,9].map(b, digest(p.big)))", err: ErrTooCostly},
		{name: "missing", reason: "is no optional", text: "p.missing", err: ErrNoAnswer},
		{name: "duration", reason: "has no place in JSON", text: "duration('1h')", err: ErrNoAnswer},
		{name: "bytes", reason: "have no place in JSON", text: "b'abc'", err: ErrNoAnswer},
		{name: "type", reason: "has no place in JSON", text: "type(p)", err: ErrNoAnswer},
		{name: "no number", reason: "JSON has none of these", text: "0.0 / 0.0", err: ErrNoAnswer},
		{name: "unsigned too large", reason: "it would become a negative one", text: "18446744073709551615u", err: ErrNoAnswer},
		{name: "keys", reason: "JSON has strings only", text: "{1: 'a'}", err: ErrNoAnswer},
		{name: "large", reason: "five times a quarter, for a few steps", text: "[p.big, p.big, p.big, p.big, p.big]", err: ErrTooLarge},
		{name: "large by keys", reason: "these count as well", text: "[1,2,3,4,5].map(i, {p.big: i})", err: ErrTooLarge},
		{name: "endless", reason: "ten million rounds", text: "[" + nested(7) + "]", err: ErrTooCostly},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			e, err := s.Compile(row.text)
			if err != nil {
				t.Fatalf("%s: %v", row.reason, err)
			}
			got, cost, err := e.Value(t.Context(), variables)
			if !reflect.DeepEqual(got, row.want) && row.err == nil || !errors.Is(err, row.err) || row.err == nil && err != nil {
				t.Errorf("got %#v, %v; want %#v, %v: %s", got, err, row.want, row.err, row.reason)
			}
			if row.err == nil && row.text != "3u" && cost == 0 {
				t.Error("costs nothing")
			}
		})
	}
}

// The same comes out each time, although maps have no order.
func TestValueIsTheSameEachTime(t *testing.T) {
	t.Parallel()
	deep := map[string]any{}
	for _, key := range []string{"c", "a", "e", "b", "d", "g", "f"} {
		deep[key] = strings.ToUpper(key)
	}
	variables := map[string]any{"p": map[string]any{"list": []any{map[string]any{"deep": deep}}}}
	s := scope(t, "p")
	for _, row := range []struct{ name, reason, text, want string }{
		{"variable", "at any depth", "p.list[0].deep.map(k, k + p.list[0].deep[k]).join(' ')", "aA bB cC dD eE fF gG"},
		{"element of a loop", "it comes from a variable", "p.list.map(e, e.deep.map(k, k).join())[0]", "abcdefg"},
		{"literal", "it is a map as well", "{'c': 1, 'a': 2, 'e': 3, 'b': 4, 'd': 5}.map(k, k).join()", "abcde"},
		{"literal of what is given", "it is a map as well", "{'c': p.list, 'a': p.list, 'e': p, 'b': 4, 'd': 5}.map(k, k).join()", "abcde"},
		{"merged", "it is a map as well", "p.list[0].deep.merge({'z': 1, 'h': 2}).map(k, k).join()", "abcdefghz"},
		{"numbers", "by value", "{10: 1, 9: 2, -1: 3}.map(k, string(k)).join(' ')", "-1 9 10"},
		{"of several types", "by type, and then by value", "{'a': 1, 2: 2, true: 3, 1: 4}.map(k, string(k)).join(' ')", "true 1 2 a"},
		{"condition", "whichever comes first decides", "p.list[0].deep.filter(k, k > 'b').join()", "cdefg"},
	} {
		e, err := s.Compile(row.text)
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		for range 20 {
			if got, _, err := e.Value(t.Context(), variables); got != row.want {
				t.Fatalf("%s: got %v, %v; want %s: %s", row.name, got, err, row.want, row.reason)
			}
		}
	}
}

// What comes out can be changed without changing what went in.
func TestValueIsACopy(t *testing.T) {
	t.Parallel()
	variables := map[string]any{"p": map[string]any{"m": map[string]any{"a": []any{"b"}}}}
	e, err := scope(t, "p").Compile("p.m")
	if err != nil {
		t.Fatal(err)
	}
	got, _, err := e.Value(t.Context(), variables)
	if err != nil {
		t.Fatal(err)
	}
	got.(map[string]any)["a"].([]any)[0] = "changed"
	if p := variables["p"].(map[string]any)["m"].(map[string]any)["a"].([]any)[0]; p != "b" {
		t.Errorf("the variable became %v", p)
	}
}

func TestReferences(t *testing.T) {
	t.Parallel()
	s := scope(t, "p", "c")
	for _, row := range []struct {
		name, reason, text string
		want               []string
		path               string
	}{
		{name: "field", reason: "the usual one", text: "p.a.b", want: []string{"p.a.b"}, path: "p.a.b"},
		{name: "whole", reason: "it is asked for as it is", text: "p", want: []string{"p"}, path: "p"},
		{name: "optional", reason: "it may be missing in the value, not in the schema", text: "p.?a.?b.orValue(c.d)", want: []string{"c.d", "p.a.b"}},
		{name: "has", reason: "a misspelt one is always missing", text: "has(p.a.b)", want: []string{"p.a.b"}, path: "p.a.b"},
		{name: "by key", reason: "another way to write a field", text: "p['a']['b/c']", want: []string{"p.a.b/c"}, path: "p.a.b/c"},
		{name: "by number", reason: "which one does not matter", text: "p.list[0].x", want: []string{"p.list[].x"}, path: "p.list[].x"},
		{name: "by value", reason: "which one is not known", text: "p.m[c.k].x", want: []string{"c.k", "p.m[].x"}, path: "p.m[].x"},
		{name: "loop", reason: "its variable is an element", text: "p.list.map(e, e.x + c.y)", want: []string{"c.y", "p.list", "p.list[].x"}},
		{name: "loop in a loop", reason: "an element of an element", text: "p.list.exists(e, e.deep.all(f, f.x == e.y))",
			want: []string{"p.list", "p.list[].deep", "p.list[].deep[].x", "p.list[].y"}},
		{name: "loop over what is made", reason: "nothing is known of it", text: "[1].map(e, p.a)", want: []string{"p.a"}},
		{name: "loop that hides a variable", reason: "its own counts inside", text: "[c].map(p, p.a)", want: []string{"c"}},
		{name: "made", reason: "all inside counts", text: "{'k': p.a, c.k: [p.b]}", want: []string{"c.k", "p.a", "p.b"}},
		{name: "called", reason: "all inside counts", text: "p.a.split(c.b).join('-')", want: []string{"c.b", "p.a"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			e, err := s.Compile(row.text)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range e.References() {
				got = append(got, r.String())
			}
			slices.Sort(got)
			if got = slices.Compact(got); !slices.Equal(got, row.want) {
				t.Errorf("got %v, want %v: %s", got, row.want, row.reason)
			}
			if path, ok := e.Path(); ok != (row.path != "") || path.String() != row.path {
				t.Errorf("is %v as a whole, want %q: %s", path, row.path, row.reason)
			}
		})
	}
}

func TestScopeRefuses(t *testing.T) {
	t.Parallel()
	s := scope(t, "p")
	for _, row := range []struct{ name, reason, text, want string }{
		{name: "unknown variable", reason: "a misspelt one", text: "q.a", want: "undeclared reference to 'q'"},
		{name: "syntax", reason: "ends too soon", text: "p.", want: "Syntax error"},
		{name: "unknown function", reason: "there is none", text: "p.a.shout()", want: "undeclared reference to 'shout'"},
	} {
		if _, err := s.Compile(row.text); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q: %s", row.name, err, row.want, row.reason)
		}
	}
}

package object

import (
	"encoding/json"
	"reflect"
)

// The API server's record of who owns which field names list items by their keys, or
// by their value where the list is a set: "k:<keys>" and "v:<value>".

// KeysMatch reports whether the list item is the one with these keys. A key
// that the item leaves out has been defaulted by the API server: protocol to TCP,
// any other, which only custom resources have, to something that is guessed to
// be what the keys say.
func KeysMatch(raw string, item map[string]any) (match, guessed bool) {
	var keys map[string]any
	if json.Unmarshal([]byte(raw), &keys) != nil {
		return false, false
	}
	for name, want := range keys {
		have, ok := item[name]
		if !ok && name == "protocol" {
			have, ok = "TCP", true
		}
		if ok && !equalScalars(want, have) {
			return false, false
		}
		guessed = guessed || !ok
	}
	return true, guessed
}

// SameScalar reports whether a member of a set, as a field set writes it, is this value.
func SameScalar(raw string, have any) bool {
	var want any
	return json.Unmarshal([]byte(raw), &want) == nil && equalScalars(want, have)
}

func equalScalars(a, b any) bool {
	return reflect.DeepEqual(normal(a), normal(b))
}

// normal makes numbers of any decoder comparable.
func normal(v any) any {
	switch n := v.(type) {
	case int64:
		return float64(n)
	case int:
		return float64(n)
	default:
		return v
	}
}

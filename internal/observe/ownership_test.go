package observe

import (
	"testing"

	"sigs.k8s.io/yaml"
)

func TestCovers(t *testing.T) {
	cases := []struct {
		name, reason string
		fields, want string
		atomic       bool
		coverage     Coverage
	}{
		{"all ours", "every field is in the set", `{"f:data":{"f:a":{},"f:b":{}}}`, `data: {a: "1", b: "2"}`, true, Covered},
		{"more than wanted", "what we own beside is no change", `{"f:data":{"f:a":{},"f:b":{}}}`, `data: {a: "1"}`, true, Covered},
		{"one taken", "somebody changed it", `{"f:data":{"f:a":{}}}`, `data: {a: "1", b: "2"}`, true, NotCovered},
		{"all taken", "the parent goes with its last child", `{}`, `data: {a: "1"}`, true, NotCovered},
		{"empty map", "an empty map is a value, and can be changed", `{"f:spec":{"f:podSelector":{}}}`, `spec: {podSelector: {}}`, true, Covered},
		{"empty map taken", "somebody filled it", `{"f:spec":{"f:x":{}}}`, `spec: {podSelector: {}, x: 1}`, true, NotCovered},
		{"null", "a null is nothing that could be owned", `{"f:spec":{"f:x":{}}}`, `spec: {gone: null, x: 1}`, true, Covered},
		{"empty labels", "the API server keeps no empty metadata", `{"f:spec":{"f:x":{}}}`, `{metadata: {labels: {}}, spec: {x: 1}}`, true, Covered},
		{"label taken", "labels are fields", `{"f:metadata":{"f:labels":{"f:a":{}}}}`, `metadata: {labels: {a: x, b: y}}`, true, NotCovered},
		{"name and times", "identity and bookkeeping have no owner", `{}`, `{apiVersion: v1, kind: A, metadata: {name: x, namespace: y, creationTimestamp: null}, status: {a: 1}}`, true, Covered},
		{"atomic list, own kinds", "their schema is complete: a leaf is atomic", `{"f:spec":{"f:args":{}}}`, `spec: {args: [a, b]}`, true, Covered},
		{"leaf, custom kinds", "it may have lost its children", `{"f:spec":{"f:args":{}}}`, `spec: {args: [a, b]}`, false, Undecided},
		{"leaf and one taken", "what is certain counts", `{"f:spec":{"f:args":{}}}`, `spec: {args: [a], b: 1}`, false, NotCovered},
		{"list item", "items are known by their keys", `{"f:l":{"k:{\"name\":\"a\"}":{".":{},"f:name":{},"f:v":{}}}}`, `l: [{name: a, v: 1}]`, true, Covered},
		{"list item's field taken", "the item stayed, its field went", `{"f:l":{"k:{\"name\":\"a\"}":{".":{},"f:name":{}}}}`, `l: [{name: a, v: 1}]`, true, NotCovered},
		{"list item taken", "another name is another item", `{"f:l":{"k:{\"name\":\"b\"}":{".":{},"f:name":{}}}}`, `l: [{name: a}]`, true, NotCovered},
		{"port without protocol", "it is defaulted to TCP", `{"f:l":{"k:{\"port\":80,\"protocol\":\"TCP\"}":{".":{},"f:port":{}}}}`, `l: [{port: 80}]`, true, Covered},
		{"port without protocol, only UDP left", "the TCP port was removed", `{"f:l":{"k:{\"port\":80,\"protocol\":\"UDP\"}":{".":{},"f:port":{}}}}`, `l: [{port: 80}]`, true, NotCovered},
		{"key left out in a custom kind", "its default is not known here", `{"f:l":{"k:{\"a\":1,\"b\":\"x\"}":{".":{},"f:a":{}}}}`, `l: [{a: 1}]`, false, Undecided},
		{"set member", "members of sets are values", `{"f:metadata":{"f:finalizers":{".":{},"v:\"a/b\"":{}}}}`, `metadata: {finalizers: [a/b]}`, true, Covered},
		{"set member taken", "another value is another member", `{"f:metadata":{"f:finalizers":{".":{},"v:\"a/c\"":{}}}}`, `metadata: {finalizers: [a/b]}`, true, NotCovered},
		{"number in a set", "numbers are equal whatever decoded them", `{"f:s":{"v:1":{}}}`, `s: [1]`, true, Covered},
		{"string that looks like a number", "1 is not \"1\"", `{"f:s":{"v:1":{}}}`, `s: ["1"]`, true, NotCovered},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			var want map[string]any
			if err := yaml.Unmarshal([]byte(c.want), &want); err != nil {
				t.Fatal(err)
			}
			got, err := Covers([]byte(c.fields), want, c.atomic)
			if err != nil || got != c.coverage {
				t.Errorf("got %v (%v), want %v: %s", got, err, c.coverage, c.reason)
			}
		})
	}
	if got, err := Covers([]byte("{"), nil, true); err == nil || got != NotCovered {
		t.Errorf("a broken field set gives %v, %v; want an error and not covered", got, err)
	}
}

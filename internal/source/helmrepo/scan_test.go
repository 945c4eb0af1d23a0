package helmrepo

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// seen is a sink that remembers.
type seen struct {
	names    []string
	versions map[string][]entry
}

func (s *seen) chart(name string) error {
	s.names = append(s.names, name)
	return nil
}

func (s *seen) version(e entry) error {
	if s.versions == nil {
		s.versions = map[string][]entry{}
	}
	name := s.names[len(s.names)-1]
	s.versions[name] = append(s.versions[name], e)
	return nil
}

const usual = `apiVersion: v1
entries:
  alpine:
  - apiVersion: v2
    created: "2024-01-01T00:00:00Z"
    description: Deploy a basic Alpine Linux pod
    digest: 99c76e403d752c84ead610644d4b1c2f2b453a74b921f422b9dcb8a7c8b559cd
    home: https://helm.sh/helm
    keywords:
    - linux
    maintainers:
    - email: a@example.com
      name: ann
    name: alpine
    urls:
    - https://charts.example.com/alpine-0.2.0.tgz
    version: 0.2.0
  - name: alpine
    annotations:
      category: Base
    version: 0.1.0
    urls:
    - alpine-0.1.0.tgz
  nginx:
    - name: nginx
      description: |
        a text
        # no comment
        - no item
      # a comment
      urls: [nginx-1.0.0.tgz, other.tgz]
      version: "1.0.0"
  empty: []
  none:
generated: "2024-01-01T00:00:00Z"
serverInfo:
  contextPath: x
`

func TestScanForms(t *testing.T) {
	want := map[string][]entry{
		"alpine": {
			{Version: "0.2.0", Created: "2024-01-01T00:00:00Z", Digest: "99c76e403d752c84ead610644d4b1c2f2b453a74b921f422b9dcb8a7c8b559cd", URLs: []string{"https://charts.example.com/alpine-0.2.0.tgz"}},
			{Version: "0.1.0", URLs: []string{"alpine-0.1.0.tgz"}},
		},
		"nginx": {{Version: "1.0.0", URLs: []string{"nginx-1.0.0.tgz", "other.tgz"}}},
	}
	var tree any
	if err := yaml.Unmarshal([]byte(usual), &tree); err != nil {
		t.Fatal(err)
	}
	compact, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, reason, text string }{
		{"yaml", "as helm repo index writes it, and by hand", usual},
		{"windows", "lines may end otherwise", strings.ReplaceAll(usual, "\n", "\r\n")},
		{"marks", "a mark of the encoding and a begin of a document say nothing", "\xef\xbb\xbf---\n" + usual},
		{"json", "JSON is YAML, on one line", string(compact)},
		{"last", "entries may come last and end without a line's end", "apiVersion: v1\n" + strings.TrimSuffix(usual[strings.Index(usual, "entries:"):strings.Index(usual, "generated:")], "\n")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got seen
			scan := scanYAML
			if tt.name == "json" {
				scan = scanJSON
			}
			if err := scan(strings.NewReader(tt.text), &got); err != nil {
				t.Fatalf("%v: %s", err, tt.reason)
			}
			if !reflect.DeepEqual(got.versions, want) || len(got.names) != 4 {
				t.Errorf("%s: got %v\n%+v", tt.reason, got.names, got.versions)
			}
		})
	}
}

func TestScanBroken(t *testing.T) {
	entries := "apiVersion: v1\nentries:\n  a:\n  - version: 1.0.0\n    urls:\n    - a.tgz\n"
	tests := []struct {
		name, reason, text string
		line               int
	}{
		{"empty", "a server that sends nothing", "", 1},
		{"page", "a login page with status 200", "<!DOCTYPE html>\n<html>", 1},
		{"no version", "any YAML file would do otherwise", "a: b\nc: d\n", 2},
		{"quotes", "an open quote in one version", entries + "  - version: \"2.0.0\n    urls: []\n", 7},
		{"in the middle", "the line is counted from the top", "apiVersion: v1\nentries:\n  a:\n  - version: 1.0.0\n    description: a: b\n  b:\n  - version: 1.0.0\n", 5},
		{"tab", "YAML has no tabs", entries + "\t- version: 2.0.0\n", 7},
		{"no chart", "a version that belongs to none", "apiVersion: v1\nentries:\n  - version: 1.0.0\n", 3},
		{"no list", "versions are a list", "apiVersion: v1\nentries:\n  a:\n    version: 1.0.0\n", 4},
		{"twice", "one chart, two lists: which counts?", entries + "  a:\n  - version: 2.0.0\n", 7},
		{"wrong type", "a URL is text", "apiVersion: v1\nentries:\n  a:\n  - version: 1.0.0\n    urls:\n    - b: c\n", 6},
		{"flow", "what cannot be streamed is said", "apiVersion: v1\nentries: {a: [{version: 1.0.0}]}\n", 2},
		{"key twice", "YAML forbids it", "apiVersion: v1\nentries:\n  a:\n  - version: 1.0.0\n    version: 2.0.0\n", 5},
		{"long line", "nothing of any size is held", "apiVersion: v1\nx: " + strings.Repeat("a", maxLine+1), 2},
		{"head", "the rest is YAML, too", "apiVersion: v1\nx: a: b\n" + entries[15:], 2},
		{"json cut", "a download that ended", "{\"apiVersion\":\"v1\",\n\"entries\":{\"a\":[{\"version\":\"1\"},", 2},
		{"json type", "a version is text", "{\"apiVersion\":\"v1\",\n\"entries\":{\"a\":[\n{\"version\":1}]}}", 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			scan := scanYAML
			if strings.HasPrefix(tt.text, "{") {
				scan = scanJSON
			}
			err := scan(strings.NewReader(tt.text), &seen{})
			var broken *indexError
			if !errors.As(err, &broken) || broken.line != tt.line {
				t.Errorf("%s: got %v, want line %d", tt.reason, err, tt.line)
			}
		})
	}
}

// TestQuickAgrees lets the parser say what the short way read.
func TestQuickAgrees(t *testing.T) {
	lines := []string{
		"version: 1.0.0", `version: "1.0"`, "version: 1.10", "version: yes", "version: ~", "created: 2024-01-01T00:00:00Z", "created: '2024'", "digest: 0123", "digest: 0x1f",
		"urls:\n    - https://a/b?c=d&e", "urls:\n    - a\n    - b", "urls: []", "urls:\n    - b: c", "urls:", "urls: a", "description: it's", "description: a # b", "description: a #b", "description: a#b",
		"description: 'it''s'", `description: "a\n"`, "description: a: b", "description: a:", "description: [a", "description: *x", "description: &x y", "description: !t x",
		"description: |\n      text\n      - more", "description: a\n      b", "annotations:\n      a: b\n      c/d: e", "annotations:\n      a: b\n      a: c", "annotations:\n    - a\n      b: c",
		"maintainers:\n    - name: x\n      email: y\n    - name: z", "maintainers:\n    - name: x\n    name: y", "keywords:\n    - a\n    - a", "keywords:\n    - a\n      b", "- a", "é: x", "description: é", "description: -", "description: - a", "x:y", "? a", "%a: b", "description: @a",
		"dependencies:\n    - name: x\n      version: 1.0.0", "dependencies:\n    - name: x\n      version: 1.0.0\n      tags:\n      - a", "enabled: true",
		"dependencies:\n    - name: x\n      tags:\n      - a\n      - b\n      version: 1.0.0", "dependencies:\n    - name: x\n      tags: y\n      - a", "dependencies:\n    - name: x\n      tags:\n      - a: b", "dependencies:\n    - x\n      tags:\n      - a",
		"annotations:\n      a: |\n        - x: y\n\n          # z\n        q\n      b: c", "annotations:\n      a: |-\n          x\n        y", "annotations:\n      a: >\n      b: c", "annotations:\n      a: |\n\n        x", "description: |\n      a", "description: >-\n      a\n     b", "version: |\n      1", "urls: |\n      a",
		"annotations:\n      a: |\n        x\n    - b", "description: |+", "description: |2\n      a", "description: | # c\n      a", "annotations:\n      a:\n      b: c", "annotations:\n      a:\n        b: c", "x: .5", "x: =", "x: <<", "<<: {version: 3}",
	}
	taken := 0
	for _, first := range lines {
		for _, second := range lines {
			text := "  - name: a\n    " + first + "\n    " + second + "\n"
			got, ok := quick([]byte(text), 2)
			if !ok {
				continue
			}
			taken++
			var list []*entry
			if err := yaml.Unmarshal([]byte(text), &list); err != nil || len(list) != 1 {
				t.Fatalf("taken for good, and the parser says %v:\n%s", err, text)
			}
			if len(list[0].URLs) == 0 {
				list[0].URLs = nil
			}
			if !reflect.DeepEqual(got, *list[0]) {
				t.Fatalf("got %+v, the parser %+v:\n%s", got, *list[0], text)
			}
		}
	}
	if taken < 100 {
		t.Errorf("only %d of %d taken", taken, len(lines)*len(lines))
	}
}

// large writes an index of about this many bytes.
func large(bytes int) string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nentries:\n")
	for c := 0; b.Len() < bytes; c++ {
		fmt.Fprintf(&b, "  chart-%04d:\n", c)
		for v := range 100 {
			fmt.Fprintf(&b, `  - annotations:
      category: Infrastructure
      licenses: Apache-2.0
    apiVersion: v2
    appVersion: 1.%[2]d.0
    created: "2024-02-22T12:%02[3]d:00.000000000Z"
    dependencies:
    - name: common
      repository: oci://registry.example.com/charts
      tags:
      - common
      version: 2.x.x
    description: 'The chart %[1]d, which has: a text that no short way can read, and keeps going on for a while so that an entry has a usual size.'
    digest: %064[2]d
    home: https://example.com
    keywords:
    - database
    - sql
    maintainers:
    - name: Example, Inc.
      url: https://github.com/example/charts
    name: chart-%04[1]d
    sources:
    - https://github.com/example/charts/tree/main/chart-%04[1]d
    urls:
    - https://charts.example.com/chart-%04[1]d-1.%[2]d.0.tgz
    version: 1.%[2]d.0
`, c, v, v%60)
		}
	}
	b.WriteString("generated: \"2024-02-22T12:00:00Z\"\n")
	return b.String()
}

// A value that is larger than any entry fills no memory, wherever in an index of JSON it is.
func TestScanJSONLargeValue(t *testing.T) {
	t.Parallel()
	value := strings.Repeat("x", 2*maxAhead)
	for _, tc := range []struct{ name, text string }{
		{"beside the entries", `{"apiVersion":"v1","more":"` + value + `"}`},
		{"in an entry", `{"apiVersion":"v1","entries":{"app":[{"version":"1.0.0","description":"` + value + `"}]}}`},
		{"a name", `{"apiVersion":"v1","entries":{"` + value + `":[]}}`},
	} {
		r := strings.NewReader(tc.text)
		err := scanJSON(r, &seen{})
		if !errors.Is(err, ErrIndex) || !strings.Contains(err.Error(), "more than") || r.Len() < maxAhead/2 {
			t.Errorf("%s: %d bytes were left, %.100v", tc.name, r.Len(), err)
		}
	}
}

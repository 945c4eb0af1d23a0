package health

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// num returns the whole number at path, or def where there is none.
func num(o map[string]any, def int64, path ...string) int64 {
	v, ok, err := unstructured.NestedFieldNoCopy(o, path...)
	if !ok || err != nil {
		return def
	}
	switch n := v.(type) {
	case int64:
		return n
	case int:
		return int64(n)
	case float64:
		return int64(n)
	}
	return def
}

// text returns the string at path, or "".
func text(o map[string]any, path ...string) string {
	s, _, _ := unstructured.NestedString(o, path...)
	return s
}

// flag returns the boolean at path, or false.
func flag(o map[string]any, path ...string) bool {
	b, _, _ := unstructured.NestedBool(o, path...)
	return b
}

// cond is one status condition.
type cond struct{ status, reason, message string }

// condition finds a status condition by type.
func condition(o map[string]any, kind string) (cond, bool) {
	v, _, _ := unstructured.NestedFieldNoCopy(o, "status", "conditions")
	list, _ := v.([]any)
	for _, item := range list {
		c, _ := item.(map[string]any)
		if t, _ := c["type"].(string); t != kind {
			continue
		}
		return cond{status: text(c, "status"), reason: text(c, "reason"), message: text(c, "message")}, true
	}
	return cond{}, false
}

// line makes s one printable line of at most limit bytes, since it may come
// from an application or a registry.
func line(s string, limit int) string {
	clean := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, ""))
	clean = strings.Join(strings.Fields(clean), " ")
	if len(clean) <= limit {
		return clean
	}
	const more = "…"
	cut := limit - len(more)
	for cut > 0 && !utf8.RuneStart(clean[cut]) {
		cut--
	}
	return strings.TrimSpace(clean[:cut]) + more
}

// lastLine returns the last line of s that has something in it: applications
// print what killed them last.
func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return line(lines[len(lines)-1], maxDetail)
}

package cli

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func readyState(status metav1.ConditionStatus, message string) state {
	return state{revision: "main@sha1:0123456789abcdef", conditions: []metav1.Condition{{Type: "Ready", Status: status, Message: message}}}
}

func TestLiveDisplayPaintsOverItself(t *testing.T) {
	var out bytes.Buffer
	p := &progress{app: &app{Streams: Streams{Out: &out}}, live: true, states: map[string]state{}, shown: map[string]string{}}
	p.names, p.states = []string{"n/b", "n/a"}, map[string]state{
		"n/a": readyState(metav1.ConditionTrue, ""),
		"n/b": readyState(metav1.ConditionFalse, "no such folder: "+strings.Repeat("x", 200)),
	}
	p.paint()
	first := out.String()
	if strings.Contains(first, "\x1b[1A") || strings.Contains(first, "\x1b[2A") {
		t.Errorf("the first painting moves up: %q", first)
	}
	lines := strings.Split(strings.TrimSuffix(first, "\n"), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], "✓") || !strings.Contains(lines[0], "ready at main@sha1:01234567") || !strings.Contains(lines[1], "✗") {
		t.Errorf("lines = %q", lines)
	}
	if n := len([]rune(lines[1])) - len("\x1b[2K"+string(red)+reset); n > 80 {
		t.Errorf("a line of %d columns wraps, and the next painting misses its place", n)
	}

	out.Reset()
	p.names = []string{"n/a"}
	p.paint()
	if got := out.String(); !strings.HasPrefix(got, "\x1b[2A") || strings.Count(got, "\n") != 2 {
		t.Errorf("the second painting does not cover the first: %q", got)
	}
}

func TestLiveDisplayFitsTheScreen(t *testing.T) {
	p := &progress{states: map[string]state{}}
	for i := range 40 {
		name := fmt.Sprintf("n/%02d", i)
		p.names = append(p.names, name)
		p.states[name] = readyState(metav1.ConditionTrue, "")
	}
	p.states["n/30"] = readyState(metav1.ConditionFalse, "broken")
	lines := p.lines(10)
	if len(lines) != 2 || !strings.Contains(lines[0].text, "n/30") || lines[1].text != "and 39 more" {
		t.Errorf("lines = %+v", lines)
	}
	for i := range 40 {
		p.states[fmt.Sprintf("n/%02d", i)] = readyState(metav1.ConditionUnknown, "waits")
	}
	if lines := p.lines(10); len(lines) != 10 || lines[9].text != "and 31 more" {
		t.Errorf("%d lines, the last is %+v", len(lines), lines[len(lines)-1])
	}
}

func TestColourOnlyOnATerminal(t *testing.T) {
	var out bytes.Buffer
	table := newTable(&out)
	if err := table.write([]cell{{text: "True", colour: green}, plain("x")}); err != nil {
		t.Fatal(err)
	}
	if out.String() != "True   x\n" {
		t.Errorf("printed %q", out.String())
	}
	table.colours = true
	if got, want := table.line([]cell{{text: "No", colour: red}, plain("x")}), string(red)+"No"+reset+"     x"; got != want {
		t.Errorf("line = %q, want %q: colours take no room", got, want)
	}
}

func TestShortRevision(t *testing.T) {
	for _, tc := range []struct{ name, reason, in, want string }{
		{"branch", "the commit is cut", "main@sha1:0123456789abcdef", "main@sha1:01234567"},
		{"commit", "without a branch too", "sha1:0123456789abcdef", "sha1:01234567"},
		{"short", "nothing to cut", "main@sha1:0123", "main@sha1:0123"},
		{"other", "no commit in it", "1.2.3", "1.2.3"},
		{"empty", "none yet", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := shortRevision(tc.in); got != tc.want {
				t.Errorf("%s: %q, want %q", tc.reason, got, tc.want)
			}
		})
	}
}

func TestPlanToApprove(t *testing.T) {
	const message = "12 of 20 objects; waiting to delete A/b, C/d; approve with: bowline approve kustomization a -n b --plan 0c1f"
	for _, tc := range []struct {
		name, reason, message, seen, want string
		fails                             bool
	}{
		{"any", "what waits is approved", message, "", "0c1f", false},
		{"seen", "it is what was seen", message, "0c1f", "0c1f", false},
		{"stale", "something else waits by now", message, "0c1e", "", true},
		{"none", "there is no plan to approve", "nothing here", "", "", true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := planToApprove(tc.message, tc.seen)
			if got != tc.want || (err != nil) != tc.fails {
				t.Errorf("%s: %q, %v", tc.reason, got, err)
			}
		})
	}
}

package object

import (
	"errors"
	"fmt"
	"testing"
)

func TestConceal(t *testing.T) {
	tests := []struct {
		name, reason string
		secrets      []string
		text, want   string
	}{
		{"none", "there is nothing to hide", nil, "a b", "a b"},
		{"plain", "wherever it stands", []string{"hunter2"}, `spec.x: Invalid value: "hunter2": not hunter2`, `spec.x: Invalid value: "*****": not *****`},
		{"quoted", "messages quote what they were given", []string{`a"b\c`}, `Invalid value: "a\"b\\c"`, `Invalid value: "*****"`},
		{"encoded", "so it stands in a Secret", []string{"hunter2"}, "data: aHVudGVyMg==", "data: *****"},
		{"nested", "the longer one goes first", []string{"pass", "password"}, "password pass", "***** *****"},
		{"lines", "a key is often shown line by line", []string{"BEGIN KEY\nabcdef\nEND\n"}, "at abcdef", "at *****"},
		{"joined lines", "a variable loses its line breaks", []string{"abc\ndef"}, "at abcdef", "at *****"},
		{"short", "hiding it would hide the message", []string{"1", "", "\n"}, "replicas: 1", "replicas: 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Conceal(tt.text, tt.secrets); got != tt.want {
				t.Errorf("%s: %q, want %q", tt.reason, got, tt.want)
			}
		})
	}
}

func TestConcealError(t *testing.T) {
	cause := errors.New("hunter2 is refused")
	err := ConcealError(fmt.Errorf("apply: %w", cause), []string{"hunter2"})
	if got := err.Error(); got != "apply: ***** is refused" {
		t.Errorf("it says %q", got)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause cannot be asked for any more")
	}
	if ConcealError(nil, []string{"hunter2"}) != nil {
		t.Error("no error became one")
	}
}

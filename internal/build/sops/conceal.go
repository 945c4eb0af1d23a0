package sops

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/object"
)

// shortestConcealed keeps values of one or two letters from turning messages into noise.
const shortestConcealed = 3

// concealed are the texts that no message may quote.
type concealed struct{ texts map[string]struct{} }

func (c *concealed) add(text string) {
	if c.texts == nil {
		c.texts = map[string]struct{}{}
	}
	put := func(s string) {
		if len(s) >= shortestConcealed {
			c.texts[s] = struct{}{}
		}
	}
	put(text)
	if strings.Contains(text, "\n") {
		for line := range strings.Lines(text) {
			put(strings.TrimSpace(line))
		}
	}
}

// from returns message without these texts, in any form in which libraries quote.
func (c *concealed) from(message string) string {
	var found []string
	look := func(s string) {
		if strings.Contains(message, s) {
			found = append(found, s)
		}
	}
	for t := range c.texts {
		look(t)
		look(base64.StdEncoding.EncodeToString([]byte(t)))
		if q := strconv.Quote(t); q != `"`+t+`"` {
			look(q[1 : len(q)-1])
		}
	}
	// The longest first: a short one may be part of it.
	slices.SortFunc(found, func(a, b string) int { return len(b) - len(a) })
	for _, s := range found {
		message = strings.ReplaceAll(message, s, "***")
	}
	return message
}

// Holds implements build.Decrypter.
func (d *Decrypter) Holds(u *unstructured.Unstructured) bool {
	return u != nil && (d.manifests[object.IDOf(u)] || d.told.in(u.Object))
}

// in reports whether one of the texts is anywhere in value.
func (c *concealed) in(value any) bool {
	switch value := value.(type) {
	case string:
		return c.from(value) != value
	case map[string]any:
		for _, v := range value {
			if c.in(v) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(value, c.in)
	case int64, float64:
		_, there := c.texts[fmt.Sprint(value)]
		return there
	}
	return false
}

// masked is an error whose message may be shown. The error below it, which may hold
// plain text, is there to be compared and never to be shown.
type masked struct {
	message string
	err     error
}

func (m *masked) Error() string { return m.message }
func (m *masked) Unwrap() error { return m.err }

// Conceal implements build.Decrypter.
func (d *Decrypter) Conceal(err error) error {
	if err == nil {
		return nil
	}
	message := err.Error()
	shown := d.told.from(message)
	if shown == message {
		return err
	}
	return &masked{message: shown, err: err}
}

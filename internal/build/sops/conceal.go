package sops

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
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

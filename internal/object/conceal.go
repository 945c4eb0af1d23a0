package object

import (
	"cmp"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
)

// Concealed stands for a secret in a message.
const Concealed = "*****"

// shortestSecret is the length in bytes below which a value is not looked for:
// hiding every "1" of a message hides the message.
const shortestSecret = 4

// Conceal returns text without any of the secrets, as they are, as they would be
// quoted, and as they stand in a Secret. It is for messages that others make up
// from what they were given, as an API server does.
func Conceal(text string, secrets []string) string {
	var forms []string
	for _, s := range secrets {
		for _, form := range append(strings.Split(s, "\n"), strings.ReplaceAll(s, "\n", ""), base64.StdEncoding.EncodeToString([]byte(s))) {
			form = strings.TrimSpace(form)
			if quoted := strconv.Quote(form); len(form) >= shortestSecret {
				forms = append(forms, form, quoted[1:len(quoted)-1])
			}
		}
	}
	if len(forms) == 0 {
		return text
	}
	// One that is part of another must not leave the rest of that to be read.
	slices.SortFunc(forms, func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	pairs := make([]string, 0, 2*len(forms))
	for _, form := range forms {
		pairs = append(pairs, form, Concealed)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// ConcealError returns err, printed without any of the secrets.
func ConcealError(err error, secrets []string) error {
	if err == nil || len(secrets) == 0 {
		return err
	}
	return &concealedError{err: err, secrets: secrets}
}

type concealedError struct {
	err     error
	secrets []string
}

// Error implements error.
func (e *concealedError) Error() string { return Conceal(e.err.Error(), e.secrets) }

// Unwrap returns the cause, for errors.Is and errors.As; its text is not concealed.
func (e *concealedError) Unwrap() error { return e.err }

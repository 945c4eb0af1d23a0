// Package failure is the leaf room that gives errors a shape: what was being
// done, to which object, whether trying again can help, and what to do about it.
package failure

import (
	"errors"
	"slices"
	"strings"
)

// Kind says what sort of failure an Error is, so that callers decide on it
// instead of on words.
type Kind string

// The kinds of failure.
const (
	// Invalid: the input is wrong; trying again cannot help until it changes.
	Invalid Kind = "Invalid"
	// NotFound: something that the input names does not exist (yet).
	NotFound Kind = "NotFound"
	// Denied: credentials or permissions are missing or refused.
	Denied Kind = "Denied"
	// Refused: the input asks for what the rules here do not allow; trying again cannot
	// help until one of them changes.
	Refused Kind = "Refused"
	// Conflict: the object belongs to somebody else, or changed meanwhile.
	Conflict Kind = "Conflict"
	// Unavailable: a server did not answer, or not in a usable way; try again.
	Unavailable Kind = "Unavailable"
	// Timeout: the time given for the operation ran out.
	Timeout Kind = "Timeout"
	// Unsupported: the input asks for something that this version does not do.
	Unsupported Kind = "Unsupported"
	// NeedsApproval: the operation is safe only after somebody approved it.
	NeedsApproval Kind = "NeedsApproval"
)

// Error is one failure. It prints as one line:
// "<op> <object>: <cause>; <remedy>".
type Error struct {
	// Op is the operation in plain words, such as "fetch" or "read".
	Op string
	// Kind classifies the failure.
	Kind Kind
	// Object names what the operation was about: a URL, a file with its line,
	// or an object such as "Deployment/apps/web". May be empty.
	Object string
	// Remedy says what the reader can do. May be empty.
	Remedy string
	// Err is the cause.
	Err error
}

// Error implements error.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Op)
	if e.Object != "" {
		if e.Op != "" {
			b.WriteByte(' ')
		}
		b.WriteString(e.Object)
	}
	if e.Err != nil {
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(strings.TrimSpace(e.Err.Error()))
	}
	if e.Remedy != "" {
		b.WriteString("; ")
		b.WriteString(e.Remedy)
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, failure.Of(kind)) true for every Error of that kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(kindError)
	return ok && Kind(k) == e.Kind
}

type kindError Kind

func (k kindError) Error() string { return string(k) }

// Of returns a target for errors.Is that matches every Error of the kind.
func Of(kind Kind) error { return kindError(kind) }

// KindOf returns the kind of the outermost Error in err's chain, and "" when
// there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return ""
}

// Terminal reports whether trying again cannot help until the input changes.
// Of several errors joined into one, all have to be so.
func Terminal(err error) bool {
	switch e := err.(type) { //nolint:errorlint // the chain is walked here
	case nil:
		return false
	case *Error:
		return e.Kind == Invalid || e.Kind == Refused || e.Kind == Unsupported || e.Kind == NeedsApproval
	case interface{ Unwrap() []error }:
		return !slices.ContainsFunc(e.Unwrap(), func(err error) bool { return !Terminal(err) })
	default:
		return Terminal(errors.Unwrap(err))
	}
}

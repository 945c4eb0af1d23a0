package apply

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
)

// failed says in one line what became of an object, and what can be done.
func failed(op string, id object.ID, err error) error {
	f := &failure.Error{Op: op, Object: id.String(), Err: err, Kind: failure.Unavailable}
	var known *failure.Error
	var status apierrors.APIStatus
	switch {
	case errors.Is(err, ErrPending):
		f.Kind = failure.Conflict
	case errors.Is(err, errUnproven):
		f.Kind, f.Remedy = failure.Conflict, "it is looked at again by itself"
	case errors.As(err, &known):
		f.Kind = known.Kind
	case errors.Is(err, context.DeadlineExceeded):
		f.Kind = failure.Timeout
	case errors.As(err, &status):
		explain(f, status.Status())
		if strings.Contains(f.Err.Error(), "\n") {
			f.Err = lineError{f.Err}
		}
		if plan.Guarded(id.GroupKind()) && isImmutable(f.Err) {
			f.Remedy = "put back the old value, or have the object replaced, with what it holds, by the annotation kustomize.toolkit.fluxcd.io/force: enabled on it"
		}
	case isNetwork(err):
		f.Remedy = "the API server could not be reached; this is tried again by itself"
	}
	return f
}

// lineError is an error that prints on one line: the API server lists rights that
// somebody lacks on lines of their own.
type lineError struct{ error }

// Error implements error.
func (e lineError) Error() string { return strings.Join(strings.Fields(e.error.Error()), " ") }

// Unwrap returns the error as it was.
func (e lineError) Unwrap() error { return e.error }

func isNetwork(err error) bool {
	var n net.Error
	return errors.As(err, &n)
}

// explain fills in kind, cause and remedy from the API server's refusal.
func explain(f *failure.Error, s metav1.Status) {
	switch {
	case s.Reason == metav1.StatusReasonInvalid:
		f.Kind, f.Err = failure.Invalid, causes(s, f.Err)
		if isImmutable(f.Err) {
			f.Remedy = "put back the old value, or have the object replaced with spec.force: true on the Kustomization or the annotation kustomize.toolkit.fluxcd.io/force: enabled on the object"
		}
	case s.Reason == metav1.StatusReasonForbidden || s.Reason == metav1.StatusReasonUnauthorized:
		f.Kind, f.Remedy = failure.Denied, grant(s.Message)
	case s.Reason == metav1.StatusReasonNotFound && s.Details != nil && s.Details.Kind == "namespaces":
		f.Kind = failure.NotFound
		f.Remedy = fmt.Sprintf("deliver Namespace %s in this Kustomization or in one that it dependsOn", s.Details.Name)
	case s.Reason == metav1.StatusReasonNotFound:
		f.Kind = failure.NotFound
	case s.Code == http.StatusBadRequest || s.Code == http.StatusUnprocessableEntity || strings.Contains(s.Message, "field not declared in schema"):
		f.Kind = failure.Invalid
	case s.Reason == metav1.StatusReasonTimeout || s.Reason == metav1.StatusReasonServerTimeout:
		f.Kind = failure.Timeout
	}
}

// grant says what helps against a want of rights, which the API server tells in
// full: who may not do what. Other refusals, such as those of a quota, say it
// themselves.
func grant(message string) string {
	switch {
	case strings.Contains(message, `" cannot impersonate resource "`):
		return "give the engine's identity the right to impersonate it"
	case strings.Contains(message, `User "`) && strings.Contains(message, `" cannot `):
		return "grant that user this right, or have it delivered as another: spec.serviceAccountName"
	default:
		return ""
	}
}

// refusal is an Invalid answer, said field by field.
type refusal struct {
	message   string
	immutable bool
	err       error
}

func (r *refusal) Error() string { return r.message }
func (r *refusal) Unwrap() error { return r.err }

func causes(s metav1.Status, err error) error {
	if s.Details == nil || len(s.Details.Causes) == 0 {
		return &refusal{message: firstLine(s.Message), immutable: immutable.MatchString(s.Message), err: err}
	}
	r := &refusal{err: err, immutable: true}
	var parts []string
	for _, c := range s.Details.Causes {
		message := c.Message
		if !immutable.MatchString(message) {
			// Replacing the object would not help against this one: it would be
			// deleted and then refused.
			r.immutable = false
		} else if m := dumpedValue.FindStringSubmatch(message); len(m) > 1 && immutable.MatchString(m[1]) {
			message = m[1] // without the dump of the whole value
		}
		if c.Field != "" {
			message = c.Field + ": " + message
		}
		parts = append(parts, firstLine(message))
	}
	r.message = strings.Join(parts, ", ")
	return r
}

// immutable matches the ways in which the API server says that a field cannot
// change once it is set.
var immutable = regexp.MustCompile(`immutable|may not be changed|may not change|cannot be changed|cannot change|updates to .* are forbidden`)

// dumpedValue matches the dump of a whole value before what is wrong with it.
var dumpedValue = regexp.MustCompile(`(?s)^Invalid value: .*: (.*)$`)

// firstLine leaves out the diffs that the API server puts below some messages.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// isImmutable reports whether the API server refused the object for nothing
// but immutable fields.
func isImmutable(err error) bool {
	var r *refusal
	if errors.As(err, &r) {
		return r.immutable
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Reason != metav1.StatusReasonInvalid {
		return false
	}
	var again *refusal
	return errors.As(causes(status.Status(), err), &again) && again.immutable
}

// withoutSecrets hides what an error about a Secret tells of its values.
func withoutSecrets(err error, desired *unstructured.Unstructured) error {
	if err == nil || desired.GetKind() != "Secret" || desired.GroupVersionKind().Group != "" {
		return err
	}
	return masked{message: mask(err.Error(), desired), err: err}
}

// shortestMasked keeps one-letter values from turning messages into noise; they
// are masked where the API server says that they are values.
const shortestMasked = 3

func mask(message string, desired *unstructured.Unstructured) string {
	message = quoted.ReplaceAllString(message, "$1***")
	for _, field := range []string{"data", "stringData"} {
		values, _, _ := unstructured.NestedMap(desired.Object, field)
		for _, v := range values {
			text := fmt.Sprint(v)
			if plain, err := base64.StdEncoding.DecodeString(text); err == nil && len(plain) >= shortestMasked {
				message = strings.ReplaceAll(message, string(plain), "***")
			}
			if len(text) >= shortestMasked {
				message = strings.ReplaceAll(message, text, "***")
			}
		}
	}
	return message
}

// masked is an error about a Secret. The error below it, which may hold values,
// is there to be compared and never to be shown.
type masked struct {
	message string
	err     error
}

// quoted matches where the API server shows a value: in its list of causes, and
// in the dump of a value of the wrong type.
var quoted = regexp.MustCompile(`(?s)(Invalid value: |Unsupported value: |valueUnstructured)("(?:[^"\\]|\\.)*"|\{.*\}|\S+)`)

func (m masked) Error() string { return m.message }
func (m masked) Unwrap() error { return m.err }

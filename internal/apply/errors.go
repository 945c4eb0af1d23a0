package apply

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"regexp"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
)

// failed says in one line what became of an object, and what can be done.
func failed(op string, id object.ID, err error) error {
	f := &failure.Error{Op: op, Object: id.String(), Err: err, Kind: failure.Unavailable}
	var known *failure.Error
	var status apierrors.APIStatus
	switch {
	case errors.Is(err, ErrPending):
		f.Kind = failure.Conflict
	case errors.As(err, &known):
		f.Kind = known.Kind
	case errors.Is(err, context.DeadlineExceeded):
		f.Kind = failure.Timeout
	case errors.As(err, &status):
		explain(f, id, status.Status())
	case isNetwork(err):
		f.Remedy = "the API server could not be reached; this is tried again by itself"
	}
	return f
}

func isNetwork(err error) bool {
	var n net.Error
	return errors.As(err, &n)
}

// explain fills in kind, cause and remedy from the API server's refusal.
func explain(f *failure.Error, id object.ID, s metav1.Status) {
	switch {
	case s.Reason == metav1.StatusReasonInvalid:
		f.Kind, f.Err = failure.Invalid, causes(id, s, f.Err)
		if isImmutable(f.Err) {
			f.Remedy = "put back the old value, or have the object replaced with spec.force: true on the Kustomization or the annotation kustomize.toolkit.fluxcd.io/force: enabled on the object"
		}
	case s.Reason == metav1.StatusReasonForbidden || s.Reason == metav1.StatusReasonUnauthorized:
		f.Kind = failure.Denied
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
	if id.Kind == "Secret" && id.Group == "" {
		f.Err = masked{f.Err}
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

func causes(id object.ID, s metav1.Status, err error) error {
	if s.Details == nil || len(s.Details.Causes) == 0 {
		return &refusal{message: s.Message, immutable: strings.Contains(s.Message, "immutable"), err: err}
	}
	r := &refusal{err: err}
	var parts []string
	for _, c := range s.Details.Causes {
		message := c.Message
		if strings.Contains(message, "immutable") || strings.Contains(message, "updates to statefulset spec for fields other than") {
			r.immutable = true
			message = immutableMessage(message)
		}
		if c.Field != "" {
			message = c.Field + ": " + message
		}
		parts = append(parts, message)
	}
	r.message = strings.Join(parts, ", ")
	return r
}

var dumpedValue = regexp.MustCompile(`^Invalid value: .*: (.*)$`)

// immutableMessage leaves out the dump of the whole value that the API server
// puts before "field is immutable".
func immutableMessage(message string) string {
	if m := dumpedValue.FindStringSubmatch(message); m != nil && strings.Contains(m[1], "immutable") {
		return m[1]
	}
	return message
}

// isImmutable reports whether the API server refused to change a field.
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
	return errors.As(causes(object.ID{}, status.Status(), err), &again) && again.immutable
}

// masked hides the values in a message about a Secret.
type masked struct{ err error }

var quoted = regexp.MustCompile(`(Invalid value|Unsupported value): ("(?:[^"\\]|\\.)*"|\S+)`)

func (m masked) Error() string { return quoted.ReplaceAllString(m.err.Error(), "$1: ***") }
func (m masked) Unwrap() error { return m.err }

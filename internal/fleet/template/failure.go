package template

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bowline-dev/bowline/internal/failure"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// shown is how many problems the text of an error names.
const shown = 10

// FieldError is one thing that is wrong, and where.
type FieldError struct {
	// Path is that of the field, such as spec.objects[2].template.spec.region.
	Path string
	// Message says what is wrong with it and what to do.
	Message string
}

// Error prints it in one line.
func (p FieldError) Error() string {
	if p.Path == "" {
		return p.Message
	}
	return p.Path + ": " + p.Message
}

// FieldErrors are all that was found, in the order of the file. It is the cause in
// the errors of Expand, True, Check and CheckTemplate.
type FieldErrors []FieldError

// Error names the first of them, and how many there are besides.
func (p FieldErrors) Error() string {
	lines := make([]string, 0, shown+1)
	for i, problem := range p {
		if i == shown {
			lines = append(lines, fmt.Sprintf("and %d more", len(p)-shown))
			break
		}
		lines = append(lines, problem.Error())
	}
	return strings.Join(lines, "; ")
}

// RenderError is why a template gave no objects for a cluster. It is the cause in the errors of
// Render and Parameters.
type RenderError struct {
	// Reason is one of the reasons of the condition Rendered: InvalidParameters,
	// RenderFailed, NothingRendered.
	Reason string
	// FieldErrors are at least one.
	FieldErrors
}

// Unwrap returns what is wrong with which field.
func (f *RenderError) Unwrap() error { return f.FieldErrors }

// ReasonOf returns the reason for the condition Rendered of an error of Render or Parameters.
func ReasonOf(err error) string {
	var f *RenderError
	if errors.As(err, &f) {
		return f.Reason
	}
	return fleetv1.RenderFailedReason
}

// refuse makes the error of a cluster.
func refuse(c *fleetv1.FleetCluster, reason, remedy string, problems ...FieldError) error {
	return &failure.Error{
		Op: "render", Kind: failure.Invalid, Object: "FleetCluster/" + c.Namespace + "/" + c.Name, Remedy: remedy,
		Err: &RenderError{Reason: reason, FieldErrors: problems},
	}
}

package admission

import (
	"context"
	"net/http"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/template"
)

// judge knows what objects are held against.
type judge struct {
	// client reads from the cache, and live from the API server.
	client, live client.Reader
	compiler     *template.Compiler
}

// verdict is what is said of an object.
type verdict struct {
	// problems refuse it, and remedy says what to do about them.
	problems template.FieldErrors
	remedy   string
	// warnings are told to whoever writes it.
	warnings []string
}

// validator asks for verdicts on one kind.
type validator[T client.Object] struct {
	// judge is given what was there before; nil for an object that is new. The error is for what could not be judged.
	judge func(ctx context.Context, before, object T) (verdict, error)
	spec  func(T) any
}

// ValidateCreate implements admission.Validator.
func (v validator[T]) ValidateCreate(ctx context.Context, object T) (admission.Warnings, error) {
	var none T
	return v.validate(ctx, none, object)
}

// ValidateUpdate implements admission.Validator. An object whose spec stays, or that is on its way out, is not judged: labels and
// finalizers of one that is wrong have to be written as well.
func (v validator[T]) ValidateUpdate(ctx context.Context, before, object T) (admission.Warnings, error) {
	if !object.GetDeletionTimestamp().IsZero() || equality.Semantic.DeepEqual(v.spec(before), v.spec(object)) {
		return nil, nil
	}
	return v.validate(ctx, before, object)
}

// ValidateDelete implements admission.Validator.
func (v validator[T]) ValidateDelete(context.Context, T) (admission.Warnings, error) { return nil, nil }

func (v validator[T]) validate(ctx context.Context, before, object T) (admission.Warnings, error) {
	verdict, err := v.judge(ctx, before, object)
	if err == nil && len(verdict.problems) > 0 {
		err = refusal(object, verdict)
	}
	return verdict.warnings, err
}

// refusal is what the API server answers: all problems in one line for people, and each by itself for programs.
func refusal(object client.Object, v verdict) error {
	message := v.problems.Error()
	if v.remedy != "" {
		message += "; " + v.remedy
	}
	details := &metav1.StatusDetails{
		Group: v1alpha1.GroupVersion.Group, Kind: object.GetObjectKind().GroupVersionKind().Kind, Name: object.GetName(),
	}
	for _, p := range v.problems {
		details.Causes = append(details.Causes, metav1.StatusCause{Type: metav1.CauseTypeFieldValueInvalid, Field: p.Path, Message: p.Message})
	}
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Message: message, Details: details,
	}}
}

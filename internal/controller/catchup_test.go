package controller

import (
	"errors"
	"fmt"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestCatchUp(t *testing.T) {
	t.Parallel()
	conflict := apierrors.NewConflict(schema.GroupResource{Resource: "clusterassignments"}, "a", errors.New("the object has been modified"))
	tests := []struct {
		name, reason string
		err          error
		silent       bool
	}{
		{"conflict", "a cache that is behind is nobody's failure, and no event may follow", fmt.Errorf("write the status: %w", conflict), true},
		{"refused", "what does not end by itself is told", fmt.Errorf("write the status: %w", apierrors.NewUnauthorized("no")), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			again, err := catchUp(tt.err)
			if (err == nil) != tt.silent || (again.RequeueAfter > 0) != tt.silent {
				t.Errorf("%s: %+v, %v", tt.reason, again, err)
			}
		})
	}
}

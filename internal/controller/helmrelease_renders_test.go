package controller

import (
	"errors"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/failure"
)

// What was given up and has not ended is not begun a second time; anything else is.
func TestRendersAreNotBegunTwice(t *testing.T) {
	t.Parallel()
	var r renders
	endless := renderKey{types.NamespacedName{Namespace: "apps", Name: "web"}, "endless"}
	ended, err := r.begin(endless)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.begin(endless); !errors.Is(err, failure.Of(failure.Timeout)) {
		t.Errorf("%v, want a timeout", err)
	}
	for _, other := range []renderKey{{endless.unit, "corrected"}, {types.NamespacedName{Namespace: "apps", Name: "other"}, "endless"}} {
		if _, err := r.begin(other); err != nil {
			t.Errorf("%v: %v", other, err)
		}
	}
	ended()
	if _, err := r.begin(endless); err != nil {
		t.Errorf("it has ended, and yet: %v", err)
	}
}

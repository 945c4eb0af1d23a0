package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/failure"
)

// featureGates are the toolkit's feature gates that mean something here. What the
// others turn on is how Bowline works anyway, or has no counterpart.
var featureGates = map[string]func(*controller.Options, bool){
	"AdditiveCELDependencyCheck":   func(o *controller.Options, on bool) { o.AdditiveReadyExpr = on },
	"StrictPostBuildSubstitutions": func(o *controller.Options, on bool) { o.LenientSubstitution = !on },
}

// setFeatureGates reads pairs such as "AdditiveCELDependencyCheck=true".
func setFeatureGates(o *controller.Options, pairs []string) error {
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		set, known := featureGates[name]
		on, err := strconv.ParseBool(value)
		if err == nil && known {
			set(o, on)
			continue
		}
		if err == nil {
			err = fmt.Errorf("there is no feature gate %q", name)
		} else {
			err = fmt.Errorf("%q is neither true nor false", value)
		}
		return &failure.Error{Op: "read flag", Object: "--feature-gates", Kind: failure.Invalid, Err: err,
			Remedy: "write it as NAME=true, with one of " + strings.Join(slices.Sorted(maps.Keys(featureGates)), ", ")}
	}
	return nil
}

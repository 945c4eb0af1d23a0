package cli

import (
	"strings"
	"testing"

	"github.com/bowline-dev/bowline/internal/controller"
)

func TestFeatureGates(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, reason string
		pairs        []string
		want         bool
		lenient      bool
		err          string
	}{
		{name: "none", reason: "off is the default"},
		{name: "on", reason: "it says so", pairs: []string{"AdditiveCELDependencyCheck=true"}, want: true},
		{name: "last", reason: "the last one counts", pairs: []string{"AdditiveCELDependencyCheck=true", "AdditiveCELDependencyCheck=false"}},
		{name: "lenient", reason: "this one is on unless it is turned off", pairs: []string{"StrictPostBuildSubstitutions=false"}, lenient: true},
		{name: "unknown", reason: "a typing error would go unseen", pairs: []string{"AdditiveCEL=true"}, err: `there is no feature gate "AdditiveCEL"; write it as`},
		{name: "no value", reason: "on or off is not said", pairs: []string{"AdditiveCELDependencyCheck"}, err: `"" is neither true nor false`},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var o controller.Options
			err := setFeatureGates(&o, row.pairs)
			if o.AdditiveReadyExpr != row.want || o.LenientSubstitution != row.lenient || (err == nil) != (row.err == "") || err != nil && !strings.Contains(err.Error(), row.err) {
				t.Errorf("got %t, %v: %s", o.AdditiveReadyExpr, err, row.reason)
			}
		})
	}
}

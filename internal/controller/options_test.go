package controller

import (
	"errors"
	"maps"
	"testing"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
)

func TestParseStageKinds(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, reason string
		names        []string
		want         object.Kinds
		refused      bool
	}{
		{name: "none", reason: "nothing is chosen", want: object.Kinds{}},
		{name: "both forms", reason: "the core group has no name", names: []string{"rbac.authorization.k8s.io/Role", " ConfigMap"},
			want: object.Kinds{{Group: "rbac.authorization.k8s.io", Kind: "Role"}: true, {Kind: "ConfigMap"}: true}},
		{name: "empty", reason: "a comma too many", names: []string{"ConfigMap", ""}, refused: true},
		{name: "no kind", reason: "a group alone would choose nothing", names: []string{"apps/"}, refused: true},
		{name: "version", reason: "a version is no part of it", names: []string{"apps/v1/Deployment"}, refused: true},
		{name: "resource", reason: "it would choose nothing", names: []string{"configmaps"}, refused: true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseStageKinds(row.names)
			if errors.Is(err, failure.Of(failure.Invalid)) != row.refused || !row.refused && !maps.Equal(got, row.want) {
				t.Errorf("got %v, %v: %s", got, err, row.reason)
			}
		})
	}
}

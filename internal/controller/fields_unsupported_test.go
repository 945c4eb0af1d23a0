package controller

import (
	"errors"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/plan"
)

// What a Kustomization asks for and nobody can do is said to be so by its name, and nothing is delivered. The
// definition admits no such kind; a file that is previewed may have one.
func TestFieldsNotSupported(t *testing.T) {
	t.Parallel()
	for kind, refused := range map[string]bool{
		sourcev1.GitRepositoryKind: false, sourcev1.OCIRepositoryKind: false, sourcev1.BucketKind: false, sourcev1.ExternalArtifactKind: false,
		sourcev1.HelmRepositoryKind: true, "Parcel": true,
	} {
		k := &kustomizev1.Kustomization{Spec: kustomizev1.KustomizationSpec{SourceRef: kustomizev1.CrossNamespaceSourceReference{Kind: kind, Name: "fleet"}}}
		_, err := UnitOf(k, plan.Budget{}, false)
		if got := errors.Is(err, failure.Of(failure.Unsupported)); got != refused || refused && !strings.Contains(err.Error(), "not supported yet: spec.sourceRef.kind "+kind) {
			t.Errorf("%s: error %v, want one: %t", kind, err, refused)
		}
	}
}

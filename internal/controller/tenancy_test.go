package controller

import (
	"reflect"
	"testing"

	"github.com/fluxcd/pkg/apis/acl"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
)

// No source that is served says who may use it: where one does, it has to be honoured.
func TestSourcesHaveNoAccessFrom(t *testing.T) {
	t.Parallel()
	for _, spec := range []any{sourcev1.GitRepositorySpec{}, sourcev1.OCIRepositorySpec{}, sourcev1.BucketSpec{}, sourcev1.ExternalArtifactSpec{}} {
		of := reflect.TypeOf(spec)
		for i := range of.NumField() {
			if of.Field(i).Type == reflect.TypeFor[*acl.AccessFrom]() {
				t.Errorf("%s.%s says who may use the source, and Tenancy.Admit does not ask it", of.Name(), of.Field(i).Name)
			}
		}
	}
}

package controller

import (
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/report"
)

// unsupportedFields are fields of a Kustomization that are refused as a whole:
// acting on the others without them could deliver the wrong thing.
var unsupportedFields = []struct {
	name, field, reason string
	set                 func(*kustomizev1.KustomizationSpec)
}{
	{
		name: "oci-repository", field: "spec.sourceRef.kind OCIRepository", reason: "there is no such source",
		set: func(s *kustomizev1.KustomizationSpec) { s.SourceRef.Kind = sourcev1.OCIRepositoryKind },
	},
}

// A field that is not supported is said to be so on the object, nothing is
// delivered, and the object is on its way as soon as the field is gone.
func TestFieldsNotSupported(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := map[string]string{}
	for _, row := range unsupportedFields {
		files[row.name+"/a.yaml"] = configMap(row.name, "1")
	}
	revision := "main@sha1:" + s.repo.Commit(files)
	s.source()
	for _, row := range unsupportedFields {
		s.unit(row.name, func(k *kustomizev1.Kustomization) { row.set(&k.Spec) })
	}
	for _, row := range unsupportedFields {
		k := s.awaitFailure(row.name, report.ReasonNotSupported, "not supported yet: "+row.field)
		if c := report.Condition(k, meta.StalledCondition); c == nil || c.Status != metav1.ConditionTrue {
			t.Errorf("%s: not stalled, so that tools would wait for it", row.name)
		}
		if k.Status.Inventory != nil || k.Status.LastAttemptedRevision != "" {
			t.Errorf("%s: it was attempted, although %s", row.name, row.reason)
		}
	}
	if got := s.names(""); got != "" {
		t.Errorf("delivered %s", got)
	}
	for _, row := range unsupportedFields {
		k := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: row.name, Namespace: s.namespace}}
		edit(s, k, func(k *kustomizev1.Kustomization) {
			k.Spec.SourceRef.Kind = sourcev1.GitRepositoryKind
		})
		s.awaitLive(row.name, revision)
	}
}

// awaitRepository waits until a GitRepository is as it should be, and returns it.
func (s *stage) awaitRepository(name, what string, ok func(*sourcev1.GitRepository) bool) *sourcev1.GitRepository {
	s.Helper()
	return await(s, &sourcev1.GitRepositoryList{}, name, what, ok)
}

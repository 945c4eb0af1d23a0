package controller

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/manager"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source/blob"
	"github.com/bowline-dev/bowline/internal/source/oci"
	"github.com/bowline-dev/bowline/internal/source/registry"
	"github.com/bowline-dev/bowline/internal/source/verify"
)

// ociRepositories is the kind of sources that are artifacts in registries.
type ociRepositories struct {
	*sourceRoom
	store      *oci.Store
	identity   SourceIdentity
	signatures *signatures
}

func ociKey(o *sourcev1.OCIRepository) sourceKey {
	return sourceKey{sourcev1.OCIRepositoryKind, client.ObjectKeyFromObject(o)}
}

// registerOCIRepositories adds the reconciler of OCIRepositories, where the cluster has the kind.
func (e *engine) registerOCIRepositories(ctx context.Context) error {
	if there, err := e.serves(ctx, sourcev1.OCIRepositoryKind, &sourcev1.OCIRepositoryList{}); err != nil || !there {
		return err
	}
	mirrors, err := parseMirrors(e.options.Mirrors)
	if err != nil {
		return err
	}
	dir := filepath.Join(e.options.DataDir, "oci")
	layers, err := blob.Open(filepath.Join(dir, "layers"), blob.Options{})
	if err != nil {
		return err
	}
	registries := registry.New(registry.Options{Blobs: layers, Mirrors: mirrors})
	store, err := oci.New(oci.Options{Dir: filepath.Join(dir, "served"), Client: registries, Blobs: layers})
	if err != nil {
		return err
	}
	err = registerSource(e, &ociRepositories{e.sourceRoom(sourcev1.OCIRepositoryKind), store, e.identity, e.signatures})
	if err != nil {
		return err
	}
	return e.mgr.Add(manager.RunnableFunc(func(ctx context.Context) error {
		<-ctx.Done()
		registries.Close()
		return nil
	}))
}

// fetch implements sourceKind.
func (r *ociRepositories) fetch(ctx context.Context, o *sourcev1.OCIRepository) (fetched, error) {
	secrets, end := r.secrets(o)
	req, err := r.request(ctx, secrets, o)
	end()
	if err != nil {
		return fetched{}, err
	}
	artifact, err := r.store.Fetch(ctx, req)
	got := stored(artifact, fmt.Sprintf("stored artifact for digest '%s'", artifact.Revision))
	got.observe = func() {
		o.Status.ObservedIgnore = o.Spec.Ignore
		o.Status.ObservedLayerSelector = o.Spec.LayerSelector
		reportSigned(o, "revision "+artifact.Revision, artifact.Verified)
	}
	return got, err
}

// recall implements sourceKind.
func (r *ociRepositories) recall(ctx context.Context, o *sourcev1.OCIRepository) (fetched, error) {
	artifact, err := r.store.Recall(ctx, ociRequestOf(o), o.Status.Artifact.Revision)
	return fetched{artifact: artifact}, err
}

// forget implements sourceKind.
func (r *ociRepositories) forget(key sourceKey, _ types.UID) {
	r.signatures.forget(key)
	r.store.Forget(key.String())
}

// failed implements sourceKind.
func (r *ociRepositories) failed(o report.Conditioned, reason string, err error) {
	if !reportUnsigned(o, err) {
		report.FetchFailed(o, reason, err.Error())
	}
}

// reason implements sourceKind.
func (r *ociRepositories) reason(err error) string {
	var unverified *verify.Error
	var login *loginError
	var staged *oci.Error
	switch {
	case errors.As(err, &unverified):
		return sourcev1.VerificationError
	case errors.As(err, &login):
		return sourcev1.AuthenticationFailedReason
	case !errors.As(err, &staged):
		return sourcev1.OCIPullFailedReason
	}
	switch staged.Stage {
	case oci.Addressing:
		return sourcev1.URLInvalidReason
	case oci.Choosing:
		return sourcev1.ReadOperationFailedReason
	case oci.Verifying:
		return sourcev1.VerificationError
	case oci.Reading:
		return sourcev1.OCILayerOperationFailedReason
	default:
		return sourcev1.OCIPullFailedReason
	}
}

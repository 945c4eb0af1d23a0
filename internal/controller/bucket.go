package controller

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source/bucket"
)

// buckets is the kind of sources that are buckets of objects.
type buckets struct {
	*sourceRoom
	store    *bucket.Store
	identity SourceIdentity
}

// registerBuckets adds the reconciler of Buckets, where the cluster has the kind.
func (e *engine) registerBuckets(ctx context.Context) error {
	if there, err := e.serves(ctx, sourcev1.BucketKind, &sourcev1.BucketList{}); err != nil || !there {
		return err
	}
	mirrors, err := parseMirrors(e.options.Mirrors)
	if err != nil {
		return err
	}
	store, err := bucket.New(bucket.Options{DataDir: filepath.Join(e.options.DataDir, "bucket"), MaxFileSize: e.options.MaxFileSize, Mirrors: mirrors})
	if err != nil {
		return err
	}
	return registerSource(e, &buckets{e.sourceRoom(sourcev1.BucketKind), store, e.identity})
}

// fetch implements sourceKind.
func (r *buckets) fetch(ctx context.Context, b *sourcev1.Bucket) (fetched, error) {
	secrets, end := r.secrets(b)
	req, err := r.request(ctx, secrets, b)
	end()
	if err != nil {
		return fetched{}, err
	}
	artifact, err := r.store.Fetch(ctx, req.Request)
	if req.without != nil && errors.Is(err, failure.Of(failure.Denied)) {
		err = req.without // it is not for everybody, and this is why we are nobody
	}
	got := stored(artifact, fmt.Sprintf("stored artifact for revision '%s'", artifact.Revision))
	got.observe = func() { b.Status.ObservedIgnore = b.Spec.Ignore }
	return got, err
}

// recall implements sourceKind.
func (r *buckets) recall(ctx context.Context, b *sourcev1.Bucket) (fetched, error) {
	artifact, err := r.store.Recall(ctx, bucketRequest(b), b.Status.Artifact.Revision)
	return fetched{artifact: artifact}, err
}

// forget implements sourceKind.
func (r *buckets) forget(_ sourceKey, uid types.UID) { r.store.Forget(string(uid)) }

// reason implements sourceKind.
func (r *buckets) reason(err error) string {
	var login *loginError
	switch {
	case errors.As(err, &login), errors.Is(err, failure.Of(failure.Denied)):
		return sourcev1.AuthenticationFailedReason
	case errors.Is(err, failure.Of(failure.Unsupported)):
		return report.ReasonNotSupported
	default:
		return sourcev1.BucketOperationFailedReason
	}
}

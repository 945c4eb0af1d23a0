package join

import (
	"context"
	"errors"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	typed "k8s.io/client-go/kubernetes/typed/certificates/v1"
)

var (
	errUsed    = errors.New("the invitation was used: a request with its name was made by somebody else")
	errDeleted = errors.New("the request was deleted before it was answered")
)

// answers follows one request for a certificate, over connections that may break.
type answers struct {
	client typed.CertificateSigningRequestInterface
	name   string
	watch  watch.Interface
}

// granting is how long the API servers of a hub may take until all of them know of new rights.
var granting = wait.Backoff{Duration: 20 * time.Millisecond, Factor: 1.5, Steps: 16, Cap: 2 * time.Second}

// open begins to watch. Without a version the watch begins with what there is.
func (a *answers) open(ctx context.Context) error {
	var err error
	attempts := granting
	for {
		a.watch, err = a.client.Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", a.name).String()})
		if !apierrors.IsForbidden(err) || attempts.Steps == 0 {
			return err
		}
		if pause(ctx, attempts.Step()) != nil {
			return err
		}
	}
}

func (a *answers) close() {
	if a.watch != nil {
		a.watch.Stop()
	}
}

// next returns the request as it is now, whenever it changed.
func (a *answers) next(ctx context.Context, uid types.UID) (*certificatesv1.CertificateSigningRequest, error) {
	broken := wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Steps: 8, Cap: 10 * time.Second}
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for the answer to CertificateSigningRequest/%s: %w", a.name, ctx.Err())
		case e, open := <-a.watch.ResultChan():
			r, ok := e.Object.(*certificatesv1.CertificateSigningRequest)
			switch {
			case ok && r.UID != uid: // an earlier one of the name
			case ok && e.Type == watch.Deleted:
				return nil, errDeleted
			case ok:
				return r, nil
			case !open || e.Type == watch.Error:
				if err := a.again(ctx, uid, &broken); err != nil {
					return nil, err
				}
			}
		}
	}
}

// again watches anew after the connection broke. That the request is gone by then has to be asked for: a watch
// begins with what there is.
func (a *answers) again(ctx context.Context, uid types.UID, broken *wait.Backoff) error {
	a.watch.Stop()
	for {
		if err := pause(ctx, broken.Step()); err != nil {
			return fmt.Errorf("wait for the answer to CertificateSigningRequest/%s: %w", a.name, err)
		}
		there, err := a.client.Get(ctx, a.name, metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err), err == nil && there.UID != uid:
			return errDeleted
		case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err):
			return err
		case err != nil:
			continue
		}
		if err := a.open(ctx); err == nil {
			return nil
		}
	}
}

// pause waits, or returns why not.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/plan"
)

// accountTrusted is how long an account that was seen is not asked for again: a
// commit that concerns a thousand units of one account asks once.
const accountTrusted = 30 * time.Second

// accountsFound remembers when accounts were last seen. The API server does not
// ask whether an account exists in whose name something is done.
type accountsFound struct {
	mu *sync.Mutex
	at map[types.NamespacedName]time.Time // guarded by mu
}

func newAccountsFound() accountsFound {
	return accountsFound{mu: &sync.Mutex{}, at: map[types.NamespacedName]time.Time{}}
}

// accountExists fails when the service account in whose name the unit is delivered
// does not exist. With the engine's own rights nothing is asked.
func (t *targets) accountExists(ctx context.Context, d *delivery) error {
	if d.account.Name == "" {
		return nil
	}
	now := t.clock.Now()
	found := d.access.found
	found.mu.Lock()
	fresh := now.Sub(found.at[d.account]) < accountTrusted
	found.mu.Unlock()
	if fresh {
		return nil
	}
	err := d.lookUp(ctx)
	found.mu.Lock()
	defer found.mu.Unlock()
	for account, at := range found.at {
		if now.Sub(at) >= accountTrusted {
			delete(found.at, account)
		}
	}
	if err == nil {
		found.at[d.account] = now
	}
	return err
}

// accountRemains is accountExists for a deletion: what was seen a moment ago may have
// gone together with the unit, as with their namespace.
func (t *targets) accountRemains(ctx context.Context, d *delivery) error {
	if d.account.Name == "" {
		return nil
	}
	return d.lookUp(ctx)
}

// lookUp reads the account once, with the rights of the access. Its error is of kind
// failure.NotFound when there is no such account. Whether there is one cannot be
// known on a cluster whose kubeconfig may impersonate and not read it.
func (d *delivery) lookUp(ctx context.Context) error {
	account := d.account
	accounts := d.access.Cluster.Metadata.Resource(corev1.SchemeGroupVersion.WithResource("serviceaccounts"))
	_, err := accounts.Namespace(account.Namespace).Get(ctx, account.Name, metav1.GetOptions{})
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err):
		return &failure.Error{Op: "act as", Kind: failure.NotFound, Object: "ServiceAccount " + account.String(),
			Err: errors.New("not found"), Remedy: "create it, or correct spec.serviceAccountName"}
	case apierrors.IsForbidden(err) && d.access.link != nil:
		return nil
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		return &failure.Error{Op: "read", Kind: failure.Denied, Object: "ServiceAccount " + account.String(), Err: err,
			Remedy: "give the engine's identity the right to get service accounts"}
	default:
		return &failure.Error{Op: "read", Kind: failure.Unavailable, Object: "ServiceAccount " + account.String(), Err: err}
	}
}

// mayRead fails when the unit asks for the health of an object that it may not read
// itself: the ledger, which sees with other rights, must not tell it. What
// the unit delivers itself it knows.
func (d *delivery) mayRead(ctx context.Context, wants []plan.Want, refs []observe.Reference) error {
	if d.account.Name == "" && d.access.link == nil {
		return nil
	}
	own := make(map[object.ID]bool, len(wants))
	for _, w := range wants {
		own[w.ID] = w.Mode == plan.Override || w.Mode == plan.Merge
	}
	for _, ref := range refs {
		if own[ref.ID] {
			continue
		}
		resource, err := d.Cluster.Resources.Of(ctx, schema.GroupVersionKind{Group: ref.ID.Group, Version: ref.Version, Kind: ref.ID.Kind})
		if err != nil {
			return err
		}
		objects := d.Cluster.Metadata.Resource(resource.GroupVersionResource)
		_, err = objects.Namespace(ref.ID.Namespace).Get(ctx, ref.ID.Name, metav1.GetOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return d.unreadable(ref.ID, err)
		}
	}
	return nil
}

func (d *delivery) unreadable(id object.ID, err error) error {
	f := &failure.Error{Op: "check health of", Kind: failure.Unavailable, Object: id.String(), Err: err}
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		f.Kind = failure.Denied
		who := "the user of the kubeconfig"
		if d.account.Name != "" {
			who = "ServiceAccount " + d.account.String()
		}
		f.Remedy = fmt.Sprintf("give %s the right to get it, or remove it from spec.healthChecks", who)
	}
	return f
}

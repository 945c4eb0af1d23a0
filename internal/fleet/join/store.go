package join

import (
	"context"
	"crypto/ecdsa"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
)

// The Secret on the member that holds the agent's credentials, and its keys.
const (
	StoreNamespace = "bowline-system"
	StoreName      = "hub"
	// StoreKey has the credentials, as a kubeconfig.
	StoreKey = "kubeconfig"
	// storePending has the key of a request that was not answered yet.
	storePending = "pending.key"
)

// Store keeps the agent's credentials in a Secret on the member. Each write is one write of the whole
// Secret, so that certificate and key always belong together. The client must not read from a cache.
type Store struct{ Client client.Client }

const stored = "Secret/" + StoreNamespace + "/" + StoreName

// Load returns the credentials, and nil where there are none.
func (s Store) Load(ctx context.Context) (*Credentials, error) {
	secret, err := s.get(ctx)
	if err != nil || len(secret.Data[StoreKey]) == 0 {
		return nil, err
	}
	return ParseCredentials(secret.Data[StoreKey], stored)
}

// Save stores credentials in place of those before.
func (s Store) Save(ctx context.Context, c *Credentials) error {
	data, err := c.Kubeconfig()
	if err != nil {
		return fmt.Errorf("write the credentials as a kubeconfig: %w", err)
	}
	return s.change(ctx, func(all map[string][]byte) {
		all[StoreKey] = data
		delete(all, storePending)
	})
}

// Forget deletes the credentials: the member has left.
func (s Store) Forget(ctx context.Context) error {
	err := s.Client.Delete(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: StoreNamespace, Name: StoreName}})
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("delete %s: %w", stored, err)
	}
	return nil
}

// Join gets credentials with an invitation and stores them. An agent that is interrupted and calls it again with the
// same invitation takes up the request that it made.
func Join(ctx context.Context, s Store, i Invitation, member types.UID) (*Credentials, error) {
	key, err := s.pending(ctx)
	if err != nil {
		return nil, err
	}
	c, err := Request(ctx, i, member, key)
	if err != nil {
		return nil, err
	}
	return c, s.Save(ctx, c)
}

// pending returns the key of a request that was not answered, or a new one, which is stored first.
func (s Store) pending(ctx context.Context) (*ecdsa.PrivateKey, error) {
	secret, err := s.get(ctx)
	if err != nil {
		return nil, err
	}
	if key := decodeKey(secret.Data[storePending]); key != nil {
		return key, nil
	}
	key, err := newKey()
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	data, err := encodeKey(key)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	return key, s.change(ctx, func(all map[string][]byte) { all[storePending] = data })
}

// get returns the Secret, which is empty where there is none.
func (s Store) get(ctx context.Context) (*corev1.Secret, error) {
	secret := &corev1.Secret{}
	err := s.Client.Get(ctx, client.ObjectKey{Namespace: StoreNamespace, Name: StoreName}, secret)
	if client.IgnoreNotFound(err) != nil {
		return nil, &failure.Error{Op: "read", Kind: failure.Unavailable, Object: stored, Err: err}
	}
	return secret, nil
}

// change writes the Secret if nobody else did meanwhile.
func (s Store) change(ctx context.Context, do func(map[string][]byte)) error {
	secret, err := s.get(ctx)
	if err != nil {
		return err
	}
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	do(secret.Data)
	if secret.ResourceVersion == "" {
		secret.Namespace, secret.Name = StoreNamespace, StoreName
		err = s.Client.Create(ctx, secret, owner)
	} else {
		err = s.Client.Update(ctx, secret, owner)
	}
	switch {
	case err == nil:
		return nil
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return &failure.Error{Op: "write", Kind: failure.Conflict, Object: stored, Err: err, Remedy: "another agent of this cluster wrote it: let one run"}
	}
	return &failure.Error{Op: "write", Kind: failure.Unavailable, Object: stored, Err: err}
}

package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/artifactserve"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/helmrepo"
)

// helmRepositories is the kind of sources that are Helm repositories: it keeps the index of those over HTTP. One in
// a registry has no index and no status; what changes in its spec is news for its charts only.
type helmRepositories struct {
	*sourceRoom
	store *helmrepo.Store

	mu      sync.RWMutex
	indexes map[types.NamespacedName]helmrepo.Index // guarded by mu
	// generations are those of repositories in registries whose charts know of them; guarded by mu.
	generations map[types.NamespacedName]int64
}

func isOCI(r *sourcev1.HelmRepository) bool { return r.Spec.Type == sourcev1.HelmRepositoryTypeOCI }

// index returns the newest index of a repository.
func (r *helmRepositories) index(name types.NamespacedName) (helmrepo.Index, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	i, ok := r.indexes[name]
	return i, ok
}

// keep takes an index for those who look for charts.
func (r *helmRepositories) keep(repo *sourcev1.HelmRepository, i helmrepo.Index) fetched {
	name := client.ObjectKeyFromObject(repo)
	r.mu.Lock()
	r.indexes[name] = i
	delete(r.generations, name)
	r.mu.Unlock()
	got := stored(source.Artifact{Revision: i.Digest, Digest: i.Digest}, fmt.Sprintf("stored artifact: revision '%s'", i.Digest))
	got.event = fmt.Sprintf("stored fetched index of size %d B from '%s'", i.Size, helmrepo.Redacted(repo.Spec.URL))
	got.file = indexFile(i)
	return got
}

// forget implements sourceKind.
func (r *helmRepositories) forget(key sourceKey, _ types.UID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.indexes, key.NamespacedName)
	delete(r.generations, key.NamespacedName)
}

// fetch implements sourceKind.
func (r *helmRepositories) fetch(ctx context.Context, repo *sourcev1.HelmRepository) (fetched, error) {
	if isOCI(repo) {
		return fetched{}, &untoldError{r.static(ctx, repo)}
	}
	if strings.HasPrefix(repo.Spec.URL, "oci://") {
		return fetched{}, &failure.Error{Op: "read", Object: "spec.url", Kind: failure.Invalid, Err: errURLType, Remedy: "set spec.type to oci"}
	}
	secrets, end := r.secrets(repo)
	req, err := r.request(ctx, secrets, repo)
	end()
	if err != nil {
		return fetched{}, err
	}
	index, err := r.store.Fetch(ctx, req)
	if err != nil {
		return fetched{}, err
	}
	return r.keep(repo, index), nil
}

var errURLType = errors.New("it is that of a registry, and spec.type is not oci")

// recall implements sourceKind.
func (r *helmRepositories) recall(ctx context.Context, repo *sourcev1.HelmRepository) (fetched, error) {
	req, err := r.request(ctx, r.references.reader(user(r.key(repo))), repo)
	if err != nil {
		return fetched{}, err
	}
	index, err := r.store.Recall(req, repo.Status.Artifact.Revision)
	if err != nil {
		return fetched{}, err
	}
	return r.keep(repo, index), nil
}

// static looks after a repository in a registry: as in the toolkit it has no status, and what an
// earlier version of the toolkit or another type left there goes.
func (r *helmRepositories) static(ctx context.Context, repo *sourcev1.HelmRepository) error {
	key := r.key(repo)
	r.mu.Lock()
	news := r.generations[key.NamespacedName] != repo.Generation
	r.generations[key.NamespacedName] = repo.Generation
	delete(r.indexes, key.NamespacedName)
	r.mu.Unlock()
	if news {
		r.artifacts.drop(key)
		r.published.withdraw(key)
		r.references.forget(user(key))
		r.changed(ctx, key)
	}
	if s := repo.Status; s.Artifact != nil || s.URL != "" || len(s.Conditions) > 0 {
		before := repo.DeepCopy()
		repo.Status = sourcev1.HelmRepositoryStatus{}
		if err := r.client.Status().Patch(ctx, repo, client.MergeFrom(before), owner); err != nil {
			return fmt.Errorf("clear the status: %w", err)
		}
	}
	return nil
}

// request says how to get to a repository, with what its Secrets hold now.
func (r *helmRepositories) request(ctx context.Context, secrets client.Reader, repo *sourcev1.HelmRepository) (helmrepo.Request, error) {
	req := helmrepo.Request{URL: repo.Spec.URL, PassCredentials: repo.Spec.PassCredentials, Timeout: repo.GetTimeout(), For: string(repo.UID)}
	var secret, certs map[string][]byte
	read := secretsIn(ctx, secrets, repo.Namespace)
	err := read(repo.Spec.SecretRef, "spec.secretRef", func(data map[string][]byte) error { secret = data; return nil })
	if err == nil {
		err = read(repo.Spec.CertSecretRef, "spec.certSecretRef", func(data map[string][]byte) error { certs = data; return nil })
	}
	if err == nil {
		req.Auth, err = helmrepo.AuthFromSecrets(secret, certs)
	}
	if err != nil {
		return helmrepo.Request{}, &loginError{err}
	}
	return req, nil
}

// indexFile is the index as others get it.
func indexFile(i helmrepo.Index) *artifactserve.File {
	return &artifactserve.File{
		Name: "index-" + strings.TrimPrefix(i.Digest, "sha256:") + ".yaml", Digest: i.Digest, Size: i.Size,
		Open: func() (io.ReadCloser, error) { return i.Open() },
	}
}

// reason implements sourceKind.
func (r *helmRepositories) reason(err error) string {
	var login *loginError
	switch {
	case errors.As(err, &login), errors.Is(err, failure.Of(failure.Denied)):
		return sourcev1.AuthenticationFailedReason
	case errors.Is(err, errURLType), errors.Is(err, helmrepo.ErrURL):
		return sourcev1.URLInvalidReason
	case errors.Is(err, helmrepo.ErrIndex):
		return sourcev1.IndexationFailedReason
	default:
		return meta.FailedReason
	}
}

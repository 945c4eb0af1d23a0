package controller

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/internal/artifactserve"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/helmrepo"
)

// helmRepositories reconciles HelmRepositories: it keeps the index of those over HTTP. One in a registry has
// no index and no status; what changes in its spec is news for its charts only.
type helmRepositories struct {
	turns     *atomic.Uint64 // counts reconciles
	client    client.Client
	events    record.EventRecorder
	clock     clock.PassiveClock
	store     *helmrepo.Store
	published *published
	attempts  *attempts
	// references is what credentials are read through: a change of one enqueues
	// its repositories in self.
	references *references
	self       *feed
	// changed is told of every repository whose index or spec changed.
	changed func(context.Context, sourceKey)

	mu      sync.RWMutex
	indexes map[types.NamespacedName]helmrepo.Index // guarded by mu
	// generations are those of repositories in registries whose charts know of them; guarded by mu.
	generations map[types.NamespacedName]int64
}

func helmRepositoryKey(name types.NamespacedName) sourceKey {
	return sourceKey{Kind: sourcev1.HelmRepositoryKind, NamespacedName: name}
}

func isOCI(r *sourcev1.HelmRepository) bool { return r.Spec.Type == sourcev1.HelmRepositoryTypeOCI }

// index returns the newest index of a repository.
func (r *helmRepositories) index(name types.NamespacedName) (helmrepo.Index, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	i, ok := r.indexes[name]
	return i, ok
}

// digests returns those of all indexes that are in use.
func (r *helmRepositories) digests() map[string]bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	all := make(map[string]bool, len(r.indexes))
	for _, i := range r.indexes {
		all[i.Digest] = true
	}
	return all
}

// put takes an index and reports whether it is another one than before.
func (r *helmRepositories) put(name types.NamespacedName, i helmrepo.Index) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	old, ok := r.indexes[name]
	r.indexes[name] = i
	delete(r.generations, name)
	return !ok || old.Digest != i.Digest
}

// Reconcile implements reconcile.Reconciler.
func (r *helmRepositories) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	r.turns.Add(1)
	repo := &sourcev1.HelmRepository{}
	err := r.client.Get(ctx, req.NamespacedName, repo)
	if apierrors.IsNotFound(err) || err == nil && !repo.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, r.gone(ctx, req.NamespacedName, repo)
	}
	if err != nil {
		return ctrl.Result{}, fmt.Errorf("read HelmRepository %s: %w", req.NamespacedName, err)
	}
	if isOCI(repo) {
		return ctrl.Result{}, r.static(ctx, repo)
	}
	if repo.Spec.Suspend {
		r.recall(ctx, repo)
		return ctrl.Result{}, nil
	}
	before := repo.DeepCopy()
	index, fetchErr := r.fetch(ctx, repo)
	if ctx.Err() != nil {
		return ctrl.Result{}, nil //nolint:nilerr // the engine stops: what failed now says nothing
	}
	if fetchErr != nil {
		r.recall(ctx, repo)
	} else if r.put(req.NamespacedName, index) {
		ctrl.LoggerFrom(ctx).Info("fetched", "revision", index.Digest)
		r.changed(ctx, helmRepositoryKey(req.NamespacedName))
	}
	again := r.report(repo, index, fetchErr)
	if !equality.Semantic.DeepEqual(before.Status, repo.Status) {
		if err := r.client.Status().Patch(ctx, repo, client.MergeFrom(before), owner); err != nil {
			return ctrl.Result{}, fmt.Errorf("write the status: %w", err)
		}
	}
	if fetchErr != nil && before.Status.ObservedGeneration != repo.Generation {
		r.changed(ctx, helmRepositoryKey(req.NamespacedName)) // charts say why they have to wait
	}
	return ctrl.Result{RequeueAfter: again}, nil
}

// gone lets go of a repository that is deleted, and of the finalizer that the toolkit's engine leaves.
func (r *helmRepositories) gone(ctx context.Context, name types.NamespacedName, repo *sourcev1.HelmRepository) error {
	r.drop(name)
	r.attempts.forget(name)
	r.references.forget(helmRepositoryUser(name))
	r.changed(ctx, helmRepositoryKey(name))
	before := repo.DeepCopy()
	if !controllerutil.RemoveFinalizer(repo, sourcev1.SourceFinalizer) {
		return nil
	}
	if err := client.IgnoreNotFound(r.client.Patch(ctx, repo, client.MergeFrom(before), owner)); err != nil {
		return fmt.Errorf("remove the finalizer: %w", err)
	}
	return nil
}

func (r *helmRepositories) drop(name types.NamespacedName) {
	r.mu.Lock()
	delete(r.indexes, name)
	delete(r.generations, name)
	r.mu.Unlock()
	r.published.withdraw(helmRepositoryKey(name))
}

// static looks after a repository in a registry: as in the toolkit it has no status, and what an
// earlier version of the toolkit or another type left there goes.
func (r *helmRepositories) static(ctx context.Context, repo *sourcev1.HelmRepository) error {
	name := client.ObjectKeyFromObject(repo)
	r.mu.Lock()
	news := r.generations[name] != repo.Generation
	r.generations[name] = repo.Generation
	_, had := r.indexes[name]
	delete(r.indexes, name)
	r.mu.Unlock()
	if had {
		r.published.withdraw(helmRepositoryKey(name))
	}
	if news {
		r.references.forget(helmRepositoryUser(name))
		r.changed(ctx, helmRepositoryKey(name))
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

// recall brings back the index that the status names from the data folder, if there is none
// in memory: after a restart, a repository that is suspended or cannot be reached goes on to serve.
func (r *helmRepositories) recall(ctx context.Context, repo *sourcev1.HelmRepository) {
	name := client.ObjectKeyFromObject(repo)
	if _, ok := r.index(name); ok || repo.Status.Artifact == nil {
		return
	}
	req, err := r.request(ctx, helmRepositoryUser(name), repo)
	if err == nil {
		var index helmrepo.Index
		if index, err = r.store.Recall(req, repo.Status.Artifact.Revision); err == nil {
			r.put(name, index)
			r.published.statusOfFile(helmRepositoryKey(name), source.Artifact{Revision: index.Digest, Digest: index.Digest}, indexFile(index), nil, r.clock.Now())
			r.changed(ctx, helmRepositoryKey(name))
			return
		}
	}
	ctrl.LoggerFrom(ctx).Info("the last index is not at hand", "revision", repo.Status.Artifact.Revision, "cause", err.Error())
}

// fetch asks for the index, with the credentials that the Secrets hold now.
func (r *helmRepositories) fetch(ctx context.Context, repo *sourcev1.HelmRepository) (helmrepo.Index, error) {
	if strings.HasPrefix(repo.Spec.URL, "oci://") {
		return helmrepo.Index{}, &failure.Error{Op: "read", Object: "spec.url", Kind: failure.Invalid, Err: errURLType, Remedy: "set spec.type to oci"}
	}
	u := helmRepositoryUser(client.ObjectKeyFromObject(repo))
	r.references.begin(u)
	req, err := r.request(ctx, u, repo)
	r.references.end(u)
	if err != nil {
		return helmrepo.Index{}, err
	}
	return r.store.Fetch(ctx, req)
}

var errURLType = errors.New("it is that of a registry, and spec.type is not oci")

func helmRepositoryUser(name types.NamespacedName) user {
	return user{sourcev1.HelmRepositoryKind, name}
}

// request says how to get to a repository, with what its Secrets hold now; u is registered as
// the one who reads them.
func (r *helmRepositories) request(ctx context.Context, u user, repo *sourcev1.HelmRepository) (helmrepo.Request, error) {
	req := helmrepo.Request{URL: repo.Spec.URL, PassCredentials: repo.Spec.PassCredentials, Timeout: repo.GetTimeout(), For: string(repo.UID)}
	var secret, certs map[string][]byte
	read := secretsIn(ctx, r.references.reader(u), repo.Namespace)
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

// report puts what a fetch came to into the status and returns when to fetch
// again. After a failure the last artifact stays.
func (r *helmRepositories) report(repo *sourcev1.HelmRepository, index helmrepo.Index, err error) time.Duration {
	name := client.ObjectKeyFromObject(repo)
	attempt, now := r.attempts.of(name), r.clock.Now()
	repo.Status.ObservedGeneration = repo.Generation
	if asked, ok := repo.Annotations[meta.ReconcileRequestAnnotation]; ok {
		repo.Status.LastHandledReconcileAt = asked
	}
	if err != nil {
		reason, terminal := repositoryReason(err), failure.Terminal(err)
		if c := report.Condition(repo, meta.ReadyCondition); c == nil || c.Message != err.Error() {
			r.events.Event(repo, corev1.EventTypeWarning, reason, clip(err.Error()))
		}
		report.Failed(repo, reason, err.Error(), terminal)
		report.FetchFailed(repo, reason, err.Error())
		return attempt.failed(now, terminal, repo.GetRequeueAfter())
	}
	attempt.failures = 0
	before := repo.Status.Artifact
	artifact := source.Artifact{Revision: index.Digest, Digest: index.Digest}
	repo.Status.Artifact = r.published.statusOfFile(helmRepositoryKey(name), artifact, indexFile(index), before, now)
	repo.Status.URL = repo.Status.Artifact.URL
	message := fmt.Sprintf("stored artifact: revision '%s'", index.Digest)
	if !same(before, repo.Status.Artifact) {
		r.events.Eventf(repo, corev1.EventTypeNormal, "NewArtifact", "stored fetched index of size %d B from '%s'", index.Size, helmrepo.Redacted(repo.Spec.URL))
	}
	report.Ready(repo, meta.SucceededReason, message)
	report.Stored(repo, meta.SucceededReason, message)
	return jitter(max(repo.GetRequeueAfter(), shortestWait), string(repo.UID))
}

// indexFile is the index as others get it.
func indexFile(i helmrepo.Index) artifactserve.File {
	return artifactserve.File{
		Name: "index-" + strings.TrimPrefix(i.Digest, "sha256:") + ".yaml", Digest: i.Digest, Size: i.Size,
		Open: func() (io.ReadCloser, error) { return i.Open() },
	}
}

// repositoryReason returns the reason that the toolkit's users know.
func repositoryReason(err error) string {
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

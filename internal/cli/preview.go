package cli

import (
	"context"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"

	"github.com/bowline-dev/bowline/internal/build/kustomize"
	"github.com/bowline-dev/bowline/internal/build/sops"
	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/source/local"
)

// keyServicePatience is how long a preview waits for a key service: nobody else does.
const keyServicePatience = time.Minute

// previewRequests is how many requests a preview has under way at one time.
const previewRequests = 8

// previewed is what delivering a Kustomization would change.
type previewed struct {
	plan        *plan.Plan
	differences []pipeline.Difference
	// secrets are values that the build used and that are not to be shown.
	secrets []string
}

// preview takes a Kustomization of the cluster through the stages up to the
// plan, on a ledger of its own. An error holds no value of a Secret that the
// Kustomization reads.
func (c *cluster) preview(ctx context.Context, o *diffOptions, name string) (p previewed, err error) {
	ks, err := getAs[*kustomizev1.Kustomization](ctx, c, kustomizationKind(), name)
	if err != nil {
		return p, err
	}
	return c.previewOf(ctx, o, ks)
}

// previewOf is preview for a Kustomization that was read from the connection's namespace.
func (c *cluster) previewOf(ctx context.Context, o *diffOptions, ks *kustomizev1.Kustomization) (p previewed, err error) {
	budget, err := plan.ParseBudget(o.budget)
	if err != nil {
		return p, err
	}
	decryption := controller.NewDecryption(ctx, c, sops.Options{Patience: keyServicePatience})
	decryption.AgeSecret, decryption.Tenancy.Open = o.ageSecret, o.ageSecret.Name != ""
	unit, err := controller.Prepare(ctx, c, ks, controller.UnitOptions{
		Budget: budget, AllowRemoteBases: !o.noRemoteBases, LenientSubstitution: !o.strictSubstitute,
		Decryption: decryption,
	})
	if err != nil {
		return p, err
	}
	artifact, done, err := c.artifact(ctx, o, ks)
	if err != nil {
		return p, err
	}
	defer done()
	target, err := c.target(ctx, ks)
	if err != nil {
		return p, err
	}
	p.secrets = unit.Secrets
	p.plan, p.differences, err = pipeline.New(fleetChecked(kustomize.Build)).Preview(ctx, unit, target, artifact)
	return p, object.ConcealError(err, p.secrets)
}

// target is where the Kustomization is delivered to, with the rights that it is
// delivered with. Whoever previews it needs the right to read its kubeconfig, and to
// impersonate its account.
func (c *cluster) target(ctx context.Context, ks *kustomizev1.Kustomization) (pipeline.Target, error) {
	config := c.config
	if ks.Spec.KubeConfig != nil {
		var err error
		if config, err = controller.RemoteConfig(ctx, c, ks); err != nil {
			return pipeline.Target{}, err
		}
	}
	return targetOn(config, types.NamespacedName{Namespace: ks.Namespace, Name: ks.Spec.ServiceAccountName}, func(kc *kube.Cluster) pipeline.Target {
		ledger := observe.NewLedger(ctx, observe.Options{Cluster: kc, Manager: controller.FieldManager,
			Clock: clock.RealClock{}, Log: logr.Discard(), Notify: func(observe.Change) {}})
		return pipeline.Target{Cluster: kc, Ledger: ledger, Applier: controller.NewApplier(kc, ledger, previewRequests, nil)}
	})
}

// targetOn makes a target of a cluster, which acts as the account if that has a name.
func targetOn(config *rest.Config, account types.NamespacedName, of func(*kube.Cluster) pipeline.Target) (pipeline.Target, error) {
	kc, err := kube.NewCluster(config)
	if err != nil {
		return pipeline.Target{}, err
	}
	if account.Name == "" {
		return of(kc), nil
	}
	return controller.AsAccount(of(kc), account)
}

// artifact is the state of the source to preview. done lets go of it.
func (c *cluster) artifact(ctx context.Context, o *diffOptions, ks *kustomizev1.Kustomization) (a source.Artifact, done func(), err error) {
	ref := ks.Spec.SourceRef
	if ref.Kind != sourcev1.GitRepositoryKind {
		return a, nil, &failure.Error{Op: "read", Object: strings.ToLower(ref.Kind) + "/" + ref.Name, Kind: failure.Unsupported,
			Err: errors.New("what is in this kind of source cannot be previewed yet")}
	}
	scoped := c.in(ref.Namespace)
	g, err := getAs[*sourcev1.GitRepository](ctx, scoped, gitRepositoryKind(), ref.Name)
	if err != nil {
		return a, nil, err
	}
	if o.path != "" {
		root, err := sourceRoot(o.path)
		if err != nil {
			return a, nil, err
		}
		if a, done, err = workingCopy(root, g.Spec.Ignore); err != nil {
			return a, nil, err
		}
		return scoped.included(ctx, g, a, done, o.fetcher(), 0)
	}
	return scoped.fetched(ctx, g, o.revision, o.fetcher(), 0)
}

// workingCopy is the artifact of a folder as it is now.
func workingCopy(root string, ignore *string) (a source.Artifact, done func(), err error) {
	tree, err := local.Open(root, local.Options{Ignore: ignore})
	if err != nil {
		return a, nil, err
	}
	digest, err := tree.Digest()
	if err != nil {
		return a, nil, errors.Join(err, tree.Close())
	}
	return source.Artifact{Revision: "working copy", Digest: digest, Tree: tree}, func() { _ = tree.Close() }, nil
}

// fetchOnce fetches a repository into a folder that is gone afterwards. An empty
// revision means the one that req asks for.
func fetchOnce(ctx context.Context, req git.Request, revision string) (a source.Artifact, done func(), err error) {
	dir, err := os.MkdirTemp("", "bowline-diff-")
	if err != nil {
		return a, nil, &failure.Error{Op: "make folder", Object: os.TempDir(), Kind: failure.Denied, Err: err}
	}
	remove := func() { _ = os.RemoveAll(dir) }
	store, err := git.New(git.Options{DataDir: dir})
	if err != nil {
		remove()
		return a, nil, err
	}
	done = func() { store.Close(); remove() }
	for _, ref := range refsOf(revision, req.Ref) {
		req.Ref = ref
		if a, err = store.Fetch(ctx, req); !errors.Is(err, failure.Of(failure.NotFound)) {
			break
		}
	}
	if err == nil {
		return a, done, nil
	}
	done()
	if revision != "" && errors.Is(err, failure.Of(failure.NotFound)) {
		err = &failure.Error{Op: "fetch", Object: revision, Kind: failure.NotFound,
			Err: errors.New("the source has no such branch, tag or commit"), Remedy: "correct --revision"}
	}
	return a, nil, err
}

// refsOf are the references that a revision may mean, the likeliest first.
func refsOf(revision string, own git.Ref) []git.Ref {
	_, notHex := hex.DecodeString(revision)
	switch {
	case revision == "":
		return []git.Ref{own}
	case len(revision) == 40 && notHex == nil:
		// The branch says where to look on servers that serve no single commits.
		return []git.Ref{{Commit: revision, Branch: own.Branch}}
	case strings.HasPrefix(revision, "refs/"):
		return []git.Ref{{Name: revision}}
	default:
		return []git.Ref{{Branch: revision}, {Tag: revision}}
	}
}

package provision

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/access"
	"github.com/bowline-dev/bowline/internal/kube"
)

// spread is by how much the times vary at which kubeconfigs are tried again: not all at once.
const spread = 0.1

// prober tries the kubeconfigs of clusters that somebody else made.
type prober struct{ *room }

// Reconcile implements reconcile.Reconciler; a request names a FleetCluster.
func (p *prober) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	cluster := &v1alpha1.FleetCluster{}
	err := p.client.Get(ctx, req.NamespacedName, cluster)
	if apierrors.IsNotFound(err) || err == nil && (cluster.Spec.KubeConfig == nil || !cluster.DeletionTimestamp.IsZero()) {
		p.Secrets.Forget(req.NamespacedName)
		return ctrl.Result{}, nil
	}
	if err != nil || cluster.Spec.Suspend {
		return ctrl.Result{}, err
	}
	v := p.try(ctx, cluster)
	if ctx.Err() != nil {
		return ctrl.Result{}, nil //nolint:nilerr // the hub stops: what failed now says nothing
	}
	next := cluster.DeepCopy()
	if err := p.tell(ctx, next, v); err != nil {
		return ctrl.Result{}, err
	}
	return p.write(ctx, cluster, next, wait.Jitter(v.again, spread))
}

// try asks the cluster for its version.
func (p *prober) try(ctx context.Context, cluster *v1alpha1.FleetCluster) verdict {
	var config *rest.Config
	err := p.Secrets.Reading(client.ObjectKeyFromObject(cluster), func(reader client.Reader) (err error) {
		config, err = access.Config(ctx, reader, cluster, p.Kubeconfigs)
		return err
	})
	if err != nil {
		v := unprovisioned(v1alpha1.KubeConfigInvalidReason, err.Error())
		if errors.Is(err, failure.Of(failure.Unavailable)) {
			v.reason = v1alpha1.UnreachableReason
		}
		v.again = p.Retry
		return v
	}
	version, err := p.version(ctx, config)
	switch {
	case err == nil:
		v := provisioned("the API server answers")
		v.endpoint, v.version, v.again = config.Host, version, p.Interval
		return v
	case apierrors.IsUnauthorized(err), apierrors.IsForbidden(err):
		err = fmt.Errorf("the API server at %s refuses the kubeconfig: %w; put in one that is valid", config.Host, err)
		v := unprovisioned(v1alpha1.KubeConfigInvalidReason, err.Error())
		v.endpoint, v.again = config.Host, p.Retry
		return v
	default:
		v := unprovisioned(v1alpha1.UnreachableReason, fmt.Sprintf("the API server at %s does not answer: %v", config.Host, bare(err)))
		v.endpoint, v.again = config.Host, p.Retry
		return v
	}
}

// bare leaves out the method and the address of a request, which stand there already.
func bare(err error) error {
	var of *url.Error
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}

// version asks for the version of Kubernetes, for no longer than the patience lasts. The connection is not kept.
func (p *prober) version(ctx context.Context, config *rest.Config) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, p.Patience)
	defer cancel()
	way, err := kube.NewWay(config, nil)
	if err != nil {
		return "", err
	}
	remote := kube.NewRemote(p.Patience, func(error, bool) {})
	remote.Open(way)
	defer remote.Shut(errAsked)
	// Paths count from the root of the API: what comes before is the way's.
	base, err := url.Parse(config.Host)
	if err != nil {
		return "", err
	}
	asked, err := discovery.NewDiscoveryClientForConfigAndClient(&rest.Config{Host: base.Scheme + "://" + base.Host}, &http.Client{Transport: remote})
	if err != nil {
		return "", err
	}
	info, err := asked.ServerVersionWithContext(ctx)
	if err != nil {
		return "", err
	}
	return info.GitVersion, nil
}

// errAsked is why a connection is shut after the answer.
var errAsked = errors.New("it was asked for its version")

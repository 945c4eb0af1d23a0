package pivot

import (
	"context"
	"errors"
	"fmt"

	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	clusterctlv1 "sigs.k8s.io/cluster-api/cmd/clusterctl/api/v1alpha3"
	clusterctl "sigs.k8s.io/cluster-api/cmd/clusterctl/client/cluster"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/bowline-dev/bowline/internal/failure"
)

// move has Cluster API's own code move its objects, one namespace after the other: it pauses the Clusters, makes everything anew on the
// target with its owners, and deletes it where it was without anything that it stands for.
func (o Options) move(ctx context.Context) error {
	namespaces, err := fleets(ctx, o.From)
	if err != nil {
		return err
	}
	there, err := served(ctx, o.From)
	if err != nil || !there {
		return err
	}
	from := clusterctl.New(clusterctl.Kubeconfig{}, nil, clusterctl.InjectProxy(proxy{o.From.Config, resumable(o.From.Client)}))
	to := clusterctl.New(clusterctl.Kubeconfig{}, nil, clusterctl.InjectProxy(proxy{o.To.Config, listing(o.To.Client)}))
	for _, namespace := range namespaces {
		if err := from.ObjectMover().Move(ctx, namespace, to, false); err != nil {
			return &failure.Error{Op: "move Cluster API's objects of", Object: "namespace " + namespace, Kind: failure.Unavailable, Err: err,
				Remedy: "both sides stand still; see to the cause, and call it again"}
		}
		if err := resume(ctx, o.To, namespace); err != nil {
			return err
		}
	}
	all := &clusterv1.ClusterList{}
	if err := o.To.Client.List(ctx, all); err != nil {
		return wrap(err, "list the Clusters of the target")
	}
	o.Tell("Cluster API", fmt.Sprintf("has moved: %d Clusters", len(all.Items)))
	return nil
}

// served reports whether a cluster serves Cluster API.
func served(ctx context.Context, s Side) (bool, error) {
	err := s.Client.List(ctx, &clusterv1.ClusterList{}, client.Limit(1))
	if apimeta.IsNoMatchError(err) {
		return false, nil
	}
	return err == nil, wrap(err, "list Clusters at %s", s.Config.Host)
}

// resume lets Clusters go on that a move paused and did not come back to, because it was interrupted after they had gone from where they were. None was
// paused by people: that would have been in the way.
func resume(ctx context.Context, s Side, namespace string) error {
	clusters, classes := &clusterv1.ClusterList{}, &clusterv1.ClusterClassList{}
	if err := errors.Join(s.Client.List(ctx, clusters, client.InNamespace(namespace)), s.Client.List(ctx, classes, client.InNamespace(namespace))); err != nil {
		return wrap(err, "list the Clusters of the target")
	}
	for i := range clusters.Items {
		c := &clusters.Items[i]
		if c.Spec.Paused == nil {
			continue
		}
		before := c.DeepCopy()
		c.Spec.Paused = nil
		if err := s.Client.Patch(ctx, c, client.MergeFrom(before), owner); err != nil {
			return wrap(err, "let Cluster/%s/%s go on", c.Namespace, c.Name)
		}
	}
	for i := range classes.Items {
		c := &classes.Items[i]
		if _, paused := c.Annotations[clusterv1.PausedAnnotation]; !paused {
			continue
		}
		before := c.DeepCopy()
		delete(c.Annotations, clusterv1.PausedAnnotation)
		if err := s.Client.Patch(ctx, c, client.MergeFrom(before), owner); err != nil {
			return wrap(err, "let ClusterClass/%s/%s go on", c.Namespace, c.Name)
		}
	}
	return nil
}

// resumable is the client of the cluster that is left, by which a move can be called again. It refuses Clusters that are paused, because it did not pause
// them itself; those that it finds so were paused by the call that was interrupted. They stay paused: to have them go on and be paused
// again would let controllers look at a cluster of which half is gone already, and make that anew. An object that was deleted, and has its finalizers
// still, is shown as it was: no API server lets its copy be deleted by an update.
func resumable(c client.WithWatch) client.Client {
	return interceptor.NewClient(c, interceptor.Funcs{
		List: lists,
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, options ...client.GetOption) error {
			if err := c.Get(ctx, key, o, options...); err != nil {
				return err
			}
			o.SetDeletionTimestamp(nil)
			o.SetDeletionGracePeriodSeconds(nil)
			switch o := o.(type) {
			case *clusterv1.Cluster:
				o.Spec.Paused = nil
			case *clusterv1.ClusterClass:
				delete(o.Annotations, clusterv1.PausedAnnotation)
			}
			return nil
		},
	})
}

// listing is the client of a cluster on which nobody may have noted which providers are installed.
func listing(c client.WithWatch) client.Client {
	return interceptor.NewClient(c, interceptor.Funcs{List: lists})
}

func lists(ctx context.Context, c client.WithWatch, list client.ObjectList, options ...client.ListOption) error {
	err := c.List(ctx, list, options...)
	if _, ok := list.(*clusterctlv1.ProviderList); ok && apimeta.IsNoMatchError(err) {
		return nil
	}
	return err
}

// proxy is how Cluster API's code reaches a cluster.
type proxy struct {
	config *rest.Config
	client client.Client
}

func (p proxy) GetConfig() (*rest.Config, error)                 { return p.config, nil }
func (p proxy) CurrentNamespace() (string, error)                { return "", nil }
func (p proxy) ValidateKubernetesVersion() error                 { return nil }
func (p proxy) NewClient(context.Context) (client.Client, error) { return p.client, nil }
func (p proxy) CheckClusterAvailable(context.Context) error      { return nil }
func (p proxy) GetContexts(string) ([]string, error)             { return nil, nil }
func (p proxy) ListResources(context.Context, map[string]string, ...string) ([]unstructured.Unstructured, error) {
	return nil, errUnused
}

func (p proxy) GetResourceNames(context.Context, string, string, []client.ListOption, string) ([]string, error) {
	return nil, errUnused
}

var errUnused = errors.New("a move does not ask for this")

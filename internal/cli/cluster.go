package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/cli/local"
	"github.com/bowline-dev/bowline/internal/failure"
)

// clusterFlags say which cluster and namespace a command is about.
type clusterFlags struct {
	kubeconfig    string
	context       string
	namespace     string
	allNamespaces bool
	// search are the kubeconfigs to use instead of those in $KUBECONFIG.
	search string
}

// addConnection adds the flags that choose a cluster.
func (f *clusterFlags) addConnection(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.kubeconfig, "kubeconfig", "", "`file` that says how to reach the cluster (default: $KUBECONFIG, then ~/.kube/config, then the cluster this runs in)")
	cmd.Flags().StringVar(&f.context, "context", "", "`name` of the kubeconfig context to use")
}

// addNamespace adds the flags that choose a cluster and one namespace.
func (f *clusterFlags) addNamespace(cmd *cobra.Command) {
	f.addConnection(cmd)
	cmd.Flags().StringVarP(&f.namespace, "namespace", "n", "", "`namespace` to look in (default: the one of the kubeconfig context)")
}

// addNamespaces adds the flags that choose a cluster and one or all namespaces.
func (f *clusterFlags) addNamespaces(cmd *cobra.Command) {
	f.addNamespace(cmd)
	cmd.Flags().BoolVarP(&f.allNamespaces, "all-namespaces", "A", false, "look in all namespaces")
}

func (f *clusterFlags) loader() clientcmd.ClientConfig {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	if f.search != "" {
		rules.Precedence = filepath.SplitList(f.search)
	}
	overrides := &clientcmd.ConfigOverrides{CurrentContext: f.context}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
}

// restConfig says how to reach the cluster.
func (f *clusterFlags) restConfig() (*rest.Config, error) {
	cfg, err := f.loader().ClientConfig()
	switch {
	case err == nil:
		cfg.WarningHandler = rest.NoWarnings{}
		return cfg, nil
	case clientcmd.IsEmptyConfig(err) && f.context == "":
		return nil, &failure.Error{Op: "read the kubeconfig", Kind: failure.NotFound,
			Err:    errors.New("none is configured"),
			Remedy: noKubeconfig()}
	case f.kubeconfig != "" && errors.Is(err, os.ErrNotExist):
		return nil, &failure.Error{Op: "read the kubeconfig", Object: f.kubeconfig, Kind: failure.NotFound,
			Err: errors.New("no such file")}
	default:
		return nil, &failure.Error{Op: "read the kubeconfig", Object: f.kubeconfig, Kind: failure.Invalid, Err: err}
	}
}

// noKubeconfig says what to do where no cluster is named: use that of a plane which runs on this machine, or start one.
func noKubeconfig() string {
	if file := local.RunningKubeconfig(); file != "" {
		return "a management plane runs on this machine: export KUBECONFIG=" + file
	}
	return "set KUBECONFIG, pass --kubeconfig, or start a cluster on this machine with `bowline up`"
}

// scheme holds the Go types of everything that the commands read.
func scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, sourcev1.AddToScheme, kustomizev1.AddToScheme, helmv2.AddToScheme, fleetv1.AddToScheme} {
		if err := add(s); err != nil {
			return nil, fmt.Errorf("register API types: %w", err)
		}
	}
	return s, nil
}

// cluster is a connection to one cluster, with the namespace asked for.
type cluster struct {
	client.WithWatch
	config *rest.Config
	// namespace is what -n or the context says; "default" otherwise.
	namespace string
	// scope is the namespace to list in: empty with -A.
	scope string
}

// connect returns a client that talks to the API server directly. Nothing is
// sent yet.
func (f *clusterFlags) connect() (*cluster, error) {
	cfg, err := f.restConfig()
	if err != nil {
		return nil, err
	}
	s, err := scheme()
	if err != nil {
		return nil, err
	}
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: s})
	if err != nil {
		return nil, err
	}
	namespace := f.namespace
	if namespace == "" {
		if namespace, _, err = f.loader().Namespace(); err != nil {
			return nil, err
		}
	}
	out := &cluster{WithWatch: c, config: cfg, namespace: namespace, scope: namespace}
	if f.allNamespaces {
		out.scope = ""
	}
	return out, nil
}

// get reads one object of kind k in the connection's namespace.
func (c *cluster) get(ctx context.Context, k kind, name string) (client.Object, error) {
	obj := k.newObject()
	if err := c.Get(ctx, client.ObjectKey{Namespace: c.namespace, Name: name}, obj); err != nil {
		return nil, notFound(k, c.namespace, name, err)
	}
	obj.GetObjectKind().SetGroupVersionKind(k.gvk)
	return obj, nil
}

// getAs is get for who knows the Go type of the kind.
func getAs[T client.Object](ctx context.Context, c *cluster, k kind, name string) (T, error) {
	obj, err := c.get(ctx, k, name)
	typed, _ := obj.(T)
	return typed, err
}

// nothingFound is kubectl's line for an empty answer.
func (c *cluster) nothingFound() string {
	if c.scope == "" {
		return "No resources found"
	}
	return fmt.Sprintf("No resources found in %s namespace.", c.scope)
}

// host is the address of the API server for people.
func (c *cluster) host() string { return strings.TrimSuffix(c.config.Host, "/") }

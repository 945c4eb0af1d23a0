// Package access is the room that knows how the hub reaches a member: which Secret
// holds its kubeconfig, and what of it may be used. Nothing is kept here. A
// kubeconfig that was rotated counts from the next call on.
package access

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
)

const (
	// suffix and the name of the cluster is the Secret that the contract of Cluster API names.
	suffix = "-kubeconfig"
	// capiKey is the key of that contract, and toolkitKey the other one that the toolkit reads.
	capiKey, toolkitKey = "value", "value.yaml"
)

// SecretOf returns the Secret that holds the kubeconfig of a cluster, and the keys that
// are tried in it, in this order. For a cluster that joins by itself both are empty: the hub has no way to it.
func SecretOf(cluster *v1alpha1.FleetCluster) (secret types.NamespacedName, keys []string) {
	secret.Namespace = cluster.Namespace
	switch {
	case cluster.Spec.Template != nil:
		secret.Name = cluster.Name + suffix
		return secret, []string{capiKey}
	case cluster.Spec.KubeConfig != nil:
		ref := cluster.Spec.KubeConfig.SecretRef
		secret.Name = ref.Name
		if ref.Key != "" {
			return secret, []string{ref.Key}
		}
		return secret, []string{capiKey, toolkitKey}
	default:
		return types.NamespacedName{}, nil
	}
}

// Kubeconfig reads the kubeconfig of a cluster. The reader is to be one that asks the API
// server, so that what counts is what is there now. The error is a failure.Error of kind NotFound, where there is no
// such Secret (yet), Invalid, where it holds no kubeconfig or the cluster has none, Denied or Unavailable.
func Kubeconfig(ctx context.Context, reader client.Reader, cluster *v1alpha1.FleetCluster) ([]byte, error) {
	text, _, err := read(ctx, reader, cluster)
	return text, err
}

// Config returns the way to a cluster, with the rules of kube.ParseKubeconfig: what they do not allow is an error of
// kind failure.Invalid or failure.Refused; otherwise the errors are those of Kubeconfig. No error holds a value of the Secret.
func Config(ctx context.Context, reader client.Reader, cluster *v1alpha1.FleetCluster, o kube.KubeconfigOptions) (*rest.Config, error) {
	config, _, err := Way(ctx, reader, cluster, o)
	return config, err
}

// Way is Config and Kubeconfig of one reading: the way to a cluster, and the text that it was made from.
func Way(ctx context.Context, reader client.Reader, cluster *v1alpha1.FleetCluster, o kube.KubeconfigOptions) (*rest.Config, []byte, error) {
	text, from, err := read(ctx, reader, cluster)
	if err != nil {
		return nil, nil, err
	}
	config, err := kube.ParseKubeconfig(text, from, o)
	return config, text, err
}

// read returns the kubeconfig, and what to call the place that it is from.
func read(ctx context.Context, reader client.Reader, cluster *v1alpha1.FleetCluster) (text []byte, from string, err error) {
	name, keys := SecretOf(cluster)
	if len(keys) == 0 {
		return nil, "", &failure.Error{Op: "reach", Object: "FleetCluster/" + cluster.Namespace + "/" + cluster.Name, Kind: failure.Invalid,
			Err: errors.New("it joins by itself, so that the hub has no kubeconfig of it"), Remedy: "name one in spec.kubeConfig instead of spec.join"}
	}
	secret := &corev1.Secret{}
	if err := reader.Get(ctx, name, secret); err != nil {
		return nil, "", unread(cluster, name, err)
	}
	for _, key := range keys {
		if text, ok := secret.Data[key]; ok {
			return text, fmt.Sprintf("Secret %s, key %s", name, key), nil
		}
	}
	return nil, "", &failure.Error{Op: "use the kubeconfig of", Object: "Secret " + name.String(), Kind: failure.Invalid,
		Err: fmt.Errorf("there is no key %s", strings.Join(keys, " or ")), Remedy: "put the kubeconfig there" + orCorrect(cluster, ".key")}
}

// unread says why a Secret cannot be read.
func unread(cluster *v1alpha1.FleetCluster, name types.NamespacedName, err error) error {
	f := &failure.Error{Op: "read the kubeconfig of", Object: "Secret " + name.String(), Kind: failure.Unavailable, Err: err}
	switch {
	case apierrors.IsNotFound(err):
		f.Kind, f.Err = failure.NotFound, errNotThere
		f.Remedy = "create it" + orCorrect(cluster, "")
		if cluster.Spec.Template != nil {
			f.Remedy = "the control plane's provider writes it as soon as there is one"
		}
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		f.Kind, f.Remedy = failure.Denied, "give the engine's service account the right to get it"
	}
	return f
}

// errNotThere is the cause where there is no such Secret.
var errNotThere = errors.New("it is not there")

// orCorrect names the field that says where the kubeconfig is, where there is one.
func orCorrect(cluster *v1alpha1.FleetCluster, field string) string {
	if cluster.Spec.KubeConfig == nil {
		return ""
	}
	return ", or correct spec.kubeConfig.secretRef" + field
}

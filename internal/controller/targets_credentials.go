package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/auth"
	authutils "github.com/fluxcd/pkg/auth/utils"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
)

// workloadIdentity asks a cloud, or the API server, for the way to a cluster in the
// name of a service account of the namespace. data is that of the ConfigMap.
type workloadIdentity func(ctx context.Context, namespace string, data map[string][]byte) (*rest.Config, time.Time, error)

// askingFor bounds the questions to a cloud.
const askingFor = 30 * time.Second

// credentials reads how the cluster is reached, and when that has to be renewed.
func (l *link) credentials(ctx context.Context) (*rest.Config, time.Duration, error) {
	u := l.userOf(l.key)
	l.references.begin(u)
	defer l.references.end(u)
	name := types.NamespacedName{Namespace: l.key.namespace, Name: l.key.name}
	data, _, err := readData(ctx, l.references.reader(u), reference{l.key.kind, name}, "spec.kubeConfig")
	if err != nil {
		return nil, 0, err
	}
	if l.key.kind == kindSecret {
		config, err := KubeconfigOf(data, name, l.key.key, l.targets.remote.kubeconfig)
		return config, 0, err
	}
	if account := string(data[meta.KubeConfigKeyServiceAccountName]); account == "" && !l.tenancy.ownIdentity(l.key.namespace) {
		return nil, 0, &failure.Error{Op: "use the kubeconfig of", Object: l.key.String(), Kind: failure.Refused,
			Err:    errors.New("it names no serviceAccountName, so that it would use the engine's own identity, which is not for this namespace"),
			Remedy: "name a service account of namespace " + l.key.namespace}
	}
	ctx, cancel := context.WithTimeout(ctx, askingFor)
	defer cancel()
	config, until, err := l.targets.remote.identity(ctx, l.key.namespace, data)
	if err != nil {
		return nil, 0, &failure.Error{Op: "get credentials for the cluster of", Object: l.key.String(), Kind: failure.Denied, Err: err,
			Remedy: "correct the ConfigMap, or the rights of the identity that it names"}
	}
	return config, renewalOf(until.Sub(l.clock.Now())), nil
}

// renewalOf says when credentials that last so long are renewed: well before their
// end, and not all the time if they last a moment.
func renewalOf(lasting time.Duration) time.Duration { return max(10*time.Second, lasting*4/5) }

// KubeconfigOf returns the way to a cluster that the data of a Secret holds: under
// key, or where that is empty under "value" or "value.yaml".
func KubeconfigOf(data map[string][]byte, secret types.NamespacedName, key string, o kube.KubeconfigOptions) (*rest.Config, error) {
	keys := []string{"value", "value.yaml"}
	if key != "" {
		keys = []string{key}
	}
	for _, k := range keys {
		if text, ok := data[k]; ok {
			return kube.ParseKubeconfig(text, fmt.Sprintf("Secret %s, key %s", secret, k), o)
		}
	}
	return nil, &failure.Error{Op: "use the kubeconfig of", Object: "Secret " + secret.String(), Kind: failure.Invalid,
		Err: fmt.Errorf("there is no key %s", strings.Join(keys, " or ")), Remedy: "put the kubeconfig there, or set spec.kubeConfig.secretRef.key"}
}

// RemoteConfig returns the way to the cluster of spec.kubeConfig with what c may read,
// as the engine goes it: for whoever wants to know what the engine would do.
func RemoteConfig(ctx context.Context, c client.Client, k *kustomizev1.Kustomization) (*rest.Config, error) {
	return remoteConfig(ctx, c, addressOf(k))
}

// RemoteConfigOfRelease is RemoteConfig for a HelmRelease.
func RemoteConfigOfRelease(ctx context.Context, c client.Client, h *helmv2.HelmRelease) (*rest.Config, error) {
	return remoteConfig(ctx, c, addressOfRelease(h))
}

func remoteConfig(ctx context.Context, c client.Client, a address) (*rest.Config, error) {
	key, err := linkKeyOf(a)
	if err != nil {
		return nil, err
	}
	name := types.NamespacedName{Namespace: key.namespace, Name: key.name}
	data, _, err := readData(ctx, c, reference{key.kind, name}, "spec.kubeConfig")
	if err != nil {
		return nil, err
	}
	if key.kind == kindSecret {
		return KubeconfigOf(data, name, key.key, kube.KubeconfigOptions{})
	}
	config, _, err := WorkloadIdentity(c)(ctx, key.namespace, data)
	return config, err
}

// WorkloadIdentity returns what asks the clouds that are known for the way to a
// cluster, as the ConfigMaps of spec.kubeConfig.configMapRef name it. The client must
// not read from a cache: it reads one service account now and then.
func WorkloadIdentity(c client.Client) func(context.Context, string, map[string][]byte) (*rest.Config, time.Time, error) {
	accountIdentities()
	return func(ctx context.Context, namespace string, data map[string][]byte) (*rest.Config, time.Time, error) {
		provider, err := authutils.ProviderByName[auth.RESTConfigProvider](string(data[meta.KubeConfigKeyProvider]))
		if err != nil {
			return nil, time.Time{}, fmt.Errorf("data.%s: %w", meta.KubeConfigKeyProvider, err)
		}
		way, err := auth.GetRESTConfig(ctx, provider, identityOptions(c, namespace, data)...)
		if err != nil {
			return nil, time.Time{}, err
		}
		return &rest.Config{Host: way.Host, BearerToken: way.BearerToken, TLSClientConfig: rest.TLSClientConfig{CAData: way.CAData}}, way.ExpiresAt, nil
	}
}

func identityOptions(c client.Client, namespace string, data map[string][]byte) []auth.Option {
	o := []auth.Option{auth.WithClient(c), auth.WithServiceAccountNamespace(namespace)}
	for key, option := range map[string]func(string) auth.Option{
		meta.KubeConfigKeyCluster: auth.WithClusterResource, meta.KubeConfigKeyAddress: auth.WithClusterAddress,
		meta.KubeConfigKeyCACert: auth.WithCAData, meta.KubeConfigKeyServiceAccountName: auth.WithServiceAccountName,
	} {
		if v, ok := data[key]; ok {
			o = append(o, option(string(v)))
		}
	}
	var audiences []string
	for a := range strings.Lines(string(data[meta.KubeConfigKeyAudiences])) {
		if a = strings.TrimSpace(a); a != "" {
			audiences = append(audiences, a)
		}
	}
	if len(audiences) > 0 {
		o = append(o, auth.WithAudiences(audiences...))
	}
	return o
}

// isHub reports whether a cluster is the one that the engine itself runs on.
func (t *targets) isHub(ctx context.Context, identity string, config *rest.Config) (bool, error) {
	own := rest.CopyConfig(t.hub.Cluster.Config)
	if err := rest.LoadTLSFiles(own); err == nil && kube.Address(own) == kube.Address(config) {
		return true, nil
	}
	hub, err := kube.Identity(ctx, t.hub.Cluster, own)
	if err != nil {
		return false, fmt.Errorf("the engine's own cluster: %w", err)
	}
	return hub == identity, nil
}

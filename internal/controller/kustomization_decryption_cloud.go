package controller

import (
	"context"
	"slices"

	awssdk "github.com/aws/aws-sdk-go-v2/aws"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/auth"
	"github.com/fluxcd/pkg/auth/aws"
	"github.com/fluxcd/pkg/auth/azure"
	"github.com/fluxcd/pkg/auth/gcp"
	"github.com/fluxcd/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/build/sops"
)

// maxTokens bounds the tokens of clouds that are kept until they expire.
const maxTokens = 1000

// account is the service account whose identity asks the key services of clouds, and
// "" for the engine's own identity, which a confined unit never gets: it could have
// files decrypted that are not its own.
func (d *Decryption) account(k *kustomizev1.Kustomization) string {
	switch {
	case k.Spec.Decryption.ServiceAccountName != "":
		return k.Spec.Decryption.ServiceAccountName
	case d.DefaultServiceAccount != "":
		return d.DefaultServiceAccount
	case !d.Tenancy.ownIdentity(k.Namespace):
		return confinedAccount
	default:
		return ""
	}
}

// cloud is how the unit authenticates with the key services of clouds. Nothing is
// asked before a file needs it; then ctx bounds it, and not the reconcile.
func (d *Decryption) cloud(k *kustomizev1.Kustomization) sops.Cloud {
	own := d.Tenancy.ownIdentity(k.Namespace)
	if d.client == nil {
		return sops.Cloud{OwnIdentity: own}
	}
	options := []auth.Option{auth.WithClient(d.client)}
	if account := d.account(k); account != "" {
		options = append(options, auth.WithServiceAccountName(account), auth.WithServiceAccountNamespace(k.Namespace))
	}
	with := func(operation string, more ...auth.Option) []auth.Option {
		all := append(slices.Clone(options), more...)
		if d.tokens != nil {
			all = append(all, auth.WithCache(*d.tokens, cache.InvolvedObject{
				Kind: kustomizev1.KustomizationKind, Namespace: k.Namespace, Name: k.Name, Operation: operation}))
		}
		return all
	}
	ctx := d.context
	out := sops.Cloud{
		OwnIdentity: own,
		AWS: func(region string) awssdk.CredentialsProvider {
			return aws.NewCredentialsProvider(ctx, with(kustomizev1.MetricDecryptWithAWS, auth.WithSTSRegion(region))...)
		},
		Azure: azure.NewTokenCredential(ctx, with(kustomizev1.MetricDecryptWithAzure)...),
		GCP:   gcp.NewTokenSource(ctx, with(kustomizev1.MetricDecryptWithGCP)...),
	}
	if d.VaultConfig.Name != "" {
		out.Vault = func(ctx context.Context, address string) (string, error) {
			return d.vaultToken(ctx, address, with(kustomizev1.MetricDecryptWithVault, auth.WithAudiences(address)))
		}
	}
	return out
}

// uncached is a client that reads from the API server: a read through the cache would
// begin to keep all objects of its kind in memory.
type uncached struct {
	client.Client
	reader client.Reader
}

// Get implements client.Reader.
func (u uncached) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	return u.reader.Get(ctx, key, o, opts...)
}

// List implements client.Reader.
func (u uncached) List(ctx context.Context, l client.ObjectList, opts ...client.ListOption) error {
	return u.reader.List(ctx, l, opts...)
}

package controller

import (
	"context"
	"fmt"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/source/git"
)

// RequestOf says what to fetch for a GitRepository, with the credentials that
// its Secrets hold now, or its provider issues.
func RequestOf(ctx context.Context, secrets client.Reader, who GitIdentity, g *sourcev1.GitRepository) (git.Request, error) {
	req := requestOf(g)
	var secret map[string][]byte
	if g.Spec.Timeout != nil {
		req.Timeout = g.Spec.Timeout.Duration
	}
	if g.Spec.SecretRef != nil {
		data, err := readSecret(ctx, secrets, g.Namespace, g.Spec.SecretRef.Name, "spec.secretRef")
		if err != nil {
			return git.Request{}, err
		}
		if req.Auth, err = git.AuthFromSecret(g.Spec.URL, data); err != nil {
			return git.Request{}, fmt.Errorf("read Secret %s/%s: %w", g.Namespace, g.Spec.SecretRef.Name, err)
		}
		secret = data
	}
	if g.Spec.ProxySecretRef != nil {
		data, err := readSecret(ctx, secrets, g.Namespace, g.Spec.ProxySecretRef.Name, "spec.proxySecretRef")
		if err != nil {
			return git.Request{}, err
		}
		if req.Proxy, err = git.ProxyFromSecret(data); err != nil {
			return git.Request{}, fmt.Errorf("read Secret %s/%s: %w", g.Namespace, g.Spec.ProxySecretRef.Name, err)
		}
	}
	var err error
	if req.Verify, err = verificationOf(ctx, secrets, g); err != nil {
		return git.Request{}, err
	}
	err = who.authenticate(ctx, g, secret, &req)
	return req, err
}

// requestOf is RequestOf without anything that takes a Secret.
func requestOf(g *sourcev1.GitRepository) git.Request {
	return git.Request{
		URL: g.Spec.URL, Ref: refOf(g.Spec.Reference), Ignore: g.Spec.Ignore, For: string(g.UID),
		Sparse: g.Spec.SparseCheckout, Submodules: g.Spec.RecurseSubmodules,
	}
}

func readSecret(ctx context.Context, secrets client.Reader, namespace, name, field string) (map[string][]byte, error) {
	data, _, err := readData(ctx, secrets, reference{kindSecret, client.ObjectKey{Namespace: namespace, Name: name}}, field)
	return data, err
}

func refOf(ref *sourcev1.GitRepositoryRef) git.Ref {
	if ref == nil {
		return git.Ref{}
	}
	return git.Ref{Branch: ref.Branch, Tag: ref.Tag, SemVer: ref.SemVer, Name: ref.Name, Commit: ref.Commit}
}

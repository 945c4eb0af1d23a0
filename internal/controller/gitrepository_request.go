package controller

import (
	"context"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/source/reach"
)

// RequestOf says what to fetch for a GitRepository, with the credentials that
// its Secrets hold now, or its provider issues.
func RequestOf(ctx context.Context, secrets client.Reader, who SourceIdentity, g *sourcev1.GitRepository) (git.Request, error) {
	req := requestOf(g)
	if g.Spec.Timeout != nil {
		req.Timeout = g.Spec.Timeout.Duration
	}
	read := secretsIn(ctx, secrets, g.Namespace)
	var secret map[string][]byte
	err := read(g.Spec.SecretRef, "spec.secretRef", func(data map[string][]byte) (err error) {
		secret = data
		req.Auth, err = git.AuthFromSecret(g.Spec.URL, data)
		return err
	})
	if err == nil {
		err = read(g.Spec.ProxySecretRef, "spec.proxySecretRef", func(data map[string][]byte) (err error) {
			req.Proxy, err = reach.ProxyFromSecret(data)
			return err
		})
	}
	if err == nil {
		req.Verify, err = verificationOf(ctx, secrets, g)
	}
	if err == nil {
		err = who.authenticate(ctx, g, secret, &req)
	}
	return req, err
}

// requestOf is RequestOf without anything that takes a Secret.
func requestOf(g *sourcev1.GitRepository) git.Request {
	return git.Request{
		URL: g.Spec.URL, Ref: refOf(g.Spec.Reference), Ignore: g.Spec.Ignore, For: string(g.UID),
		Sparse: g.Spec.SparseCheckout, Submodules: g.Spec.RecurseSubmodules,
	}
}

func refOf(ref *sourcev1.GitRepositoryRef) git.Ref {
	if ref == nil {
		return git.Ref{}
	}
	return git.Ref{Branch: ref.Branch, Tag: ref.Tag, SemVer: ref.SemVer, Name: ref.Name, Commit: ref.Commit}
}

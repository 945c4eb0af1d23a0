package controller

import (
	"context"
	"errors"
	"fmt"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source/registry"
	"github.com/bowline-dev/bowline/internal/source/verify"
)

// The providers of signatures.
const (
	cosignProvider   = "cosign"
	notationProvider = "notation"
)

// signatures finds out who signed what is in registries, for all sources that are there.
type signatures struct {
	verifier *verify.Verifier
}

func newSignatures(c clock.PassiveClock) *signatures {
	return &signatures{verify.New(verify.Options{Clock: c})}
}

// signatureSpec is what spec.verify says, of whatever kind.
type signatureSpec struct {
	provider     string
	secret, root *meta.LocalObjectReference
	identities   []sourcev1.OIDCIdentityMatch
}

// ociSignature is nil when no signature is asked for.
func ociSignature(v *sourcev1.OCIRepositoryVerification) *signatureSpec {
	if v == nil {
		return nil
	}
	return &signatureSpec{provider: v.Provider, secret: v.SecretRef, root: v.TrustedRootSecretRef, identities: v.MatchOIDCIdentity}
}

// chartSignature is nil when no signature is asked for.
func chartSignature(v *sourcev1.HelmChartVerification) *signatureSpec {
	if v == nil {
		return nil
	}
	return &signatureSpec{provider: v.Provider, secret: v.SecretRef, identities: v.MatchOIDCIdentity}
}

// signatureCheck says who signed an artifact, in words: "by key 'a.pub' of Secret/apps/keys". It says nothing where a
// trust policy lets it pass unverified. Errors are of type verify.Error.
type signatureCheck func(ctx context.Context, r *registry.Repository, digest string) (by string, err error)

// check returns what judges the artifacts of a source, with what its Secrets hold now; nil when nothing is
// asked for. Named is the repository as the source names it, such as "ghcr.io/org/app". Errors are of type verify.Error.
func (s *signatures) check(ctx context.Context, secrets client.Reader, owner sourceKey, named string, spec *signatureSpec) (signatureCheck, error) {
	if spec == nil {
		s.forget(owner)
		return nil, nil
	}
	trust, err := trustOf(ctx, secrets, owner.Namespace, spec)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, r *registry.Repository, digest string) (string, error) {
		hash, err := v1.NewHash(digest)
		if err != nil {
			return "", unusableTrust(fmt.Errorf("%s@%s: %w", named, digest, err))
		}
		result, err := s.verifier.Verify(ctx, owner, verify.Request{Repository: r.Name(), Name: named, Digest: hash, Trust: trust, Options: r.Options()})
		if err != nil {
			return "", err
		}
		if !result.Verified {
			ctrl.LoggerFrom(ctx).Info("used without a signature that is good", "artifact", named+"@"+digest, "cause", result.Remark)
			return "", nil
		}
		return result.String(), nil
	}, nil
}

// forget drops what is remembered for a source that is gone.
func (s *signatures) forget(owner sourceKey) { s.verifier.Forget(owner) }

// trustOf reads the Secrets that spec.verify names.
func trustOf(ctx context.Context, secrets client.Reader, namespace string, spec *signatureSpec) (verify.Trust, error) {
	read := func(ref *meta.LocalObjectReference, field string) (string, map[string][]byte, error) {
		if ref == nil {
			return "", nil, nil
		}
		data, err := readSecret(ctx, secrets, namespace, ref.Name, field)
		if err != nil {
			return "", nil, unusableTrust(err)
		}
		return "Secret/" + namespace + "/" + ref.Name, data, nil
	}
	object, data, err := read(spec.secret, "spec.verify.secretRef")
	if err != nil {
		return nil, err
	}
	switch {
	case spec.provider == notationProvider && spec.secret == nil:
		return nil, unusableTrust(&failure.Error{Op: "read", Object: "spec.verify.secretRef", Kind: failure.Invalid,
			Err: errors.New("notation needs a trust policy, and no Secret is named"), Remedy: "name the Secret with trustpolicy.json and the certificates"})
	case spec.provider == notationProvider:
		return verify.NotationPolicy(object, data)
	case spec.provider != cosignProvider:
		return nil, unusableTrust(&failure.Error{Op: "read", Object: "spec.verify.provider", Kind: failure.Unsupported,
			Err: fmt.Errorf("there is no provider %q", spec.provider), Remedy: "use cosign or notation"})
	case spec.secret != nil:
		return verify.CosignKeys(object, data)
	}
	object, data, err = read(spec.root, "spec.verify.trustedRootSecretRef")
	if err != nil {
		return nil, err
	}
	identities := make([]verify.Identity, 0, len(spec.identities))
	for _, id := range spec.identities {
		identities = append(identities, verify.Identity{Issuer: id.Issuer, Subject: id.Subject})
	}
	return verify.CosignIdentities(identities, object, data)
}

func unusableTrust(err error) error { return &verify.Error{Cause: verify.Unusable, Err: err} }

// reportSigned says who signed the artifact of a source, which is named as in "revision latest@sha256:…".
func reportSigned(o report.Conditioned, what, by string) {
	if by == "" {
		report.NotVerified(o)
		return
	}
	report.SourceVerified(o, metav1.ConditionTrue, meta.SucceededReason, fmt.Sprintf("verified signature of %s %s", what, by))
}

// reportUnsigned says why an artifact is not used, if that is because of its signature, and reports whether it is. That
// the last one was verified stays true while the registry cannot be reached.
func reportUnsigned(o report.Conditioned, err error) bool {
	var unverified *verify.Error
	if !errors.As(err, &unverified) || unverified.Cause == verify.Unreachable {
		return false
	}
	report.SourceVerified(o, metav1.ConditionFalse, sourcev1.VerificationError, err.Error())
	return true
}

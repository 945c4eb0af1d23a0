package controller

import (
	"context"
	"errors"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/source/git"
	"github.com/bowline-dev/bowline/internal/source/git/signature"
)

// verificationOf says which signatures a GitRepository asks for, with the keys
// that its Secret holds now. It returns nil when it asks for none; errors are of type git.UnverifiedError.
func verificationOf(ctx context.Context, secrets client.Reader, g *sourcev1.GitRepository) (*git.Verification, error) {
	v := g.Spec.Verification
	if v == nil {
		return nil, nil
	}
	data, err := readSecret(ctx, secrets, g.Namespace, v.SecretRef.Name, "spec.verify.secretRef")
	if err != nil {
		return nil, &git.UnverifiedError{Reason: git.ReasonVerificationError, Err: err}
	}
	keys, err := signature.ReadKeys("Secret/"+g.Namespace+"/"+v.SecretRef.Name, data)
	if err != nil {
		return nil, &git.UnverifiedError{Reason: git.ReasonVerificationError, Err: err}
	}
	return &git.Verification{Commit: v.VerifyHEAD(), Tag: v.VerifyTag(), Keys: keys}, nil
}

// reportVerified says whose signatures a new artifact bears.
func reportVerified(g *sourcev1.GitRepository, verified string) {
	if g.Spec.Verification == nil {
		g.Status.SourceVerificationMode = nil
		report.NotVerified(g)
		return
	}
	mode := g.Spec.Verification.GetMode()
	g.Status.SourceVerificationMode = &mode
	report.SourceVerified(g, metav1.ConditionTrue, meta.SucceededReason, verified)
}

// failed implements sourceKind. That the last artifact was verified stays true while the remote cannot be reached.
func (r *gitRepositories) failed(o report.Conditioned, reason string, err error) {
	var unverified *git.UnverifiedError
	var notIncluded *includeError
	if errors.As(err, &notIncluded) {
		report.NotIncluded(o, notIncluded.condition, reason, err.Error())
		return
	}
	report.Included(o)
	if errors.As(err, &unverified) {
		report.SourceVerified(o, metav1.ConditionFalse, reason, err.Error())
		return
	}
	if c := report.Condition(o, sourcev1.SourceVerifiedCondition); c != nil && c.Status == metav1.ConditionFalse {
		report.NotVerified(o)
	}
	report.FetchFailed(o, reason, err.Error())
}

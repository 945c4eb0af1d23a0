package git

import (
	"errors"
	"fmt"
	"strings"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/git/odb"
	"github.com/bowline-dev/bowline/internal/source/git/signature"
)

// Verification says whose signatures a revision must bear before anybody gets it.
type Verification struct {
	// Commit and Tag say what must be signed: the commit, or the annotated tag by which it was found.
	Commit, Tag bool
	// Keys are those to trust.
	Keys *signature.Keys
}

// The reasons of an UnverifiedError, which are those of the source controller of Flux.
const (
	ReasonVerificationError = "VerificationError"
	ReasonInvalidMode       = "InvalidVerificationMode"
	ReasonInvalidObject     = "InvalidGitObject"
	ReasonInvalidTag        = "InvalidTagSignature"
	ReasonInvalidCommit     = "InvalidCommitSignature"
)

// UnverifiedError says that a revision was fetched, and is withheld.
type UnverifiedError struct {
	// Reason is one of the reasons above.
	Reason string
	Err    error
}

// Error implements error.
func (e *UnverifiedError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *UnverifiedError) Unwrap() error { return e.Err }

// maxVerdicts bounds what a repository remembers.
const maxVerdicts = 1024

// verdictKey: an object of this name, signed with one of these keys. A name is a
// hash of the content, so a verdict holds for ever.
type verdictKey struct {
	object odb.Hash
	keys   string
}

// verify checks the signatures of what a reference resolved to and says what was
// verified, in the words of the source controller.
func (r *repo) verify(got result, v *Verification) (string, error) {
	if v == nil {
		return "", nil
	}
	var text strings.Builder
	text.WriteString("verified signature of")
	if v.Tag {
		signer, err := r.verifyTag(got, v.Keys)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&text, "\n\t- tag '%s@%s' with key '%s'", got.tagName, got.tag, signer)
	}
	if v.Commit {
		signer, err := r.verifyObject(got.commit, v.Keys, signature.Commit)
		if err != nil {
			return "", r.unverified(ReasonInvalidCommit, "commit "+got.commit.String(), err)
		}
		fmt.Fprintf(&text, "\n\t- commit '%s' with key '%s'", got.commit, signer)
	}
	return text.String(), nil
}

func (r *repo) verifyTag(got result, keys *signature.Keys) (string, error) {
	object := fmt.Sprintf("tag %s", got.tagName)
	switch {
	case got.tagName == "":
		return "", &UnverifiedError{Reason: ReasonInvalidMode, Err: &failure.Error{
			Op: "verify", Object: r.display, Kind: failure.Invalid, Err: errors.New("no tag is asked for, so there is none to verify"),
			Remedy: "set spec.ref.tag, spec.ref.semver or a tag in spec.ref.name, or set spec.verify.mode to HEAD",
		}}
	case got.tag.IsZero():
		return "", &UnverifiedError{Reason: ReasonInvalidObject, Err: &failure.Error{
			Op: "verify", Object: object, Kind: failure.Denied, Err: errors.New("it is a lightweight tag, which cannot be signed"),
			Remedy: "make it anew with git tag -s, or set spec.verify.mode to HEAD",
		}}
	}
	signer, err := r.verifyObject(got.tag, keys, signature.Tag)
	if err == nil {
		err = r.leadsTo(got)
	}
	if errors.Is(err, odb.ErrNotFound) {
		return "", errSuperseded // it went when the repository was packed anew; ask once more
	}
	if errors.Is(err, signature.ErrUnsigned) {
		return "", r.unverified(ReasonInvalidObject, object, err)
	}
	if err != nil {
		return "", r.unverified(ReasonInvalidTag, object, err)
	}
	return signer, nil
}

func (r *repo) unverified(reason, object string, err error) error {
	if failure.KindOf(err) != "" {
		return err // it could not be read
	}
	return &UnverifiedError{Reason: reason, Err: &failure.Error{
		Op: "verify signature of", Object: object, Kind: failure.Denied, Err: err,
		Remedy: "have it signed by a key that the Secret in spec.verify.secretRef holds, or add the signer's public key there",
	}}
}

// verifyObject checks the signature of one object, once.
func (r *repo) verifyObject(h odb.Hash, keys *signature.Keys, take func([]byte) (signature.Signed, error)) (string, error) {
	key := verdictKey{h, keys.ID()}
	r.mu.Lock()
	signer, known := r.verdicts[key]
	r.mu.Unlock()
	if known {
		return signer, nil
	}
	db := r.db.Load()
	_, raw, err := db.Read(h)
	if errors.Is(err, odb.ErrNotFound) {
		return "", err
	}
	if err != nil {
		return "", r.readError(db, err)
	}
	signed, err := take(raw)
	if err != nil {
		return "", err
	}
	if signer, err = keys.Verify(signed); err != nil {
		return "", err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.verdicts) >= maxVerdicts {
		clear(r.verdicts)
	}
	r.verdicts[key] = signer
	return signer, nil
}

// leadsTo checks that a tag that bears a good signature is what it was found as. The
// server says which commit a tag leads to, and under which name the tag goes;
// only what is inside the tag is signed.
func (r *repo) leadsTo(got result) error {
	db := r.db.Load()
	_, raw, err := db.Read(got.tag)
	if err != nil {
		return err
	}
	if name := header(raw, "tag "); name != got.tagName {
		return fmt.Errorf("the signature is that of a tag with another name, %q", name)
	}
	c, err := commitOf(db, got.tag)
	if err != nil {
		return err
	}
	if c.hash != got.commit {
		return fmt.Errorf("the signed tag leads to the commit %s, and the server gave %s for it", c.hash, got.commit)
	}
	return nil
}

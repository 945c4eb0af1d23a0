// Package verify is the room where an artifact in an OCI registry is found to be
// signed by somebody trusted, or not: with the signatures of cosign, in both of the
// formats that are about, and with those of notation.
//
// What is trusted is given, from Secrets: nothing is read from the home folder, the
// environment or the disk, and no program is run. The network is used for the registry alone, with two
// exceptions. Where certificates of Sigstore's public instance are to be trusted and no trusted root is
// given, that root is fetched, checked by Sigstore's update framework, once a day. Where
// a trust policy of notation enforces revocation, the servers that a trusted certificate names are asked.
package verify

import (
	"context"
	"net/http"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"k8s.io/utils/clock"
)

// Request is the question whether an artifact may be used.
type Request struct {
	// Repository is where the artifact and its signatures are read from, which may be a mirror.
	Repository name.Repository
	// Name is the repository as its users name it, such as "ghcr.io/org/app": trust policies
	// and messages go by it. "" means the one of Repository.
	Name string
	// Digest is that of the artifact's manifest.
	Digest v1.Hash
	// Trust says whose signatures count.
	Trust Trust
	// Options say how to speak with the registry: credentials, transport. The context
	// is that of the call.
	Options []remote.Option
}

// Result says what was found.
type Result struct {
	// Verified is false where a trust policy lets an artifact pass that nobody vouches for.
	Verified bool
	// By names who signed, in words: a key, or the subject of a certificate.
	By string
	// Remark is what people should know besides; "" when there is nothing.
	Remark string
}

// String is a sentence for people, without what was verified: "by key cosign.pub of Secret/apps/keys".
func (r Result) String() string {
	text := "not verified"
	if r.Verified {
		text = "by " + r.By
	}
	if r.Remark != "" {
		text += "; " + r.Remark
	}
	return text
}

// Trust says whose signatures count. CosignKeys, CosignIdentities and NotationPolicy make one.
type Trust interface {
	// ID is the digest of all that decides: with the same one, the verdict on the same artifact is the same.
	ID() string
	verify(ctx context.Context, of artifact, v *Verifier) (Result, error)
}

// Options say with what a Verifier works.
type Options struct {
	// Clock tells when what was fetched is to be fetched again.
	Clock clock.PassiveClock
	// HTTP asks for Sigstore's public root, and for the revocation of certificates of notation. Nil means a
	// client of its own, with timeouts.
	HTTP *http.Client
	// RootURL and Root are where Sigstore's public root is published, and the metadata by which
	// it is trusted. Both empty mean those of the public instance.
	RootURL string
	Root    []byte
}

// Verifier answers Requests, and remembers for each who asks the last one that succeeded, so that
// asking again costs nothing. It is safe for use by many goroutines.
type Verifier struct {
	http   *http.Client
	public *publicRoot

	mu sync.Mutex
	// verdicts hold, per owner, what was found last. mu guards them.
	verdicts map[any]verdict
}

type verdict struct {
	question string
	result   Result
}

// New returns a Verifier.
func New(o Options) *Verifier {
	client := o.HTTP
	if client == nil {
		client = &http.Client{Timeout: askTimeout}
	}
	return &Verifier{http: client, public: newPublicRoot(o, client), verdicts: map[any]verdict{}}
}

// Verify says who signed an artifact. Owner is any comparable value that stands for who asks: what
// it asked last is answered from memory when it succeeded. Errors are of type Error.
func (v *Verifier) Verify(ctx context.Context, owner any, req Request) (Result, error) {
	of, err := newArtifact(req)
	if err != nil {
		return Result{}, err
	}
	question := strings.Join([]string{of.String(), req.Repository.Name(), req.Trust.ID()}, "\n")
	v.mu.Lock()
	known := v.verdicts[owner]
	v.mu.Unlock()
	if known.question == question {
		return known.result, nil
	}
	result, err := req.Trust.verify(ctx, of, v)
	if err != nil {
		return Result{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.verdicts[owner] = verdict{question, result}
	return result, nil
}

// Forget drops what is remembered for who is gone.
func (v *Verifier) Forget(owner any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.verdicts, owner)
}

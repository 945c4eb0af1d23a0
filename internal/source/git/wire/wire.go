// Package wire is the room that talks to Git servers: it lists references and
// fetches packs over smart HTTP and SSH. The protocol is go-git's (version 0,
// gitprotocol-pack(5)); this room says what to ask for and, when that fails, who is
// to blame. It keeps nothing: packs are handed on as a stream.
package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// agent is how the client calls itself. Some servers look for "git/" at the beginning.
const agent = "git/bowline"

// ErrProtocol says that the server's answer is not the Git protocol.
var ErrProtocol = errors.New("the answer is not the Git protocol")

// ErrObjectFormat says that a repository names its objects otherwise than by SHA-1.
var ErrObjectFormat = errors.New("the repository uses SHA-256 object names")

// RemoteError is what a server gives as its reason to refuse.
type RemoteError struct{ Message string }

func (e *RemoteError) Error() string { return "the server says: " + e.Message }

// Ref is one reference of a remote repository.
type Ref struct {
	// Name is the full name, such as "refs/heads/main".
	Name string
	// Hash is what it points at; Peeled, unless zero, is what the annotated tag at
	// Hash points at.
	Hash, Peeled plumbing.Hash
}

// Commit returns the commit that the reference leads to.
func (r Ref) Commit() plumbing.Hash {
	if !r.Peeled.IsZero() {
		return r.Peeled
	}
	return r.Hash
}

// FetchRequest says what to fetch.
type FetchRequest struct {
	// Wants are the objects wanted.
	Wants []plumbing.Hash
	// Haves are commits whose trees are complete on this side.
	Haves []plumbing.Hash
	// Shallow are commits whose parents are not on this side.
	Shallow []plumbing.Hash
	// Depth is how many commits deep to fetch; 0 for the whole history.
	Depth int
}

// conversation is one visit to upload-pack: go-git's over HTTP, or ours over SSH.
type conversation interface {
	AdvertisedReferencesContext(ctx context.Context) (*packp.AdvRefs, error)
	UploadPack(ctx context.Context, req *packp.UploadPackRequest) (*packp.UploadPackResponse, error)
	Close() error
}

// Session is one visit to one repository. It is not for concurrent use.
type Session struct {
	conv conversation
	// tap hears what the server says in conv.
	tap *tap
	// once: conv is good for one pack only.
	once bool

	refs    []Ref
	caps    *capability.List // nil until the references are listed
	pack    io.Closer        // the answer that is being read
	fetched bool
}

// Close ends the session.
func (s *Session) Close() {
	s.endPack()
	_ = s.conv.Close() // whatever it says, nothing more is wanted of it
}

func (s *Session) endPack() {
	if s.pack != nil {
		_ = s.pack.Close()
		s.pack = nil
	}
}

// CanWant reports whether the server gives out a commit: any when it says so,
// otherwise only those that references point at.
func (s *Session) CanWant(h plumbing.Hash) bool {
	return s.caps.Supports(capability.AllowTipSHA1InWant) || s.caps.Supports(capability.AllowReachableSHA1InWant) ||
		slices.ContainsFunc(s.refs, func(r Ref) bool { return r.Hash == h })
}

// Refs returns all references in the order of their names.
func (s *Session) Refs(ctx context.Context) ([]Ref, error) {
	if s.caps != nil {
		return s.refs, nil
	}
	adv, err := s.conv.AdvertisedReferencesContext(ctx)
	if errors.Is(err, transport.ErrEmptyRemoteRepository) || errors.Is(err, packp.ErrEmptyAdvRefs) {
		adv, err = packp.NewAdvRefs(), nil
	}
	if err != nil {
		return nil, s.explain(err)
	}
	s.caps = s.capabilities(adv.Capabilities)
	if format := s.caps.Get(capability.ObjectFormat); len(format) > 0 && format[0] != "sha1" {
		return nil, ErrObjectFormat
	}
	if adv.Head != nil {
		s.refs = append(s.refs, Ref{Name: "HEAD", Hash: *adv.Head})
	}
	for name, h := range adv.References {
		s.refs = append(s.refs, Ref{Name: name, Hash: h, Peeled: adv.Peeled[name]})
	}
	slices.SortFunc(s.refs, func(a, b Ref) int { return strings.Compare(a.Name, b.Name) })
	return s.refs, nil
}

// capabilities reads what the server says about itself, after the first reference
// and a NUL, once more: go-git's sessions leave out what its own fetch cannot use
// (thin packs, more than one acknowledgement), and ours can.
func (s *Session) capabilities(short *capability.List) *capability.List {
	for scan := pktline.NewScanner(bytes.NewReader(s.tap.head)); scan.Scan(); {
		if _, text, ok := bytes.Cut(scan.Bytes(), []byte{0}); ok {
			if list := capability.NewList(); list.Decode(text) == nil {
				return list
			}
		}
	}
	return short
}

// Fetch asks for objects and returns the pack, which must be read to its end before the
// session is used again. Refs must have been called before.
func (s *Session) Fetch(ctx context.Context, req FetchRequest) (io.Reader, error) {
	s.endPack()
	if s.fetched && s.once {
		_ = s.conv.Close()
		if _, err := s.conv.AdvertisedReferencesContext(ctx); err != nil {
			return nil, s.explain(err)
		}
	}
	s.fetched = true
	ask, err := s.request(req)
	if err != nil {
		return nil, err
	}
	res, err := s.conv.UploadPack(ctx, ask)
	if err != nil {
		return nil, s.explain(err)
	}
	s.pack = res
	return &packStream{s: s, r: sideband.NewDemuxer(sideband.Sideband64k, res)}, nil
}

// request puts a request into go-git's words, as far as the server can serve it.
func (s *Session) request(req FetchRequest) (*packp.UploadPackRequest, error) {
	if !s.caps.Supports(capability.Sideband64k) {
		return nil, fmt.Errorf("%w: it offers no side-band-64k", ErrProtocol)
	}
	ask := packp.NewUploadPackRequestFromCapabilities(s.caps)
	ask.Wants, ask.Haves = slices.Clone(req.Wants), slices.Clone(req.Haves)
	var add []capability.Capability
	if s.caps.Supports(capability.NoProgress) {
		add = append(add, capability.NoProgress)
	}
	if s.caps.Supports(capability.Shallow) && req.Depth > 0 {
		add = append(add, capability.Shallow)
		ask.Shallows, ask.Depth = slices.Clone(req.Shallow), packp.DepthCommits(req.Depth)
	}
	for _, c := range add {
		if err := ask.Capabilities.Set(c); err != nil {
			return nil, err
		}
	}
	if s.caps.Supports(capability.Agent) {
		return ask, ask.Capabilities.Set(capability.Agent, agent)
	}
	return ask, nil
}

// explain finds out what is behind an error of go-git's, which often keeps no more
// than its text.
func (s *Session) explain(err error) error {
	if s.tap.err != nil {
		return s.tap.err
	}
	var line *pktline.ErrorLine
	scan := pktline.NewScanner(bytes.NewReader(s.tap.head))
	for errors.As(err, &line) || scan.Scan() || errors.As(scan.Err(), &line) {
		if line != nil {
			return &RemoteError{Message: oneLine(line.Text)}
		}
		if bytes.Contains(scan.Bytes(), []byte(" object-format=sha256")) {
			return ErrObjectFormat
		}
	}
	return fmt.Errorf("%w: %s", ErrProtocol, oneLine(err.Error()))
}

// packStream reads the pack out of a multiplexed answer.
type packStream struct {
	s *Session
	r *sideband.Demuxer
}

func (p *packStream) Read(b []byte) (int, error) {
	n, err := p.r.Read(b)
	switch {
	case err == nil || errors.Is(err, io.EOF) && p.s.tap.err == nil:
		return n, err
	case p.s.tap.err != nil:
		return n, p.s.tap.err
	case errors.Is(err, pktline.ErrInvalidPktLen) || errors.Is(err, sideband.ErrMaxPackedExceeded):
		return n, fmt.Errorf("%w: %w", ErrProtocol, err)
	default:
		// What is left is the reason that the server gives on band 3.
		return n, &RemoteError{Message: oneLine(err.Error())}
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// errCut is an end where none should be. It is not io.ErrUnexpectedEOF itself, which
// go-git takes for a mistake in the protocol.
var errCut = fmt.Errorf("the answer ends too early: %w", io.ErrUnexpectedEOF)

// headBytes is how much of the beginning of an answer is kept.
const headBytes = 8 << 10

// tap reads what a server says, which always says itself where it ends, and keeps
// the beginning and the error.
type tap struct {
	r    io.Reader
	head []byte
	err  error
}

// begin turns to another answer.
func (t *tap) begin(r io.Reader) { t.r, t.head, t.err = r, nil, nil }

func (t *tap) Read(b []byte) (int, error) {
	n, err := t.r.Read(b)
	t.head = append(t.head, b[:min(n, headBytes-len(t.head))]...)
	if err != nil && n > 0 {
		return n, nil // it comes again
	}
	if errors.Is(err, io.EOF) {
		err = errCut
	}
	t.err = err
	return n, err
}

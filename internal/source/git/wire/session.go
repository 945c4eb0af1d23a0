package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Ref is one reference of a remote repository.
type Ref struct {
	// Name is the full name, such as "refs/heads/main".
	Name string
	// Hash is what it points at, in hexadecimal; Peeled, when set, is what
	// the annotated tag at Hash points at.
	Hash, Peeled string
}

// Commit returns the commit that the reference leads to.
func (r Ref) Commit() string {
	if r.Peeled != "" {
		return r.Peeled
	}
	return r.Hash
}

// FetchRequest says what to fetch.
type FetchRequest struct {
	// Wants are the objects wanted, in hexadecimal.
	Wants []string
	// Haves are commits whose trees are complete on this side.
	Haves []string
	// Shallow are commits whose parents are not on this side.
	Shallow []string
	// Depth is how many commits deep to fetch; 0 for the whole history.
	Depth int
}

// FetchResult is a pack that is on its way.
type FetchResult struct {
	// Shallow and Unshallow change which commits have no parents on this side.
	Shallow, Unshallow []string
	// Pack is the pack; reading it to the end is what fetches it.
	Pack io.Reader
}

// conversation is how requests and answers travel: one for HTTP, one for SSH.
type conversation interface {
	// open starts and returns the server's advertisement.
	open(ctx context.Context) (io.Reader, error)
	// ask sends a request and returns the answer.
	ask(ctx context.Context, request []byte) (io.Reader, error)
	close()
	// stateless conversations can ask for packs again and again.
	stateless() bool
}

// Capabilities are what a server has said about itself. They do not change
// from one session to the next, and a session that is given them asks less.
type Capabilities struct {
	v2   bool
	caps map[string]string
}

// Session is one visit to one repository. It is not for concurrent use.
type Session struct {
	conv conversation
	caps *Capabilities
	// known: caps come from an earlier session and have not proved true yet.
	known bool
	// started: the advertisement of this session has been read.
	started bool
	// fetched: a pack has been asked for.
	fetched bool
	v0refs  []Ref
}

// Close ends the session.
func (s *Session) Close() { s.conv.close() }

// Capabilities returns what the server said about itself, for the next session.
func (s *Session) Capabilities() *Capabilities { return s.caps }

// CanWantAny reports whether the server gives out commits that no reference points at.
func (s *Session) CanWantAny() bool {
	if s.caps.v2 {
		return true
	}
	_, tip := s.caps.caps["allow-tip-sha1-in-want"]
	_, reachable := s.caps.caps["allow-reachable-sha1-in-want"]
	return tip || reachable
}

// CanShallow reports whether the server serves less than the whole history.
func (s *Session) CanShallow() bool {
	if s.caps.v2 {
		return strings.Contains(s.caps.caps["fetch"], "shallow")
	}
	_, ok := s.caps.caps["shallow"]
	return ok
}

// start reads the advertisement.
func (s *Session) start(ctx context.Context) error {
	r, err := s.conv.open(ctx)
	if err != nil {
		return err
	}
	p := &pktReader{r: r}
	line, ok, err := p.line()
	if err == nil && ok && strings.HasPrefix(line, "# service=") {
		if _, _, err = p.line(); err == nil { // the flush after it
			line, ok, err = p.line()
		}
	}
	if err == nil && ok && line == "version 1" {
		line, ok, err = p.line()
	}
	if err != nil {
		return err
	}
	s.caps, s.v0refs, s.started = &Capabilities{caps: map[string]string{}}, nil, true
	if ok && line == "version 2" {
		s.caps.v2 = true
		err = s.readCapabilities(p)
	} else {
		err = s.readV0(p, line, ok)
	}
	if err == nil && s.caps.caps["object-format"] != "" && s.caps.caps["object-format"] != "sha1" {
		err = ErrObjectFormat
	}
	return err
}

// ErrObjectFormat says that a repository names its objects otherwise than by SHA-1.
var ErrObjectFormat = errors.New("the repository uses SHA-256 object names")

func (s *Session) readCapabilities(p *pktReader) error {
	for {
		line, ok, err := p.line()
		if err != nil || !ok {
			return err
		}
		name, value, _ := strings.Cut(line, "=")
		s.caps.caps[name] = value
	}
}

// Refs returns the references whose names begin with one of the prefixes; with
// old servers it may return more.
func (s *Session) Refs(ctx context.Context, prefixes ...string) ([]Ref, error) {
	if s.known && s.caps.v2 {
		refs, err := s.lsRefs(ctx, prefixes)
		if err == nil || ctx.Err() != nil {
			return refs, err
		}
		// The server may have become another one.
		s.known = false
	}
	if !s.started {
		if err := s.start(ctx); err != nil {
			return nil, err
		}
	}
	if !s.caps.v2 {
		return s.v0refs, nil
	}
	return s.lsRefs(ctx, prefixes)
}

func (s *Session) lsRefs(ctx context.Context, prefixes []string) ([]Ref, error) {
	w := s.command("ls-refs")
	w.linef("peel")
	for _, prefix := range prefixes {
		w.linef("ref-prefix %s", prefix)
	}
	w.flush()
	r, err := s.conv.ask(ctx, w.Bytes())
	if err != nil {
		return nil, err
	}
	p := &pktReader{r: r}
	var refs []Ref
	for {
		line, ok, err := p.line()
		if err != nil {
			return nil, err
		}
		if !ok {
			return refs, nil
		}
		f := strings.Fields(line)
		if len(f) < 2 {
			return nil, fmt.Errorf("%w: a reference without a name", ErrProtocol)
		}
		ref := Ref{Hash: f[0], Name: f[1]}
		for _, attr := range f[2:] {
			if v, ok := strings.CutPrefix(attr, "peeled:"); ok {
				ref.Peeled = v
			}
		}
		refs = append(refs, ref)
	}
}

// command begins a version 2 request.
func (s *Session) command(name string) *pktWriter {
	w := &pktWriter{}
	w.linef("command=%s", name)
	if _, ok := s.caps.caps["agent"]; ok {
		w.linef("agent=%s", agent)
	}
	if _, ok := s.caps.caps["object-format"]; ok {
		w.linef("object-format=sha1")
	}
	w.delim()
	return w
}

// Fetch asks for objects. Refs must have been called before. The result's pack must
// be read before the session is used again.
func (s *Session) Fetch(ctx context.Context, req FetchRequest) (*FetchResult, error) {
	if s.fetched && !s.conv.stateless() {
		s.conv.close()
		if err := s.start(ctx); err != nil {
			return nil, err
		}
	}
	s.fetched = true
	if req.Depth > 0 && !s.CanShallow() {
		req.Depth = 0
	}
	if !s.caps.v2 {
		return s.fetchV0(ctx, req)
	}
	w := s.command("fetch")
	for _, line := range []string{"thin-pack", "no-progress", "ofs-delta"} {
		w.linef("%s", line)
	}
	writeDepth(w, req)
	for _, want := range req.Wants {
		w.linef("want %s", want)
	}
	for _, have := range req.Haves {
		w.linef("have %s", have)
	}
	w.linef("done")
	w.flush()
	r, err := s.conv.ask(ctx, w.Bytes())
	if err != nil {
		return nil, err
	}
	return readFetch(&pktReader{r: r})
}

func writeDepth(w *pktWriter, req FetchRequest) {
	for _, h := range req.Shallow {
		w.linef("shallow %s", h)
	}
	if req.Depth > 0 {
		w.linef("deepen %d", req.Depth)
	}
}

// readFetch reads the sections before the pack.
func readFetch(p *pktReader) (*FetchResult, error) {
	res := &FetchResult{}
	for {
		section, ok, err := p.line()
		if err != nil {
			return nil, err
		}
		if !ok {
			return nil, fmt.Errorf("%w: there is no pack", ErrProtocol)
		}
		if section == "packfile" {
			res.Pack = &sideband{p: p}
			return res, nil
		}
		for {
			line, ok, err := p.line()
			if err != nil {
				return nil, err
			}
			if !ok {
				break
			}
			res.shallowLine(line)
		}
	}
}

func (r *FetchResult) shallowLine(line string) {
	if h, ok := strings.CutPrefix(line, "shallow "); ok {
		r.Shallow = append(r.Shallow, h)
	} else if h, ok := strings.CutPrefix(line, "unshallow "); ok {
		r.Unshallow = append(r.Unshallow, h)
	}
}

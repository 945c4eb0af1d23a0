package wire

import (
	"context"
	"fmt"
	"io"
	"strings"
)

// readV0 reads the references of an advertisement of version 0 or 1. The
// capabilities follow the first of them after a NUL.
func (s *Session) readV0(p *pktReader, line string, ok bool) error {
	first := true
	for ; ok; first = false {
		if first {
			var caps string
			line, caps, _ = strings.Cut(line, "\x00")
			for c := range strings.FieldsSeq(caps) {
				name, value, _ := strings.Cut(c, "=")
				s.caps.caps[name] = value
			}
		}
		hash, name, found := strings.Cut(line, " ")
		switch {
		case !found || (first && len(hash) != 40):
			return fmt.Errorf("%w: %.40q is no reference", ErrProtocol, line)
		case name == "capabilities^{}" || hash == "shallow":
		case strings.HasSuffix(name, "^{}") && len(s.v0refs) > 0:
			s.v0refs[len(s.v0refs)-1].Peeled = hash
		default:
			s.v0refs = append(s.v0refs, Ref{Name: name, Hash: hash})
		}
		var err error
		if line, ok, err = p.line(); err != nil {
			return err
		}
	}
	return nil
}

// fetchV0 fetches in version 0 in one go: with "done" at the end of the request there is no negotiation.
func (s *Session) fetchV0(ctx context.Context, req FetchRequest) (*FetchResult, error) {
	w := &pktWriter{}
	caps := s.v0Capabilities()
	for _, want := range req.Wants {
		w.linef("want %s%s", want, caps)
		caps = ""
	}
	writeDepth(w, req)
	w.flush()
	for _, have := range req.Haves {
		w.linef("have %s", have)
	}
	w.linef("done")
	r, err := s.conv.ask(ctx, w.Bytes())
	if err != nil {
		return nil, err
	}
	return s.readFetchV0(&pktReader{r: r}, req.Depth > 0)
}

// v0Capabilities returns those that both sides know, as they follow the first want.
func (s *Session) v0Capabilities() string {
	out := ""
	if _, ok := s.caps.caps["multi_ack_detailed"]; ok {
		out += " multi_ack_detailed"
	} else if _, ok := s.caps.caps["multi_ack"]; ok {
		out += " multi_ack"
	}
	if _, ok := s.caps.caps["side-band-64k"]; ok {
		out += " side-band-64k"
	} else if _, ok := s.caps.caps["side-band"]; ok {
		out += " side-band"
	}
	for _, c := range []string{"thin-pack", "no-progress", "ofs-delta"} {
		if _, ok := s.caps.caps[c]; ok {
			out += " " + c
		}
	}
	if _, ok := s.caps.caps["agent"]; ok {
		out += " agent=" + agent
	}
	return out
}

func (s *Session) readFetchV0(p *pktReader, shallow bool) (*FetchResult, error) {
	res := &FetchResult{}
	for shallow {
		line, ok, err := p.line()
		if err != nil {
			return nil, err
		}
		if !ok {
			break
		}
		res.shallowLine(line)
	}
	// The last acknowledgement is a NAK or an ACK without a status after the hash.
	for {
		line, ok, err := p.line()
		if err != nil {
			return nil, err
		}
		f := strings.Fields(line)
		switch {
		case !ok:
		case line == "NAK" || (len(f) == 2 && f[0] == "ACK"):
			res.Pack = s.packV0(p)
			return res, nil
		case len(f) == 3 && f[0] == "ACK":
		default:
			return nil, fmt.Errorf("%w: %.40q is no acknowledgement", ErrProtocol, line)
		}
	}
}

func (s *Session) packV0(p *pktReader) io.Reader {
	for _, c := range []string{"side-band-64k", "side-band"} {
		if _, ok := s.caps.caps[c]; ok {
			return &sideband{p: p}
		}
	}
	return p.r
}

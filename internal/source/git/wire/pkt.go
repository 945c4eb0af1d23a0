// Package wire is the room that talks to Git servers: it lists references and
// fetches packs over smart HTTP and SSH, in protocol version 2 and, for servers
// that know no better, in versions 0 and 1 (gitprotocol-v2(5),
// gitprotocol-pack(5)). It keeps nothing: packs are handed on as a stream.
package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// pktKind tells the packets that carry data from those that only separate.
type pktKind int

const (
	pktData pktKind = iota
	pktFlush
	pktDelim
	pktEnd
)

// maxPkt is the longest packet there may be, its length field included.
const maxPkt = 65520

// ErrProtocol says that the server's answer is not the Git protocol.
var ErrProtocol = errors.New("the answer is not the Git protocol")

// RemoteError is what a server gives as its reason to refuse.
type RemoteError struct{ Message string }

func (e *RemoteError) Error() string { return "the server says: " + e.Message }

// pktReader reads packets: four hexadecimal digits of length, then data.
type pktReader struct {
	r   io.Reader
	buf [maxPkt]byte
}

// next returns one packet; the data is good until the call after it.
func (p *pktReader) next() (pktKind, []byte, error) {
	if _, err := io.ReadFull(p.r, p.buf[:4]); err != nil {
		return 0, nil, unexpected(err)
	}
	n, err := strconv.ParseUint(string(p.buf[:4]), 16, 16)
	if err != nil || n == 3 || n > maxPkt {
		return 0, nil, fmt.Errorf("%w: it has %q where a length should be", ErrProtocol, p.buf[:4])
	}
	switch n {
	case 0:
		return pktFlush, nil, nil
	case 1:
		return pktDelim, nil, nil
	case 2:
		return pktEnd, nil, nil
	}
	data := p.buf[:n-4]
	if _, err := io.ReadFull(p.r, data); err != nil {
		return 0, nil, unexpected(err)
	}
	if msg, ok := bytes.CutPrefix(data, []byte("ERR ")); ok {
		return 0, nil, &RemoteError{Message: oneLine(msg)}
	}
	return pktData, data, nil
}

// line returns the next packet as text without its line end; ok is false for
// a packet that separates.
func (p *pktReader) line() (text string, ok bool, err error) {
	kind, data, err := p.next()
	if err != nil || kind != pktData {
		return "", false, err
	}
	return strings.TrimSuffix(string(data), "\n"), true, nil
}

// unexpected turns an early end into an error that cannot be taken for a good end.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func oneLine(b []byte) string { return strings.Join(strings.Fields(string(b)), " ") }

// pktWriter collects the packets of a request.
type pktWriter struct{ bytes.Buffer }

func (w *pktWriter) linef(format string, args ...any) {
	s := fmt.Sprintf(format, args...)
	fmt.Fprintf(w, "%04x%s\n", len(s)+5, s)
}

func (w *pktWriter) flush() { w.WriteString("0000") }
func (w *pktWriter) delim() { w.WriteString("0001") }

// sideband reads the pack out of a multiplexed answer: band 1 is the pack, band
// 2 progress, band 3 the reason of a failure.
type sideband struct {
	p    *pktReader
	rest []byte
	end  error
}

func (s *sideband) Read(b []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.end != nil {
			return 0, s.end
		}
		kind, data, err := s.p.next()
		switch {
		case err != nil:
			s.end = err
		case kind == pktFlush || kind == pktEnd:
			s.end = io.EOF
		case kind != pktData || len(data) == 0:
			s.end = fmt.Errorf("%w: an empty packet within the pack", ErrProtocol)
		case data[0] == 1:
			s.rest = data[1:]
		case data[0] == 3:
			s.end = &RemoteError{Message: oneLine(data[1:])}
		}
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

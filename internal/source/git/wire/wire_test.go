package wire

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
)

// script is a conversation whose answers are written down. The packages that
// use this one test it against real servers; here are the answers that those do not give.
type script struct {
	answers []string
	asked   []string
}

func (s *script) next() (io.Reader, error) {
	if len(s.answers) == 0 {
		return nil, io.EOF
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	return strings.NewReader(a), nil
}

func (s *script) open(context.Context) (io.Reader, error) { return s.next() }
func (s *script) ask(_ context.Context, request []byte) (io.Reader, error) {
	s.asked = append(s.asked, string(request))
	return s.next()
}
func (s *script) close()          {}
func (s *script) stateless() bool { return true }

// pkts writes packets; "0000" and "0001" stand for themselves.
func pkts(lines ...string) string {
	var b strings.Builder
	for _, l := range lines {
		if l == "0000" || l == "0001" {
			b.WriteString(l)
			continue
		}
		fmt.Fprintf(&b, "%04x%s", len(l)+4, l)
	}
	return b.String()
}

var (
	h1 = strings.Repeat("1", 40)
	h2 = strings.Repeat("2", 40)
	v0 = pkts(h1+" HEAD\x00multi_ack_detailed side-band-64k shallow ofs-delta agent=x/1\n", h1+" refs/heads/main\n",
		h2+" refs/tags/v1\n", h1+" refs/tags/v1^{}\n", "shallow "+h2, "0000")
	v2 = pkts("version 2\n", "agent=x/1\n", "ls-refs\n", "fetch=shallow\n", "0000")
)

func TestAnswers(t *testing.T) {
	for _, tc := range []struct {
		name, reason string
		answers      []string
		pack, err    string // what the pack reads as, or a part of the error
	}{
		{"v0 with acknowledgements", "servers may say what they have in common in many lines", []string{v0, pkts("shallow "+h1, "0000",
			"ACK "+h2+" common\n", "ACK "+h2+" ready\n", "NAK\n", "\x02progress", "\x01PA", "\x01CK", "0000")}, "PACK", ""},
		{"v0 last acknowledgement", "", []string{v0, pkts("0000", "ACK "+h2+" common\n", "ACK "+h2+"\n", "\x01PACK", "0000")}, "PACK", ""},
		{"v0 failure in the pack", "band 3 is the reason", []string{v0, pkts("0000", "NAK\n", "\x01PA", "\x03out of\n memory")}, "", "the server says: out of memory"},
		{"v0 nonsense", "", []string{v0, pkts("0000", "HELLO\n")}, "", "no acknowledgement"},
		{"v1", "version 1 is version 0 with a line before it", []string{pkts("version 1\n") + v0, pkts("0000", "NAK\n", "\x01PACK", "0000")}, "PACK", ""},
		{"service line", "some servers say it in version 2 too", []string{pkts("# service=git-upload-pack\n", "0000") + v2,
			pkts(h1+" refs/heads/main\n", "0000"), pkts("acknowledgments\n", "NAK\n", "0001", "shallow-info\n", "shallow "+h1, "0001", "packfile\n", "\x01PACK", "0000")}, "PACK", ""},
		{"v2 error", "", []string{v2, pkts(h1+" refs/heads/main\n", "0000"), pkts("ERR not our ref\n")}, "", "the server says: not our ref"},
		{"v2 without a pack", "", []string{v2, pkts("0000"), pkts("0000")}, "", "no pack"},
		{"cut off", "an end is not the end", []string{v2, pkts(h1 + " refs/heads/main\n")}, "", "unexpected EOF"},
		{"pack cut off", "", []string{v2, pkts("0000"), pkts("packfile\n", "\x01PA")}, "", "unexpected EOF"},
		{"empty packet in pack", "", []string{v2, pkts("0000"), pkts("packfile\n", "")}, "", "empty packet"},
		{"length too large", "", []string{"ffffx"}, "", "not the Git protocol"},
		{"length too small", "", []string{"0003"}, "", "not the Git protocol"},
		{"no reference", "", []string{pkts("hello\n", "0000")}, "", "is no reference"},
		{"sha256", "", []string{pkts("version 2\n", "object-format=sha256\n", "0000")}, "", "SHA-256"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := &Session{conv: &script{answers: tc.answers}}
			got, err := visit(t.Context(), s)
			if tc.err == "" && (err != nil || got != tc.pack) {
				t.Errorf("%s: pack %q, %v", tc.reason, got, err)
			}
			if tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("error = %v, want %q in it", err, tc.err)
			}
		})
	}
}

func visit(ctx context.Context, s *Session) (string, error) {
	if _, err := s.Refs(ctx, "refs/"); err != nil {
		return "", err
	}
	res, err := s.Fetch(ctx, FetchRequest{Wants: []string{h1}, Haves: []string{h2}, Shallow: []string{h2}, Depth: 1})
	if err != nil {
		return "", err
	}
	pack, err := io.ReadAll(res.Pack)
	return string(pack), err
}

func TestReferencesOfV0(t *testing.T) {
	s := &Session{conv: &script{answers: []string{v0}}}
	refs, err := s.Refs(t.Context())
	if err != nil || len(refs) != 3 {
		t.Fatalf("%v, %v", refs, err)
	}
	if tag := refs[2]; tag.Name != "refs/tags/v1" || tag.Hash != h2 || tag.Commit() != h1 {
		t.Errorf("tag = %+v", tag)
	}
	empty := &Session{conv: &script{answers: []string{pkts(strings.Repeat("0", 40)+" capabilities^{}\x00agent=x\n", "0000")}}}
	if refs, err := empty.Refs(t.Context()); err != nil || len(refs) != 0 {
		t.Errorf("an empty repository has %v, %v", refs, err)
	}
}

// TestServerBecomesOld: what a server said once is not believed for ever.
func TestServerBecomesOld(t *testing.T) {
	conv := &script{answers: []string{"<html>", v0}}
	s := &Session{conv: conv, known: true, caps: &Capabilities{v2: true, caps: map[string]string{}}}
	refs, err := s.Refs(t.Context(), "refs/heads/")
	if err != nil || len(refs) != 3 || s.Capabilities().v2 {
		t.Errorf("%v, %v", refs, err)
	}
}

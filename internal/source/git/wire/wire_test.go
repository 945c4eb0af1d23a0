package wire

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/go-git/go-git/v5/plumbing"
)

// script is a server whose answers are written down. The packages that
// use this one test it against real servers; here are the answers that those do not give.
type script struct {
	answers []string
	asked   []string
}

func (s *script) RoundTrip(req *http.Request) (*http.Response, error) {
	media := "application/x-git-upload-pack-advertisement"
	if req.Method == http.MethodPost {
		media = "application/x-git-upload-pack-result"
		asked, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		s.asked = append(s.asked, string(asked))
	}
	if len(s.answers) == 0 {
		return nil, io.EOF
	}
	a := s.answers[0]
	s.answers = s.answers[1:]
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {media}}, Body: io.NopCloser(strings.NewReader(a)), Request: req}, nil
}

func (s *script) session(t *testing.T) *Session {
	t.Helper()
	session, err := HTTP{Transport: s, URL: &url.URL{Scheme: "https", Host: "h", Path: "/r.git"}}.Session()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(session.Close)
	return session
}

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
	v0 = pkts(h1+" HEAD\x00multi_ack_detailed side-band-64k thin-pack shallow ofs-delta agent=x/1\n", h1+" refs/heads/main\n",
		h2+" refs/tags/v1\n", h1+" refs/tags/v1^{}\n", "shallow "+h2, "0000")
)

func TestAnswers(t *testing.T) {
	for _, tc := range []struct {
		name, reason string
		answers      []string
		pack, err    string // what the pack reads as, or a part of the error
	}{
		{"acknowledgements", "servers may say what they have in common in many lines", []string{v0, pkts("shallow "+h1, "0000",
			"ACK "+h2+" common\n", "ACK "+h2+" ready\n", "NAK\n", "\x02progress", "\x01PA", "\x01CK", "0000")}, "PACK", ""},
		{"last acknowledgement", "", []string{v0, pkts("0000", "ACK "+h2+" common\n", "ACK "+h2+"\n", "\x01PACK", "0000")}, "PACK", ""},
		{"service line", "smart HTTP says it before the references", []string{pkts("# service=git-upload-pack\n", "0000") + v0,
			pkts("0000", "NAK\n", "\x01PACK", "0000")}, "PACK", ""},
		{"failure in the pack", "band 3 is the reason", []string{v0, pkts("0000", "NAK\n", "\x01PA", "\x03out of\n memory")}, "", "out of memory"},
		{"nonsense", "", []string{v0, pkts("0000", "HELLO\n")}, "", "not the Git protocol"},
		{"refusal", "", []string{v0, pkts("ERR not\n our ref\n")}, "", "the server says: not our ref"},
		{"refusal after the boundary", "", []string{v0, pkts("0000", "ERR not our ref\n")}, "", "the server says: not our ref"},
		{"refusal at once", "", []string{pkts("ERR go away\n")}, "", "the server says: go away"},
		{"cut off", "an end is not the end", []string{pkts(h1 + " refs/heads/main\x00side-band-64k\n")}, "", "unexpected EOF"},
		{"cut within a length", "", []string{"00"}, "", "unexpected EOF"},
		{"cut before the pack", "", []string{v0, pkts("0000")}, "", "unexpected EOF"},
		{"pack cut off", "", []string{v0, pkts("0000", "NAK\n", "\x01PA")}, "", "unexpected EOF"},
		{"length too large", "", []string{"ffffx"}, "", "not the Git protocol"},
		{"length too small", "", []string{"0003"}, "", "not the Git protocol"},
		{"no reference", "", []string{pkts("hello\n", "0000")}, "", "not the Git protocol"},
		{"sha256", "names are too long", []string{pkts(strings.Repeat("1", 64)+" HEAD\x00side-band-64k object-format=sha256\n", "0000")}, "", "SHA-256"},
		{"no side band", "a failure could not be told from the pack", []string{pkts(h1+" HEAD\x00shallow\n", "0000")}, "", "side-band-64k"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := visit(t.Context(), (&script{answers: tc.answers}).session(t))
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
	if _, err := s.Refs(ctx); err != nil {
		return "", err
	}
	one, two := []plumbing.Hash{plumbing.NewHash(h1)}, []plumbing.Hash{plumbing.NewHash(h2)}
	r, err := s.Fetch(ctx, FetchRequest{Wants: one, Haves: two, Shallow: two, Depth: 1})
	if err != nil {
		return "", err
	}
	pack, err := io.ReadAll(r)
	return string(pack), err
}

// TestRequest: what is asked for depends on what the server says that it can do.
func TestRequest(t *testing.T) {
	answer := pkts("0000", "NAK\n", "\x01PACK", "0000")
	full := &script{answers: []string{v0, answer}}
	if _, err := visit(t.Context(), full.session(t)); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"want " + h1, "thin-pack", "multi_ack_detailed", "agent=git/bowline", "shallow " + h2, "deepen 1", "have " + h2, "done"} {
		if !strings.Contains(full.asked[0], part) {
			t.Errorf("%q has no %q", full.asked[0], part)
		}
	}
	plain := &script{answers: []string{pkts(h1+" refs/heads/main\x00side-band-64k\n", "0000"), answer[4:]}}
	if _, err := visit(t.Context(), plain.session(t)); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"thin-pack", "multi_ack", "agent", "shallow", "deepen"} {
		if strings.Contains(plain.asked[0], part) {
			t.Errorf("%q has %q, which the server does not offer", plain.asked[0], part)
		}
	}
}

func TestReferences(t *testing.T) {
	s := (&script{answers: []string{v0}}).session(t)
	refs, err := s.Refs(t.Context())
	if err != nil || len(refs) != 3 {
		t.Fatalf("%v, %v", refs, err)
	}
	if tag := refs[2]; tag.Name != "refs/tags/v1" || tag.Hash.String() != h2 || tag.Commit().String() != h1 {
		t.Errorf("tag = %+v", tag)
	}
	if !s.CanWant(plumbing.NewHash(h2)) || s.CanWant(plumbing.NewHash(strings.Repeat("3", 40))) {
		t.Error("the server gives out what references point at and nothing else")
	}
	for _, answer := range []string{pkts(strings.Repeat("0", 40)+" capabilities^{}\x00agent=x\n", "0000"), "0000"} {
		if refs, err := (&script{answers: []string{answer}}).session(t).Refs(t.Context()); err != nil || len(refs) != 0 {
			t.Errorf("an empty repository has %v, %v", refs, err)
		}
	}
}

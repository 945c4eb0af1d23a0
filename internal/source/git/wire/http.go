package wire

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
)

// agent is how the client calls itself. Some servers look for "git/" at the beginning.
const agent = "git/bowline"

// StatusError is an answer with an HTTP status other than 200.
type StatusError struct {
	Code int
	// Message is the first line of a plain-text answer.
	Message string
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("the server answers %d %s", e.Code, http.StatusText(e.Code))
	if e.Message != "" && e.Message != http.StatusText(e.Code) {
		s += ": " + e.Message
	}
	return s
}

// HTTP is a repository behind smart HTTP.
type HTTP struct {
	// Client sends the requests; it holds TLS and proxy settings.
	Client *http.Client
	// URL is the repository's address without credentials.
	URL *url.URL
	// Authorization, when set, is the value of that header. It is not sent to
	// another host when the server redirects.
	Authorization string
}

// Session begins a session. Capabilities of an earlier session save a request; they may be nil.
func (h HTTP) Session(caps *Capabilities) *Session {
	return &Session{conv: &httpConversation{HTTP: h, base: h.URL}, caps: caps, known: caps != nil}
}

type httpConversation struct {
	HTTP
	base *url.URL // after redirects
	body io.Closer
}

func (c *httpConversation) stateless() bool { return true }

func (c *httpConversation) close() {
	if c.body != nil {
		_ = c.body.Close()
		c.body = nil
	}
}

func (c *httpConversation) open(ctx context.Context) (io.Reader, error) {
	u := *c.URL
	u.Path = strings.TrimSuffix(u.Path, "/") + "/info/refs"
	q := u.Query()
	q.Set("service", "git-upload-pack")
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	body, answered, err := c.do(req, "application/x-git-upload-pack-advertisement")
	if err != nil {
		return nil, err
	}
	// The requests that follow go where a redirect has led, as git does it.
	base := *answered
	base.Path = strings.TrimSuffix(base.Path, "/info/refs")
	base.RawQuery = c.URL.RawQuery
	c.base = &base
	return body, nil
}

func (c *httpConversation) ask(ctx context.Context, request []byte) (io.Reader, error) {
	u := *c.base
	u.Path = strings.TrimSuffix(u.Path, "/") + "/git-upload-pack"
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
	req.Header.Set("Accept", "application/x-git-upload-pack-result")
	// Asking twice does no harm: net/http may repeat the request when the server
	// has closed an idle connection. An empty value is not sent.
	req.Header["X-Idempotency-Key"] = nil
	body, _, err := c.do(req, "application/x-git-upload-pack-result")
	return body, err
}

// do sends a request and returns the answer, which must have the given type,
// and the URL that it comes from. The answer before it is let go of.
func (c *httpConversation) do(req *http.Request, wantType string) (io.Reader, *url.URL, error) {
	c.close()
	req.Header.Set("User-Agent", agent)
	req.Header.Set("Git-Protocol", "version=2")
	sameHost := req.URL.Host == c.URL.Host && (req.URL.Scheme == c.URL.Scheme || req.URL.Scheme == "https")
	if c.Authorization != "" && sameHost {
		req.Header.Set("Authorization", c.Authorization)
	}
	resp, err := c.Client.Do(req) //nolint:bodyclose // close, or the next request, closes it
	if err != nil {
		return nil, nil, err
	}
	c.body = drainCloser{resp.Body}
	if resp.StatusCode != http.StatusOK {
		e := &StatusError{Code: resp.StatusCode}
		if strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") {
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
			e.Message = oneLine(text)
		}
		return nil, nil, e
	}
	ct := resp.Header.Get("Content-Type")
	if bare, _, _ := strings.Cut(ct, ";"); strings.TrimSpace(bare) != wantType {
		return nil, nil, fmt.Errorf("%w: its type is %q", ErrProtocol, ct)
	}
	return resp.Body, resp.Request.URL, nil
}

// drainCloser reads a little of what is left before it closes, so that the
// connection can be used again.
type drainCloser struct{ io.ReadCloser }

func (d drainCloser) Close() error {
	_, _ = io.CopyN(io.Discard, d.ReadCloser, 4096)
	return d.ReadCloser.Close()
}

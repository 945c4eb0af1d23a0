package wire

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/transport"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
)

// StatusError is an answer with an HTTP status other than 200. What else the server
// says is not told: the URL may be one that only the engine can reach, and whoever
// chose it may not read there.
type StatusError struct{ Code int }

func (e *StatusError) Error() string {
	return fmt.Sprintf("the server answers %d %s", e.Code, http.StatusText(e.Code))
}

// ErrDowngrade says that a redirect would have taken encryption away.
var ErrDowngrade = errors.New("the server redirects from https to http, which would send everything in the clear")

// HTTP is a repository behind smart HTTP.
type HTTP struct {
	// Transport sends the requests; it holds TLS and proxy settings.
	Transport http.RoundTripper
	// URL is the repository's address without credentials.
	URL *url.URL
	// Authorization, when set, is the value of that header. It is not sent to
	// another host when the server redirects.
	Authorization string
}

// Session begins a session.
func (h HTTP) Session() (*Session, error) {
	port, _ := strconv.Atoi(h.URL.Port()) // "" is 0, which is the scheme's own
	host := h.URL.Hostname()
	if strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	ep := &transport.Endpoint{
		Protocol: h.URL.Scheme, Host: host, Port: port, Path: strings.TrimSuffix(h.URL.EscapedPath(), "/"),
	}
	t := &tap{}
	client := githttp.NewClient(&http.Client{Transport: &guard{next: h.Transport, tap: t}})
	conv, err := client.NewUploadPackSession(ep, credentials{h.Authorization, h.URL.RawQuery})
	return &Session{conv: conv, tap: t}, err
}

// credentials are what go-git sends to the repository's own host only.
type credentials struct{ authorization, query string }

var _ githttp.AuthMethod = credentials{}

func (credentials) Name() string   { return "bowline" }
func (credentials) String() string { return "bowline" }

// SetAuth implements githttp.AuthMethod. A query belongs to the address and goes with
// every request; it may be a credential too.
func (c credentials) SetAuth(r *http.Request) {
	if c.authorization != "" {
		r.Header.Set("Authorization", c.authorization)
	}
	if c.query != "" {
		r.URL.RawQuery = strings.TrimPrefix(r.URL.RawQuery+"&"+c.query, "&")
	}
}

// guard is between go-git and the network: it gives errors types, lets nothing
// through that is not an answer of a Git server, and has the tap listen.
type guard struct {
	next http.RoundTripper
	tap  *tap
}

// RoundTrip implements http.RoundTripper.
func (g *guard) RoundTrip(req *http.Request) (*http.Response, error) {
	g.tap.begin(nil)
	req = req.Clone(req.Context())
	req.Header.Set("User-Agent", agent)
	resp, err := g.next.RoundTrip(req)
	if err == nil {
		if err = check(req, resp); err != nil {
			_ = resp.Body.Close()
		}
	}
	if err != nil {
		g.tap.err = err
		return nil, err
	}
	g.tap.begin(resp.Body)
	resp.Body = &body{tap: g.tap, body: resp.Body}
	return resp, nil
}

// check finds what is wrong with an answer before it is read.
func check(req *http.Request, resp *http.Response) error {
	if to, err := resp.Location(); err == nil && resp.StatusCode/100 == 3 {
		if req.URL.Scheme == "https" && to.Scheme != "https" {
			return ErrDowngrade
		}
		return nil
	}
	media, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	media = strings.TrimSpace(media)
	if resp.StatusCode != http.StatusOK {
		return &StatusError{Code: resp.StatusCode}
	}
	want := "application/x-git-upload-pack-result"
	if req.Method == http.MethodGet {
		want = "application/x-git-upload-pack-advertisement"
	}
	if media != want {
		return fmt.Errorf("%w: its type is %q", ErrProtocol, resp.Header.Get("Content-Type"))
	}
	return nil
}

// body is an answer that the tap listens to.
type body struct {
	*tap
	body io.ReadCloser
}

// Close reads a little of what is left, so that the connection can be used again.
func (b *body) Close() error {
	_, _ = io.CopyN(io.Discard, b.body, 4096)
	return b.body.Close()
}

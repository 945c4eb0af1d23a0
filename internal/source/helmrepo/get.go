package helmrepo

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/chart"
	"github.com/bowline-dev/bowline/internal/source/reach"
)

// userAgent is what servers are told.
const userAgent = "bowline"

// idle is how many connections to one server may wait for more to do.
const idle = 2

// getter asks one repository's servers, for as long as its context lasts.
type getter struct {
	ctx       context.Context //nolint:containedctx // it lives as long as one fetch
	req       Request
	mirrors   reach.Mirrors
	base      *url.URL // of the repository, with a slash at the end
	index     *url.URL
	transport *http.Transport
	own       bool // the transport is this one's alone
}

func (s *Store) getter(ctx context.Context, req Request) (*getter, error) {
	base, err := parseURL(req.URL)
	if err != nil {
		return nil, err
	}
	if base.User != nil && req.Auth.Username == "" && req.Auth.Password == "" {
		req.Auth.Username = base.User.Username()
		req.Auth.Password, _ = base.User.Password()
	}
	base.User = nil
	base.Path, base.RawPath = strings.TrimRight(base.Path, "/")+"/", ""
	index := *base
	index.Path = path.Join(base.Path, "index.yaml")
	g := &getter{ctx: ctx, req: req, base: base, index: &index, mirrors: s.options.Mirrors, transport: s.transport}
	if req.Auth.TLS.Empty() {
		return g, nil
	}
	cfg, err := req.Auth.TLS.Config(certsField)
	if err != nil {
		return nil, err
	}
	g.transport, g.own = reach.Transport(cfg, nil, idle), true
	return g, nil
}

func (g *getter) close() {
	if g.own {
		g.transport.CloseIdleConnections()
	}
}

// resolve returns the URL of a chart, which an index may give relative to the repository.
func (g *getter) resolve(text string) (*url.URL, error) {
	bad := func(why string) error {
		return &failure.Error{Op: "read chart URL", Object: "in the index of " + g.display(g.base), Kind: failure.Invalid, Err: errors.New(why), Remedy: "have the index made anew"}
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, bad("it cannot be parsed")
	}
	if !u.IsAbs() {
		u = g.base.ResolveReference(u)
		u.RawQuery = g.base.RawQuery
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, bad(fmt.Sprintf("the scheme is %q and not http or https", u.Scheme))
	}
	u.Fragment = ""
	return u, nil
}

// trusted reports whether credentials may go to a server.
func (g *getter) trusted(u *url.URL) bool {
	return g.req.PassCredentials || u.Scheme == g.base.Scheme && u.Host == g.base.Host
}

// mirrored returns where to ask in place of a URL.
func (g *getter) mirrored(u *url.URL) (*url.URL, error) {
	bare := *u
	bare.User = nil
	mirror := g.mirrors.Of(bare.String())
	if mirror == "" {
		return u, nil
	}
	to, err := parseURL(mirror)
	if err != nil {
		return nil, fmt.Errorf("use the mirror of %s: %w", g.display(u), err)
	}
	return to, nil
}

// get asks for a URL. Answers are 200 and 304; the rest is explained.
func (g *getter) get(u *url.URL, headers map[string]string) (*http.Response, error) {
	to, err := g.mirrored(u)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(g.ctx, http.MethodGet, to.String(), nil)
	if err != nil {
		return nil, &failure.Error{Op: "fetch", Object: g.display(u), Kind: failure.Invalid, Err: errors.New("the URL cannot be asked")}
	}
	req.Header.Set("User-Agent", userAgent)
	for k, v := range headers {
		if v != "" {
			req.Header.Set(k, v)
		}
	}
	if g.trusted(u) && (g.req.Auth.Username != "" || g.req.Auth.Password != "") {
		req.SetBasicAuth(g.req.Auth.Username, g.req.Auth.Password)
	}
	client := http.Client{Transport: g.transport, CheckRedirect: g.redirect(to)}
	answer, err := client.Do(req)
	if err != nil {
		return nil, g.explain(g.display(u), err)
	}
	if answer.StatusCode == http.StatusOK || answer.StatusCode == http.StatusNotModified && headers != nil {
		return answer, nil
	}
	_ = answer.Body.Close()
	kind, remedy := g.way().Status(answer.StatusCode)
	return nil, &failure.Error{Op: "fetch", Object: g.display(u), Kind: kind,
		Err: fmt.Errorf("the server answered with %d %s", answer.StatusCode, http.StatusText(answer.StatusCode)), Remedy: remedy}
}

// redirect follows redirects, and takes the credentials along to the same server only.
func (g *getter) redirect(first *url.URL) func(*http.Request, []*http.Request) error {
	return func(next *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return errors.New("there are more than 10 redirects")
		}
		same := next.URL.Scheme == first.Scheme && next.URL.Host == first.Host
		switch {
		case !same && !g.req.PassCredentials:
			next.Header.Del("Authorization")
		case g.req.PassCredentials && via[0].Header.Get("Authorization") != "":
			next.Header.Set("Authorization", via[0].Header.Get("Authorization")) //nolint:gosec // the repository asks for it
		}
		return nil
	}
}

// download returns an archive that has the promised digest.
func (g *getter) download(u *url.URL, v chart.Version) ([]byte, error) {
	// A server that packs the archive once more would change its bytes.
	answer, err := g.get(u, map[string]string{"Accept-Encoding": "identity"})
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	data, err := io.ReadAll(io.LimitReader(answer.Body, chart.MaxArchive+1))
	if err != nil {
		return nil, g.explain(g.display(u), err)
	}
	if len(data) > chart.MaxArchive {
		return nil, &failure.Error{Op: "download chart", Object: g.display(u), Kind: failure.Invalid,
			Err: fmt.Errorf("it has more than %d bytes", chart.MaxArchive), Remedy: "leave out of the chart what it does not need"}
	}
	if v.Digest == "" {
		return data, nil
	}
	want, err := hex.DecodeString(strings.TrimPrefix(v.Digest, "sha256:"))
	if err != nil || len(want) != sha256.Size {
		return nil, &failure.Error{Op: "verify chart", Object: g.display(u), Kind: failure.Invalid,
			Err: fmt.Errorf("the index has %q as its digest, which is no SHA-256", v.Digest), Remedy: "have the index made anew"}
	}
	if sum := sha256.Sum256(data); subtle.ConstantTimeCompare(sum[:], want) != 1 {
		return nil, &failure.Error{Op: "verify chart", Object: g.display(u), Kind: failure.Unavailable,
			Err:    fmt.Errorf("what the server sent has the digest %s, and the index promises %s", hex.EncodeToString(sum[:]), strings.TrimPrefix(v.Digest, "sha256:")),
			Remedy: "have the index made anew, or find out who changed the chart"}
	}
	return data, nil
}

// display names a URL in messages, with its mirror.
func (g *getter) display(u *url.URL) string {
	to, err := g.mirrored(u)
	if err != nil || to == u {
		return redacted(u)
	}
	return redacted(to) + " (mirror of " + redacted(u) + ")"
}

// explain turns what went wrong on the way to a server into one line that says what to do.
func (g *getter) explain(object string, err error) error {
	if failure.KindOf(err) != "" {
		return err
	}
	e := &failure.Error{Op: "fetch", Object: object, Kind: failure.Unavailable}
	g.way().Explain(g.ctx, e, err)
	return e
}

func (g *getter) way() reach.Way {
	return reach.Way{Server: "the server", Address: "the URL", Certs: certsField, NoProxy: true, Timeout: g.req.timeout()}
}

// parseURL reads a repository's URL.
func parseURL(s string) (*url.URL, error) {
	bad := func(why string) error {
		// The text may hold a password where it cannot be told from the rest.
		return &failure.Error{Op: "read repository URL", Kind: failure.Invalid, Err: fmt.Errorf("%w: %s", ErrURL, why), Remedy: "use a URL like https://host/path"}
	}
	u, err := url.Parse(s)
	switch {
	case err != nil:
		return nil, bad("it cannot be parsed")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, bad(fmt.Sprintf("the scheme is %q and not http or https", u.Scheme))
	case u.Hostname() == "":
		return nil, bad("it has no host")
	}
	u.Fragment = ""
	return u, nil
}

// ErrURL is what errors about the URL of a repository match.
var ErrURL = errors.New("it is no URL of a Helm repository")

// Redacted returns a repository's URL without credentials.
func Redacted(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "a URL that cannot be parsed"
	}
	return redacted(u)
}

// redacted prints a URL without credentials.
func redacted(u *url.URL) string {
	c := *u
	c.User, c.RawQuery = nil, ""
	return c.String()
}

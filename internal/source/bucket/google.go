package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"

	"cloud.google.com/go/storage"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/google"
	"golang.org/x/oauth2/jwt"
	"google.golang.org/api/googleapi"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
)

// gcs is a client of Google Cloud Storage.
type gcs struct {
	bucket *storage.BucketHandle
	client *storage.Client
	way    *http.Transport
	// account is whose token is shown; nil for a token that is given, or none.
	account *jwt.Config
	bearer  *bearer
}

// bearer shows a token with each request.
type bearer struct {
	way http.RoundTripper

	mu    sync.Mutex // guards token
	token *oauth2.Token
}

// RoundTrip implements http.RoundTripper.
func (b *bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	b.mu.Lock()
	token := b.token
	b.mu.Unlock()
	if token != nil {
		r = r.Clone(r.Context())
		token.SetAuthHeader(r)
	}
	return b.way.RoundTrip(r)
}

// serviceAccount reads the key of a service account. Other kinds of credentials, which the same
// library reads, can name files of this machine whose content is then sent to whom they say.
func (l Login) serviceAccount() (*jwt.Config, error) {
	if len(l.ServiceAccount) == 0 {
		return nil, nil
	}
	config, err := google.JWTConfigFromJSON(l.ServiceAccount, storage.ScopeReadOnly)
	if err != nil {
		// The parser's own words may hold parts of the key.
		return nil, secretError(refSecret, "serviceaccount", "it is no key of a service account, as it is downloaded: JSON with \"type\": \"service_account\"")
	}
	return config, nil
}

func newGoogle(where location, req Request, way *http.Transport) (client, error) {
	account, err := req.Login.serviceAccount()
	if err != nil {
		return nil, err
	}
	g := &gcs{way: way, account: account, bearer: &bearer{way: way}}
	if req.Login.Token != "" {
		g.bearer.token = &oauth2.Token{AccessToken: req.Login.Token}
	}
	g.client, err = storage.NewClient(context.Background(),
		option.WithHTTPClient(&http.Client{Transport: g.bearer}), option.WithEndpoint(where.base.String()+"/storage/v1/"), storage.WithJSONReads())
	if err != nil {
		return nil, fmt.Errorf("prepare to speak to %s: %w", where.display, err)
	}
	g.client.SetRetry(storage.WithPolicy(storage.RetryNever))
	g.bucket = g.client.Bucket(where.bucket)
	return g, nil
}

func (g *gcs) begin(ctx context.Context) error {
	if g.account == nil {
		return nil
	}
	g.bearer.mu.Lock()
	valid := g.bearer.token.Valid()
	g.bearer.mu.Unlock()
	if valid {
		return nil
	}
	token, err := g.account.TokenSource(context.WithValue(ctx, oauth2.HTTPClient, &http.Client{Transport: bounded{ctx, g.way}})).Token()
	if err != nil {
		return err
	}
	g.bearer.mu.Lock()
	defer g.bearer.mu.Unlock()
	g.bearer.token = token
	return nil
}

// bounded ends requests of a library that passes no context on.
type bounded struct {
	ctx context.Context //nolint:containedctx // this is what it is for
	way http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	return b.way.RoundTrip(r.WithContext(b.ctx))
}

func (g *gcs) list(ctx context.Context, prefix string, visit func(object) error) error {
	query := &storage.Query{Prefix: prefix, Projection: storage.ProjectionNoACL}
	if err := query.SetAttrSelection([]string{"Name", "Etag", "Size", "Generation"}); err != nil {
		return err
	}
	items := g.bucket.Objects(ctx, query)
	for {
		o, err := items.Next()
		if errors.Is(err, iterator.Done) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := visit(object{key: o.Name, etag: o.Etag, size: o.Size, version: strconv.FormatInt(o.Generation, 10)}); err != nil {
			return err
		}
	}
}

func (g *gcs) open(ctx context.Context, o object) (io.ReadCloser, error) {
	generation, err := strconv.ParseInt(o.version, 10, 64)
	if err != nil {
		return nil, err
	}
	body, err := g.bucket.Object(o.key).If(storage.Conditions{GenerationMatch: generation}).NewReader(ctx)
	if r, ok := g.reply(err); ok && (r.status == http.StatusPreconditionFailed || r.status == http.StatusNotFound) {
		return nil, errMoved
	}
	if err != nil {
		return nil, err
	}
	return body, nil
}

func (g *gcs) reply(err error) (reply, bool) {
	var token *oauth2.RetrieveError
	var r *googleapi.Error
	switch {
	case errors.Is(err, storage.ErrBucketNotExist):
		return reply{status: http.StatusNotFound, code: codeNoBucket}, true
	case errors.Is(err, storage.ErrObjectNotExist):
		return reply{status: http.StatusNotFound, code: "notFound"}, true
	case errors.As(err, &token) && token.Response != nil:
		return reply{status: token.Response.StatusCode, code: codeLogin}, true
	case errors.As(err, &r):
		if len(r.Errors) > 0 {
			return reply{status: r.Code, code: r.Errors[0].Reason}, true
		}
		return reply{status: r.Code}, true
	default:
		return reply{}, false
	}
}

func (g *gcs) close() {
	_ = g.client.Close()
	g.way.CloseIdleConnections()
}

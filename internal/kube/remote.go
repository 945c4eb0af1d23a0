package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"github.com/bowline-dev/bowline/internal/failure"
)

// ErrShut is wrapped by the errors of requests through a Remote that is shut.
var ErrShut = errors.New("the connection is shut")

// errLate is why a request that got no answer in time ended.
var errLate = errors.New("no answer in time")

// Bounds of one answer that is not a watch: what takes longer, or is larger, is no
// answer of a working API server.
const (
	longestAnswer = time.Minute
	largestAnswer = 256 << 20 // bytes
)

// Way is how a cluster is reached with one set of credentials. It does not change.
type Way struct {
	// Cluster is the identity of the cluster that it leads to; see Remote.Only. It is
	// set before the way is opened.
	Cluster   string
	base      *url.URL
	transport *http.Transport
	with      http.RoundTripper // transport with the credentials
	identity  string            // what the transport was made from
}

// NewWay prepares a way. It sends no request. Where before leads over the same TLS
// settings, its connections are shared: a new token costs no new connection.
func NewWay(config *rest.Config, before *Way) (*Way, error) {
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("address %s: %w", config.Host, err)
	}
	settings, err := config.TransportConfig()
	if err != nil {
		return nil, err
	}
	w := &Way{base: base, identity: identityOf(config)}
	if before != nil && before.identity == w.identity && config.ExecProvider == nil {
		w.transport = before.transport
	} else if w.transport, err = newTransport(settings); err != nil {
		return nil, err
	}
	if settings.UserAgent == "" {
		settings.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	w.with, err = transport.HTTPWrappersForConfig(settings, w.transport)
	return w, err
}

// identityOf identifies what makes connections differ: all but headers.
func identityOf(config *rest.Config) string {
	proxy := ""
	if config.Proxy != nil {
		if u, err := config.Proxy(&http.Request{URL: &url.URL{}}); err == nil && u != nil {
			proxy = u.String()
		}
	}
	tls := config.TLSClientConfig
	return fmt.Sprintf("%t %q %q %q %q %q %t", tls.Insecure, tls.ServerName, tls.CAData, tls.CertData, tls.KeyData, proxy, config.DisableCompression)
}

func newTransport(settings *transport.Config) (*http.Transport, error) {
	tlsConfig, err := transport.TLSConfigFor(settings)
	if err != nil {
		return nil, err
	}
	dial := (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}).DialContext
	if settings.DialHolder != nil {
		dial = settings.DialHolder.Dial
	}
	proxy := http.ProxyFromEnvironment
	if settings.Proxy != nil {
		proxy = settings.Proxy
	}
	return utilnet.SetTransportDefaults(&http.Transport{
		Proxy: proxy, TLSClientConfig: tlsConfig, TLSHandshakeTimeout: 10 * time.Second, DialContext: dial,
		MaxIdleConnsPerHost: 25, IdleConnTimeout: 5 * time.Minute, DisableCompression: settings.DisableCompression,
	}), nil
}

// Remote is a connection to a cluster other than the engine's own. Its credentials
// can be changed while it is in use, it can be shut so that everybody's requests fail
// at once, and no request waits for an answer longer than the time it was given. It
// is an http.RoundTripper, safe for concurrent use.
type Remote struct {
	patience time.Duration
	// trouble is told of every request that got no answer; late says that it waited
	// for all of the patience.
	trouble func(err error, late bool)
	// answered is when the last answer came, in Unix nanoseconds.
	answered atomic.Int64

	mu    sync.Mutex
	way   *Way  // guarded by mu; nil when it is shut
	last  *Way  // guarded by mu; the newest way, also when it is shut
	cause error // guarded by mu; why it is shut
	// life is that of the requests under way.
	life context.Context         //nolint:containedctx // guarded by mu; it ends requests, and begins none
	end  context.CancelCauseFunc // guarded by mu
}

// NewRemote returns a connection that is shut. patience is how long a request waits
// for an answer. trouble must not block.
func NewRemote(patience time.Duration, trouble func(err error, late bool)) *Remote {
	r := &Remote{patience: patience, trouble: trouble, cause: ErrShut}
	r.life, r.end = context.WithCancelCause(context.Background())
	return r
}

// Open lets requests through, with these credentials from now on. Requests under way
// go on with those that they began with.
func (r *Remote) Open(w *Way) {
	r.mu.Lock()
	old := r.last
	if r.way == nil {
		r.life, r.end = context.WithCancelCause(context.Background())
	}
	r.way, r.last, r.cause = w, w, nil
	r.mu.Unlock()
	if old != nil && old.transport != w.transport {
		old.transport.CloseIdleConnections()
	}
}

// Shut makes all requests fail, those under way too, until it is opened. The error
// wraps ErrShut and cause.
func (r *Remote) Shut(cause error) {
	r.mu.Lock()
	r.way, r.cause = nil, shutError{cause}
	end, last := r.end, r.last
	err := r.cause
	r.mu.Unlock()
	end(err)
	if last != nil {
		last.transport.CloseIdleConnections()
	}
}

// shutError prints as its cause.
type shutError struct{ error }

func (e shutError) Unwrap() []error { return []error{ErrShut, e.error} }

// Last returns the newest way, for NewWay; nil when there was none.
func (r *Remote) Last() *Way {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// SilentFor returns for how long no answer has come.
func (r *Remote) SilentFor(now time.Time) time.Duration {
	return now.Sub(time.Unix(0, r.answered.Load()))
}

// RoundTrip implements http.RoundTripper.
func (r *Remote) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	way, cause, life := r.way, r.cause, r.life
	r.mu.Unlock()
	if way == nil {
		return nil, refuse(req, cause)
	}
	return r.send(life, req, way)
}

// Only returns a round tripper that lets requests through while r leads to this cluster
// and to no other: what was decided about one cluster must not be done to another that
// the same kubeconfig leads to by then.
func (r *Remote) Only(cluster string) http.RoundTripper { return only{r, cluster} }

type only struct {
	remote  *Remote
	cluster string
}

var errElsewhere = shutError{errors.New("the kubeconfig leads to another cluster by now")}

// RoundTrip implements http.RoundTripper.
func (o only) RoundTrip(req *http.Request) (*http.Response, error) {
	o.remote.mu.Lock()
	way, cause, life := o.remote.way, o.remote.cause, o.remote.life
	o.remote.mu.Unlock()
	switch {
	case way == nil:
		return nil, refuse(req, cause)
	case way.Cluster != o.cluster:
		return nil, refuse(req, errElsewhere)
	}
	return o.remote.send(life, req, way)
}

// Probe returns a round tripper that goes the way also when r is shut, with the same
// patience, and that troubles nobody: it is how to find out whether to open.
func (r *Remote) Probe(w *Way) http.RoundTripper { return probe{r, w} }

type probe struct {
	remote *Remote
	way    *Way
}

// RoundTrip implements http.RoundTripper.
func (p probe) RoundTrip(req *http.Request) (*http.Response, error) {
	quiet := &Remote{patience: p.remote.patience, trouble: func(error, bool) {}}
	response, err := quiet.send(req.Context(), req, p.way)
	if err == nil {
		p.remote.answered.Store(quiet.answered.Load())
	}
	return response, err
}

// refuse ends a request that is not sent.
func refuse(req *http.Request, cause error) error {
	if req.Body != nil {
		_ = req.Body.Close()
	}
	return cause
}

// send sends the request and sees to it that neither the answer nor its body is
// waited for too long. A watch lasts as long as it likes once it is answered.
func (r *Remote) send(life context.Context, req *http.Request, way *Way) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	a := &answer{remote: r, cancel: cancel, left: largestAnswer, until: time.Now().Add(longestAnswer)}
	a.unlink = context.AfterFunc(life, func() { cancel(context.Cause(life)) })
	a.timer = time.AfterFunc(r.patience, func() { cancel(errLate) })
	out := req.WithContext(ctx) //nolint:contextcheck // of the request; life only ends it
	out.URL = way.at(req.URL)
	out.Host = ""
	response, err := way.with.RoundTrip(out)
	if err != nil {
		a.end()
		return nil, r.failed(ctx, req, err) //nolint:contextcheck // as above
	}
	r.answered.Store(time.Now().UnixNano())
	a.ReadCloser, a.ctx = response.Body, ctx
	if isWatch(req) {
		a.timer.Stop()
		a.watch = true
	}
	response.Body = a
	return response, nil
}

// at returns where a request goes: its path counts from the root of the API.
func (w *Way) at(u *url.URL) *url.URL {
	out := *u
	out.Scheme, out.Host = w.base.Scheme, w.base.Host
	if prefix := strings.TrimSuffix(w.base.Path, "/"); prefix != "" {
		out.Path = prefix + u.Path
		if u.RawPath != "" {
			out.RawPath = prefix + u.RawPath
		}
	}
	return &out
}

func isWatch(req *http.Request) bool { return req.URL.Query().Get("watch") == "true" }

// failed tells why a request got no answer. What its own sender ended is no trouble.
func (r *Remote) failed(ctx context.Context, req *http.Request, err error) error {
	cause := context.Cause(ctx)
	switch {
	case errors.Is(cause, ErrShut):
		return cause
	case errors.Is(cause, errLate):
		late := &failure.Error{Kind: failure.Timeout, Err: fmt.Errorf("no answer within %s", r.patience)}
		r.trouble(late, true)
		return late
	case req.Context().Err() != nil:
		return err
	default:
		r.trouble(err, false)
		return err
	}
}

// answer is the body of an answer.
type answer struct {
	io.ReadCloser
	remote *Remote
	ctx    context.Context //nolint:containedctx // that of its request
	cancel context.CancelCauseFunc
	unlink func() bool
	timer  *time.Timer
	watch  bool
	left   int64
	until  time.Time
}

// Read implements io.Reader. What comes buys more time.
func (a *answer) Read(p []byte) (int, error) {
	n, err := a.ReadCloser.Read(p)
	if a.watch {
		if errors.Is(err, io.EOF) && a.ctx.Err() != nil { // the server ended it because we did
			err = context.Cause(a.ctx)
		}
		return n, err
	}
	if a.left -= int64(n); a.left < 0 {
		a.cancel(nil)
		return 0, fmt.Errorf("the answer is larger than %d MiB", largestAnswer>>20)
	}
	if n > 0 && err == nil && a.timer.Stop() {
		a.timer.Reset(max(0, min(a.remote.patience, time.Until(a.until))))
	}
	if err != nil && errors.Is(context.Cause(a.ctx), errLate) { // an end that comes now may be ours
		err = &failure.Error{Kind: failure.Timeout, Err: errors.New("the answer does not end")}
		a.remote.trouble(err, true)
	}
	return n, err
}

// Close implements io.Closer.
func (a *answer) Close() error {
	err := a.ReadCloser.Close()
	a.end()
	return err
}

func (a *answer) end() {
	a.timer.Stop()
	a.unlink()
	a.cancel(nil)
}

// Switch is a round tripper whose way can be changed while it is in use.
type Switch struct {
	to atomic.Pointer[http.RoundTripper]
}

// Set makes requests go through rt from now on; nil lets none through.
func (s *Switch) Set(rt http.RoundTripper) {
	if rt == nil {
		s.to.Store(nil)
		return
	}
	s.to.Store(&rt)
}

// RoundTrip implements http.RoundTripper.
func (s *Switch) RoundTrip(req *http.Request) (*http.Response, error) {
	to := s.to.Load()
	if to == nil {
		return nil, refuse(req, ErrShut)
	}
	return (*to).RoundTrip(req)
}

// Over returns the clients of a cluster that is reached through a round tripper of
// its own, such as a Remote. resources may be nil: then it has a table of its own.
func Over(host string, rt http.RoundTripper, resources *Resources) (*Cluster, error) {
	base, err := url.Parse(host)
	if err != nil {
		return nil, fmt.Errorf("address of the cluster: %w", err)
	}
	// Paths count from the root of the API: what comes before is the way's.
	config := &rest.Config{Host: base.Scheme + "://" + base.Host, QPS: -1, Burst: -1, WarningHandler: rest.NoWarnings{}}
	httpClient := &http.Client{Transport: rt}
	c, err := clientsOn(config, httpClient)
	if err != nil {
		return nil, err
	}
	c.Resources = resources
	if resources == nil {
		if c.Resources, err = resourcesOf(config, httpClient); err != nil {
			return nil, err
		}
	}
	return c, nil
}

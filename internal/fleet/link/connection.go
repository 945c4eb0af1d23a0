package link

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/connrotation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// answering is how long the hub may take to answer a request.
const answering = 10 * time.Second

// connection is the way to the hub, with the credentials that are good now. It asks the hub for nothing by itself: which
// kinds there are is known.
type connection struct {
	config func() *rest.Config

	mu sync.Mutex
	// All below is guarded by mu: what client was made from, and what its connections are made with.
	from   *rest.Config
	client client.WithWatch
	dialer *connrotation.Dialer
}

func newConnection(config func() *rest.Config) *connection { return &connection{config: config} }

// get returns a client with the credentials of now. What was connected with others is cut.
func (c *connection) get() (client.WithWatch, error) {
	config := c.config()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.from == config {
		return c.client, nil
	}
	made, dialer, err := connect(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the hub %s: %w", config.Host, err)
	}
	if c.dialer != nil {
		c.dialer.CloseAll()
	}
	c.from, c.client, c.dialer = config, made, dialer
	return made, nil
}

// drop cuts all connections. One whose other end went silent would be waited for much longer.
func (c *connection) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dialer != nil {
		c.dialer.CloseAll()
	}
}

func connect(config *rest.Config) (client.WithWatch, *connrotation.Dialer, error) {
	config = rest.CopyConfig(config)
	dial := config.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: answering, KeepAlive: 30 * time.Second}).DialContext
	}
	dialer := connrotation.NewDialer(dial)
	config.Dial = dialer.DialContext
	config.QPS, config.Timeout = -1, 0
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, coordinationv1.AddToScheme} {
		if err := add(s); err != nil {
			return nil, nil, err
		}
	}
	mapper := apimeta.NewDefaultRESTMapper([]schema.GroupVersion{v1alpha1.GroupVersion, coordinationv1.SchemeGroupVersion})
	for _, kind := range []schema.GroupVersionKind{
		v1alpha1.GroupVersion.WithKind(v1alpha1.ClusterAssignmentKind), v1alpha1.GroupVersion.WithKind(v1alpha1.ClusterReportKind),
		coordinationv1.SchemeGroupVersion.WithKind("Lease"),
	} {
		mapper.Add(kind, apimeta.RESTScopeNamespace)
	}
	made, err := client.NewWithWatch(config, client.Options{Scheme: s, Mapper: mapper})
	return made, dialer, err
}

// backoff says how long to wait before the hub is asked again: from half a second doubling up to the most, each
// between once and one and a half times, so that a hub that is back is not asked by all its members at once.
type backoff struct {
	most time.Duration
	next time.Duration
}

const firstRetry = 500 * time.Millisecond

func (b *backoff) step() time.Duration {
	b.next = min(max(2*b.next, min(firstRetry, b.most)), b.most)
	return spread(b.next)
}

func (b *backoff) reset() { b.next = 0 }

// spread returns a duration that is up to half as much longer.
func spread(d time.Duration) time.Duration {
	return d + time.Duration(rand.Int64N(int64(d)/2+1)) //nolint:gosec // nothing is secret about it
}

// pause waits, and returns false when the link ends before that.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// wake is a bell that rings once, however often it was pulled meanwhile.
type wake chan struct{}

func newWake() wake { return make(wake, 1) }

func (w wake) up() {
	select {
	case w <- struct{}{}:
	default:
	}
}

// wait waits for the bell, and returns false when the link ends.
func (w wake) wait(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-w:
		return ctx.Err() == nil
	}
}

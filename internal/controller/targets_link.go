package controller

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
)

// remoteOptions say how other clusters are dealt with.
type remoteOptions struct {
	kubeconfig kube.KubeconfigOptions
	// patience is how long a request waits for an answer.
	patience time.Duration
	// workers is how many units are worked on at one time, and requests how many
	// requests that change objects of one cluster are under way.
	workers, requests int
	count             func(request string)
	log               logr.Logger
	// identity asks for the cloud identity behind a ConfigMap.
	identity workloadIdentity
	// life ends everything.
	life context.Context //nolint:containedctx // links outlive the calls that make them
}

// linkKey names what a unit says of how its cluster is reached.
type linkKey struct{ namespace, kind, name, key string }

// kindLink is the kind of the users of references that are links.
const kindLink = "kubeConfig"

// userOf returns a link as a user of references.
func (t *targets) userOf(k linkKey) user {
	return user{kindLink + " of " + t.group, types.NamespacedName{Namespace: k.namespace, Name: k.kind + "/" + k.name + "/" + k.key}}
}

// String names what holds the way to the cluster, for messages.
func (k linkKey) String() string {
	return fmt.Sprintf("%s %s/%s", k.kind, k.namespace, k.name)
}

func linkKeyOf(a address) (linkKey, error) {
	switch c := a.kubeConfig; {
	case c.SecretRef != nil && c.SecretRef.Name != "":
		return linkKey{a.unit.Namespace, kindSecret, c.SecretRef.Name, c.SecretRef.Key}, nil
	case c.ConfigMapRef != nil && c.ConfigMapRef.Name != "":
		return linkKey{a.unit.Namespace, kindConfigMap, c.ConfigMapRef.Name, ""}, nil
	default:
		return linkKey{}, &failure.Error{Op: "reach the cluster", Kind: failure.Invalid, Object: "spec.kubeConfig",
			Err: errors.New("it names no Secret and no ConfigMap"), Remedy: "set secretRef or configMapRef"}
	}
}

// link is the connection to another cluster with the credentials of one Secret or
// ConfigMap. A goroutine of its own keeps it: it alone asks the cluster who it is, so
// that no unit ever waits for that, and it finds out when a cluster is back.
type link struct {
	*targets
	key    linkKey
	remote *kube.Remote
	// look asks the keeper to look at credentials and cluster anew.
	look chan struct{}
	stop context.CancelFunc

	// guarded by targets.mu from here on.

	// access is nil before the cluster was first reached, and err then and
	// afterwards says why it cannot be reached; nil when it can.
	access *access
	err    error
	// away says that err is that nobody answers, and not what was answered.
	away bool
	host string
	// tenant is the namespace of a tenant, and empty for all others.
	tenant string
	// waiting are the units that were turned away.
	waiting map[types.NamespacedName]bool
}

// errConnecting is wrapped by the error for a cluster of which nothing is known yet.
var errConnecting = errors.New("connecting")

// linkOf returns the link that a unit asks for and notes that it belongs
// there, in one go: a link that nobody belongs to may be closed at any time.
func (t *targets) linkOf(a address, account types.NamespacedName) (*link, error) {
	key, err := linkKeyOf(a)
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.links[key]
	if l == nil {
		l = t.begin(key)
	}
	t.settle(a.unit, place{link: l, account: account})
	return l, nil
}

// begin makes a link and begins to keep it. The lock is held.
func (t *targets) begin(key linkKey) *link {
	l := &link{targets: t, key: key, look: make(chan struct{}, 1), waiting: map[types.NamespacedName]bool{}}
	if t.tenancy.Confined(key.namespace) {
		l.tenant = key.namespace
	}
	l.err = fmt.Errorf("%w to the cluster of %s", errConnecting, key)
	l.remote = kube.NewRemote(t.remote.patience, l.trouble)
	life, stop := context.WithCancel(t.remote.life)
	l.stop = stop
	t.links[key] = l
	go l.keep(life)
	return l
}

// enterable returns the access to the cluster, or why there is none; the unit is
// woken when that changes.
func (l *link) enterable(unit types.NamespacedName) (*access, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		l.waiting[unit] = true
		return nil, l.err
	}
	return l.access, nil
}

// turnedAway returns why the cluster cannot be reached now, nil when it can; the unit,
// which was at work there, is woken when that changes.
func (l *link) turnedAway(unit types.NamespacedName) error {
	_, err := l.enterable(unit)
	return err
}

// turnedAway is that of the link that the unit is delivered by; the engine's own cluster
// turns nobody away.
func (d *delivery) turnedAway(unit types.NamespacedName) error {
	if d.access.link == nil {
		return nil
	}
	return d.access.link.turnedAway(unit)
}

// close ends the link, and what only it used. The lock is held.
func (l *link) close() {
	if l.links[l.key] != l {
		return // closed already
	}
	l.stop()
	delete(l.links, l.key)
	if l.access != nil {
		l.access.station.leave(l)
	}
	l.err = fmt.Errorf("%w to the cluster of %s", errConnecting, l.key)
	l.remote.Shut(errors.New("nobody uses it any more"))
	l.references.forget(l.userOf(l.key))
}

// poke asks the keeper to look anew.
func (l *link) poke() {
	select {
	case l.look <- struct{}{}:
	default:
	}
}

// lookAt asks the keepers of a reference that changed to look anew.
func (t *targets) lookAt(u user) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, l := range t.links {
		if t.userOf(key) == u {
			l.poke()
		}
	}
}

// trouble takes that a request got no answer. One that waited in vain shuts the link
// at once, so that nobody waits again; others may be about a single connection, and
// the keeper finds out.
func (l *link) trouble(err error, late bool) {
	if late {
		l.shut(l.unanswered(err), true)
	}
	l.poke()
}

func (l *link) unanswered(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return &failure.Error{Op: "reach", Kind: failure.Unavailable, Object: "the cluster of " + l.key.String(),
		Err:    fmt.Errorf("%s does not answer since %s: %w", l.host, l.clock.Now().UTC().Format(time.RFC3339), err),
		Remedy: "it is tried again by itself"}
}

// shut turns everybody away. While a cluster stays away, why does not change: how it
// fails may differ with every attempt, and tells nobody anything.
func (l *link) shut(err error, away bool) {
	l.mu.Lock()
	if l.away && away && l.err != nil && !errors.Is(l.err, errConnecting) {
		l.mu.Unlock()
		return
	}
	changed := l.err == nil || l.err.Error() != err.Error()
	l.err, l.away = err, away
	if l.access != nil {
		l.access.station.speak()
	}
	var woken []types.NamespacedName
	if changed {
		woken = l.takeWaiting()
	}
	l.mu.Unlock()
	l.remote.Shut(err)
	if changed {
		l.targets.remote.log.Info("a cluster cannot be reached", "link", l.key.String(), "cause", err.Error())
	}
	l.wakeAll(woken)
}

// takeWaiting returns the units that were turned away. The lock is held.
func (l *link) takeWaiting() []types.NamespacedName {
	woken := slices.Collect(maps.Keys(l.waiting))
	clear(l.waiting)
	return woken
}

func (l *link) wakeAll(units []types.NamespacedName) {
	for _, unit := range units {
		l.wake(unit, true)
	}
}

// open lets everybody in, unless the link was closed meanwhile.
func (l *link) open(a *access, way *kube.Way) {
	way.Cluster = a.station.identityOf()
	l.mu.Lock()
	if l.links[l.key] != l {
		l.mu.Unlock()
		return
	}
	l.remote.Open(way)
	reopened := l.err != nil
	l.err, l.away = nil, false
	a.station.speak()
	woken := l.takeWaiting()
	l.mu.Unlock()
	if reopened {
		l.targets.remote.log.Info("connected to a cluster", "link", l.key.String(), "identity", a.station.identityOf())
	}
	l.wakeAll(woken)
}

// keep reads the credentials and finds out who answers, whenever there is a reason to.
func (l *link) keep(ctx context.Context) {
	failures := 0
	for {
		renewal, err := l.connect(ctx)
		if ctx.Err() != nil {
			return
		}
		wait := renewal
		failures++
		if err == nil {
			failures = 0
		} else {
			l.shut(err, errors.Is(err, errAway))
			wait = untilProbe(l.targets.remote.patience, failures)
			if failure.Terminal(err) {
				wait = 0 // until its Secret or ConfigMap changes
			}
		}
		if !l.idle(ctx, wait) {
			return
		}
	}
}

// untilProbe returns when a cluster that cannot be reached is tried again: twofold ever
// rarer, with the usual patience of 10 s from 1 s up to 30 s.
func untilProbe(patience time.Duration, failures int) time.Duration {
	return min(3*patience, patience/10<<min(failures-1, 10))
}

// idle waits until there is a reason to look anew, for this long if it is not zero.
func (l *link) idle(ctx context.Context, wait time.Duration) bool {
	var over <-chan time.Time
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-ctx.Done():
		return false
	case <-l.look:
	case <-over:
	}
	return true
}

// errAway marks the error of a cluster that does not answer.
var errAway = errors.New("away")

type awayError struct{ error }

func (e awayError) Unwrap() []error { return []error{errAway, e.error} }

// connect reads the credentials, asks the cluster who it is and opens the link. It
// returns when the credentials have to be renewed, zero for never.
func (l *link) connect(ctx context.Context) (renewal time.Duration, err error) {
	config, renewal, err := l.credentials(ctx)
	if err != nil {
		return 0, err
	}
	l.mu.Lock()
	l.host = config.Host
	l.mu.Unlock()
	way, err := kube.NewWay(config, l.remote.Last())
	if err != nil {
		return 0, &failure.Error{Op: "use the kubeconfig of", Object: l.key.String(), Kind: failure.Invalid, Err: err,
			Remedy: "correct its certificates and keys"}
	}
	probe, err := kube.Over(config.Host, l.remote.Probe(way), l.hub.Cluster.Resources)
	if err != nil {
		return 0, err
	}
	identity, err := kube.Identity(ctx, probe, config)
	if err != nil {
		return 0, l.unreachable(err)
	}
	a, err := l.arrive(ctx, identity, config)
	if err != nil {
		return 0, err
	}
	l.open(a, way)
	return renewal, nil
}

// unreachable tells an answer that refuses from none at all.
func (l *link) unreachable(err error) error {
	var untrusted *tls.CertificateVerificationError
	switch {
	case apierrors.IsUnauthorized(err):
		return &failure.Error{Op: "reach", Kind: failure.Denied, Object: "the cluster of " + l.key.String(), Err: err,
			Remedy: "renew the credentials"}
	case errors.As(err, &untrusted):
		return &failure.Error{Op: "reach", Kind: failure.Unavailable, Object: "the cluster of " + l.key.String(), Err: untrusted,
			Remedy: "correct server and certificate-authority-data"}
	default:
		return awayError{l.unanswered(err)}
	}
}

// arrive returns the access to the cluster with this identity: the one that there is,
// or a new one when it is another cluster than before.
func (l *link) arrive(ctx context.Context, identity string, config *rest.Config) (*access, error) {
	hub, err := l.isHub(ctx, identity, config)
	if err != nil {
		return nil, err
	}
	if hub && l.tenancy.Confined(l.key.namespace) {
		return nil, &failure.Error{Op: "use the kubeconfig of", Object: l.key.String(), Kind: failure.Refused,
			Err:    fmt.Errorf("it leads to the cluster that the engine itself runs on, and tenancy is locked: namespace %s is a tenant's", l.key.namespace),
			Remedy: "remove spec.kubeConfig and deliver in the name of spec.serviceAccountName, or have an administrator " + opening}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.access != nil && l.access.station.is(identity, hub) {
		return l.access, nil
	}
	if l.access != nil {
		l.access.station.leave(l)
		l.access, l.err = nil, fmt.Errorf("%w to the cluster of %s", errConnecting, l.key)
	}
	if l.links[l.key] != l {
		return nil, context.Canceled // closed meanwhile
	}
	s := l.hub.station
	if !hub {
		if s, err = l.join(l, identity, config.Host); err != nil { //nolint:contextcheck // its ledger outlives the call
			return nil, err
		}
	}
	a, err := l.accessTo(ctx, s, config.Host)
	if err != nil {
		s.leave(l)
		return nil, err
	}
	l.access = a // err keeps everybody out until the link is open
	return a, nil
}

// accessTo makes the access to a station. What its units have delivered is claimed
// before any of them runs. The lock is held.
func (l *link) accessTo(ctx context.Context, s *station, host string) (*access, error) {
	target, err := s.target(host, l.remote)
	if err != nil {
		return nil, err
	}
	units, err := l.units(ctx)
	if err != nil {
		return nil, err
	}
	for _, u := range units {
		if u.kubeConfig == nil {
			continue
		}
		if key, err := linkKeyOf(u); err == nil && key == l.key {
			s.claim(u)
			if l.places[u.unit].link == l {
				l.waiting[u.unit] = true // where the link leads to may have changed
			}
		}
	}
	mapper := l.mapper
	if !s.hub {
		mapper = nil
	}
	d := &delivery{Target: target, ledger: s.ledger, explain: explainAs(target.Cluster, l.scheme, mapper)}
	if s.hub {
		d.rights = newRights(target.Cluster, l.clock)
	}
	return newAccess(d, s, l), nil
}

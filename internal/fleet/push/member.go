package push

import (
	"context"
	"errors"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/link"
)

// member is a cluster for which an engine runs, or is to run, with one kubeconfig.
type member struct {
	key types.NamespacedName
	uid types.UID
	// way tells the kubeconfig from others, and config is it.
	way    string
	config *rest.Config
	cancel context.CancelFunc
	ended  chan struct{}

	// All below is guarded by Pusher.mu.
	found found
	// expected is the incarnation that the cluster has to have; empty for any.
	expected string
	// done is that no engine is to run for the FleetCluster any more, and released that none runs.
	done, released bool
}

// found is what is known of a member.
type found struct {
	// id is the uid of its namespace kube-system, and incarnation the one that its engine speaks for.
	id          types.UID
	incarnation string
	// running is that an engine was started for it, and left that it has left.
	running, left bool
	err           error
}

func (p *Pusher) current(key types.NamespacedName) *member {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.members[key]
}

func (p *Pusher) foundOf(m *member) found {
	p.mu.Lock()
	defer p.mu.Unlock()
	return m.found
}

// note remembers what is known, and has it told.
func (p *Pusher) note(m *member, f found) {
	p.mu.Lock()
	m.found = f
	p.mu.Unlock()
	p.self.Add(m.key)
}

// start begins with a member, after an engine that it has with another kubeconfig has ended. It returns nil where the hub ends.
func (p *Pusher) start(cluster *v1alpha1.FleetCluster, config *rest.Config, way string) *member {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life.Err() != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(p.life)
	m := &member{
		key: client.ObjectKeyFromObject(cluster), uid: cluster.UID, way: way, config: config,
		expected: expected(cluster), cancel: cancel, ended: make(chan struct{}),
	}
	before := p.members[m.key]
	p.members[m.key] = m
	if before != nil {
		m.found = before.found
		m.found.err = nil
		before.cancel()
	} else {
		before = p.ending[m.key]
	}
	p.work.Go(func() {
		defer close(m.ended)
		defer cancel()
		if before != nil {
			<-before.ended
		}
		p.serve(ctx, m)
	})
	return m
}

// expected is the incarnation that may be the FleetCluster's. A cluster that was built for it and is another one by now was built
// anew; which of two clusters is meant by a kubeconfig is for people to say. A cluster that is being deleted is the one that was filled.
func expected(c *v1alpha1.FleetCluster) string {
	if c.Spec.Template != nil && c.DeletionTimestamp.IsZero() {
		return ""
	}
	return c.Status.Incarnation
}

// expect takes note of what people have said meanwhile.
func (p *Pusher) expect(m *member, incarnation string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	m.expected = incarnation
}

// stop ends the engine of a member, and begins anew when there is a way to it again.
func (p *Pusher) stop(key types.NamespacedName) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m := p.members[key]; m != nil {
		m.way = "" // no kubeconfig has this one
		m.cancel()
	}
}

// letGo ends the engine of a FleetCluster that is not to have one any more.
func (p *Pusher) letGo(key types.NamespacedName) {
	_, done := p.Secrets(key)
	done()
	p.mu.Lock()
	m := p.members[key]
	if m == nil {
		p.mu.Unlock()
		return
	}
	m.done = true
	m.cancel()
	delete(p.members, key)
	released := m.released
	if !released {
		p.ending[key] = m
	}
	p.mu.Unlock()
	if released {
		p.forget(m)
	}
}

// forget ends what is kept of an engine that does not run any more.
func (p *Pusher) forget(m *member) {
	if of := p.foundOf(m).incarnation; of != "" {
		p.Forget(of)
	}
}

// serve runs engines for a member, one after the other, until ctx is done or the member has left.
func (p *Pusher) serve(ctx context.Context, m *member) {
	defer p.release(m)
	pause := p.Pause
	for ctx.Err() == nil {
		began := p.Clock.Now()
		err := p.attempt(ctx, m)
		if ctx.Err() != nil || p.foundOf(m).left {
			return
		}
		p.failed(m, err)
		if p.Clock.Since(began) > 2*p.LongestPause {
			pause = p.Pause
		}
		if !p.wait(ctx, pause) {
			return
		}
		pause = min(2*pause, p.LongestPause)
	}
}

func (p *Pusher) wait(ctx context.Context, pause time.Duration) bool {
	timer := p.Clock.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C():
		return true
	}
}

// attempt prepares the member and runs an engine for it until that ends.
func (p *Pusher) attempt(ctx context.Context, m *member) error {
	preparing, cancel := context.WithTimeout(ctx, p.Patience)
	who, err := p.prepare(preparing, m)
	cancel()
	if err != nil {
		return err
	}
	p.note(m, found{id: who.Member, incarnation: who.Incarnation(), running: true})
	p.Logger.Info("the engine of a cluster is started", "fleetCluster", m.key, "cluster", who.Member)
	ctx, end := context.WithCancel(ctx)
	defer end()
	return p.Run(ctx, m.config, link.Membership{
		Cluster: m.key, Incarnation: who.Incarnation(), Hub: func() *rest.Config { return p.hub },
		AgentVersion: p.AgentVersion, Timing: p.Timing,
		Left: func() {
			p.note(m, found{id: who.Member, incarnation: who.Incarnation(), running: true, left: true})
			end()
		},
	})
}

var errEnded = errors.New("it ended by itself")

// failed takes note that there is no engine for now.
func (p *Pusher) failed(m *member, err error) {
	if err == nil {
		err = errEnded
	}
	p.Logger.Info("the engine of a cluster has ended and is started again", "fleetCluster", m.key, "error", err.Error())
	p.Events.Eventf(&corev1.ObjectReference{
		Kind: v1alpha1.FleetClusterKind, APIVersion: v1alpha1.GroupVersion.String(), Namespace: m.key.Namespace, Name: m.key.Name, UID: m.uid,
	}, corev1.EventTypeWarning, "EngineEnded", "the engine of the cluster: %s", err)
	f := p.foundOf(m)
	f.running, f.err = false, err
	p.note(m, f)
}

// release ends what a member held.
func (p *Pusher) release(m *member) {
	p.mu.Lock()
	for id, holder := range p.holders {
		if holder == m {
			delete(p.holders, id)
		}
	}
	if p.ending[m.key] == m {
		delete(p.ending, m.key)
	}
	m.released = true
	done := m.done
	p.mu.Unlock()
	if done {
		p.forget(m)
	}
}

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// member is the cluster that an agent is the agent of, and who it is on the hub.
type member struct {
	client client.Client
	store  join.Store
	file   string
	log    logr.Logger
	uid    types.UID
	// retry is how long to wait before a hub that refuses the agent is asked again.
	retry time.Duration
	// clock is the agent's, by which nothing is decided.
	clock clock.Clock
	// refused has something in it when the hub refused the agent, and invitations when there may be another invitation.
	refused, invitations chan struct{}
	// current is how the hub is reached now.
	current atomic.Pointer[rest.Config]
	// other is set when it joined as somebody else.
	other atomic.Bool
}

func newMember(config *rest.Config, invitation string, log logr.Logger) (*member, error) {
	s, err := scheme()
	if err != nil {
		return nil, err
	}
	c, err := client.New(config, client.Options{Scheme: s})
	if err != nil {
		return nil, err
	}
	return &member{client: c, store: join.Store{Client: c}, file: invitation, log: log, refused: make(chan struct{}, 1), invitations: make(chan struct{}, 1)}, nil
}

// refuse takes note that the hub refuses the agent.
func (m *member) refuse() { signal(m.refused) }

func signal(to chan struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

// awaitInvitations has those who wait hear of it when an invitation is put on the cluster, until ctx is done.
func (m *member) awaitInvitations(ctx context.Context, config *rest.Config) error {
	c, err := kubernetes.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("wait for invitations: %w", err)
	}
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.NewListWatchFromClient(c.CoreV1().RESTClient(), "secrets", join.StoreNamespace, fields.OneTermEqualSelector("metadata.name", agent.InvitationName)),
		ObjectType:    &corev1.Secret{},
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { signal(m.invitations) }, UpdateFunc: func(any, any) { signal(m.invitations) },
		},
	})
	informer.RunWithContext(ctx)
	return nil
}

func (m *member) use(c *join.Credentials) { m.current.Store(c.Config()) }

// identify returns who the agent is: who it was, or who an invitation makes it.
func (m *member) identify(ctx context.Context) (who *join.Credentials, err error) {
	if m.uid, err = join.Member(ctx, m.client); err != nil {
		return nil, err
	}
	told := false
	for {
		who, err = m.stored(ctx)
		if err == nil && who == nil {
			who, err = m.join(ctx)
		}
		kind := failure.KindOf(err)
		if err == nil || kind != failure.Unavailable && kind != failure.Conflict || ctx.Err() != nil {
			return who, err
		}
		if !told {
			m.log.Error(err, "the cluster cannot join yet: it is tried again")
			told = true
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(joinRetry):
		}
	}
}

const (
	// joinRetry is how long to wait before a hub that does not answer is asked again.
	joinRetry = 5 * time.Second
	// joinPatience is how long a member that has joined waits for joining as somebody else.
	joinPatience = 30 * time.Second
)

// stored returns the credentials that are kept, or those that an invitation gives in place of them. What is assigned goes
// on with whatever there is.
func (m *member) stored(ctx context.Context) (*join.Credentials, error) {
	who, err := m.store.Load(ctx)
	if err != nil || who == nil {
		return nil, err
	}
	if err := who.Of(m.uid); err != nil {
		return nil, err
	}
	i, found, err := m.invited(ctx)
	if err != nil {
		m.log.Error(err, "the invitation is of no use: the cluster has joined already")
	}
	if !found || i.UID == who.UID && !m.denied(ctx, who) {
		return who, nil
	}
	ctx, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	again, err := m.join(ctx)
	if err != nil {
		m.log.Error(err, "the cluster stays what it was in the fleet")
		return who, nil
	}
	return again, nil
}

// denied reports whether the hub answers, and does not know the agent or gives it no rights.
func (m *member) denied(ctx context.Context, who *join.Credentials) bool {
	return m.standing(ctx, who) == denied
}

// standing is what a hub thinks of the agent.
type standing int

const (
	silent standing = iota
	denied
	accepted
)

// standing asks the hub what it thinks of the agent.
func (m *member) standing(ctx context.Context, who *join.Credentials) standing {
	ctx, cancel := context.WithTimeout(ctx, joinRetry)
	defer cancel()
	config := who.Config()
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		return silent
	}
	report := fmt.Sprintf("%s/apis/%s/namespaces/%s/clusterreports/%s", strings.TrimSuffix(config.Host, "/"), fleetv1.GroupVersion, who.Namespace, who.Name)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, report, http.NoBody)
	if err != nil {
		return silent
	}
	response, err := c.Do(request)
	if err != nil {
		return silent
	}
	_ = response.Body.Close()
	if response.StatusCode == http.StatusUnauthorized || response.StatusCode == http.StatusForbidden {
		return denied
	}
	return accepted
}

// invited returns the invitation that there is.
func (m *member) invited(ctx context.Context) (i join.Invitation, found bool, err error) {
	if m.file != "" {
		data, err := os.ReadFile(m.file)
		if err != nil {
			return i, false, &failure.Error{Op: "read the invitation", Object: m.file, Kind: failure.NotFound, Err: err}
		}
		i, err = join.ParseInvitation(data, m.file)
		return i, err == nil, err
	}
	var secret corev1.Secret
	err = m.client.Get(ctx, client.ObjectKey{Namespace: join.StoreNamespace, Name: agent.InvitationName}, &secret)
	if err != nil || len(secret.Data[agent.InvitationKey]) == 0 {
		return i, false, client.IgnoreNotFound(err)
	}
	i, err = join.ParseInvitation(secret.Data[agent.InvitationKey], "Secret/"+join.StoreNamespace+"/"+agent.InvitationName)
	return i, err == nil, err
}

// join joins with the invitation, which is good for nothing after that.
func (m *member) join(ctx context.Context) (*join.Credentials, error) {
	i, found, err := m.invited(ctx)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, &failure.Error{Op: "join the fleet", Kind: failure.NotFound, Err: errors.New("the cluster belongs to no hub, and there is no invitation"),
			Remedy: "make one with `bowline join`, and name its file with --invitation"}
	}
	who, err := join.Join(ctx, m.store, i, m.uid)
	if err != nil {
		return nil, fmt.Errorf("join the fleet as FleetCluster %s/%s: %w", i.Namespace, i.Name, err)
	}
	used := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: join.StoreNamespace, Name: agent.InvitationName}}
	if err := client.IgnoreNotFound(m.client.Delete(ctx, used)); err != nil {
		m.log.Error(err, "the invitation was used and cannot be deleted; it is good for nothing any more")
	}
	m.log.Info("joined the fleet", "cluster", i.Namespace+"/"+i.Name, "hub", i.Server)
	return who, nil
}

// keep renews the credentials until ctx is done. An agent that the hub refuses goes on with what it was told,
// and joins again when there is an invitation. It returns an error where it is somebody else then.
func (m *member) keep(ctx context.Context, who *join.Credentials) error {
	for ctx.Err() == nil {
		who = m.renew(ctx, who)
		again, err := m.again(ctx, who)
		if err != nil {
			return nil //nolint:nilerr // the agent ends
		}
		if again.Identity != who.Identity {
			m.other.Store(true)
			return m.moved()
		}
		if again != who {
			who = again
			m.use(who)
		}
	}
	return nil
}

// renew renews the credentials until the hub refuses them, and returns the newest.
func (m *member) renew(ctx context.Context, who *join.Credentials) *join.Credentials {
	ctx, end := context.WithCancel(ctx)
	defer end()
	k := join.Keeper{
		Store: m.store, Clock: m.clock, Renewed: func(c *join.Credentials) {
			who = c
			m.use(c)
		},
		Failed: func(err error) { m.log.Info("the credentials cannot be looked after now", "why", err.Error()) },
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = k.Run(ctx, who) // it ends when the hub refuses them, which is asked for again
	}()
	select {
	case <-ended:
	case <-m.refused:
	case <-m.invitations:
		// Where it is from, and whether it counts, is found out by who asks the hub.
		signal(m.invitations)
	}
	end()
	<-ended
	return who
}

// again waits until the hub takes the agent as it is, or joining again works. A hub that is gone cannot refuse an agent: where another
// hub has invited the cluster, and the agent's own has not answered for as long as hubs wait for agents, it is left.
func (m *member) again(ctx context.Context, who *join.Credentials) (*join.Credentials, error) {
	told := ""
	tell := func(err error) {
		if err != nil && err.Error() != told {
			told = err.Error()
			m.log.Error(err, "what was assigned goes on")
		}
	}
	heard := time.Now()
	for pause := m.retry; ; {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-m.invitations:
		case <-time.After(pause):
		}
		now := m.standing(ctx, who)
		if now == accepted {
			return who, nil
		}
		i, found, err := m.invited(ctx)
		pause = m.retry
		switch {
		case err != nil || !found:
			if now == silent && err == nil {
				return who, nil // it is waited for by those who need it
			}
			tell(cmp.Or(err, refusedAs(who)))
			continue
		case now == silent && i.UID == who.UID:
			return who, nil
		case now == silent && time.Since(heard) < m.patience():
			pause = joinRetry
			continue
		}
		joining, cancel := context.WithTimeout(ctx, joinPatience)
		again, err := m.join(joining)
		cancel()
		if err == nil {
			return again, nil
		}
		tell(err)
	}
}

// patience is for how long a hub may be silent before another one's invitation is taken.
func (m *member) patience() time.Duration { return min(time.Minute, 4*m.retry) }

// refusedAs says that the hub does not take somebody for what it was.
func refusedAs(who *join.Credentials) error {
	return &failure.Error{Op: "speak to the hub", Kind: failure.Denied, Err: errors.New("it does not know this agent, or not any more"),
		Remedy: fmt.Sprintf("to join again: bowline join %s -n %s", who.Name, who.Namespace)}
}

// moved says that what runs is not what the cluster is any more.
func (m *member) moved() error {
	if !m.other.Load() {
		return nil
	}
	return &failure.Error{Op: "run the agent", Kind: failure.Conflict, Err: errors.New("the cluster has joined as another FleetCluster"), Remedy: "start the agent again"}
}

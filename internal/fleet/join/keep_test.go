package join_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// store is that of a member, which is another cluster than the hub.
func store(t testing.TB) join.Store {
	t.Helper()
	c := connect(t, testkit.Other(t))
	err := c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: join.StoreNamespace}})
	if client.IgnoreAlreadyExists(err) != nil {
		t.Fatal(err)
	}
	s := join.Store{Client: c}
	t.Cleanup(func() {
		if err := s.Forget(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestStore(t *testing.T) {
	h := newHub(t, join.Options{})
	s := store(t)
	member, err := join.Member(t.Context(), s.Client)
	if err != nil || member == "" {
		t.Fatalf("the member is %q, %v", member, err)
	}
	if none, err := s.Load(t.Context()); none != nil || err != nil {
		t.Errorf("before it has joined there are %v, %v", none, err)
	}
	c := h.cluster("berlin")
	joined, err := join.Join(t.Context(), s, h.invite(c), member)
	if err != nil {
		t.Fatal(err)
	}
	after, err := s.Load(t.Context())
	if err != nil || after == nil {
		t.Fatalf("after a restart there are %v, %v", after, err)
	}
	if after.User() != joined.User() || !after.NotAfter.Equal(joined.NotAfter) || after.Endpoint.Server != joined.Endpoint.Server {
		t.Errorf("what was read is %+v, want %+v", after, joined)
	}
	h.until(c, "what was read has rights", func() bool { return h.may(after, c) })
	if err := after.Of(member); err != nil {
		t.Error(err)
	}
	if err := after.Of("a copy"); !errors.Is(err, failure.Of(failure.Conflict)) {
		t.Errorf("a copy of the cluster may use them: %v", err)
	}
	secret := &corev1.Secret{}
	if err := s.Client.Get(t.Context(), client.ObjectKey{Namespace: join.StoreNamespace, Name: join.StoreName}, secret); err != nil || len(secret.Data) != 1 {
		t.Errorf("the Secret holds more than the credentials: %d keys, %v", len(secret.Data), err)
	}
}

// TestJoinAfterInterruption stops an agent between its request and the answer.
func TestJoinAfterInterruption(t *testing.T) {
	h := newQuietHub(t)
	s := store(t)
	i := h.invite(h.cluster("berlin"))
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if _, err := join.Join(ctx, s, i, "member-1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("nobody answers, and the agent says %v", err)
	}
	running := newHub(t, join.Options{})
	if _, err := join.Join(running.Context(), s, i, "member-1"); err != nil {
		t.Errorf("it cannot go on: %v", err)
	}
}

// TestKeeper renews with clocks that are right and wrong: what counts is the hub's, and how much has passed since.
func TestKeeper(t *testing.T) {
	for _, off := range []time.Duration{-5 * time.Minute, 0, 5 * time.Minute} {
		t.Run(off.String(), func(t *testing.T) {
			h := newHub(t, join.Options{})
			s := store(t)
			c := h.cluster("berlin")
			first := h.short(c, "member-1")
			if err := s.Save(t.Context(), first); err != nil {
				t.Fatal(err)
			}
			clock := clocktesting.NewFakeClock(time.Now().Add(off))
			renewed := make(chan *join.Credentials, 1)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			keeper := join.Keeper{Store: s, Clock: clock, Renewed: func(c *join.Credentials) { renewed <- c }, Failed: func(err error) { t.Error(err) }}
			go func() { ended <- keeper.Run(ctx, first) }()
			defer func() {
				cancel()
				if err := <-ended; !errors.Is(err, context.Canceled) {
					t.Errorf("it ended with %v", err)
				}
			}()
			waiting(t, clock)
			// The certificate began some minutes before it was issued, and a little time has passed.
			due := first.RenewIn(time.Since(first.NotBefore))
			clock.Step(due - 10*time.Second)
			if !clock.HasWaiters() {
				t.Fatal("it renews before its time")
			}
			clock.Step(20 * time.Second)
			select {
			case second := <-renewed:
				if loaded, err := s.Load(t.Context()); err != nil || !loaded.NotAfter.Equal(second.NotAfter) {
					t.Errorf("what it renewed is not what is stored: %v, %v", loaded, err)
				}
				if second.NotAfter.Sub(second.NotBefore) < time.Hour {
					t.Errorf("the new certificate is good until %s only", second.NotAfter)
				}
			case <-time.After(patience):
				t.Error("it does not renew")
			}
		})
	}
}

// short has an agent join whose certificate is good for ten minutes.
func (h *hub) short(c *v1alpha1.FleetCluster, member types.UID) *join.Credentials {
	h.Helper()
	i := h.invite(c)
	w := h.wish(join.Identity{Namespace: c.Namespace, Name: c.Name, UID: c.UID, Member: member}, i.RequestName)
	w.seconds = ptr.To[int32](600)
	r := h.ask(h.as(i), w)
	h.until(r, "there is a certificate", func() bool { return len(r.Status.Certificate) > 0 })
	return h.credentials(w, i, r.Status.Certificate)
}

// TestKeeperEnds has a hub let go of an agent.
func TestKeeperEnds(t *testing.T) {
	h := newHub(t, join.Options{})
	s := store(t)
	c := h.cluster("berlin")
	first := h.short(c, "member-1")
	if err := join.Replace(t.Context(), h.Client, client.ObjectKeyFromObject(c)); err != nil {
		t.Fatal(err)
	}
	h.until(c, "it has no rights", func() bool { return !h.may(first, c) })
	clock := clocktesting.NewFakeClock(time.Now())
	ended := make(chan error, 1)
	go func() { ended <- join.Keeper{Store: s, Clock: clock}.Run(t.Context(), first) }()
	waiting(t, clock)
	clock.Step(time.Hour)
	select {
	case err := <-ended:
		refused(t, err, "bowline join")
	case <-time.After(patience):
		t.Error("it goes on")
	}
}

// TestKeeperWaitsForTheHub has a hub that does not answer.
func TestKeeperWaitsForTheHub(t *testing.T) {
	h := newHub(t, join.Options{})
	c := h.short(h.cluster("berlin"), "member-1")
	c.Endpoint.Server = "https://127.0.0.1:1"
	clock := clocktesting.NewFakeClock(time.Now())
	failed := make(chan error, 2)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- join.Keeper{Clock: clock, Failed: func(err error) { failed <- err }}.Run(ctx, c) }()
	for range 2 {
		if err := <-failed; !errors.Is(err, failure.Of(failure.Unavailable)) {
			t.Errorf("it says %v", err)
		}
		waiting(t, clock)
		clock.Step(time.Minute)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
}

func waiting(t testing.TB, clock *clocktesting.FakeClock) {
	t.Helper()
	err := wait.PollUntilContextTimeout(t.Context(), 5*time.Millisecond, patience, true, func(context.Context) (bool, error) { return clock.HasWaiters(), nil })
	if err != nil {
		t.Fatal("it does not wait for anything")
	}
}

func TestRenew(t *testing.T) {
	h := newHub(t, join.Options{})
	c, first := h.joined("berlin", "member-1")
	second, err := join.Renew(t.Context(), first)
	if err != nil {
		t.Fatal(err)
	}
	if second.User() != first.User() {
		t.Errorf("it is %s now, and was %s", second.User(), first.User())
	}
	a, _ := first.Kubeconfig()
	b, _ := second.Kubeconfig()
	if keyOf(string(a)) == keyOf(string(b)) {
		t.Error("the key is the same")
	}
	if !h.may(second, c) {
		t.Error("it has no rights")
	}
	if _, err := join.Renew(t.Context(), second); err != nil {
		t.Errorf("it cannot renew again: %v", err)
	}
}

func keyOf(kubeconfig string) string {
	_, after, _ := strings.Cut(kubeconfig, "client-key-data:")
	return after
}

func TestRenewIn(t *testing.T) {
	issued := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c := &join.Credentials{NotBefore: issued, NotAfter: issued.Add(90 * time.Hour)}
	tests := []struct {
		name, reason string
		age, want    time.Duration
	}{
		{"new", "two thirds of its life are left", 0, 60 * time.Hour},
		{"used", "some of it is over", 50 * time.Hour, 10 * time.Hour},
		{"due", "it is time", 60 * time.Hour, 0},
		{"over", "the hub has to say what it is worth", 100 * time.Hour, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := c.RenewIn(tt.age); got != tt.want {
				t.Errorf("RenewIn(%s) = %s, want %s: %s", tt.age, got, tt.want, tt.reason)
			}
		})
	}
}

func TestInvitationsAreWhole(t *testing.T) {
	whole := `{"apiVersion":"v1","kind":"Config","current-context":"hub","clusters":[{"name":"hub","cluster":{"server":"https://hub.example"}}],` +
		`"users":[{"name":"hub","user":{%s}}],"contexts":[{"name":"hub","context":{"cluster":"hub","user":"hub"%s}}]}`
	says := `,"extensions":[{"name":"fleet.bowline.dev","extension":{"namespace":"fleet","name":"berlin","uid":"1"%s}}]`
	tests := []struct{ name, reason, user, extension string }{
		{"no invitation", "anybody's kubeconfig says nothing of a FleetCluster", `"token":"secret"`, ""},
		{"no request", "credentials are no invitation", `"token":"secret"`, fmt.Sprintf(says, "")},
		{"no token", "nobody would be asking", "", fmt.Sprintf(says, `,"request":"r"`)},
		{"runs a program", "what comes from elsewhere runs nothing here", `"exec":{"command":"x","apiVersion":"client.authentication.k8s.io/v1"}`, fmt.Sprintf(says, `,"request":"r"`)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := join.ParseInvitation(fmt.Appendf(nil, whole, tt.user, tt.extension), "the test")
			if failure.KindOf(err) != failure.Invalid && failure.KindOf(err) != failure.Refused {
				t.Errorf("it is taken: %v (%s)", err, tt.reason)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("the error holds the token: %v", err)
			}
		})
	}
	if _, err := join.ParseInvitation(fmt.Appendf(nil, whole, `"token":"secret"`, fmt.Sprintf(says, `,"request":"r"`)), "the test"); err != nil {
		t.Errorf("one that is whole is refused: %v", err)
	}
}

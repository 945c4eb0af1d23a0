package admission

import (
	"bytes"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
)

var (
	kept       = client.ObjectKey{Namespace: Namespace, Name: SecretName}
	configured = client.ObjectKey{Name: ConfigurationName}
)

func (s *stage) secret() *corev1.Secret {
	s.Helper()
	secret := &corev1.Secret{}
	if err := s.Get(s.Context(), kept, secret); err != nil {
		s.Fatal(err)
	}
	return secret
}

func (s *stage) configuration() *admissionregistrationv1.ValidatingWebhookConfiguration {
	s.Helper()
	c := &admissionregistrationv1.ValidatingWebhookConfiguration{}
	if err := client.IgnoreNotFound(s.Get(s.Context(), configured, c)); err != nil {
		s.Fatal(err)
	}
	return c
}

// renewed has an engine with a clock that is this much behind make the certificate, and another find it.
func (s *stage) renewed(t *testing.T, age time.Duration) (before, after *corev1.Secret) {
	t.Helper()
	s.start(clocktesting.NewFakeClock(time.Now().Add(-age)))
	s.await("no certificate is made", func() bool {
		return s.Get(t.Context(), kept, &corev1.Secret{}) == nil && len(s.configuration().Webhooks) > 0
	})
	s.stop()
	before = s.secret()
	s.start(clock.RealClock{})
	s.judged()
	after = s.secret()
	return before, after
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for _, tc := range []struct {
		name, reason string
		age          time.Duration
		same         bool
		trusted      int
	}{
		{"young", "a restart changes nothing", life / 3, true, 1},
		{"old", "engines that stand by still serve with it", life * 5 / 6, false, 2},
		{"over", "nobody serves with it", life + skew, false, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before, after := s.renewed(t, tc.age)
			if same := bytes.Equal(before.Data[corev1.TLSCertKey], after.Data[corev1.TLSCertKey]); same != tc.same {
				t.Errorf("the certificate is the same: %v: %s", same, tc.reason)
			}
			if n := len(certificates(after.Data[bundleKey])); n != tc.trusted {
				t.Errorf("%d certificates are trusted, want %d: %s", n, tc.trusted, tc.reason)
			}
			for _, w := range s.configuration().Webhooks {
				if !bytes.Equal(w.ClientConfig.CABundle, after.Data[bundleKey]) {
					t.Errorf("%s trusts something else", w.Name)
				}
			}
			s.stop()
			if err := s.Delete(t.Context(), after); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Somebody changes what the engine keeps.
func TestKeeps(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	server := s.start(clock.RealClock{})
	s.judged()
	first := s.configuration()
	t.Run("deleted", func(t *testing.T) {
		if err := s.Delete(t.Context(), first.DeepCopy()); err != nil {
			t.Fatal(err)
		}
		s.await("it does not come back", func() bool { c := s.configuration(); return c.UID != "" && c.UID != first.UID })
	})
	t.Run("edited", func(t *testing.T) {
		c := s.configuration()
		c.Webhooks = c.Webhooks[:1]
		if err := s.Update(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		s.await("it is not put right", func() bool { return len(s.configuration().Webhooks) == len(first.Webhooks) })
	})
	t.Run("one that stands by", func(t *testing.T) {
		config := s.configuration()
		k := &keeper{client: s.Client, live: s.Client, clock: clocktesting.NewFakeClock(time.Now().Add(life * 5 / 6)), elected: make(chan struct{}), server: &Server{host: server.host}}
		result, err := k.Reconcile(t.Context(), ctrl.Request{NamespacedName: configured})
		if err != nil || k.server.current.Load() == nil {
			t.Fatalf("it serves nothing: %v", err)
		}
		if result.RequeueAfter != standby {
			t.Errorf("it comes back after %s, want %s: the leader renews", result.RequeueAfter, standby)
		}
		if s.configuration().ResourceVersion != config.ResourceVersion {
			t.Error("it changed the configuration, which is the leader's")
		}
	})
	t.Run("damaged", func(t *testing.T) {
		s.stop()
		secret := s.secret()
		secret.Data[corev1.TLSCertKey], secret.Data[bundleKey] = []byte("text"), []byte("text")
		if err := s.Update(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		s.start(clock.RealClock{})
		s.judged()
	})
	t.Run("nothing to do", func(t *testing.T) {
		before := s.configuration()
		s.stop()
		again, err := Listen(t.Context(), Address{Listen: hostPort(t, before)})
		if err != nil {
			t.Fatal(err)
		}
		s.startAt(again, clock.RealClock{})
		s.judged()
		if after := s.configuration(); after.ResourceVersion != before.ResourceVersion {
			t.Errorf("it was written again: %+v and before %+v", after.Webhooks[0], before.Webhooks[0])
		}
	})
}

func hostPort(t *testing.T, c *admissionregistrationv1.ValidatingWebhookConfiguration) string {
	t.Helper()
	u, err := url.Parse(*c.Webhooks[0].ClientConfig.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u.Host
}

func TestListen(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, reason string
		address      Address
		host         string // "" where it is refused with the remedy
		remedy       string
	}{
		{"loopback", "the address says all", Address{Listen: "127.0.0.1:0"}, "127.0.0.1", ""},
		{"all addresses and a URL", "the API server is told which", Address{Listen: ":0", URL: "https://hub.example.org:9443/"}, "hub.example.org", ""},
		{"all addresses and a Service", "the API server is told which", Address{Listen: ":0", Service: types.NamespacedName{Namespace: "bowline-system", Name: "engine"}}, "engine.bowline-system.svc", ""},
		{"all addresses", "the API server would not know which", Address{Listen: ":0"}, "", "--webhook-url or --webhook-service"},
		{"URL without TLS", "the API server takes none", Address{Listen: "127.0.0.1:0", URL: "http://hub.example.org"}, "", "--webhook-url"},
		{"URL and Service", "it is one of them", Address{Listen: "127.0.0.1:0", URL: "https://a", Service: types.NamespacedName{Name: "b"}}, "", "one of --webhook-url and --webhook-service"},
		{"no address", "there is nothing to listen on", Address{Listen: "here"}, "", "--webhook-addr"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s, err := Listen(t.Context(), tc.address)
			if tc.host == "" {
				if !errors.Is(err, failure.Of(failure.Invalid)) || !strings.Contains(err.Error(), tc.remedy) {
					t.Errorf("got %v, want %q: %s", err, tc.remedy, tc.reason)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.listener.Close() })
			if s.StartedChecker()(nil) == nil {
				t.Error("it says it has begun")
			}
			certificate, key, err := issue(s.host, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if c, err := read(certificate, key, certificate, tc.host, time.Now()); err != nil {
				t.Errorf("the certificate is none for %s: %v", tc.host, err)
			} else {
				s.current.Store(c)
			}
			if err := s.StartedChecker()(nil); err != nil {
				t.Error(err)
			}
			if _, err := read(certificate, key, nil, tc.host, time.Now()); err == nil {
				t.Error("a certificate that nobody trusts is good")
			}
			if _, err := read(certificate, key, certificate, "other.example.org", time.Now()); err == nil {
				t.Error("a certificate of another host is good")
			}
			at := s.at("/x", certificate)
			if at.URL != nil && !strings.HasPrefix(*at.URL, "https://"+tc.host) || at.Service != nil && (*at.Service.Path != "/x" || *at.Service.Port != 443) {
				t.Errorf("the API server comes to %+v", at)
			}
		})
	}
}

package admission

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/webhook"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Address says where webhooks are served, and how the API server comes there.
type Address struct {
	// Listen is the address to serve on; with the port 0 one that is free.
	Listen string
	// URL is where the API server finds it; empty means https:// and the address itself.
	URL string
	// Service is where it finds it instead, at port 443 of a Service of the cluster.
	Service types.NamespacedName
}

// Server serves webhooks on a listener of its own with a certificate that may change. It is what
// controller-runtime calls one.
type Server struct {
	webhook.Server
	mux      *http.ServeMux
	listener net.Listener
	// reached is how the API server comes here, and host the name that it asks for.
	reached admissionregistrationv1.WebhookClientConfig
	host    string
	current atomic.Pointer[tls.Certificate]
}

var _ webhook.Server = (*Server)(nil)

// grace is how long answers may take that were begun when the server is to end.
const grace = 10 * time.Second

// Listen opens the address; nothing is served before Start.
func Listen(ctx context.Context, a Address) (*Server, error) {
	fail := func(object, remedy string, err error) (*Server, error) {
		return nil, &failure.Error{Op: "serve webhooks", Object: object, Kind: failure.Invalid, Err: err, Remedy: remedy}
	}
	if a.URL != "" && a.Service.Name != "" {
		return fail("at "+a.URL, "give one of --webhook-url and --webhook-service", errors.New("a Service is named as well"))
	}
	var config net.ListenConfig
	listener, err := config.Listen(ctx, "tcp", a.Listen)
	if err != nil {
		return fail("on "+a.Listen, "give another address with --webhook-addr, or 0 to serve none", err)
	}
	s := &Server{mux: http.NewServeMux(), listener: listener}
	s.Server = webhook.NewServer(webhook.Options{WebhookMux: s.mux})
	if a.Service.Name != "" {
		s.host = a.Service.Name + "." + a.Service.Namespace + ".svc"
		s.reached.Service = &admissionregistrationv1.ServiceReference{Namespace: a.Service.Namespace, Name: a.Service.Name, Port: new(int32(443))}
		return s, nil
	}
	base := a.URL
	if base == "" {
		base = "https://" + listener.Addr().String()
	}
	u, err := url.Parse(base)
	if err == nil && (u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "") {
		err = errors.New("it is no https URL")
	}
	if ip := net.ParseIP(hostOf(u)); err == nil && ip != nil && ip.IsUnspecified() {
		err = errors.New("the API server needs to know one address")
	}
	if err != nil {
		_, err := fail("at "+base, "say with --webhook-url or --webhook-service where the API server finds the engine", err)
		return nil, errors.Join(err, listener.Close())
	}
	s.host, s.reached.URL = u.Hostname(), new(strings.TrimSuffix(base, "/"))
	return s, nil
}

func hostOf(u *url.URL) string {
	if u == nil {
		return ""
	}
	return u.Hostname()
}

// at is how the API server comes to the webhook at a path, and whom it trusts there.
func (s *Server) at(path string, bundle []byte) admissionregistrationv1.WebhookClientConfig {
	c := *s.reached.DeepCopy()
	c.CABundle = bundle
	if c.Service != nil {
		c.Service.Path = new(path)
	} else {
		c.URL = new(*c.URL + path)
	}
	return c
}

// WebhookMux implements webhook.Server.
func (s *Server) WebhookMux() *http.ServeMux { return s.mux }

// StartedChecker implements webhook.Server.
func (s *Server) StartedChecker() healthz.Checker {
	return func(*http.Request) error {
		if s.current.Load() == nil {
			return errors.New("there is no certificate for webhooks yet")
		}
		return nil
	}
}

// Start implements webhook.Server.
func (s *Server) Start(ctx context.Context) error {
	server := &http.Server{Handler: s.mux, ReadHeaderTimeout: grace, TLSConfig: &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := s.current.Load(); c != nil {
				return c, nil
			}
			return nil, errors.New("there is no certificate yet")
		},
	}}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		_ = server.Shutdown(ctx)
		_ = server.Close()
	})
	err := server.ServeTLS(s.listener, "", "")
	if stop() || !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve webhooks on %s: %w", s.listener.Addr(), err)
	}
	<-stopped
	return nil
}

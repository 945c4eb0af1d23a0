package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
)

// explain turns what the libraries below say into a line that tells the user
// what is wrong and what to do. Errors that already do are left alone.
func explain(err error) error {
	var own *failure.Error
	if errors.As(err, &own) {
		return err
	}
	if meta.IsNoMatchError(err) {
		of, remedy := noMatch(err), "install Bowline's APIs with `bowline crds | kubectl apply --server-side -f -`"
		if strings.Contains(of.Error(), fleetv1.GroupVersion.Group) {
			remedy = "ask a hub, or make it one with `bowline crds --fleet | kubectl apply --server-side -f -` and an engine that is started after that"
		}
		return &failure.Error{Op: "ask the cluster", Kind: failure.NotFound, Err: of, Remedy: remedy}
	}
	if apierrors.IsUnauthorized(err) {
		return &failure.Error{Op: "ask the cluster", Kind: failure.Denied,
			Err: errors.New("it refused the credentials of the kubeconfig"), Remedy: "log in again or choose another --context"}
	}
	var call *url.Error
	if errors.As(err, &call) && !errors.Is(err, context.Canceled) {
		return unreachable(call)
	}
	return err
}

func noMatch(err error) error {
	var kindErr *meta.NoKindMatchError
	if errors.As(err, &kindErr) {
		return fmt.Errorf("it does not serve the kind %s", kindErr.GroupKind)
	}
	var missing *apiutil.ErrResourceDiscoveryFailed
	if errors.As(err, &missing) {
		for group := range *missing {
			return fmt.Errorf("it does not serve %s", group)
		}
	}
	return err
}

// unreachable says why a server could not be talked to, without the URL of the
// request that happened to be the first.
func unreachable(call *url.Error) error {
	server := call.URL
	if u, err := url.Parse(call.URL); err == nil {
		server = u.Scheme + "://" + u.Host
	}
	out := &failure.Error{Op: "reach the cluster at", Object: server, Kind: failure.Unavailable,
		Err: call.Err, Remedy: "check that it runs and that the kubeconfig is the right one"}
	var dns *net.DNSError
	var op *net.OpError
	var authority x509.UnknownAuthorityError
	switch {
	case errors.As(call.Err, &authority):
		out.Kind, out.Err = failure.Denied, errors.New("its certificate is signed by an authority that the kubeconfig does not name")
	case errors.As(call.Err, &dns):
		out.Err = fmt.Errorf("no such host %q", dns.Name)
	case errors.As(call.Err, &op):
		out.Err = op.Err
		if msg := op.Err.Error(); strings.Contains(msg, "connection refused") {
			out.Err = errors.New("connection refused")
		}
	}
	return out
}

// notFound names the object that is missing in the words the user used for it.
func notFound(k kind, namespace, name string, err error) error {
	if !apierrors.IsNotFound(err) {
		return err
	}
	return &failure.Error{Op: "get", Object: k.name + "/" + name, Kind: failure.NotFound,
		Err: fmt.Errorf("not found in namespace %q", namespace)}
}

package controlplane

import (
	"context"
	"fmt"
	"net"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/client-go/rest"
	cliflag "k8s.io/component-base/cli/flag"
	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"

	"github.com/bowline-dev/bowline/localkube/internal/pki"
)

// serviceRange holds the addresses of Services; pki.ServiceIP is its first.
const serviceRange = "10.96.0.0/16"

// apiServerFlags is the command line of the API server.
func apiServerFlags(keys pki.Folder, etcdEndpoint string, serviceAccounts bool) []string {
	flags := []string{
		"--etcd-servers=" + etcdEndpoint,
		"--bind-address=127.0.0.1",
		"--advertise-address=127.0.0.1",
		// The address of the `kubernetes` Service would be loopback, which Endpoints may not hold.
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=" + serviceRange,
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--anonymous-auth=false",
		"--allow-privileged=true",
		"--client-ca-file=" + keys.Cert(pki.CA),
		"--tls-cert-file=" + keys.Cert(pki.APIServer),
		"--tls-private-key-file=" + keys.Key(pki.APIServer),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + keys.PublicKey(pki.ServiceAccountKey),
		"--service-account-signing-key-file=" + keys.Key(pki.ServiceAccountKey),
		"--requestheader-client-ca-file=" + keys.Cert(pki.FrontProxyCA),
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + keys.Cert(pki.FrontProxy),
		"--proxy-client-key-file=" + keys.Key(pki.FrontProxy),
		// Fairness stays on, with room enough that one busy client on a small machine is held
		// back by the processor and not by a queue.
		"--max-requests-inflight=2000",
		"--max-mutating-requests-inflight=1000",
		// Watches do not end by themselves: close connections two seconds after the last request.
		"--shutdown-send-retry-after=true",
	}
	if !serviceAccounts {
		// Nobody makes the default service account of a namespace, which this plugin insists on.
		flags = append(flags, "--disable-admission-plugins=ServiceAccount")
	}
	return flags
}

// runAPIServer serves the Kubernetes API on the listener until ctx ends.
func runAPIServer(ctx context.Context, listener net.Listener, flags []string) error {
	serverOptions := options.NewServerRunOptions()
	if err := parseFlags(serverOptions.Flags(), flags); err != nil {
		return fmt.Errorf("kube-apiserver: %w", err)
	}
	serverOptions.SecureServing.Listener = listener
	registry := serverOptions.GenericServerRunOptions.ComponentGlobalsRegistry
	if err := registry.Set(); err != nil {
		return fmt.Errorf("kube-apiserver: set features: %w", err)
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	// Once per process: the other components log through the same logger.
	if err := logsapi.ValidateAndApply(serverOptions.Logs, nil); err != nil {
		return fmt.Errorf("kube-apiserver: set logging: %w", err)
	}
	completed, err := serverOptions.Complete(ctx)
	if err != nil {
		return fmt.Errorf("kube-apiserver: complete options: %w", err)
	}
	if problems := completed.Validate(); len(problems) > 0 {
		return fmt.Errorf("kube-apiserver: %w", utilerrors.NewAggregate(problems))
	}
	if err := app.Run(ctx, completed); err != nil && ctx.Err() == nil {
		return fmt.Errorf("kube-apiserver: %w", err)
	}
	return nil
}

// parseFlags sets options the way their command would: the flags are the one interface of the
// components that their makers keep stable.
func parseFlags(sets cliflag.NamedFlagSets, arguments []string) error {
	all := sets.FlagSet("all")
	for name, set := range sets.FlagSets {
		if name != "all" {
			all.AddFlagSet(set)
		}
	}
	all.SetNormalizeFunc(cliflag.WordSepNormalizeFunc)
	return all.Parse(arguments)
}

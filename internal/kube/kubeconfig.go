package kube

import (
	"errors"
	"fmt"
	"net/url"
	"slices"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/bowline-dev/bowline/internal/failure"
)

// KubeconfigOptions opens what a kubeconfig of somebody else may not hold by default.
type KubeconfigOptions struct {
	// AllowExec lets it name a program, which is run with the engine's rights on its
	// machine.
	AllowExec bool
	// AllowInsecureTLS lets it do without TLS, or without checking who answers.
	AllowInsecureTLS bool
}

// ParseKubeconfig reads the current context of a kubeconfig. It has to be complete in
// itself: what would make the engine run a program, read its own files or trust
// whoever answers is an error of kind failure.Invalid or failure.Refused, which names
// the field and where the kubeconfig is from, and no value of it.
func ParseKubeconfig(data []byte, from string, o KubeconfigOptions) (*rest.Config, error) {
	k := kubeconfig{from: from, options: o}
	// What the parser says is left out: it may quote the text.
	var err error
	if k.config, err = clientcmd.Load(data); err != nil {
		return nil, k.invalid("", "it cannot be read as a kubeconfig in YAML", "put in the text that kubectl reads")
	}
	if err := k.find(); err != nil {
		return nil, err
	}
	if err := errors.Join(k.checkServer(), k.checkUser()); err != nil {
		return nil, firstOf(err)
	}
	config, err := clientcmd.NewNonInteractiveClientConfig(*k.config, k.config.CurrentContext, &clientcmd.ConfigOverrides{}, nil).ClientConfig()
	if err != nil { // what it says may quote values
		return nil, k.invalid("", "its current context is not complete or contradicts itself", "correct it")
	}
	if config.ExecProvider != nil {
		config.ExecProvider.StdinUnavailable = true
	}
	return config, nil
}

// firstOf returns the first of several errors: one clear line.
func firstOf(err error) error {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return joined.Unwrap()[0]
	}
	return err
}

type kubeconfig struct {
	from    string
	options KubeconfigOptions
	config  *api.Config
	// cluster and user are what the current context names.
	clusterName, userName string
	cluster               *api.Cluster
	user                  *api.AuthInfo
}

func (k *kubeconfig) invalid(field, why, remedy string) error {
	return k.wrong(failure.Invalid, field, why, remedy)
}

func (k *kubeconfig) wrong(kind failure.Kind, field, why, remedy string) error {
	err := errors.New(why)
	if field != "" {
		err = fmt.Errorf("%s: %s", field, why)
	}
	return &failure.Error{Op: "use the kubeconfig of", Object: k.from, Kind: kind, Err: err, Remedy: remedy}
}

// find looks up what the current context names.
func (k *kubeconfig) find() error {
	name := k.config.CurrentContext
	if name == "" {
		return k.invalid("current-context", "it is not set", "name the context to use")
	}
	context, ok := k.config.Contexts[name]
	if !ok {
		return k.invalid("current-context", fmt.Sprintf("there is no context %q", name), "name one that contexts defines")
	}
	k.clusterName, k.userName = context.Cluster, context.AuthInfo
	if k.cluster, ok = k.config.Clusters[k.clusterName]; !ok {
		return k.invalid(fmt.Sprintf("contexts[%s].cluster", name), fmt.Sprintf("there is no cluster %q", k.clusterName), "name one that clusters defines")
	}
	if k.user, ok = k.config.AuthInfos[k.userName]; !ok {
		if k.userName != "" {
			return k.invalid(fmt.Sprintf("contexts[%s].user", name), fmt.Sprintf("there is no user %q", k.userName), "name one that users defines")
		}
		k.user = &api.AuthInfo{}
	}
	return nil
}

func (k *kubeconfig) checkServer() error {
	field := func(name string) string { return fmt.Sprintf("clusters[%s].%s", k.clusterName, name) }
	server, err := url.Parse(k.cluster.Server)
	switch {
	case k.cluster.Server == "":
		return k.invalid(field("server"), "it is empty", "put in the https address of the API server")
	case err != nil || server.Host == "":
		return k.invalid(field("server"), "it is no address", "put in the https address of the API server")
	case server.User != nil:
		return k.invalid(field("server"), "it holds credentials", "put them into users")
	case server.Scheme != "https" && !(server.Scheme == "http" && k.options.AllowInsecureTLS):
		return k.wrong(failure.Refused, field("server"), "it is an address without TLS", "use https, or allow it by --insecure-kubeconfig-tls")
	case k.cluster.InsecureSkipTLSVerify && !k.options.AllowInsecureTLS:
		return k.wrong(failure.Refused, field("insecure-skip-tls-verify"), "nobody would check who answers",
			"put in certificate-authority-data, or allow it by --insecure-kubeconfig-tls")
	case !properProxy(k.cluster.ProxyURL):
		return k.invalid(field("proxy-url"), "it is no address of an http, https or socks5 proxy", "correct it; escape special characters of a password")
	case k.cluster.CertificateAuthority != "":
		return k.file(field("certificate-authority"), "certificate-authority-data")
	}
	return nil
}

// properProxy reports whether a proxy can be used, or none is named. The libraries
// quote one that cannot, with its password.
func properProxy(address string) bool {
	if address == "" {
		return true
	}
	u, err := url.Parse(address)
	return err == nil && u.Host != "" && slices.Contains([]string{"http", "https", "socks5"}, u.Scheme)
}

func (k *kubeconfig) checkUser() error {
	field := func(name string) string { return fmt.Sprintf("users[%s].%s", k.userName, name) }
	switch {
	case k.user.ClientCertificate != "":
		return k.file(field("client-certificate"), "client-certificate-data")
	case k.user.ClientKey != "":
		return k.file(field("client-key"), "client-key-data")
	case k.user.TokenFile != "":
		return k.file(field("tokenFile"), "token")
	case k.user.AuthProvider != nil:
		return k.wrong(failure.Refused, field("auth-provider"), "no such plug-ins are built in", "put in a token or a client certificate")
	case k.user.Exec != nil && !k.options.AllowExec:
		return k.wrong(failure.Refused, field("exec"), "it names a program to run",
			"put in a token or a client certificate, use spec.kubeConfig.configMapRef, or allow it by --insecure-kubeconfig-exec")
	}
	return nil
}

// file refuses a path, which would be one on the engine's machine.
func (k *kubeconfig) file(field, instead string) error {
	return k.wrong(failure.Refused, field, "it names a file, which would be read from the engine's own machine", "put the content into "+instead)
}

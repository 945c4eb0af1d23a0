package kube

import (
	"fmt"
	"net/http"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

// AccountUser returns the user name that the API server knows a service account by.
func AccountUser(account types.NamespacedName) string {
	return "system:serviceaccount:" + account.Namespace + ":" + account.Name
}

// AsAccount returns the cluster as the service account sees it: all requests are
// made in its name, over the same connections. What kinds there are is the same
// for everybody and is shared. Groups are left to the API server, which gives an
// impersonated service account those that it has; naming them would need the right
// to impersonate groups. Whether there is such an account is not asked.
func (c *Cluster) AsAccount(account types.NamespacedName) (*Cluster, error) {
	user := AccountUser(account)
	config := rest.CopyConfig(c.Config)
	config.Impersonate = rest.ImpersonationConfig{UserName: user}
	base := c.HTTP.Transport
	if base == nil {
		base = http.DefaultTransport
	}
	as := &http.Client{
		Transport: transport.NewImpersonatingRoundTripper(transport.ImpersonationConfig{UserName: user}, base),
		Timeout:   c.HTTP.Timeout,
	}
	out, err := clientsOn(config, as)
	if err != nil {
		return nil, fmt.Errorf("act as %s: %w", user, err)
	}
	out.Resources = c.Resources
	return out, nil
}

// Package kube is the room of Kubernetes clients: how a cluster is reached, and
// what kinds it serves.
package kube

import (
	"fmt"
	"net/http"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// Cluster is one API server with the clients that the stages use. All clients
// share one HTTP connection pool.
type Cluster struct {
	// Config is how the cluster is reached.
	Config *rest.Config
	// HTTP is the shared transport.
	HTTP *http.Client
	// Metadata reads and patches objects and answers with their metadata only,
	// in protobuf where the server has it.
	Metadata metadata.Interface
	// Dynamic reads and writes whole objects of any kind.
	Dynamic dynamic.Interface
	// Resources knows the kinds that the cluster serves.
	Resources *Resources
	// plain sends requests that the other clients do not know, and reads metadata.
	plain rest.Interface
}

// NewCluster makes the clients for config. It sends no request. The clients
// are not rate limited: the API server's own priority and fairness does that.
func NewCluster(config *rest.Config) (*Cluster, error) {
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = -1, -1
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("set up the connection to %s: %w", config.Host, err)
	}
	c, err := clientsOn(config, httpClient)
	if err != nil {
		return nil, err
	}
	if c.Resources, err = resourcesOf(config, httpClient); err != nil {
		return nil, err
	}
	return c, nil
}

func resourcesOf(config *rest.Config, httpClient *http.Client) (*Resources, error) {
	disco, err := discovery.NewDiscoveryClientForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("set up the discovery client for %s: %w", config.Host, err)
	}
	return NewResources(disco), nil
}

// clientsOn makes the clients that share a connection pool. Resources is left to
// the caller.
func clientsOn(config *rest.Config, httpClient *http.Client) (*Cluster, error) {
	meta, err := metadata.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("set up the metadata client for %s: %w", config.Host, err)
	}
	dyn, err := dynamic.NewForConfigAndClient(config, httpClient)
	if err != nil {
		return nil, fmt.Errorf("set up the dynamic client for %s: %w", config.Host, err)
	}
	plain, err := rest.UnversionedRESTClientForConfigAndClient(metadata.ConfigFor(config), httpClient)
	if err != nil {
		return nil, fmt.Errorf("set up the client for %s: %w", config.Host, err)
	}
	return &Cluster{Config: config, HTTP: httpClient, Metadata: named{meta}, Dynamic: dyn, plain: plain}, nil
}

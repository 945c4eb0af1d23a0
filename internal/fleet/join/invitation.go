package join

import (
	"encoding/json"
	"errors"
	"os"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
)

// Endpoint is where the hub answers those who are not on it.
type Endpoint struct {
	// Server is the URL of its API server.
	Server string
	// CA are the certificates, in PEM, by which it is known; empty means those of the system.
	CA []byte
	// ServerName is the name in its certificate where that is not the URL's.
	ServerName string
}

// EndpointOf returns where the hub of a configuration is, for members that reach it the same way.
func EndpointOf(config *rest.Config) (Endpoint, error) {
	e := Endpoint{Server: config.Host, CA: config.CAData, ServerName: config.ServerName}
	if len(e.CA) == 0 && config.CAFile != "" {
		ca, err := os.ReadFile(config.CAFile)
		if err != nil {
			return Endpoint{}, &failure.Error{Op: "read the hub's CA from", Kind: failure.NotFound, Object: config.CAFile, Err: err}
		}
		e.CA = ca
	}
	return e, nil
}

// Invitation lets one cluster join, once. As a kubeconfig it is all that the cluster has to be told.
type Invitation struct {
	Endpoint
	// Namespace, Name and UID are those of the FleetCluster.
	Namespace, Name string
	UID             types.UID
	// RequestName is the one name that the request for a certificate may have.
	RequestName string
	token       string
}

// String keeps the token out of messages and logs.
func (i Invitation) String() string { return "invitation of " + i.Namespace + "/" + i.Name }

// GoString is String.
func (i Invitation) GoString() string { return i.String() }

func (i Invitation) identity(member types.UID) Identity {
	return Identity{Namespace: i.Namespace, Name: i.Name, UID: i.UID, Member: member}
}

// said is what a kubeconfig of this room holds besides the way to the hub.
type said struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	UID       types.UID `json:"uid"`
	Member    types.UID `json:"member,omitempty"`
	Request   string    `json:"request,omitempty"`
}

// extensionName is that of said in the context of a kubeconfig.
const extensionName = "fleet.bowline.dev"

// Kubeconfig is the invitation as a file. It holds the token.
func (i Invitation) Kubeconfig() ([]byte, error) {
	return write(i.Endpoint, said{Namespace: i.Namespace, Name: i.Name, UID: i.UID, Request: i.RequestName}, &api.AuthInfo{Token: i.token})
}

// ParseInvitation reads what Kubeconfig wrote; from says in errors where it is from.
func ParseInvitation(data []byte, from string) (Invitation, error) {
	config, s, err := read(data, from)
	if err != nil {
		return Invitation{}, err
	}
	if s.Request == "" || config.BearerToken == "" {
		return Invitation{}, notOurs(from, "it is not an invitation", "make one on the hub: bowline join")
	}
	return Invitation{Endpoint: endpoint(config), Namespace: s.Namespace, Name: s.Name, UID: s.UID, RequestName: s.Request, token: config.BearerToken}, nil
}

func endpoint(config *rest.Config) Endpoint {
	return Endpoint{Server: config.Host, CA: config.CAData, ServerName: config.ServerName}
}

// config talks to the hub with the invitation's token.
func (i Invitation) config() *rest.Config {
	c := i.rest()
	c.BearerToken = i.token
	return c
}

func (e Endpoint) rest() *rest.Config {
	return &rest.Config{Host: e.Server, TLSClientConfig: rest.TLSClientConfig{CAData: e.CA, ServerName: e.ServerName}, UserAgent: "bowline-agent"}
}

func write(e Endpoint, s said, who *api.AuthInfo) ([]byte, error) {
	raw, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	const name = "hub"
	return clientcmd.Write(api.Config{
		Clusters:  map[string]*api.Cluster{name: {Server: e.Server, CertificateAuthorityData: e.CA, TLSServerName: e.ServerName}},
		AuthInfos: map[string]*api.AuthInfo{name: who},
		Contexts: map[string]*api.Context{name: {Cluster: name, AuthInfo: name, Namespace: s.Namespace,
			Extensions: map[string]runtime.Object{extensionName: &runtime.Unknown{Raw: raw, ContentType: runtime.ContentTypeJSON}}}},
		CurrentContext: name,
	})
}

func read(data []byte, from string) (*rest.Config, said, error) {
	config, err := kube.ParseKubeconfig(data, from, kube.KubeconfigOptions{})
	if err != nil {
		return nil, said{}, err
	}
	// It can be read and has a current context: that was just checked.
	loaded, err := clientcmd.Load(data)
	if err != nil {
		return nil, said{}, notOurs(from, "it cannot be read", "make one on the hub: bowline join")
	}
	var s said
	unknown, ok := loaded.Contexts[loaded.CurrentContext].Extensions[extensionName].(*runtime.Unknown)
	if !ok || json.Unmarshal(unknown.Raw, &s) != nil || s.Namespace == "" || s.Name == "" || s.UID == "" {
		return nil, said{}, notOurs(from, "it does not say which FleetCluster it is for", "use the kubeconfig that the hub made, as it is: bowline join")
	}
	return config, s, nil
}

func notOurs(from, why, remedy string) error {
	return &failure.Error{Op: "use the kubeconfig of", Object: from, Kind: failure.Invalid, Err: errors.New(why), Remedy: remedy}
}

// Package join is the room of the identity of agents: how a hub invites a cluster, how the cluster's agent
// gets, keeps and renews a certificate of its own, and what the holder of one may do on the hub.
//
// One invitation is one ServiceAccount, one Secret that its token is bound to, and one name that a
// CertificateSigningRequest may have. Nothing of it is ever used for a second request. The certificate names the FleetCluster
// and its incarnation, which is a hash of the FleetCluster's uid and the member's identity; rights are bound to exactly
// that name, so a certificate is worth nothing from the moment when the FleetCluster has another incarnation.
package join

import (
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// owner is the field manager of what this room writes.
const owner = client.FieldOwner("bowline-join")

const (
	// AgentGroup is the group of all agents. Nothing is bound to it.
	AgentGroup = "bowline:agents"
	// agentPrefix begins the user name of every agent.
	agentPrefix = "bowline:agent:"
	// joinPrefix begins the names of all that belongs to an invitation, and of its request.
	joinPrefix = "bowline-join-"
	// rolePrefix begins the name of an agent's Role, and of its requests for renewal.
	rolePrefix = "bowline-agent-"
)

const (
	// labelIdentity is on all that this room writes, and says whose rights it is about.
	labelIdentity      = "fleet.bowline.dev/identity"
	identityAgent      = "agent"
	identityInvitation = "invitation"
	// labelNamespace and labelCluster name the FleetCluster.
	labelNamespace = "fleet.bowline.dev/cluster-namespace"
	labelCluster   = "fleet.bowline.dev/cluster"
	// annotationUID is that of the FleetCluster, and annotationIncarnation the one that has the rights.
	annotationUID         = "fleet.bowline.dev/cluster-uid"
	annotationIncarnation = "fleet.bowline.dev/incarnation"
	// annotationUsedBy is on the Secret of an invitation that was used: the uid of the request.
	annotationUsedBy = "fleet.bowline.dev/used-by"
	// annotationMember is on requests: the uid of the member's namespace kube-system.
	annotationMember = "fleet.bowline.dev/member"
)

// AddToScheme registers the kinds that the hub's side reads and writes.
func AddToScheme(s *runtime.Scheme) error {
	for _, add := range []func(*runtime.Scheme) error{
		v1alpha1.AddToScheme, corev1.AddToScheme, rbacv1.AddToScheme, certificatesv1.AddToScheme, coordinationv1.AddToScheme,
	} {
		if err := add(s); err != nil {
			return fmt.Errorf("register API types: %w", err)
		}
	}
	return nil
}

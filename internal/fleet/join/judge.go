package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// The reasons for which a request is denied.
const (
	InvalidRequestReason       = "InvalidRequest"
	NotInvitedReason           = "NotInvited"
	InvitationUsedReason       = "InvitationUsed"
	FleetClusterNotFoundReason = "FleetClusterNotFound"
	FleetClusterDeletedReason  = "FleetClusterDeleted"
)

// denial is why a request is denied.
type denial struct{ reason, message string }

func deny(reason, format string, of ...any) *denial {
	return &denial{reason, fmt.Sprintf(format, of...)}
}

// granted is what a request that may be approved is about.
type granted struct {
	cluster *v1alpha1.FleetCluster
	claim   claim
	member  types.UID
	// secret is that of the invitation; nil for a renewal.
	secret *corev1.Secret
}

// ours reports whether a request is for this room to decide: by what it asks for, or by who asks.
func ours(r *certificatesv1.CertificateSigningRequest) bool {
	if _, invited := invitedAs(r); invited || slices.Contains(r.Spec.Groups, AgentGroup) {
		return true
	}
	asked, err := parseRequest(r)
	return err == nil && r.Spec.SignerName == certificatesv1.KubeAPIServerClientSignerName &&
		(strings.HasPrefix(asked.Subject.CommonName, agentPrefix) || slices.Contains(asked.Subject.Organization, AgentGroup))
}

// invitedAs returns the ServiceAccount of an invitation that made a request.
func invitedAs(r *certificatesv1.CertificateSigningRequest) (types.NamespacedName, bool) {
	namespace, name, ok := strings.Cut(strings.TrimPrefix(r.Spec.Username, "system:serviceaccount:"), ":")
	return types.NamespacedName{Namespace: namespace, Name: name},
		ok && strings.HasPrefix(r.Spec.Username, "system:serviceaccount:") && strings.HasPrefix(name, joinPrefix)
}

func parseRequest(r *certificatesv1.CertificateSigningRequest) (*x509.CertificateRequest, error) {
	block, _ := pem.Decode(r.Spec.Request)
	if block == nil {
		return nil, x509.ErrUnsupportedAlgorithm
	}
	return x509.ParseCertificateRequest(block.Bytes)
}

// claimOf checks what is asked for, whoever asks, and returns whom it is for.
func claimOf(r *certificatesv1.CertificateSigningRequest) (claim, *denial) {
	asked, err := parseRequest(r)
	if err != nil {
		return claim{}, deny(InvalidRequestReason, "the request cannot be read")
	}
	c, ok := parseUser(asked.Subject.CommonName)
	key, isECDSA := asked.PublicKey.(*ecdsa.PublicKey)
	usages := slices.Sorted(slices.Values(r.Spec.Usages))
	switch {
	case r.Spec.SignerName != certificatesv1.KubeAPIServerClientSignerName:
		return c, deny(InvalidRequestReason, "agents get certificates of the signer %s only", certificatesv1.KubeAPIServerClientSignerName)
	case !ok:
		return c, deny(InvalidRequestReason, "the common name is not that of an agent: %s<namespace>:<name>:<incarnation>", agentPrefix)
	case !slices.Equal(asked.Subject.Organization, []string{AgentGroup}):
		return c, deny(InvalidRequestReason, "the organization has to be %s and nothing else", AgentGroup)
	case len(asked.Subject.Names) != 2 || len(asked.DNSNames)+len(asked.EmailAddresses)+len(asked.IPAddresses)+len(asked.URIs)+len(asked.Extensions) > 0:
		return c, deny(InvalidRequestReason, "a certificate of an agent has a common name and an organization, and nothing else")
	case !slices.Equal(usages, []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature}):
		return c, deny(InvalidRequestReason, "the usages have to be %s and %s", certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature)
	case !isECDSA || key.Curve != elliptic.P256():
		return c, deny(InvalidRequestReason, "the key has to be one of ECDSA on P-256")
	case asked.CheckSignature() != nil:
		return c, deny(InvalidRequestReason, "it is not signed with the key that it is for")
	}
	return c, nil
}

// judge decides on a request. It reads from the API server: what a cache says may be over.
func (a *approver) judge(ctx context.Context, r *certificatesv1.CertificateSigningRequest) (*granted, *denial, error) {
	c, no := claimOf(r)
	if no != nil {
		return nil, no, nil
	}
	account, invited := invitedAs(r)
	renewal := r.Spec.Username == user(c.namespace, c.name, c.incarnation) && slices.Contains(r.Spec.Groups, AgentGroup)
	if !renewal && (!invited || account.Namespace != c.namespace) {
		return nil, deny(NotInvitedReason, "%q is neither invited as %s nor its agent", brief(r.Spec.Username), object(c.key())), nil
	}
	g := &granted{cluster: &v1alpha1.FleetCluster{}, claim: c, member: types.UID(r.Annotations[annotationMember])}
	err := a.direct.Get(ctx, c.key(), g.cluster)
	switch {
	case apierrors.IsNotFound(err):
		return nil, deny(FleetClusterNotFoundReason, "there is no %s", object(c.key())), nil
	case err != nil:
		return nil, nil, fmt.Errorf("read %s: %w", object(c.key()), err)
	case !g.cluster.DeletionTimestamp.IsZero():
		return nil, deny(FleetClusterDeletedReason, "%s is being deleted", object(c.key())), nil
	}
	if invited {
		if g.secret, no, err = a.invitation(ctx, r, g.cluster); no != nil || err != nil {
			return nil, no, err
		}
	}
	return g, a.incarnate(g, renewal), nil
}

// incarnate says why a request is not of the incarnation that may have a certificate.
func (a *approver) incarnate(g *granted, renewal bool) *denial {
	id := Identity{Namespace: g.claim.namespace, Name: g.claim.name, UID: g.cluster.UID, Member: g.member}
	key := client.ObjectKeyFromObject(g.cluster)
	switch now := g.cluster.Status.Incarnation; {
	case id.Incarnation() != g.claim.incarnation:
		return deny(InvalidRequestReason, "the incarnation is not that of this %s and the cluster that the request names", object(key))
	case now == g.claim.incarnation:
		return nil
	case renewal:
		return deny(v1alpha1.IdentityConflictReason, "this incarnation does not speak for %s any more", object(key))
	case now != "":
		return deny(v1alpha1.IdentityConflictReason, "the cluster %q wants to join as %s, which the cluster %q has joined as; to let go of that one: bowline join %s -n %s --replace",
			brief(string(g.member)), object(key), g.cluster.Status.ClusterID, key.Name, key.Namespace)
	}
	return nil
}

// invitation returns the Secret of the invitation that a request was made with, if that is good for it.
func (a *approver) invitation(ctx context.Context, r *certificatesv1.CertificateSigningRequest, cluster *v1alpha1.FleetCluster) (*corev1.Secret, *denial, error) {
	name, _ := invitedAs(r)
	var account corev1.ServiceAccount
	var secret corev1.Secret
	for _, o := range []client.Object{&account, &secret} {
		err := a.direct.Get(ctx, name, o)
		if apierrors.IsNotFound(err) {
			return nil, deny(InvitationUsedReason, "the invitation was used, or there is a newer one"), nil
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read the invitation of %s: %w", object(client.ObjectKeyFromObject(cluster)), err)
		}
	}
	by := secret.Annotations[annotationUsedBy]
	switch {
	case secret.Labels[labelIdentity] != identityInvitation || secret.Labels[labelCluster] != cluster.Name ||
		secret.Annotations[annotationUID] != string(cluster.UID) || string(account.UID) != r.Spec.UID:
		return nil, deny(NotInvitedReason, "the invitation is not for this %s", object(client.ObjectKeyFromObject(cluster))), nil
	case r.Name != name.Name:
		return nil, deny(NotInvitedReason, "the invitation is good for a request with another name"), nil
	case by != "" && by != string(r.UID):
		return nil, deny(InvitationUsedReason, "the invitation was used before"), nil
	}
	return &secret, nil, nil
}

// brief cuts what a stranger may have written.
func brief(text string) string {
	const most = 200
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

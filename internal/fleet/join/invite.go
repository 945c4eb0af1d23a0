package join

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
)

// InvitationLife is how long an invitation is good for.
const InvitationLife = time.Hour

// Invite makes an invitation for one cluster, and ends the one before. It returns until when the invitation is
// good, by the hub's clock. The client must not read from a cache.
func Invite(ctx context.Context, c client.Client, cluster *v1alpha1.FleetCluster, hub Endpoint) (Invitation, time.Time, error) {
	key := client.ObjectKeyFromObject(cluster)
	if !cluster.DeletionTimestamp.IsZero() {
		return Invitation{}, time.Time{}, &failure.Error{Op: "invite", Kind: failure.Refused, Object: object(key), Err: errors.New("it is being deleted")}
	}
	if err := Uninvite(ctx, c, key); err != nil {
		return Invitation{}, time.Time{}, err
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return Invitation{}, time.Time{}, fmt.Errorf("invite %s: %w", object(key), err)
	}
	name := joinPrefix + hex.EncodeToString(id)
	account, secret, role, binding := invitationObjects(cluster, name)
	for _, o := range []client.Object{secret, account, role, binding} {
		if err := c.Create(ctx, o, owner); err != nil {
			return Invitation{}, time.Time{}, fmt.Errorf("invite %s: make %T %s: %w", object(key), o, name, err)
		}
	}
	token := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: ptr.To(int64(InvitationLife.Seconds())),
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Secret", APIVersion: "v1", Name: name, UID: secret.UID},
	}}
	if err := c.SubResource("token").Create(ctx, account, token); err != nil {
		return Invitation{}, time.Time{}, fmt.Errorf("invite %s: ask for a token: %w", object(key), err)
	}
	return Invitation{Endpoint: hub, Namespace: cluster.Namespace, Name: cluster.Name, UID: cluster.UID,
		RequestName: name, token: token.Status.Token}, token.Status.ExpirationTimestamp.Time, nil
}

// invitationObjects are what an invitation is made of. Those with a namespace go with their FleetCluster; the
// others are removed by the reconciler of rights.
func invitationObjects(cluster *v1alpha1.FleetCluster, name string) (*corev1.ServiceAccount, *corev1.Secret, *rbacv1.ClusterRole, *rbacv1.ClusterRoleBinding) {
	wide := metav1.ObjectMeta{Name: name, Labels: labels(client.ObjectKeyFromObject(cluster), identityInvitation),
		Annotations: map[string]string{annotationUID: string(cluster.UID)}}
	within := *wide.DeepCopy()
	within.Namespace, within.OwnerReferences = cluster.Namespace, owned(cluster)
	return &corev1.ServiceAccount{ObjectMeta: within, AutomountServiceAccountToken: ptr.To(false)},
		&corev1.Secret{ObjectMeta: *within.DeepCopy()},
		&rbacv1.ClusterRole{ObjectMeta: wide, Rules: requestRules(name, "get", "list", "watch")},
		&rbacv1.ClusterRoleBinding{ObjectMeta: *wide.DeepCopy(), RoleRef: roleRef("ClusterRole", name),
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: cluster.Namespace, Name: name}}}
}

// requestRules let somebody make requests for certificates, and see to the one of that name.
func requestRules(name string, verbs ...string) []rbacv1.PolicyRule {
	requests := []string{"certificatesigningrequests"}
	return []rbacv1.PolicyRule{
		{APIGroups: []string{certificatesv1.GroupName}, Resources: requests, Verbs: []string{"create"}},
		{APIGroups: []string{certificatesv1.GroupName}, Resources: requests, ResourceNames: []string{name}, Verbs: verbs},
	}
}

func roleRef(kind, name string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
}

func labels(key types.NamespacedName, of string) map[string]string {
	return map[string]string{labelIdentity: of, labelNamespace: key.Namespace, labelCluster: key.Name}
}

func owned(cluster *v1alpha1.FleetCluster) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: v1alpha1.GroupVersion.String(), Kind: v1alpha1.FleetClusterKind, Name: cluster.Name, UID: cluster.UID}}
}

// Uninvite ends the invitations of a FleetCluster, whether they were used or not.
func Uninvite(ctx context.Context, c client.Client, key types.NamespacedName) error {
	only := client.MatchingLabels(labels(key, identityInvitation))
	for _, o := range []client.Object{&corev1.Secret{}, &corev1.ServiceAccount{}, &rbacv1.ClusterRole{}, &rbacv1.ClusterRoleBinding{}} {
		options := []client.DeleteAllOfOption{only}
		if namespaced(o) {
			options = append(options, client.InNamespace(key.Namespace))
		}
		if err := c.DeleteAllOf(ctx, o, options...); err != nil {
			return fmt.Errorf("end the invitations of %s: delete each %T: %w", object(key), o, err)
		}
	}
	return nil
}

func namespaced(o client.Object) bool {
	switch o.(type) {
	case *rbacv1.ClusterRole, *rbacv1.ClusterRoleBinding:
		return false
	}
	return true
}

// invitationNamed are the objects of one invitation; the Secret, which ends the token, is the first.
func invitationNamed(name types.NamespacedName) []client.Object {
	within, wide := metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}, metav1.ObjectMeta{Name: name.Name}
	return []client.Object{&corev1.Secret{ObjectMeta: within}, &corev1.ServiceAccount{ObjectMeta: within},
		&rbacv1.ClusterRoleBinding{ObjectMeta: wide}, &rbacv1.ClusterRole{ObjectMeta: wide}}
}

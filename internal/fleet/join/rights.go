package join

import (
	"context"
	"errors"
	"fmt"
	"sync"

	coordinationv1 "k8s.io/api/coordination/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// wideName is that of an agent's ClusterRole and its binding: requests for certificates have no namespace.
func wideName(key types.NamespacedName) string {
	return "bowline-agent:" + key.Namespace + ":" + key.Name
}

// LeaseLabels are on the Lease that the agent of a FleetCluster renews, whoever made it.
func LeaseLabels(key types.NamespacedName) map[string]string { return labels(key, identityAgent) }

// LeaseSelector selects the Leases of all agents.
func LeaseSelector() map[string]string { return map[string]string{labelIdentity: identityAgent} }

// agentRules are all that an agent may do in the namespace of its FleetCluster: each with one object, which
// has the FleetCluster's name.
func agentRules(name string) []rbacv1.PolicyRule {
	only := []string{name}
	fleet := []string{v1alpha1.GroupVersion.Group}
	return []rbacv1.PolicyRule{
		{APIGroups: fleet, Resources: []string{"clusterassignments"}, ResourceNames: only, Verbs: []string{"get", "list", "watch"}},
		{APIGroups: fleet, Resources: []string{"clusterreports"}, ResourceNames: only, Verbs: []string{"get"}},
		{APIGroups: fleet, Resources: []string{"clusterreports/status"}, ResourceNames: only, Verbs: []string{"get", "update", "patch"}},
		{APIGroups: []string{coordinationv1.GroupName}, Resources: []string{"leases"}, ResourceNames: only, Verbs: []string{"get", "update", "patch"}},
	}
}

// grant gives the rights to the one incarnation that a FleetCluster has, and takes them from any other. It also makes the
// Lease, which an agent may renew and not create. The binding of the ClusterRole is there before anything else, so that
// rights are never without it, and it names the incarnation when all is written. fresh says that probably nothing is there yet, which
// is then not asked first.
func grant(ctx context.Context, c client.Client, cluster *v1alpha1.FleetCluster, fresh bool) error {
	key := client.ObjectKeyFromObject(cluster)
	who := []rbacv1.Subject{{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: user(key.Namespace, key.Name, cluster.Status.Incarnation)}}
	within, wide := metav1.ObjectMeta{Namespace: key.Namespace, Name: rolePrefix + key.Name}, metav1.ObjectMeta{Name: wideName(key)}
	role, binding := &rbacv1.Role{ObjectMeta: within}, &rbacv1.RoleBinding{ObjectMeta: within}
	requests, marker := &rbacv1.ClusterRole{ObjectMeta: wide}, &rbacv1.ClusterRoleBinding{ObjectMeta: wide}
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	bind := func() { marker.Subjects, marker.RoleRef = who, roleRef("ClusterRole", wide.Name) }
	for _, o := range []written{
		{marker, bind},
		{lease, func() {}},
		{role, func() { role.Rules = agentRules(key.Name) }},
		{requests, func() {
			requests.Rules = requestRules(renewalName(cluster.Status.Incarnation), "get", "list", "watch", "delete")
		}},
		{binding, func() { binding.Subjects, binding.RoleRef = who, roleRef("Role", within.Name) }},
	} {
		if err := o.write(ctx, c, cluster, fresh); err != nil {
			return err
		}
	}
	// It is the one that was written first, or somebody took the rights away meanwhile and all is to be done again.
	marker.Annotations[annotationIncarnation] = cluster.Status.Incarnation
	if err := c.Update(ctx, marker, owner); err != nil {
		return fmt.Errorf("give the agent of %s its rights: %w", object(key), err)
	}
	return nil
}

// grants are those under way, by FleetCluster. Two that write the same rights at the same moment would only be in each other's way.
type grants struct {
	mu  sync.Mutex
	all map[types.NamespacedName]int // guarded by mu
}

func newGrants() *grants { return &grants{all: map[types.NamespacedName]int{}} }

// begin notes one, until end is called.
func (g *grants) begin(key types.NamespacedName) (end func()) {
	add := func(n int) {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.all[key] += n; g.all[key] == 0 {
			delete(g.all, key)
		}
	}
	add(1)
	return func() { add(-1) }
}

func (g *grants) underWay(key types.NamespacedName) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.all[key] > 0
}

// written is an object of an agent's rights, and what is to be in it.
type written struct {
	client.Object
	set func()
}

func (o written) write(ctx context.Context, c client.Client, cluster *v1alpha1.FleetCluster, fresh bool) error {
	key := client.ObjectKeyFromObject(cluster)
	set := func() error {
		annotations := map[string]string{annotationUID: string(cluster.UID)}
		// What names another incarnation may not say so while the rights change.
		if now := o.GetAnnotations()[annotationIncarnation]; now == cluster.Status.Incarnation && now != "" {
			annotations[annotationIncarnation] = now
		}
		if o.GetNamespace() != "" {
			o.SetOwnerReferences(owned(cluster))
		}
		o.SetLabels(labels(key, identityAgent))
		o.SetAnnotations(annotations)
		o.set()
		return nil
	}
	if fresh {
		_ = set() // which cannot fail
		if failed := c.Create(ctx, o.Object); !apierrors.IsAlreadyExists(failed) {
			return o.failed(key, failed)
		}
	}
	_, err := controllerutil.CreateOrUpdate(ctx, c, o.Object, set)
	return o.failed(key, err)
}

func (o written) failed(key types.NamespacedName, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("give the agent of %s its rights: write %T %s: %w", object(key), o.Object, o.GetName(), err)
}

// revoke takes all rights from the agents of a FleetCluster. The binding that says that there are any goes last.
func revoke(ctx context.Context, c client.Client, key types.NamespacedName) error {
	within := metav1.ObjectMeta{Namespace: key.Namespace, Name: rolePrefix + key.Name}
	wide := metav1.ObjectMeta{Name: wideName(key)}
	for _, o := range []client.Object{
		&rbacv1.RoleBinding{ObjectMeta: within}, &rbacv1.Role{ObjectMeta: within}, &rbacv1.ClusterRole{ObjectMeta: wide}, &rbacv1.ClusterRoleBinding{ObjectMeta: wide},
	} {
		if err := client.IgnoreNotFound(c.Delete(ctx, o)); err != nil {
			return fmt.Errorf("take its rights from the agent of %s: delete %T %s: %w", object(key), o, o.GetName(), err)
		}
	}
	return nil
}

// sweep removes what invitations of a FleetCluster that is gone left in the cluster. A new one of its name may be invited
// meanwhile: whose they are is asked after they were listed.
func sweep(ctx context.Context, c client.Client, key types.NamespacedName) error {
	only := client.MatchingLabels(labels(key, identityInvitation))
	var bindings rbacv1.ClusterRoleBindingList
	var roles rbacv1.ClusterRoleList
	if err := errors.Join(c.List(ctx, &bindings, only), c.List(ctx, &roles, only)); err != nil {
		return fmt.Errorf("look for the invitations of %s: %w", object(key), err)
	}
	cluster := &v1alpha1.FleetCluster{}
	if err := client.IgnoreNotFound(c.Get(ctx, key, cluster)); err != nil {
		return fmt.Errorf("read %s: %w", object(key), err)
	}
	var left []client.Object
	for i := range bindings.Items {
		left = append(left, &bindings.Items[i])
	}
	for i := range roles.Items {
		left = append(left, &roles.Items[i])
	}
	for _, o := range left {
		if cluster.UID != "" && o.GetAnnotations()[annotationUID] == string(cluster.UID) {
			continue
		}
		if err := client.IgnoreNotFound(c.Delete(ctx, o)); err != nil {
			return fmt.Errorf("remove an invitation of %s: %w", object(key), err)
		}
	}
	return nil
}

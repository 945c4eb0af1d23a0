package pivot

import (
	"context"
	"fmt"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/object"
)

// surveyRights finds the rights of service accounts that move which hold for the whole cluster, and so do not: to give somebody all of another
// cluster is for people to decide.
func (o Options) surveyRights(ctx context.Context, p *Plan) error {
	all := &rbacv1.ClusterRoleBindingList{}
	if err := o.From.Client.List(ctx, all); err != nil {
		return wrap(err, "list the ClusterRoleBindings of the hub")
	}
	for i := range all.Items {
		b := &all.Items[i]
		who := bound(b.Subjects, p.Namespaces)
		if who == "" || delivered(b.Labels) || b.Labels[labelIdentity] != "" {
			continue
		}
		there := &rbacv1.ClusterRoleBinding{}
		err := o.To.Client.Get(ctx, client.ObjectKeyFromObject(b), there)
		if client.IgnoreNotFound(err) != nil {
			return wrap(err, "look for ClusterRoleBinding/%s on the target", b.Name)
		}
		if err == nil && there.RoleRef == b.RoleRef && equality.Semantic.DeepEqual(there.Subjects, b.Subjects) {
			continue
		}
		p.Stays = append(p.Stays, fmt.Sprintf("ClusterRoleBinding/%s does not move: it binds %s to ClusterRole/%s", b.Name, who, b.RoleRef.Name))
	}
	return o.surveyRoles(ctx, p)
}

// surveyRoles finds the ClusterRoles that bindings which move refer to, and the target has not got.
func (o Options) surveyRoles(ctx context.Context, p *Plan) error {
	told := map[string]bool{}
	for i := range p.Carry {
		u := p.Carry[i].Object
		if u.GetKind() != "RoleBinding" {
			continue
		}
		b := &rbacv1.RoleBinding{}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, b); err != nil || b.RoleRef.Kind != "ClusterRole" || told[b.RoleRef.Name] {
			continue // as it is, it can be copied
		}
		told[b.RoleRef.Name] = true
		from, to := &rbacv1.ClusterRole{}, &rbacv1.ClusterRole{}
		key := client.ObjectKey{Name: b.RoleRef.Name}
		err := o.To.Client.Get(ctx, key, to)
		if err == nil {
			continue
		}
		if !apierrors.IsNotFound(err) {
			return wrap(err, "look for ClusterRole/%s on the target", key.Name)
		}
		if err := o.From.Client.Get(ctx, key, from); err == nil && !delivered(from.Labels) {
			p.Stays = append(p.Stays, fmt.Sprintf("ClusterRole/%s does not move: %s refers to it", key.Name, object.IDOf(u)))
		}
	}
	slices.Sort(p.Stays)
	return nil
}

// bound names the subjects of a binding that are service accounts of these namespaces; nothing where none is.
func bound(subjects []rbacv1.Subject, namespaces []string) string {
	var all []string
	for _, s := range subjects {
		group, ofNamespace := strings.CutPrefix(s.Name, "system:serviceaccounts:")
		switch {
		case s.Kind == rbacv1.ServiceAccountKind && slices.Contains(namespaces, s.Namespace):
			all = append(all, "ServiceAccount/"+s.Namespace+"/"+s.Name)
		case s.Kind == rbacv1.GroupKind && ofNamespace && slices.Contains(namespaces, group):
			all = append(all, "the service accounts of "+group)
		}
	}
	return strings.Join(all, " and ")
}

// delivered reports whether an object comes from Git, by a unit that moves and delivers it again.
func delivered(labels map[string]string) bool {
	return labels[object.KustomizeGroup+"/name"] != "" || labels[object.HelmGroup+"/name"] != ""
}

package agent

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/object"
)

// FieldManager owns what is installed, except for the definitions, which have the owner that they have everywhere.
const FieldManager = "bowline-join"

// AddToScheme registers the kinds that Remove deletes.
func AddToScheme(s *runtime.Scheme) error {
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, rbacv1.AddToScheme} {
		if err := add(s); err != nil {
			return fmt.Errorf("register API types: %w", err)
		}
	}
	return nil
}

// Mapper knows the kinds of an agent's manifests. A client that uses it asks a member for nothing before it begins.
func Mapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	for kind, scope := range map[schema.GroupVersionKind]meta.RESTScope{
		corev1.SchemeGroupVersion.WithKind("Namespace"):                         meta.RESTScopeRoot,
		corev1.SchemeGroupVersion.WithKind("Secret"):                            meta.RESTScopeNamespace,
		corev1.SchemeGroupVersion.WithKind("ServiceAccount"):                    meta.RESTScopeNamespace,
		appsv1.SchemeGroupVersion.WithKind("Deployment"):                        meta.RESTScopeNamespace,
		rbacv1.SchemeGroupVersion.WithKind("ClusterRoleBinding"):                meta.RESTScopeRoot,
		apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"): meta.RESTScopeRoot,
	} {
		m.Add(kind, scope)
	}
	return m
}

// Prepare applies the namespace and the definitions, and reports whether the member serves all of them by now. An agent
// that is started before that would end and be started again.
func Prepare(ctx context.Context, member client.Client, all []*unstructured.Unstructured) (served bool, err error) {
	served = true
	for _, u := range all {
		if !first(u) {
			continue
		}
		manager := FieldManager
		if isDefinition(u) {
			manager = crds.FieldManager
		}
		answer, err := apply(ctx, member, u, manager)
		if err != nil {
			return false, err
		}
		served = served && (!isDefinition(u) || crds.Established(answer))
	}
	return served, nil
}

// Install applies what Prepare left.
func Install(ctx context.Context, member client.Client, all []*unstructured.Unstructured) error {
	for _, u := range all {
		if first(u) {
			continue
		}
		if _, err := apply(ctx, member, u, FieldManager); err != nil {
			return err
		}
	}
	return nil
}

// first says what has to be there before anything else.
func first(u *unstructured.Unstructured) bool { return u.GetKind() == "Namespace" || isDefinition(u) }

func isDefinition(u *unstructured.Unstructured) bool {
	return u.GetKind() == "CustomResourceDefinition"
}

// apply takes fields over from others: of two agents of one cluster there is to be one.
func apply(ctx context.Context, member client.Client, u *unstructured.Unstructured, manager string) (*unstructured.Unstructured, error) {
	answer := u.DeepCopy()
	if err := member.Apply(ctx, client.ApplyConfigurationFromUnstructured(answer), client.FieldOwner(manager), client.ForceOwnership); err != nil {
		return nil, fmt.Errorf("install %s: %w", object.IDOf(u), err)
	}
	return answer, nil
}

// Remove deletes what was installed, except for the namespace and the definitions: with these everything would
// go that is of their kinds. What is not there any more is passed over.
//
// An agent can do it for itself. Its account is the binding's from then on and goes with that, which is the last thing that the agent
// has the right to delete.
func Remove(ctx context.Context, member client.Client) error {
	for _, o := range []client.Object{
		&corev1.Secret{ObjectMeta: named(InvitationName)},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: join.StoreNamespace, Name: join.StoreName}},
		&appsv1.Deployment{ObjectMeta: named(Name)},
	} {
		if err := client.IgnoreNotFound(member.Delete(ctx, o, client.PropagationPolicy(metav1.DeletePropagationBackground))); err != nil {
			return failed(o, err)
		}
	}
	bound := &rbacv1.ClusterRoleBinding{}
	err := member.Get(ctx, client.ObjectKey{Name: Name}, bound)
	if err != nil && !apierrors.IsNotFound(err) {
		return failed(&rbacv1.ClusterRoleBinding{ObjectMeta: named(Name)}, err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: named(Name)}
	if err == nil {
		if err := bequeath(ctx, member, account, bound); err != nil {
			return err
		}
		if err := client.IgnoreNotFound(member.Delete(ctx, bound)); err != nil {
			return failed(bound, err)
		}
	}
	// Whoever deletes itself may not do this any more, and the account goes all the same.
	err = member.Delete(ctx, account)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsForbidden(err) && !apierrors.IsUnauthorized(err) {
		return failed(account, err)
	}
	return nil
}

// bequeath has the account go with the binding.
func bequeath(ctx context.Context, member client.Client, account *corev1.ServiceAccount, bound *rbacv1.ClusterRoleBinding) error {
	owner := *metav1.NewControllerRef(bound, rbacv1.SchemeGroupVersion.WithKind("ClusterRoleBinding"))
	owner.Controller, owner.BlockOwnerDeletion = nil, nil
	before := account.DeepCopy()
	account.OwnerReferences = []metav1.OwnerReference{owner}
	if err := client.IgnoreNotFound(member.Patch(ctx, account, client.MergeFrom(before), client.FieldOwner(FieldManager))); err != nil {
		return failed(account, err)
	}
	return nil
}

func failed(o client.Object, err error) error {
	return fmt.Errorf("remove the agent: %T %s of %s: %w", o, o.GetName(), v1alpha1.MemberNamespace, err)
}

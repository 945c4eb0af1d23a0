// Package agent is the room of what an agent is made of on a member: the objects that install it, and the way
// to take them away again. The hub installs them, `bowline join` does, or the owners of a member apply what it prints.
package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
)

const (
	// Name is that of the Deployment, its ServiceAccount and the binding of that account.
	Name = "bowline-agent"
	// InvitationName is that of the Secret with the invitation.
	InvitationName = "bowline-invitation"
	// InvitationKey has what join.Invitation.Kubeconfig wrote.
	InvitationKey = "invitation"
	// Repository is where the images of releases are.
	Repository = "ghcr.io/bowline-dev/bowline"
)

// Options says what is installed.
type Options struct {
	// Image is what the Deployment runs; see DefaultImage.
	Image string
	// Invitation is what the agent joins with; without one there is no Secret, and an agent that has joined goes on.
	Invitation []byte
	// Args are added to the arguments of `bowline agent`.
	Args []string
}

// DefaultImage is the image of a version of the program. What is no tag in a version becomes one.
func DefaultImage(version string) string {
	version = strings.Trim(strings.ReplaceAll(version, "+", "-"), "()")
	if version == "" || version == "devel" || version == "unknown" {
		version = "latest"
	}
	return Repository + ":" + version
}

// Manifests returns all that an agent needs, in the order in which it is applied: the namespace, the definitions,
// the rights, the invitation and the Deployment. The caller owns the objects.
//
// The definitions are those of an engine and those of the fleet, all of them: a member whose path in Git holds
// FleetClusters is a hub by that alone.
func Manifests(o Options) ([]*unstructured.Unstructured, error) {
	engine, err := crds.All()
	if err != nil {
		return nil, err
	}
	fleet, err := crds.Fleet()
	if err != nil {
		return nil, err
	}
	all := []runtime.Object{namespace()}
	for _, u := range append(engine, fleet...) {
		all = append(all, u)
	}
	all = append(all, account(), binding())
	if len(o.Invitation) > 0 {
		all = append(all, invitation(o.Invitation))
	}
	return convert(append(all, deployment(o)))
}

// Digest names what is installed, whatever invitation it is installed with.
func Digest(all []*unstructured.Unstructured) (string, error) {
	sum := sha256.New()
	for _, u := range all {
		if isInvitation(u) {
			continue
		}
		if err := json.NewEncoder(sum).Encode(u.Object); err != nil {
			return "", fmt.Errorf("name the agent's manifests: %w", err)
		}
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil)), nil
}

func isInvitation(u *unstructured.Unstructured) bool {
	return u.GetKind() == "Secret" && u.GetName() == InvitationName
}

// convert leaves out what servers write.
func convert(all []runtime.Object) ([]*unstructured.Unstructured, error) {
	out := make([]*unstructured.Unstructured, 0, len(all))
	for _, o := range all {
		u, ok := o.(*unstructured.Unstructured)
		if !ok {
			object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
			if err != nil {
				return nil, fmt.Errorf("make the agent's manifests: %w", err)
			}
			u = &unstructured.Unstructured{Object: object}
		}
		for _, of := range [][]string{{"status"}, {"metadata", "creationTimestamp"}, {"spec", "template", "metadata", "creationTimestamp"}} {
			unstructured.RemoveNestedField(u.Object, of...)
		}
		out = append(out, u)
	}
	return out, nil
}

// named is the metadata of an object of the member's namespace.
func named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: v1alpha1.MemberNamespace, Labels: labels()}
}

func labels() map[string]string { return map[string]string{"app.kubernetes.io/name": Name} }

func namespace() runtime.Object {
	return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": v1alpha1.MemberNamespace}}}
}

func account() runtime.Object {
	return &corev1.ServiceAccount{TypeMeta: typeOf("v1", "ServiceAccount"), ObjectMeta: named(Name)}
}

// binding gives the agent all rights: what is in Git may be of any kind, and hold roles with any right, which only those
// may give who have it. What tenants deliver is not done with these rights but with those of their own accounts.
func binding() runtime.Object {
	meta := named(Name)
	meta.Namespace = ""
	return &rbacv1.ClusterRoleBinding{TypeMeta: typeOf("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"), ObjectMeta: meta,
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: v1alpha1.MemberNamespace, Name: Name}}}
}

func invitation(data []byte) runtime.Object {
	return &corev1.Secret{TypeMeta: typeOf("v1", "Secret"), ObjectMeta: named(InvitationName), Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{InvitationKey: data}}
}

func deployment(o Options) runtime.Object {
	one := int32(1)
	return &appsv1.Deployment{TypeMeta: typeOf("apps/v1", "Deployment"), ObjectMeta: named(Name), Spec: appsv1.DeploymentSpec{
		Replicas: &one,
		Selector: &metav1.LabelSelector{MatchLabels: labels()},
		// Two agents would have one identity.
		Strategy: appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels()}, Spec: pod(o)},
	}}
}

func typeOf(version, kind string) metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: version, Kind: kind}
}

package controller

import (
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// account makes a service account that may do everything with ConfigMaps, and
// nothing else, in the stage's namespace.
func (s *stage) account(name string) {
	s.Helper()
	s.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}})
	s.grant(name, "configmaps", "*")
}

// grant gives a service account verbs on a resource of the core group in the stage's
// namespace.
func (s *stage) grant(account, resource string, verbs ...string) {
	s.Helper()
	called := metav1.ObjectMeta{Name: account + "-" + resource, Namespace: s.namespace}
	s.create(&rbacv1.Role{ObjectMeta: called, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{resource}, Verbs: verbs}}})
	s.create(&rbacv1.RoleBinding{ObjectMeta: called,
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: called.Name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: account, Namespace: s.namespace}}})
}

func (s *stage) delete(o client.Object) {
	s.Helper()
	if err := s.client.Delete(s.Context(), o); err != nil {
		s.Fatalf("delete %s: %v", o.GetName(), err)
	}
}

func as(account string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) { k.Spec.ServiceAccountName = account }
}

const secretFile = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {key: hidden-from-all}\n"

// A unit is delivered with the rights of its account and no others. What it may not
// do is told with who may not do what, and is done as soon as it may.
func TestServiceAccount(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{
		"may/a.yaml": configMap("may", "1"), "not/a.yaml": secretFile, "missing/a.yaml": configMap("missing", "1"),
	})
	s.account("tenant")
	s.source()
	for name, account := range map[string]string{"may": "tenant", "not": "tenant", "missing": "nobody"} {
		s.unit(name, as(account))
	}
	s.awaitLive("may", revision)
	user := "system:serviceaccount:" + s.namespace + ":tenant"
	s.awaitFailure("not", meta.ReconciliationFailedReason, "Secret", `User "`+user+`" cannot patch resource "secrets"`, "grant that user this right")
	s.awaitFailure("missing", meta.ReconciliationFailedReason, "ServiceAccount "+s.namespace+"/nobody: not found; create it, or correct spec.serviceAccountName")
	if got := s.names(""); got != "may" {
		t.Errorf("delivered %s, and only what the account may deliver is wanted", got)
	}
	s.grant("tenant", "secrets", "get", "create", "patch")
	s.awaitLive("not", revision)
	s.account("nobody")
	s.awaitLive("missing", revision)
}

// What an account may not do does not follow from what the engine may: drift is
// healed, and what leaves Git is deleted, in its name.
func TestServiceAccountHealsAndPrunes(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1")})
	s.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "tenant", Namespace: s.namespace}})
	s.grant("tenant", "configmaps", "get", "create", "patch")
	s.source()
	s.unit("app", as("tenant"))
	s.poll("delivered", func() bool { return s.names("") == "a b" })
	edit(s, s.config("a"), func(m *corev1.ConfigMap) { m.Data["value"] = "2" })
	s.poll("healed", func() bool { return s.config("a").Data["value"] == "1" })
	s.remove("app/b.yaml")
	s.awaitFailure("app", meta.PruneFailedReason, "ConfigMap/"+s.namespace+"/b", "cannot delete resource")
	edit(s, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "tenant-configmaps", Namespace: s.namespace}},
		func(r *rbacv1.Role) { r.Rules[0].Verbs = append(r.Rules[0].Verbs, "delete") })
	s.poll("pruned", func() bool { return s.names("") == "a" })
}

// The health of what the account may not read is not told.
func TestServiceAccountHealthChecks(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.account("tenant")
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "other", Namespace: s.namespace}})
	s.source()
	s.unit("app", as("tenant"), func(k *kustomizev1.Kustomization) {
		k.Spec.HealthChecks = []meta.NamespacedObjectKindReference{
			{APIVersion: "v1", Kind: "ConfigMap", Name: "a"}, {APIVersion: "v1", Kind: "Secret", Name: "other"},
		}
	})
	s.awaitFailure("app", meta.HealthCheckFailedReason, "Secret/"+s.namespace+"/other", "cannot get resource", "ServiceAccount "+s.namespace+"/tenant")
	s.grant("tenant", "secrets", "get")
	s.awaitLive("app", revision)
}

// Deleting a Kustomization deletes in the name of its account; when that is gone,
// what was delivered stays, and an event names it.
func TestServiceAccountGone(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, reason string
		before       func(*stage)
		gone, stuck  bool
		event        string
	}{
		{name: "there", reason: "it may delete", before: func(*stage) {}, gone: true},
		{name: "gone", reason: "nobody may act in its name, and the engine's own rights are not its",
			before: func(s *stage) {
				s.delete(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "tenant", Namespace: s.namespace}})
			}, event: "is gone, so what was delivered stays"},
		{name: "powerless", reason: "somebody has to decide", stuck: true,
			before: func(s *stage) {
				s.delete(&rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "tenant-configmaps", Namespace: s.namespace}})
			}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
			s.account("tenant")
			s.source()
			k := s.unit("app", as("tenant"))
			s.awaitLive("app", revision)
			c.before(s)
			s.delete(k)
			if c.stuck {
				s.awaitFailure("app", meta.PruneFailedReason, "cannot get resource", "spec.deletionPolicy: Orphan")
				edit(s, k, func(k *kustomizev1.Kustomization) { k.Spec.DeletionPolicy = kustomizev1.DeletionPolicyOrphan })
			}
			s.awaitGone(k, &kustomizev1.KustomizationList{})
			err := s.client.Get(s.Context(), client.ObjectKey{Namespace: s.namespace, Name: "a"}, &corev1.ConfigMap{})
			if apierrors.IsNotFound(err) != c.gone {
				t.Errorf("what was delivered: %v; %s", err, c.reason)
			}
			if c.event != "" {
				s.awaitEvent(meta.PruneFailedReason, c.event, "ConfigMap/"+s.namespace+"/a")
			}
		})
	}
}

// Kustomizations go with their namespace, source, account and rights, in whatever order
// these go: nothing holds them up, and what others deliver to it or have elsewhere is
// no matter of it.
func TestNamespaceGone(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	other := newStage(t)
	first := "main@sha1:" + other.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	other.source()
	other.unit("app")
	other.awaitLive("app", first)
	before := other.deliveredConfigs()

	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1"), "more/b.yaml": configMap("b", "1")})
	s.account("tenant")
	s.source()
	s.unit("app", as("tenant"))
	s.unit("more", as("tenant"))
	s.awaitLive("app", revision)
	s.awaitLive("more", revision)
	s.delete(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}})
	for _, name := range []string{"app", "more"} {
		s.awaitGone(unitIn(s.namespace, func(k *kustomizev1.Kustomization) { k.Name = name }), &kustomizev1.KustomizationList{})
	}
	other.untouched(before)
}

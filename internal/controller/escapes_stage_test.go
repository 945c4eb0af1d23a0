package controller

import (
	"fmt"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/testkit"
)

// Words that are in what tenants may not see, and in nothing else.
const (
	hidden = "hidden-from-tenants"
	// neighbour is the other tenant of the cluster, whose units are delivered already.
	neighbour = "ops-team"
	// deployer is the account in whose name each tenant delivers: administrator of
	// its namespace and nothing else.
	deployer = "deployer"
)

// lockedCluster is a cluster whose engine runs as by default, with what the platform
// and another tenant have on it.
type lockedCluster struct {
	config *rest.Config
	engine *liveEngine
	git    *testkit.GitServer
	// private is the other tenant's repository, which asks for a password.
	private  *testkit.Repo
	revision string
	admin    *stage // in the neighbour's namespace
}

// startLocked starts an engine as by default on a cluster of its own.
func startLocked(t *testing.T) *lockedCluster {
	t.Helper()
	cluster := testkit.Start(t, testkit.WithControllers())
	l := &lockedCluster{config: cluster.Config}
	l.engine = engineFor(t, cluster.Config, func(o *Options) { o.Tenancy = Tenancy{} })
	s := stageOn(t, cluster.Config, testkit.GitBasicAuth("ops", hidden))
	s.engine, s.namespace = l.engine, neighbour
	l.admin, l.git, l.private = s, s.git, s.repo
	s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "flux-system"}})
	s.tenantNamespace(neighbour)
	l.revision = s.repo.Commit(map[string]string{"app/a.yaml": configMap("theirs", hidden)})
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "git", Namespace: neighbour}, StringData: map[string]string{"username": "ops", "password": hidden}})
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "key", Namespace: neighbour}, StringData: map[string]string{"key": hidden, "age.agekey": hidden}})
	s.source(func(g *sourcev1.GitRepository) { g.Spec.SecretRef = &meta.LocalObjectReference{Name: "git"} })
	s.unit("app", as(deployer))
	s.awaitLive("app", "main@sha1:"+l.revision)
	platform := *s
	platform.namespace = "flux-system"
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "git", Namespace: "flux-system"}, StringData: map[string]string{"username": "ops", "password": hidden}})
	platform.source(func(g *sourcev1.GitRepository) { g.Spec.SecretRef = &meta.LocalObjectReference{Name: "git"} })
	return l
}

// tenantNamespace makes a namespace as a platform team hands it out: with an account
// that administers it, and may deliver to it from Git.
func (s *stage) tenantNamespace(name string) {
	s.Helper()
	s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}})
	in := func(what string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: what, Namespace: name} }
	s.create(&corev1.ServiceAccount{ObjectMeta: in(deployer)})
	s.create(&rbacv1.Role{ObjectMeta: in("gitops"), Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"kustomize.toolkit.fluxcd.io", "source.toolkit.fluxcd.io", "source.extensions.fluxcd.io"}, Resources: []string{"*"}, Verbs: []string{"*"}},
	}})
	for what, ref := range map[string]rbacv1.RoleRef{
		"admin":  {APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
		"gitops": {APIGroup: rbacv1.GroupName, Kind: "Role", Name: "gitops"},
	} {
		s.create(&rbacv1.RoleBinding{ObjectMeta: in(what), RoleRef: ref,
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: deployer, Namespace: name}}})
	}
}

// tenant is somebody who administers one namespace and writes one repository. What
// it makes through the stage it makes as its account, by the API server's leave.
type tenant struct {
	*stage
	cluster *lockedCluster
	admin   client.Client // sees whether harm was done
}

// tenant hands out another namespace.
func (l *lockedCluster) tenant(t *testing.T, name string) *tenant {
	t.Helper()
	admin := stageOn(t, l.config)
	admin.engine = l.engine
	namespace := "dev-team-" + name
	admin.tenantNamespace(namespace)
	config := rest.CopyConfig(l.config)
	config.Impersonate.UserName = "system:serviceaccount:" + namespace + ":" + deployer
	c, err := client.NewWithWatch(config, client.Options{Scheme: admin.client.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	s := *admin
	s.client, s.namespace = c, namespace
	t.Cleanup(s.clear)
	return &tenant{stage: &s, cluster: l, admin: admin.client}
}

// deliver commits the folder "app" and has it delivered as the tenant's account.
func (a *tenant) deliver(files map[string]string, change ...func(*kustomizev1.Kustomization)) {
	a.Helper()
	in := map[string]string{}
	for name, text := range files {
		in["app/"+name] = text
	}
	a.repo.Commit(in)
	a.from(change...)
}

// from has the folder "app" of the tenant's repository delivered as it is.
func (a *tenant) from(change ...func(*kustomizev1.Kustomization)) {
	a.Helper()
	a.source()
	a.unit("app", append([]func(*kustomizev1.Kustomization){as(deployer), func(k *kustomizev1.Kustomization) {
		k.Spec.TargetNamespace, k.Spec.Prune, k.Spec.RetryInterval = "", true, &metav1.Duration{Duration: 5 * time.Second}
	}}, change...)...)
}

// has reports whether an object is on the cluster.
func (a *tenant) has(o client.Object, namespace, name string) bool {
	a.Helper()
	err := a.admin.Get(a.Context(), client.ObjectKey{Namespace: namespace, Name: name}, o)
	if err != nil && !apierrors.IsNotFound(err) {
		a.Fatalf("read %s/%s: %v", namespace, name, err)
	}
	return err == nil
}

// learned returns what the tenant can read of what is hidden from it: in what was
// delivered to its namespace, and in what its objects and their events say.
func (a *tenant) learned() string {
	a.Helper()
	var told []string
	for _, list := range []client.ObjectList{&corev1.ConfigMapList{}, &corev1.SecretList{}, &kustomizev1.KustomizationList{}, &sourcev1.GitRepositoryList{}, &corev1.EventList{}} {
		if err := a.client.List(a.Context(), list, client.InNamespace(a.namespace)); err != nil {
			a.Fatalf("list %T: %v", list, err)
		}
		if strings.Contains(fmt.Sprintf("%+v", list), hidden) {
			told = append(told, fmt.Sprintf("%T", list))
		}
	}
	return strings.Join(told, " ")
}

// object is a manifest of one line for each of its parts.
func manifest(apiVersion, kind, namespace, name string, more ...string) string {
	meta := fmt.Sprintf("metadata: {name: %s}", name)
	if namespace != "" {
		meta = fmt.Sprintf("metadata: {name: %s, namespace: %s}", name, namespace)
	}
	return strings.Join(append([]string{"apiVersion: " + apiVersion, "kind: " + kind, meta}, more...), "\n") + "\n"
}

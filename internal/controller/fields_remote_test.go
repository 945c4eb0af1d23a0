package controller

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// kubeconfigFor is a kubeconfig, complete in itself, for the way that config goes.
func kubeconfigFor(t testing.TB, config *rest.Config) []byte {
	t.Helper()
	full := rest.CopyConfig(config)
	if err := rest.LoadTLSFiles(full); err != nil {
		t.Fatal(err)
	}
	out := api.NewConfig()
	out.CurrentContext = "it"
	out.Contexts["it"] = &api.Context{Cluster: "it", AuthInfo: "it"}
	out.Clusters["it"] = &api.Cluster{Server: full.Host, CertificateAuthorityData: full.CAData}
	out.AuthInfos["it"] = &api.AuthInfo{ClientCertificateData: full.CertData, ClientKeyData: full.KeyData, Token: full.BearerToken}
	text, err := clientcmd.Write(*out)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// remoteSecret makes a Secret with the kubeconfig of a cluster.
func (s *stage) remoteSecret(name string, config *rest.Config) *corev1.Secret {
	s.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}, Data: map[string][]byte{"value": kubeconfigFor(s, config)}}
	s.create(secret)
	return secret
}

func remotely(secret string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) {
		k.Spec.KubeConfig = &meta.KubeConfigReference{SecretRef: &meta.SecretKeyReference{Name: secret}}
	}
}

// far is another cluster, with a namespace of the same name as the stage's.
type far struct {
	*stage
	kubernetes.Interface
	config *rest.Config
}

func (s *stage) far(config *rest.Config) *far {
	s.Helper()
	f := &far{s, kubernetes.NewForConfigOrDie(config), config}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}}
	if _, err := f.CoreV1().Namespaces().Create(s.Context(), ns, metav1.CreateOptions{}); err != nil {
		s.Fatal(err)
	}
	return f
}

// names returns the names of the ConfigMaps that are delivered there.
func (f *far) names() string {
	f.Helper()
	list, err := f.CoreV1().ConfigMaps(f.namespace).List(f.Context(), metav1.ListOptions{LabelSelector: "kustomize.toolkit.fluxcd.io/name"})
	if err != nil {
		f.Fatal(err)
	}
	var names []string
	for _, m := range list.Items {
		names = append(names, m.Name)
	}
	return strings.Join(names, " ")
}

// account makes a service account there that may do everything with ConfigMaps in the
// namespace, and returns the way there as that account.
func (f *far) account(name string) *rest.Config {
	f.Helper()
	ctx, called := f.Context(), metav1.ObjectMeta{Name: name}
	_, err := f.CoreV1().ServiceAccounts(f.namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: called}, metav1.CreateOptions{})
	if err == nil {
		_, err = f.RbacV1().Roles(f.namespace).Create(ctx, &rbacv1.Role{ObjectMeta: called,
			Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"*"}}}}, metav1.CreateOptions{})
	}
	if err == nil {
		_, err = f.RbacV1().RoleBindings(f.namespace).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: called,
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: name, Namespace: f.namespace}}}, metav1.CreateOptions{})
	}
	if err != nil {
		f.Fatal(err)
	}
	return f.token(name)
}

// token returns the way there with a new token of the account.
func (f *far) token(name string) *rest.Config {
	f.Helper()
	token, err := f.CoreV1().ServiceAccounts(f.namespace).CreateToken(f.Context(), name, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		f.Fatal(err)
	}
	out := rest.AnonymousClientConfig(f.config)
	out.BearerToken = token.Status.Token
	return out
}

// watcher lets an account watch ConfigMaps of all namespaces, as the ledger does.
func (f *far) watcher(name string) {
	f.Helper()
	called := metav1.ObjectMeta{Name: f.namespace + "-" + name}
	_, err := f.RbacV1().ClusterRoles().Create(f.Context(), &rbacv1.ClusterRole{ObjectMeta: called,
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list", "watch"}}}}, metav1.CreateOptions{})
	if err == nil {
		_, err = f.RbacV1().ClusterRoleBindings().Create(f.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: called,
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: called.Name},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: name, Namespace: f.namespace}}}, metav1.CreateOptions{})
	}
	if err != nil {
		f.Fatal(err)
	}
}

// A unit is delivered to the cluster of its kubeconfig: healed, pruned and deleted
// there, and the cluster of the engine is left alone.
func TestKubeConfig(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	f := s.far(testkit.Other(t))
	s.remoteSecret("remote", f.config)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1")})
	s.source()
	s.unit("app", remotely("remote"))
	k := s.awaitLive("app", revision)
	if len(k.Status.Inventory.Entries) != 2 || f.names() != "a b" || s.names("") != "" {
		t.Fatalf("delivered there: %q, here: %q, inventory: %v", f.names(), s.names(""), k.Status.Inventory.Entries)
	}
	if err := f.CoreV1().ConfigMaps(s.namespace).Delete(t.Context(), "a", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	s.poll("healed", func() bool { return f.names() == "a b" })
	s.remove("app/b.yaml")
	s.poll("pruned", func() bool { return f.names() == "a" })
	s.delete(k)
	s.awaitGone(k, &kustomizev1.KustomizationList{})
	if f.names() != "" {
		t.Errorf("after the deletion there is %s", f.names())
	}
}

// With both fields the account is one of the other cluster.
func TestKubeConfigWithServiceAccount(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	f := s.far(testkit.Other(t))
	f.account("tenant")
	s.remoteSecret("remote", f.config)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"may/a.yaml": configMap("a", "1"), "not/a.yaml": secretFile, "missing/a.yaml": configMap("b", "1")})
	s.source()
	s.unit("may", remotely("remote"), as("tenant"))
	s.unit("not", remotely("remote"), as("tenant"))
	s.unit("missing", remotely("remote"), as("nobody"))
	s.awaitLive("may", revision)
	s.awaitFailure("not", meta.ReconciliationFailedReason, "system:serviceaccount:"+s.namespace+":tenant", `cannot patch resource "secrets"`)
	s.awaitFailure("missing", meta.ReconciliationFailedReason, "ServiceAccount "+s.namespace+"/nobody: not found")
	if f.names() != "a" {
		t.Errorf("delivered %q", f.names())
	}
}

// Credentials change while they are in use: nothing is listed or delivered anew, and
// the next request has the new ones.
func TestKubeConfigRotates(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	f := s.far(testkit.Other(t))
	first := f.account("one")
	f.watcher("one")
	secret := s.remoteSecret("remote", first)
	s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.source()
	s.unit("app", remotely("remote"))
	s.poll("delivered", func() bool { return f.names() == "a" })
	second := f.account("two")
	f.watcher("two")
	edit(s, secret, func(o *corev1.Secret) { o.Data["value"] = kubeconfigFor(t, second) })
	if err := f.CoreV1().ServiceAccounts(s.namespace).Delete(t.Context(), "one", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	revision := s.push(map[string]string{"app/b.yaml": configMap("b", "1")})
	s.awaitLive("app", revision)
	if f.names() != "a b" {
		t.Errorf("delivered %q", f.names())
	}
}

// What a kubeconfig may not hold, and what is missing, is told in one line that names
// the Secret; once it is put right, the unit is delivered at once.
func TestKubeConfigRefused(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	f := s.far(testkit.Other(t))
	right := kubeconfigFor(t, f.config)
	cases := []struct {
		name, reason string
		data         map[string][]byte
		words        []string
	}{
		{"missing", "nobody made it", nil, []string{"Secret/" + s.namespace + "/missing", "create it, or correct spec.kubeConfig"}},
		{"other-key", "the toolkit looks for these", map[string][]byte{"config": right}, []string{"there is no key value or value.yaml"}},
		{"exec", "it would run here", map[string][]byte{"value": withUser(right, "exec: {apiVersion: client.authentication.k8s.io/v1, command: sh, interactiveMode: Never}")},
			[]string{"Secret " + s.namespace + "/exec, key value", "users[it].exec"}},
		{"token-file", "it would be read here", map[string][]byte{"value": withUser(right, "tokenFile: /etc/passwd")}, []string{"users[it].tokenFile"}},
		{"no-tls", "anybody could read along", map[string][]byte{"value": []byte(strings.ReplaceAll(string(right), "https:", "http:"))}, []string{"clusters[it].server", "without TLS"}},
		{"refused", "the cluster does not know it", map[string][]byte{"value": withUser(right, "token: unknown-to-all")}, []string{"renew the credentials"}},
		{"nobody-there", "nothing listens", map[string][]byte{"value": []byte(strings.ReplaceAll(string(right), f.config.Host, "https://127.0.0.1:1"))},
			[]string{"the cluster of Secret " + s.namespace + "/nobody-there", "https://127.0.0.1:1 does not answer since"}},
	}
	files := map[string]string{}
	for _, c := range cases {
		files[c.name+"/a.yaml"] = configMap(c.name, "1")
	}
	revision := "main@sha1:" + s.repo.Commit(files)
	s.source()
	for _, c := range cases {
		if c.data != nil {
			s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: c.name, Namespace: s.namespace}, Data: c.data})
		}
		s.unit(c.name, remotely(c.name))
	}
	for _, c := range cases {
		k := s.awaitFailure(c.name, meta.ReconciliationFailedReason, c.words...)
		if text := standingOf(k); strings.Contains(text, "unknown-to-all") || k.Status.Inventory != nil {
			t.Errorf("%s: %s; inventory %v", c.name, text, k.Status.Inventory)
		}
	}
	for _, c := range cases {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: c.name, Namespace: s.namespace}}
		if c.data == nil {
			secret.Data = map[string][]byte{"value.yaml": right}
			s.create(secret)
		} else {
			edit(s, secret, func(o *corev1.Secret) { o.Data["value"] = right })
		}
		s.awaitLive(c.name, revision)
	}
}

// withUser replaces what a kubeconfig authenticates with.
func withUser(kubeconfig []byte, user string) []byte {
	before, _, _ := strings.Cut(string(kubeconfig), "users:")
	return []byte(before + "users:\n- name: it\n  user: {" + user + "}\n")
}

// Units of several Secrets for one cluster share what is known of it: an object has
// one owner, whichever way leads to it.
func TestKubeConfigsOfOneCluster(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	f := s.far(testkit.Other(t))
	s.remoteSecret("one", f.config)
	s.remoteSecret("two", f.config)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"first/a.yaml": configMap("a", "1"), "second/a.yaml": configMap("a", "2")})
	s.source()
	first := s.unit("first", remotely("one"))
	s.awaitLive("first", revision)
	s.unit("second", remotely("two"))
	s.awaitFailure("second", meta.ReconciliationFailedReason, "it is delivered by Kustomization "+s.namespace+"/first")
	s.delete(first)
	s.awaitLive("second", revision)
}

// A kubeconfig of the cluster that the engine runs on is as good as none, with its
// own rights.
func TestKubeConfigOfTheHub(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.remoteSecret("self", s.engine.config)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1"), "own/a.yaml": configMap("a", "2")})
	s.source()
	s.unit("app", remotely("self"))
	s.awaitLive("app", revision)
	s.unit("own")
	s.awaitFailure("own", meta.ReconciliationFailedReason, "it is delivered by Kustomization "+s.namespace+"/app")
	if s.names("") != "a" {
		t.Errorf("delivered %q", s.names(""))
	}
}

// A unit that is sent to another cluster leaves what it delivered where it is.
func TestKubeConfigMoves(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	f := s.far(testkit.Other(t))
	s.remoteSecret("remote", f.config)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.source()
	k := s.unit("app")
	s.awaitLive("app", revision)
	edit(s, k, func(k *kustomizev1.Kustomization) { remotely("remote")(k) })
	s.poll("delivered there", func() bool { return f.names() == "a" })
	s.awaitUnit("app", "ready", ready)
	if s.names("") != "a" {
		t.Errorf("what was delivered here is %q", s.names(""))
	}
	s.awaitEvent("TargetChanged", "stays where it was", "ConfigMap/"+s.namespace+"/a")
}

// A unit that comes back from another cluster leaves there what it delivered, also what
// it wants no longer by then.
func TestKubeConfigRemoved(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	f := s.far(testkit.Other(t))
	s.remoteSecret("remote", f.config)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{
		"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1"), "less/a.yaml": configMap("a", "1"),
	})
	s.source()
	k := s.unit("app", remotely("remote"))
	s.awaitLive("app", revision)
	edit(s, k, func(k *kustomizev1.Kustomization) { k.Spec.KubeConfig, k.Spec.Path = nil, "./less" })
	k = s.awaitUnit("app", "ready", ready)
	if s.names("") != "a" || f.names() != "a b" || len(k.Status.Inventory.Entries) != 1 {
		t.Errorf("delivered here %q, there %q; inventory %v", s.names(""), f.names(), k.Status.Inventory.Entries)
	}
	s.awaitEvent("TargetChanged", "stays where it was", "ConfigMap/"+s.namespace+"/b")
}

// The way to a cluster may come from the identity of a service account, whose token is
// made for it.
func TestKubeConfigWorkloadIdentity(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.account("deployer")
	full := rest.CopyConfig(s.engine.config)
	if err := rest.LoadTLSFiles(full); err != nil {
		t.Fatal(err)
	}
	config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "way", Namespace: s.namespace}, Data: map[string]string{
		"provider": "generic", "address": full.Host, "ca.crt": string(full.CAData), "serviceAccountName": "deployer",
		"audiences": "https://kubernetes.default.svc.cluster.local\n",
	}}
	s.create(config)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"may/a.yaml": configMap("a", "1"), "not/a.yaml": secretFile})
	s.source()
	for _, name := range []string{"may", "not"} {
		s.unit(name, func(k *kustomizev1.Kustomization) {
			k.Spec.KubeConfig = &meta.KubeConfigReference{ConfigMapRef: &meta.LocalObjectReference{Name: "way"}}
		})
	}
	s.awaitLive("may", revision)
	s.awaitFailure("not", meta.ReconciliationFailedReason, "system:serviceaccount:"+s.namespace+":deployer", `cannot patch resource "secrets"`)
}

// A cluster that hangs holds up nobody else, says so in one line that stays the same,
// and is served again as soon as it goes on.
func TestKubeConfigHangs(t *testing.T) {
	t.Parallel()
	hub, remote := testkit.Start(t), testkit.Start(t)
	s := stageOn(t, hub.Config)
	f := s.far(remote.Config)
	s.remoteSecret("remote", f.config)
	var far []string
	for i := range 8 {
		far = append(far, fmt.Sprintf("far%d", i))
	}
	files := func(value string) map[string]string {
		out := map[string]string{"here/a.yaml": configMap("here", value)}
		for _, name := range far {
			out[name+"/a.yaml"] = configMap(name, value)
		}
		return out
	}
	awaitAll := func(revision string) {
		t.Helper()
		for _, name := range append(far, "here") {
			s.awaitLive(name, revision)
		}
	}
	// A worker that waited for the other cluster would do so for longer than this test waits.
	patient, err := startEngine(hub.Config, t.TempDir(), func(o *Options) { o.patience, o.Concurrency = lasting, 4 })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = patient.stop() })
	s.engine = patient
	revision := "main@sha1:" + s.repo.Commit(files("1"))
	s.source()
	s.unit("here")
	for _, name := range far {
		s.unit(name, remotely("remote"))
	}
	awaitAll(revision)
	remote.Signal(syscall.SIGSTOP)
	revision = s.push(files("2"))
	s.awaitLive("here", revision)
	remote.Signal(syscall.SIGCONT)
	awaitAll(revision)
	if err := patient.stop(); err != nil {
		t.Fatal(err)
	}

	s.engine = engineFor(t, hub.Config, func(o *Options) { o.patience, o.Concurrency = 2*time.Second, 4 })
	awaitAll(s.push(files("3")))
	remote.Signal(syscall.SIGSTOP)
	revision = s.push(files("4"))
	away := s.awaitFailure("far0", meta.ReconciliationFailedReason, "the cluster of Secret "+s.namespace+"/remote", "does not answer since")
	for _, name := range far {
		k := s.awaitFailure(name, meta.ReconciliationFailedReason, report.Condition(away, meta.ReadyCondition).Message)
		if len(k.Status.Inventory.Entries) != 1 {
			t.Errorf("%s: the inventory is %v", name, k.Status.Inventory.Entries)
		}
	}
	pass(3 * time.Second) // several attempts at the cluster
	again := s.kustomization("far0")
	s.read(again)
	if again.ResourceVersion != away.ResourceVersion {
		t.Errorf("the status was written again: it was\n%s\nand is\n%s", standingOf(away), standingOf(again))
	}
	s.awaitLive("here", revision)
	remote.Signal(syscall.SIGCONT)
	awaitAll(revision)
}

// Under lockdown a tenant uses neither its kubeconfig to get at the hub nor the
// engine's own identity.
func TestKubeConfigOfTenants(t *testing.T) {
	t.Parallel()
	hub := testkit.Start(t)
	s := stageOn(t, hub.Config)
	s.engine = engineFor(t, hub.Config, func(o *Options) { o.Tenancy = Tenancy{} })
	f := s.far(testkit.Other(t))
	s.remoteSecret("self", hub.Config)
	s.remoteSecret("remote", f.config)
	s.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "way", Namespace: s.namespace},
		Data: map[string]string{"provider": "generic", "address": "https://example.com"}})
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"self/a.yaml": configMap("a", "1"), "engine/a.yaml": configMap("a", "1"), "remote/a.yaml": configMap("a", "1")})
	s.source()
	s.unit("self", remotely("self"))
	s.unit("engine", func(k *kustomizev1.Kustomization) {
		k.Spec.KubeConfig = &meta.KubeConfigReference{ConfigMapRef: &meta.LocalObjectReference{Name: "way"}}
	})
	s.unit("remote", remotely("remote"))
	s.awaitFailure("self", meta.ReconciliationFailedReason, "it leads to the cluster that the engine itself runs on", "spec.serviceAccountName")
	s.awaitFailure("engine", meta.ReconciliationFailedReason, "ConfigMap "+s.namespace+"/way", "the engine's own identity", "name a service account")
	s.awaitLive("remote", revision) // its kubeconfig has its own rights
	if s.names("") != "" || f.names() != "a" {
		t.Errorf("delivered here %q, there %q", s.names(""), f.names())
	}
}

package controller

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/report"
)

// trickyNames are ways to write the name of another namespace's Secret "key".
func trickyNames() []string {
	return []string{"../" + neighbour + "/key", "../../" + neighbour + "/secrets/key", neighbour + "/key", "key?namespace=" + neighbour}
}

// Secrets have no namespace where they are referred to: names that pretend to have one.
var escapesBySecret = []escape{
	{
		name: "substitute-from", aim: "another tenant's Secret",
		try: func(a *tenant) {
			a.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "${key}")})
			a.source()
			for i, name := range trickyNames() {
				called := fmt.Sprintf("app-%d", i)
				a.refusedUnit(called, func(k *kustomizev1.Kustomization) {
					k.Spec.PostBuild = &kustomizev1.PostBuild{SubstituteFrom: []kustomizev1.SubstituteReference{{Kind: "Secret", Name: name}}}
				}, "spec.postBuild.substituteFrom[0]")
			}
		}, harm: deliveredToOwn,
	},
	{
		name: "decryption", aim: "another tenant's key",
		try: func(a *tenant) {
			a.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
			a.source()
			for i, name := range trickyNames() {
				a.refusedUnit(fmt.Sprintf("app-%d", i), func(k *kustomizev1.Kustomization) {
					k.Spec.Decryption = &kustomizev1.Decryption{Provider: "sops", SecretRef: &meta.LocalObjectReference{Name: name}}
				}, "spec.decryption.secretRef")
			}
		}, harm: deliveredToOwn,
	},
	{
		name: "git-secret", aim: "another tenant's password for Git",
		try: func(a *tenant) {
			for i, name := range []string{"../" + neighbour + "/git", neighbour + "/git"} {
				a.refusedSource(fmt.Sprintf("fleet-%d", i), func(g *sourcev1.GitRepository) {
					g.Spec.URL, g.Spec.SecretRef = a.cluster.private.URL(), &meta.LocalObjectReference{Name: name}
				})
			}
		}, harm: deliveredToOwn,
	},
	{
		name: "kubeconfig-to-the-hub", aim: "the engine's rights, through a kubeconfig without credentials",
		try: func(a *tenant) { a.kubeconfig("", "the cluster of Secret") }, harm: hubChanged,
	},
	{
		name: "kubeconfig-with-exec", aim: "having the engine run a program",
		try: func(a *tenant) {
			a.kubeconfig("exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/sh, args: ['-c', 'id'], interactiveMode: Never}", "users[me].exec")
		}, harm: hubChanged,
	},
	{
		name: "kubeconfig-with-token-file", aim: "the engine's own token",
		try: func(a *tenant) {
			a.kubeconfig("tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token", "users[me].tokenFile")
		}, harm: hubChanged,
	},
	{
		name: "kubeconfig-with-client-files", aim: "the engine's own certificate",
		try: func(a *tenant) {
			a.kubeconfig("client-certificate: /etc/passwd, client-key: /etc/passwd", "users[me].client-certificate")
		}, harm: hubChanged,
	},
	{
		name: "kubeconfig-with-its-own-token", aim: "delivering to the hub without the engine knowing that it is the hub",
		try: func(a *tenant) { a.kubeconfig("token: "+a.token(), "the cluster that the engine itself runs on") }, harm: hubChanged,
	},
	{
		name: "kubeconfig-as-somebody", aim: "the rights of an administrator, whose name a kubeconfig says",
		try: func(a *tenant) {
			a.kubeconfig("token: "+a.token()+", as: system:admin, as-groups: ['system:masters']", "the cluster")
		}, harm: hubChanged,
	},
	{
		name: "key-service-of-another", aim: "what a server tells that only the engine can reach",
		try: func(a *tenant) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				http.Error(w, hidden, http.StatusForbidden)
			}))
			a.Cleanup(server.Close)
			a.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "keys", Namespace: a.namespace}, StringData: map[string]string{"sops.vault-token": "mine"}})
			a.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "ENC[AES256_GCM,data:AA==,iv:AA==,tag:AA==,type:str]") + `sops:
  hc_vault: [{vault_address: '` + server.URL + `', engine_path: transit, key_name: k, created_at: '2026-01-01T00:00:00Z', enc: 'vault:v1:AA=='}]
  lastmodified: '2026-01-01T00:00:00Z'
  mac: ENC[AES256_GCM,data:AA==,iv:AA==,tag:AA==,type:str]
  version: 3.9.0
`})
			a.source()
			a.refusedUnit("app", func(k *kustomizev1.Kustomization) {
				k.Spec.Decryption = &kustomizev1.Decryption{Provider: "sops", SecretRef: &meta.LocalObjectReference{Name: "keys"}}
			}, server.URL, "status 403")
		}, harm: deliveredToOwn,
	},
	{
		name: "kubeconfig-of-another", aim: "another tenant's cluster",
		try: func(a *tenant) {
			a.repo.Commit(map[string]string{"app/a.yaml": manifest("v1", "Namespace", "", "dev-more")})
			a.source()
			a.refusedUnit("app", func(k *kustomizev1.Kustomization) {
				k.Spec.KubeConfig = &meta.KubeConfigReference{SecretRef: &meta.SecretKeyReference{Name: "../" + neighbour + "/key", Key: "key"}}
			})
		}, harm: hubChanged,
	},
}

func hubChanged(a *tenant) bool { return a.has(&corev1.Namespace{}, "", "dev-more") }

// refusedUnit makes a Kustomization of the folder "app", which the API, or the engine
// with these words, has to refuse.
func (a *tenant) refusedUnit(name string, change func(*kustomizev1.Kustomization), words ...string) {
	a.Helper()
	k := &kustomizev1.Kustomization{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: a.namespace},
		Spec: kustomizev1.KustomizationSpec{
			Path: "./app", TargetNamespace: a.namespace, Interval: metav1.Duration{Duration: never}, ServiceAccountName: deployer,
			SourceRef: kustomizev1.CrossNamespaceSourceReference{Kind: sourcev1.GitRepositoryKind, Name: "fleet"},
		},
	}
	change(k)
	err := a.client.Create(a.Context(), k)
	if apierrors.IsInvalid(err) {
		return
	}
	if err != nil {
		a.Fatal(err)
	}
	a.awaitUnit(name, fmt.Sprintf("refused: %q", words), func(k *kustomizev1.Kustomization) bool {
		c := report.Condition(k, meta.ReadyCondition)
		return refused(k) && !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(c.Message, w) })
	})
}

// refusedSource makes a GitRepository which the API or the engine has to refuse.
func (a *tenant) refusedSource(name string, change func(*sourcev1.GitRepository)) {
	a.Helper()
	g := &sourcev1.GitRepository{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: a.namespace},
		Spec:       sourcev1.GitRepositorySpec{URL: a.repo.URL(), Interval: metav1.Duration{Duration: never}, Reference: &sourcev1.GitRepositoryRef{Branch: "main"}},
	}
	change(g)
	err := a.client.Create(a.Context(), g)
	if apierrors.IsInvalid(err) {
		return
	}
	if err != nil {
		a.Fatal(err)
	}
	g = a.awaitRepository(name, "refused", refused[*sourcev1.GitRepository])
	a.Logf("%s: %s", name, report.Condition(g, meta.ReadyCondition).Message)
	if g.Status.Artifact != nil {
		a.Errorf("%s has an artifact", name)
	}
}

func refused[T report.Conditioned](o T) bool {
	c := report.Condition(o, meta.ReadyCondition)
	return c != nil && c.Status == metav1.ConditionFalse
}

// kubeconfig delivers to the hub itself, as a user with these credentials.
func (a *tenant) kubeconfig(user, word string) {
	a.Helper()
	if len(a.cluster.config.CAData) == 0 {
		a.Fatal("the kubeconfig of the tests holds no certificate authority")
	}
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: hub, cluster: {server: '%s', certificate-authority-data: %s}}]
users: [{name: me, user: {%s}}]
contexts: [{name: hub, context: {cluster: hub, user: me}}]
current-context: hub
`, a.cluster.config.Host, base64.StdEncoding.EncodeToString(a.cluster.config.CAData), user)
	a.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "hub", Namespace: a.namespace}, StringData: map[string]string{"value": text}})
	a.repo.Commit(map[string]string{"app/a.yaml": manifest("v1", "Namespace", "", "dev-more")})
	a.source()
	for i, account := range []string{"", deployer} {
		a.refusedUnit(fmt.Sprintf("app-%d", i), func(k *kustomizev1.Kustomization) {
			k.Spec.TargetNamespace, k.Spec.ServiceAccountName = "", account
			k.Spec.KubeConfig = &meta.KubeConfigReference{SecretRef: &meta.SecretKeyReference{Name: "hub"}}
		}, word)
	}
}

// token is one of the tenant's own account.
func (a *tenant) token() string {
	a.Helper()
	request := &authenticationv1.TokenRequest{}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: deployer, Namespace: a.namespace}}
	if err := a.client.SubResource("token").Create(a.Context(), account, request); err != nil {
		a.Fatal(err)
	}
	return request.Status.Token
}

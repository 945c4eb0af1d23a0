package controller

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/acl"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/report"
)

// names are ways to write the name of another namespace's Secret "key".
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

// What another tenant's repository holds is for who can show the remote that they may
// read it.
var escapesBySource = []escape{
	{
		name: "repository-by-url", aim: "another tenant's repository, which the engine has already",
		try: func(a *tenant) {
			a.refusedSource("fleet", func(g *sourcev1.GitRepository) { g.Spec.URL = a.cluster.private.URL() })
			a.refusedSource("pinned", func(g *sourcev1.GitRepository) {
				g.Spec.URL, g.Spec.Reference = a.cluster.private.URL(), &sourcev1.GitRepositoryRef{Commit: a.cluster.revision}
			})
		}, harm: deliveredToOwn,
	},
	{
		name: "repository-by-forged-status", aim: "another tenant's repository, as if this had fetched it before",
		try: func(a *tenant) {
			g := &sourcev1.GitRepository{
				ObjectMeta: metav1.ObjectMeta{Name: "fleet", Namespace: a.namespace},
				Spec:       sourcev1.GitRepositorySpec{URL: a.cluster.private.URL(), Interval: metav1.Duration{Duration: never}, Suspend: true},
			}
			a.create(g)
			before := g.DeepCopy()
			g.Status.Artifact = &meta.Artifact{
				Path: "x", URL: "http://localhost/x", Revision: "main@sha1:" + a.cluster.revision, LastUpdateTime: metav1.Now(),
				Digest: "sha256:" + fmt.Sprintf("%064d", 0),
			}
			if err := a.client.Status().Patch(a.Context(), g, client.MergeFrom(before)); err != nil {
				a.Fatal(err)
			}
			a.ask(g)
			a.unit("app", as(deployer))
			a.awaitFailure("app", meta.ArtifactFailedReason, "is suspended and has no artifact")
		}, harm: deliveredToOwn,
	},
	{
		name: "include-of-another", aim: "another tenant's repository, included in one's own",
		try: func(a *tenant) {
			for i, name := range []string{"../" + neighbour + "/fleet", neighbour + "/fleet"} {
				a.refusedSource(fmt.Sprintf("fleet-%d", i), func(g *sourcev1.GitRepository) {
					g.Spec.Include = []sourcev1.GitRepositoryInclude{{GitRepositoryRef: meta.LocalObjectReference{Name: name}}}
				})
			}
		}, harm: deliveredToOwn,
	},
	{
		name: "generator-of-another", aim: "another tenant's repository, as part of one's own artifact",
		try: func(a *tenant) {
			a.generator("app", "GitRepository", neighbour, "@theirs/**")
			await(a.stage, &swapi.ArtifactGeneratorList{}, "app", "denied", func(g *swapi.ArtifactGenerator) bool {
				return says(g, metav1.ConditionFalse, acl.AccessDeniedReason, "spec.sources[0] names another namespace", "tenancy is locked")
			})
		},
		harm: func(a *tenant) bool { return a.has(&sourcev1.ExternalArtifact{}, a.namespace, "app") },
	},
	{
		name: "generator-with-a-path", aim: "files outside of one's own sources",
		try: func(a *tenant) {
			a.repo.Commit(map[string]string{"app/a.yaml": configMap("a", "1")})
			a.source()
			a.generator("app", "GitRepository", "", "@theirs/../../../../etc/passwd")
			await(a.stage, &swapi.ArtifactGeneratorList{}, "app", "refused", refused[*swapi.ArtifactGenerator])
		},
		harm: func(a *tenant) bool { return a.has(&sourcev1.ExternalArtifact{}, a.namespace, "app") },
	},
	{
		name: "artifact-by-forged-status", aim: "files of the engine's machine, as if published by somebody",
		try: func(a *tenant) {
			ea := &sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Name: "fleet", Namespace: a.namespace}}
			a.create(ea)
			before := ea.DeepCopy()
			ea.Status.Artifact = &meta.Artifact{
				Path: "x", URL: "file:///etc/passwd", Revision: "main@sha1:" + a.cluster.revision, LastUpdateTime: metav1.Now(),
				Digest: "sha256:" + fmt.Sprintf("%064d", 0),
			}
			if err := a.client.Status().Patch(a.Context(), ea, client.MergeFrom(before)); err != nil {
				a.Fatal(err)
			}
			a.unit("app", as(deployer), func(k *kustomizev1.Kustomization) { k.Spec.SourceRef.Kind = sourcev1.ExternalArtifactKind })
			a.awaitUnit("app", "refused", refused[*kustomizev1.Kustomization])
		}, harm: deliveredToOwn,
	},
	{
		name: "file-url", aim: "repositories on the engine's machine",
		try: func(a *tenant) {
			for i, url := range []string{"file://" + a.cluster.private.Dir(), a.cluster.private.Dir(), "ssh://-oProxyCommand=id/x", "http:///" + a.cluster.private.Dir()} {
				a.refusedSource(fmt.Sprintf("fleet-%d", i), func(g *sourcev1.GitRepository) { g.Spec.URL = url })
			}
		}, harm: deliveredToOwn,
	},
	{
		name: "server-of-another", aim: "what a server tells that only the engine can reach",
		try: func(a *tenant) {
			for i, status := range []int{http.StatusOK, http.StatusUnauthorized, http.StatusInternalServerError} {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					w.WriteHeader(status)
					_, _ = io.WriteString(w, hidden)
				}))
				a.Cleanup(server.Close)
				a.refusedSource(fmt.Sprintf("fleet-%d", i), func(g *sourcev1.GitRepository) { g.Spec.URL = server.URL + "/latest/meta-data" })
			}
		}, harm: deliveredToOwn,
	},
}

// generator makes an ArtifactGenerator that copies from one source.
func (a *tenant) generator(name, kind, namespace, what string) {
	a.Helper()
	a.create(&swapi.ArtifactGenerator{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: a.namespace},
		Spec: swapi.ArtifactGeneratorSpec{
			Sources:         []swapi.SourceReference{{Alias: "theirs", Kind: kind, Name: "fleet", Namespace: namespace}},
			OutputArtifacts: []swapi.OutputArtifact{{Name: name, Copy: []swapi.CopyOperation{{From: what, To: "@artifact/"}}}},
		},
	})
}

// What the engine remembers of units is on objects that tenants can write.
var escapesByForgery = []escape{
	{
		name: "forged-inventory", aim: "having the engine delete another tenant's objects",
		try: func(a *tenant) {
			a.repo.Commit(map[string]string{"app/b.yaml": configMap("b", "1")})
			a.deliver(map[string]string{"a.yaml": configMap("a", "1")}, inOwn(a))
			k := a.awaitUnit("app", "ready", ready)
			before := k.DeepCopy()
			k.Status.Inventory.Entries = append(k.Status.Inventory.Entries, kustomizev1.ResourceRef{ID: neighbour + "_theirs__ConfigMap", Version: "v1"})
			if err := a.client.Status().Patch(a.Context(), k, client.MergeFrom(before)); err != nil {
				a.Fatal(err)
			}
			a.remove("app/b.yaml")
			a.poll("pruned", func() bool { return a.names("") == "a" })
			a.delete(k)
			a.awaitGone(k, &kustomizev1.KustomizationList{})
		}, harm: theirsChanged,
	},
	{
		name: "forged-labels", aim: "having another tenant's unit act on one's own objects",
		try: func(a *tenant) {
			a.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "bait", Namespace: a.namespace, Labels: map[string]string{
				"kustomize.toolkit.fluxcd.io/name": "app", "kustomize.toolkit.fluxcd.io/namespace": neighbour,
			}}})
			a.deliver(map[string]string{"a.yaml": configMap("a", "1")}, inOwn(a))
			a.awaitUnit("app", "ready", ready)
		},
		harm: func(a *tenant) bool {
			var k kustomizev1.Kustomization
			return !a.has(&corev1.ConfigMap{}, a.namespace, "bait") || !a.has(&k, neighbour, "app") || len(k.Status.Inventory.Entries) != 1
		},
	},
	{
		name: "approval", aim: "deleting more than the budget without anybody having looked", reason: report.ReasonApprovalRequired, words: []string{"approve"},
		try: func(a *tenant) {
			files := map[string]string{}
			for i := range 12 {
				files[fmt.Sprintf("%d.yaml", i)] = configMap(fmt.Sprintf("a%d", i), "1")
			}
			a.deliver(files, inOwn(a), func(k *kustomizev1.Kustomization) {
				k.Annotations = map[string]string{AnnotationApprovedPlan: "*"}
			})
			a.awaitUnit("app", "ready", ready)
			var gone []string
			for i := range 10 {
				gone = append(gone, fmt.Sprintf("app/%d.yaml", i))
			}
			a.remove(gone...)
		},
		harm: func(a *tenant) bool { return !a.has(&corev1.ConfigMap{}, a.namespace, "a1") },
	},
	{
		name: "squatting", aim: "keeping another tenant from delivering its own objects", reason: forbidden, words: []string{"cannot patch"},
		try: func(a *tenant) {
			victim := a.cluster.tenant(a.T, "squatted")
			a.deliver(map[string]string{"a.yaml": manifest("v1", "ConfigMap", victim.namespace, "wanted", "data: {value: mine}")})
			a.awaitFailure("app", forbidden, "cannot patch")
			victim.deliver(map[string]string{"a.yaml": configMap("wanted", "theirs")}, inOwn(victim))
			victim.awaitUnit("app", "ready", ready)
		},
		harm: func(a *tenant) bool {
			var m corev1.ConfigMap
			return !a.has(&m, "dev-team-squatted", "wanted") || m.Data["value"] != "theirs"
		},
	},
	{
		name: "keeping", aim: "keeping rights that the platform takes back", reason: forbidden, words: []string{"attempting to grant RBAC permissions"},
		try: func(a *tenant) {
			platform := a.platform("keeping")
			binding := manifest("rbac.authorization.k8s.io/v1", "RoleBinding", a.namespace, "more", "roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}",
				"subjects: [{kind: ServiceAccount, name: nobody, namespace: "+a.namespace+"}]")
			platform.repo.Commit(map[string]string{"keeping/a.yaml": configMap("keeping", "1"), "keeping/b.yaml": binding})
			source := platform.source(func(g *sourcev1.GitRepository) { g.Name = "keeping" })
			platform.unit("keeping", func(k *kustomizev1.Kustomization) {
				k.Spec.SourceRef.Name, k.Spec.TargetNamespace = "keeping", a.namespace
			})
			platform.awaitUnit("keeping", "ready", ready)
			a.deliver(map[string]string{"b.yaml": binding})
			a.awaitUnit("app", "refused", refused[*kustomizev1.Kustomization])
			platform.repo.Delete("keeping/b.yaml")
			platform.ask(source)
			platform.poll("taken back", func() bool { return !a.has(&rbacv1.RoleBinding{}, a.namespace, "more") })
		},
		harm: func(a *tenant) bool { return a.has(&rbacv1.RoleBinding{}, a.namespace, "more") },
	},
	{
		name: "outranking", aim: "keeping the platform from delivering to the tenant's namespace", reason: forbidden, words: []string{"delivered by Kustomization flux-system/outranking"},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": configMap("limits", "mine")}, inOwn(a))
			a.awaitUnit("app", "ready", ready)
			platform := a.platform("outranking")
			platform.repo.Commit(map[string]string{"outranking/a.yaml": configMap("limits", "theirs")})
			platform.source(func(g *sourcev1.GitRepository) { g.Name = "outranking" })
			platform.unit("outranking", func(k *kustomizev1.Kustomization) {
				k.Spec.SourceRef.Name, k.Spec.TargetNamespace = "outranking", a.namespace
			})
			platform.awaitUnit("outranking", "ready", ready)
			a.push(map[string]string{"app/a.yaml": configMap("limits", "mine again")})
		},
		harm: func(a *tenant) bool {
			var m corev1.ConfigMap
			return !a.has(&m, a.namespace, "limits") || m.Data["value"] != "theirs"
		},
	},
	{
		name: "cycle", aim: "stopping a unit of the platform", reason: "AccessDenied", words: []string{"spec.dependsOn[0] names another namespace"},
		try: func(a *tenant) {
			platform := a.platform("cycle")
			platform.repo.Commit(map[string]string{"cycle/a.yaml": configMap("cycle", "1")})
			platform.source(func(g *sourcev1.GitRepository) { g.Name = "cycle" })
			a.deliver(map[string]string{"a.yaml": configMap("a", "1")}, inOwn(a), func(k *kustomizev1.Kustomization) {
				k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "cycle", Namespace: "flux-system"}}
			})
			platform.unit("cycle", func(k *kustomizev1.Kustomization) {
				k.Spec.SourceRef.Name, k.Spec.TargetNamespace = "cycle", a.namespace
				k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "app", Namespace: a.namespace}}
			})
			platform.awaitFailure("cycle", meta.DependencyNotReadyReason, "is not ready")
		}, harm: func(*tenant) bool { return false },
	},
}

// platform is a stage of the administrator in the platform's namespace, with a
// repository of its own.
func (a *tenant) platform(repo string) *stage {
	a.Helper()
	s := *a.cluster.admin
	s.T, s.namespace, s.git = a.T, "flux-system", a.git
	s.repo = a.git.Repo(repo)
	return &s
}

// inOwn has the unit deliver to the tenant's own namespace.
func inOwn(a *tenant) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = a.namespace }
}

func ready(k *kustomizev1.Kustomization) bool { return report.IsReady(k, k.Status.ObservedGeneration) }

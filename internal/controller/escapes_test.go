package controller

import (
	"fmt"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/acl"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/gitserve"
)

// escape is an attempt of a tenant to reach what is not its own.
type escape struct {
	name string
	// aim is what the tenant would have gained.
	aim string
	try func(*tenant)
	// reason and words are what the Kustomization "app" has to say; of an attempt that
	// the API refuses or that a source refuses, try sees to it itself and reason is empty.
	reason string
	words  []string
	// harm reports whether the tenant reached its aim, besides learning what is hidden.
	harm func(*tenant) bool
}

const (
	forbidden = meta.ReconciliationFailedReason
	unbuilt   = meta.BuildFailedReason
)

const clusterAdmin = `roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: deployer, namespace: NS}]`

// What the API server refuses, because the unit is delivered as the tenant's account.
var escapesByRights = []escape{
	{
		name: "cluster-role", aim: "rights on the whole cluster", reason: forbidden, words: []string{"ClusterRole/all", `cannot patch resource "clusterroles"`},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": manifest("rbac.authorization.k8s.io/v1", "ClusterRole", "", "all", "rules: [{apiGroups: ['*'], resources: ['*'], verbs: ['*']}]")})
		},
		harm: func(a *tenant) bool { return a.has(&rbacv1.ClusterRole{}, "", "all") },
	},
	{
		name: "cluster-role-binding", aim: "being administrator of the cluster", reason: forbidden, words: []string{"ClusterRoleBinding/dev-admin", "cannot patch"},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": manifest("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "", "dev-admin", strings.ReplaceAll(clusterAdmin, "NS", a.namespace))})
		},
		harm: func(a *tenant) bool { return a.has(&rbacv1.ClusterRoleBinding{}, "", "dev-admin") },
	},
	{
		name: "role-binding-of-another", aim: "being administrator of another namespace", reason: forbidden, words: []string{"RoleBinding/" + neighbour + "/dev-admin", "cannot patch"},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": manifest("rbac.authorization.k8s.io/v1", "RoleBinding", neighbour, "dev-admin", strings.ReplaceAll(clusterAdmin, "NS", a.namespace))})
		},
		harm: func(a *tenant) bool { return a.has(&rbacv1.RoleBinding{}, neighbour, "dev-admin") },
	},
	{
		name: "role-binding-of-its-own", aim: "more rights in its own namespace than it has", reason: forbidden, words: []string{"attempting to grant RBAC permissions not currently held"},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": manifest("rbac.authorization.k8s.io/v1", "RoleBinding", a.namespace, "more", strings.ReplaceAll(clusterAdmin, "NS", a.namespace))})
		},
		harm: func(a *tenant) bool { return a.has(&rbacv1.RoleBinding{}, a.namespace, "more") },
	},
	{
		name: "namespace", aim: "a namespace without limits", reason: forbidden, words: []string{"Namespace/dev-more", "cannot patch"},
		try:  func(a *tenant) { a.deliver(map[string]string{"a.yaml": manifest("v1", "Namespace", "", "dev-more")}) },
		harm: func(a *tenant) bool { return a.has(&corev1.Namespace{}, "", "dev-more") },
	},
	{
		name: "object-of-another", aim: "changing what another tenant runs", reason: forbidden, words: []string{"ConfigMap/" + neighbour + "/theirs", "cannot patch"},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": manifest("v1", "ConfigMap", neighbour, "theirs", "data: {value: mine}")})
		},
		harm: theirsChanged,
	},
	{
		name: "target-namespace", aim: "changing what another tenant runs", reason: forbidden, words: []string{"ConfigMap/" + neighbour + "/theirs", "cannot patch"},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": configMap("theirs", "mine")}, func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = neighbour })
		},
		harm: theirsChanged,
	},
	{
		name: "patched-namespace", aim: "changing what another tenant runs", reason: forbidden, words: []string{"ConfigMap/" + neighbour + "/theirs", "cannot patch"},
		try: func(a *tenant) {
			a.deliver(map[string]string{
				"a.yaml":             manifest("v1", "ConfigMap", a.namespace, "theirs", "data: {value: mine}"),
				"kustomization.yaml": "resources: [a.yaml]\ntransformers: [t.yaml]\n",
				"t.yaml":             "apiVersion: builtin\nkind: NamespaceTransformer\nmetadata: {name: t, namespace: " + neighbour + "}\n",
			}, func(k *kustomizev1.Kustomization) {
				k.Spec.Patches = []kustomize.Patch{{
					Patch:  `[{"op": "replace", "path": "/metadata/namespace", "value": "` + neighbour + `"}]`,
					Target: &kustomize.Selector{Kind: "ConfigMap"},
				}}
			})
		},
		harm: theirsChanged,
	},
	{
		name: "look-if-there", aim: "learning whether another tenant has an object", reason: forbidden, words: []string{`cannot get resource "configmaps"`},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: theirs\n  namespace: " + neighbour + "\n  annotations: {kustomize.toolkit.fluxcd.io/ssa: IfNotPresent}\n"})
		},
		harm: theirsChanged,
	},
	{
		name: "kustomization-of-the-platform", aim: "a Kustomization with the engine's rights", reason: forbidden, words: []string{"Kustomization/flux-system/dev", "cannot patch"},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": manifest("kustomize.toolkit.fluxcd.io/v1", "Kustomization", "flux-system", "dev",
				"spec: {interval: 1m, prune: true, path: ./more, sourceRef: {kind: GitRepository, name: fleet, namespace: "+a.namespace+"}}")})
		},
		harm: func(a *tenant) bool { return a.has(&kustomizev1.Kustomization{}, "flux-system", "dev") },
	},
	{
		name: "no-account", aim: "the engine's rights, by naming no account", reason: forbidden,
		words: []string{"deliver as ServiceAccount dev-team-no-account/default: tenancy is locked", `cannot patch resource "namespaces"`, "set spec.serviceAccountName", "--platform-namespaces", "--tenancy=open"},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": manifest("v1", "Namespace", "", "dev-more")}, as(""))
		},
		harm: func(a *tenant) bool { return a.has(&corev1.Namespace{}, "", "dev-more") },
	},
	{
		name: "kustomization-without-account", aim: "the engine's rights, through a Kustomization from its own repository", reason: "",
		try: func(a *tenant) {
			a.repo.Commit(map[string]string{"more/a.yaml": manifest("v1", "Namespace", "", "dev-more")})
			a.deliver(map[string]string{"a.yaml": manifest("kustomize.toolkit.fluxcd.io/v1", "Kustomization", a.namespace, "more",
				"spec: {interval: 1m, prune: true, path: ./more, sourceRef: {kind: GitRepository, name: fleet}}")})
			a.awaitFailure("more", forbidden, "tenancy is locked", `cannot patch resource "namespaces"`)
		},
		harm: func(a *tenant) bool { return a.has(&corev1.Namespace{}, "", "dev-more") },
	},
	{
		name: "account-that-is-not-there", aim: "the engine's rights, by an account that does not exist", reason: forbidden, words: []string{"ServiceAccount dev-team-account-that-is-not-there/nobody: not found"},
		try:  func(a *tenant) { a.deliver(map[string]string{"a.yaml": configMap("a", "1")}, as("nobody")) },
		harm: func(a *tenant) bool { return a.has(&corev1.ConfigMap{}, a.namespace, "a") },
	},
	{
		name: "health-of-another", aim: "learning how another tenant's objects are", reason: meta.HealthCheckFailedReason,
		words: []string{"ConfigMap/" + neighbour + "/theirs", "cannot get resource"},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": manifest("v1", "ConfigMap", a.namespace, "a")}, func(k *kustomizev1.Kustomization) {
				k.Spec.HealthChecks = []meta.NamespacedObjectKindReference{{APIVersion: "v1", Kind: "ConfigMap", Namespace: neighbour, Name: "theirs"}}
			})
		},
		harm: func(*tenant) bool { return false },
	},
}

func theirsChanged(a *tenant) bool {
	var m corev1.ConfigMap
	return !a.has(&m, neighbour, "theirs") || m.Data["value"] != hidden
}

// What the engine refuses, because it would follow the reference itself.
var escapesByReference = []escape{
	{
		name: "source-of-another", aim: "another tenant's repository", reason: acl.AccessDeniedReason,
		words: []string{"GitRepository " + neighbour + "/fleet: spec.sourceRef names another namespace, and tenancy is locked", "--tenancy=open"},
		try:   func(a *tenant) { a.deliver(map[string]string{"a.yaml": configMap("a", "1")}, sourcedFrom(neighbour)) },
		harm:  deliveredToOwn,
	},
	{
		name: "source-of-the-platform", aim: "the platform's repository", reason: acl.AccessDeniedReason, words: []string{"GitRepository flux-system/fleet", "tenancy is locked"},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": configMap("a", "1")}, sourcedFrom("flux-system"))
		},
		harm: deliveredToOwn,
	},
	{
		name: "source-that-is-not-there", aim: "learning which namespaces have which sources", reason: acl.AccessDeniedReason, words: []string{"GitRepository nobody/fleet", "tenancy is locked"},
		try:  func(a *tenant) { a.deliver(map[string]string{"a.yaml": configMap("a", "1")}, sourcedFrom("nobody")) },
		harm: deliveredToOwn,
	},
	{
		name: "depends-on-another", aim: "learning how another tenant's units are", reason: acl.AccessDeniedReason, words: []string{"spec.dependsOn[0] names another namespace"},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": configMap("a", "1")}, func(k *kustomizev1.Kustomization) {
				k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "app", Namespace: neighbour}}
			})
		},
		harm: deliveredToOwn,
	},
	{
		name: "account-of-another", aim: "another tenant's rights", reason: acl.AccessDeniedReason, words: []string{"spec.serviceAccountName", "is no name of a service account"},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": configMap("a", "1")}, as("../"+neighbour+"/"+deployer))
		},
		harm: deliveredToOwn,
	},
	{
		name: "account-with-a-colon", aim: "another tenant's rights", reason: acl.AccessDeniedReason, words: []string{"spec.serviceAccountName"},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": configMap("a", "1")}, as(neighbour+":"+deployer))
		},
		harm: deliveredToOwn,
	},
}

func deliveredToOwn(a *tenant) bool { return a.names("") != "" }

// What the build refuses, because it reads the tenant's repository and nothing else.
var escapesByBuild = []escape{
	{
		name: "symlink", aim: "files of the engine's machine", reason: unbuilt, words: []string{"app/c.yaml", "leads outside"},
		try: func(a *tenant) { a.link("../../../../etc/passwd") }, harm: deliveredToOwn,
	},
	{
		name: "absolute-symlink", aim: "files of the engine's machine", reason: unbuilt, words: []string{"app/c.yaml", "leads outside"},
		try: func(a *tenant) { a.link("/etc/passwd") }, harm: deliveredToOwn,
	},
	{
		name: "symlink-to-credentials", aim: "the engine's own token", reason: unbuilt, words: []string{"app/c.yaml", "leads outside"},
		try: func(a *tenant) { a.link("/var/run/secrets/kubernetes.io/serviceaccount/token") }, harm: deliveredToOwn,
	},
	{
		name: "remote-base", aim: "having the engine fetch from anywhere", reason: unbuilt, words: []string{"app/kustomization.yaml"},
		try: func(a *tenant) {
			a.kustomization("resources: ['" + a.cluster.git.URL() + "/fleet.git//app?ref=main']")
		}, harm: deliveredToOwn,
	},
	{
		name: "remote-base-by-git", aim: "having the engine fetch from anywhere", reason: unbuilt, words: []string{"app/kustomization.yaml"},
		try: func(a *tenant) { a.kustomization("resources: ['git::https://ops:x@example.com/fleet.git//app']") }, harm: deliveredToOwn,
	},
	{
		name: "helm-charts", aim: "having the engine run helm", reason: unbuilt, words: []string{"helm"},
		try: func(a *tenant) {
			a.kustomization("helmCharts: [{name: podinfo, repo: 'https://example.com/charts', version: 1.0.0}]")
		}, harm: deliveredToOwn,
	},
	{
		name: "exec-generator", aim: "having the engine run a program", reason: unbuilt, words: []string{"app/kustomization.yaml"},
		try: func(a *tenant) {
			a.commit(map[string]string{
				"kustomization.yaml": "generators: [g.yaml]\n",
				"g.yaml":             "apiVersion: v1\nkind: Escape\nmetadata:\n  name: g\n  annotations:\n    config.kubernetes.io/function: |\n      exec: {path: ./run.sh}\n",
				"run.sh":             "#!/bin/sh\ncat /etc/passwd\n",
			})
		}, harm: deliveredToOwn,
	},
	{
		name: "components", aim: "folders outside the repository", reason: unbuilt, words: []string{"../../.."},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": configMap("a", "1")}, func(k *kustomizev1.Kustomization) { k.Spec.Components = []string{"../../../../etc"} })
		}, harm: deliveredToOwn,
	},
	{
		name: "path", aim: "folders outside the repository", reason: unbuilt, words: []string{"../../.."},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": configMap("a", "1")}, func(k *kustomizev1.Kustomization) { k.Spec.Path = "./app/../../../../etc" })
		}, harm: deliveredToOwn,
	},
	{
		name: "generator-files", aim: "files of the engine's machine", reason: unbuilt, words: []string{"app/kustomization.yaml", "leaves the repository"},
		try: func(a *tenant) {
			a.kustomization("configMapGenerator: [{name: a, files: [../../../../proc/self/environ]}]")
		}, harm: deliveredToOwn,
	},
	{
		name: "generator-absolute", aim: "files of the engine's machine", reason: unbuilt, words: []string{"app/kustomization.yaml"},
		try: func(a *tenant) {
			a.kustomization("secretGenerator: [{name: a, envs: [/proc/self/environ]}]")
		}, harm: deliveredToOwn,
	},
	{
		name: "yaml-bomb", aim: "all of the engine's memory", reason: unbuilt, words: []string{"app/a.yaml"},
		try: func(a *tenant) {
			bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
			for i := range 12 {
				bomb += strings.NewReplacer("N", string(rune('a'+i+1)), "M", string(rune('a'+i))).Replace("N0: &N0 [*M0, *M0, *M0, *M0, *M0, *M0, *M0, *M0, *M0]\n")
			}
			a.deliver(map[string]string{"a.yaml": configMap("a", "1") + bomb})
		}, harm: deliveredToOwn,
	},
	{
		name: "copy-bomb", aim: "all of the engine's memory", reason: unbuilt, words: []string{"copy operations", "copy less"},
		try: func(a *tenant) {
			var ops []string
			for i := range 40 {
				ops = append(ops, fmt.Sprintf(`{"op": "copy", "from": "/data", "path": "/data/k%d"}`, i))
			}
			a.commit(map[string]string{
				"a.yaml":             configMap("a", "1"),
				"kustomization.yaml": "resources: [a.yaml]\npatches: [{target: {kind: ConfigMap}, path: p.yaml}]\n",
				"p.yaml":             "[" + strings.Join(ops, ", ") + "]\n",
			})
		}, harm: deliveredToOwn,
	},
	{
		name: "variable-bomb", aim: "all of the engine's memory", reason: unbuilt, words: []string{"ConfigMap/dev-team-variable-bomb/a", "shorten the values"},
		try: func(a *tenant) {
			a.deliver(map[string]string{"a.yaml": configMap("a", "${x//y/${x}}")}, inOwn(a), func(k *kustomizev1.Kustomization) {
				k.Spec.PostBuild = &kustomizev1.PostBuild{Substitute: map[string]string{"x": strings.Repeat("y", 1<<19)}}
			})
		}, harm: deliveredToOwn,
	},
	{
		name: "big-file", aim: "all of the engine's memory", reason: unbuilt, words: []string{"app/a.yaml", "10 MiB"},
		try: func(a *tenant) { a.deliver(map[string]string{"a.yaml": "# " + strings.Repeat("x", 11<<20)}) }, harm: deliveredToOwn,
	},
}

// link commits a folder of which one manifest is a symbolic link.
func (a *tenant) link(to string) {
	a.Helper()
	a.repo.CommitFiles(map[string]gitserve.File{
		"app/c.yaml":             {Data: []byte(to), Mode: "120000"},
		"app/kustomization.yaml": {Data: []byte("configMapGenerator: [{name: c, files: [c.yaml]}]\n")},
	})
	a.from(func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = a.namespace })
}

// kustomization commits a folder with one kustomization.yaml.
func (a *tenant) kustomization(text string) {
	a.Helper()
	a.commit(map[string]string{"kustomization.yaml": text + "\n"})
}

func (a *tenant) commit(files map[string]string) {
	a.Helper()
	a.deliver(files, func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = a.namespace })
}

// Nothing that a tenant writes, on the cluster or in Git, reaches what is not its
// own: it is refused with a reason, does not happen, and tells nothing.
func TestEscapes(t *testing.T) {
	t.Parallel()
	l := startLocked(t)
	before := l.theirs(t)
	t.Run("attempts", func(t *testing.T) {
		for _, group := range [][]escape{escapesByRights, escapesByReference, escapesByBuild, escapesBySecret, escapesBySource, escapesByForgery} {
			for _, row := range group {
				t.Run(row.name, func(t *testing.T) {
					t.Parallel()
					row.play(l.tenant(t, row.name))
				})
			}
		}
	})
	if after := l.theirs(t); after != before {
		t.Errorf("the other tenant's objects were %s and are %s", before, after)
	}
	l.admin.repo.Commit(map[string]string{"app/a.yaml": configMap("theirs", hidden+" still")})
	l.admin.ask(l.admin.fleet())
	l.admin.poll("the other tenant's commit live", func() bool { return l.admin.config("theirs").Data["value"] == hidden+" still" })
}

func (row escape) play(a *tenant) {
	row.try(a)
	if row.reason != "" {
		k := a.awaitFailure("app", row.reason, row.words...)
		for _, c := range k.Status.Conditions {
			if strings.Contains(c.Message, "\n") {
				a.Errorf("the message is not one line: %q", c.Message)
			}
		}
	}
	if row.harm(a) {
		a.Errorf("the tenant got %s", row.aim)
	}
	if told := a.learned(); told != "" {
		a.Errorf("the tenant can read what is hidden from it in %s; it aimed at %s", told, row.aim)
	}
}

// theirs says in what state the other tenant's objects are.
func (l *lockedCluster) theirs(t *testing.T) string {
	t.Helper()
	m := l.admin.config("theirs")
	k := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: "app", Namespace: neighbour}}
	l.admin.read(k)
	var bindings rbacv1.RoleBindingList
	if err := l.admin.client.List(t.Context(), &bindings, client.InNamespace(neighbour)); err != nil {
		t.Fatal(err)
	}
	return strings.Join([]string{string(m.UID), m.ResourceVersion, k.Status.LastAppliedRevision, bindings.ResourceVersion[:0], string(rune('0' + len(bindings.Items)))}, " ")
}

package controller

import (
	"errors"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/failure"
)

// unitIn is a Kustomization of a source in its own namespace.
func unitIn(namespace string, change ...func(*kustomizev1.Kustomization)) *kustomizev1.Kustomization {
	k := &kustomizev1.Kustomization{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "app"},
		Spec: kustomizev1.KustomizationSpec{
			SourceRef: kustomizev1.CrossNamespaceSourceReference{Kind: sourcev1.GitRepositoryKind, Name: "fleet"},
		},
	}
	for _, c := range change {
		c(k)
	}
	return k
}

func checking(namespace, name string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) {
		k.Spec.HealthChecks = []meta.NamespacedObjectKindReference{{APIVersion: "v1", Kind: "ConfigMap", Namespace: namespace, Name: name}}
	}
}

func sourcedFrom(namespace string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) { k.Spec.SourceRef.Namespace = namespace }
}

func dependingOn(namespace string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) {
		k.Spec.DependsOn = []kustomizev1.DependencyReference{{Name: "base", Namespace: namespace}}
	}
}

func named(account string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) { k.Spec.ServiceAccountName = account }
}

func TestTenancyAccount(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, reason string
		tenancy      Tenancy
		unit         *kustomizev1.Kustomization
		want         string
	}{
		{"tenant", "every namespace has this account, and it has no rights", Tenancy{}, unitIn("dev"), "default"},
		{"tenant names one", "it is asked for", Tenancy{}, unitIn("dev", named("deployer")), "deployer"},
		{"tenant, account by default", "the administrator chose it", Tenancy{DefaultServiceAccount: "gitops"}, unitIn("dev"), "gitops"},
		{"platform", "it sets the cluster up", Tenancy{}, unitIn("flux-system"), ""},
		{"platform of our own", "bowline up begins there", Tenancy{}, unitIn("bowline-system"), ""},
		{"platform names one", "it is asked for", Tenancy{}, unitIn("flux-system", named("deployer")), "deployer"},
		{"platform, account by default", "as in the toolkit, it is for all", Tenancy{DefaultServiceAccount: "gitops"}, unitIn("flux-system"), "gitops"},
		{"named platform", "the administrator says so", Tenancy{PlatformNamespaces: []string{"ops"}}, unitIn("ops"), ""},
		{"no longer platform", "the list replaces the default", Tenancy{PlatformNamespaces: []string{"ops"}}, unitIn("flux-system"), "default"},
		{"no platform at all", "an empty list is a list", Tenancy{PlatformNamespaces: []string{}}, unitIn("flux-system"), "default"},
		{"open", "as in the toolkit without settings", Tenancy{Open: true}, unitIn("dev"), ""},
		{"open, account by default", "as in the toolkit", Tenancy{Open: true, DefaultServiceAccount: "gitops"}, unitIn("dev"), "gitops"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			if got := row.tenancy.accountOf(addressOf(row.unit)).Name; got != row.want {
				t.Errorf("delivered as %q, want %q: %s", got, row.want, row.reason)
			}
		})
	}
}

func TestTenancyAdmits(t *testing.T) {
	t.Parallel()
	noCross := Tenancy{Open: true, NoCrossNamespaceRefs: true}
	for _, row := range []struct {
		name, reason string
		tenancy      Tenancy
		unit         *kustomizev1.Kustomization
		words        string // of the refusal; empty when there is none
	}{
		{"own source", "it is its own", Tenancy{}, unitIn("dev"), ""},
		{"own source by its namespace", "it is its own", Tenancy{}, unitIn("dev", sourcedFrom("dev")), ""},
		{"foreign source", "its content is not for all", Tenancy{}, unitIn("dev", sourcedFrom("ops")),
			"GitRepository ops/fleet: spec.sourceRef names another namespace, and tenancy is locked"},
		{"source of the platform", "nor is this", Tenancy{}, unitIn("dev", sourcedFrom("flux-system")), "--tenancy=open"},
		{"own dependency", "it is its own", Tenancy{}, unitIn("dev", dependingOn("")), ""},
		{"foreign dependency", "its state is not for all", Tenancy{}, unitIn("dev", dependingOn("ops")), "Kustomization ops/base: spec.dependsOn[0]"},
		{"platform", "it is not confined", Tenancy{}, unitIn("flux-system", sourcedFrom("ops"), dependingOn("dev")), ""},
		{"platform without cross references", "as in the toolkit, that is for all", Tenancy{NoCrossNamespaceRefs: true},
			unitIn("flux-system", sourcedFrom("ops")), "--no-cross-namespace-refs"},
		{"open", "as in the toolkit", Tenancy{Open: true}, unitIn("dev", sourcedFrom("ops"), dependingOn("ops")), ""},
		{"open without cross references", "as in the toolkit", noCross, unitIn("dev", sourcedFrom("ops")), "name one of namespace dev"},
		{"open without cross references, dependency", "the toolkit's flag is about sources", noCross, unitIn("dev", dependingOn("ops")), ""},
		{"account with a colon", "it could be taken for one of another namespace", Tenancy{}, unitIn("dev", named("ops:admin")), "spec.serviceAccountName"},
		{"account with a path", "it could be taken for one of another namespace", Tenancy{Open: true}, unitIn("dev", named("../ops/admin")), "spec.serviceAccountName"},
		{"decrypting account with a path", "it is asked for with the engine's rights", Tenancy{Open: true}, unitIn("dev", decrypted(""), func(k *kustomizev1.Kustomization) {
			k.Spec.Decryption.ServiceAccountName = "../../ops/secrets/db"
		}), "spec.decryption.serviceAccountName"},
		{"keys with a path", "they are read with the engine's rights", Tenancy{Open: true}, unitIn("dev", decrypted("../../ops/secrets/db")), "spec.decryption.secretRef.name"},
		{"kubeconfig with a path", "it is read with the engine's rights", Tenancy{Open: true}, unitIn("dev", remotely("../../ops/secrets/db")), "spec.kubeConfig.secretRef.name"},
		{"check with a path", "it would look at something else", Tenancy{Open: true}, unitIn("dev", checking("dev", "../../ops/secrets/db")), "spec.healthChecks[0].name"},
		{"check in a path", "it would look elsewhere", Tenancy{Open: true}, unitIn("dev", checking("..", "db")), "spec.healthChecks[0].namespace"},
		{"check", "it is one", Tenancy{}, unitIn("dev", checking("", "system:db")), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			err := row.tenancy.Admit(row.unit)
			if row.words == "" && err != nil || row.words != "" && (err == nil || !strings.Contains(err.Error(), row.words)) {
				t.Errorf("the verdict is %v, want %q: %s", err, row.words, row.reason)
			}
			if err != nil && !failure.Terminal(err) {
				t.Errorf("%v looks as if trying again could help", err)
			}
		})
	}
}

func TestTenancyValidate(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, reason string
		tenancy      Tenancy
		ok           bool
	}{
		{"zero", "it is the default", Tenancy{}, true},
		{"names", "they can be", Tenancy{PlatformNamespaces: []string{"ops"}, DefaultServiceAccount: "gitops"}, true},
		{"namespace with a blank", "it confines whom it was to free", Tenancy{PlatformNamespaces: []string{"ops", " dev"}}, false},
		{"account of another namespace", "accounts are of the unit's own", Tenancy{DefaultServiceAccount: "ops/gitops"}, false},
	} {
		if err := row.tenancy.Validate(); (err == nil) != row.ok || err != nil && !errors.Is(err, failure.Of(failure.Invalid)) {
			t.Errorf("%s: the verdict is %v: %s", row.name, err, row.reason)
		}
	}
	if _, err := ParseTenancy("half-open"); !errors.Is(err, failure.Of(failure.Invalid)) {
		t.Errorf("half-open is read as %v", err)
	}
}

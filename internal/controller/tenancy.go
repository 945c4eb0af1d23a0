package controller

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Tenancy says what the objects of a namespace may refer to and in whose name
// units are delivered. The zero value locks tenants in.
type Tenancy struct {
	// Open lets every unit run with the engine's rights and refer to other
	// namespaces, as the toolkit's own engine does without further settings.
	Open bool
	// PlatformNamespaces are those that stay unconfined where tenancy is locked; nil
	// means DefaultPlatformNamespaces.
	PlatformNamespaces []string
	// DefaultServiceAccount is the account of every unit that names none, in
	// platform namespaces too; empty means none.
	DefaultServiceAccount string
	// NoCrossNamespaceRefs refuses sources of other namespaces to every unit, in
	// platform namespaces too.
	NoCrossNamespaceRefs bool
	// Foreign says that the engine serves another cluster than the one that it runs on: nobody there acts with
	// the identity that clouds give to the engine, in platform namespaces neither.
	Foreign bool
}

// DefaultPlatformNamespaces are the platform namespaces where none are named: those
// in which `flux bootstrap` and `bowline up` put what a cluster begins with.
func DefaultPlatformNamespaces() []string { return []string{"flux-system", "bowline-system"} }

// confinedAccount is the account of a confined unit for which nobody names one. Every
// namespace has it, and it has no rights until somebody gives it some.
const confinedAccount = "default"

// ParseTenancy reads the value of --tenancy.
func ParseTenancy(s string) (open bool, err error) {
	switch s {
	case "locked", "open":
		return s == "open", nil
	}
	return false, &failure.Error{Op: "read", Object: "tenancy", Kind: failure.Invalid,
		Err: fmt.Errorf("unknown mode %q", s), Remedy: "use locked or open"}
}

// Validate says what of the policy itself cannot be meant.
func (t Tenancy) Validate() error {
	for _, ns := range t.PlatformNamespaces {
		if problems := validation.ValidateNamespaceName(ns, false); len(problems) > 0 {
			return &failure.Error{Op: "read", Object: "platform-namespaces", Kind: failure.Invalid,
				Err: fmt.Errorf("%q is no name of a namespace: %s", ns, problems[0])}
		}
	}
	if t.DefaultServiceAccount == "" {
		return nil
	}
	return accountName("default-service-account", t.DefaultServiceAccount)
}

func accountName(field, name string) error {
	problems := validation.ValidateServiceAccountName(name, false)
	if len(problems) == 0 {
		return nil
	}
	return &failure.Error{Op: "read", Object: field, Kind: failure.Invalid,
		Err:    fmt.Errorf("%q is no name of a service account: %s", name, problems[0]),
		Remedy: "name one of its own namespace"}
}

// checkNames says which of the names that a Kustomization refers to by is none: it
// would become part of the address of a request, and lead that to another object.
func checkNames(k *kustomizev1.Kustomization) error {
	accounts := map[string]string{"spec.serviceAccountName": k.Spec.ServiceAccountName}
	names := map[string]string{}
	if d := k.Spec.Decryption; d != nil {
		accounts["spec.decryption.serviceAccountName"] = d.ServiceAccountName
		if d.SecretRef != nil {
			names["spec.decryption.secretRef.name"] = d.SecretRef.Name
		}
	}
	if c := k.Spec.KubeConfig; c != nil && c.SecretRef != nil {
		names["spec.kubeConfig.secretRef.name"] = c.SecretRef.Name
	} else if c != nil && c.ConfigMapRef != nil {
		names["spec.kubeConfig.configMapRef.name"] = c.ConfigMapRef.Name
	}
	for i, c := range k.Spec.HealthChecks {
		names[fmt.Sprintf("spec.healthChecks[%d].name", i)] = c.Name
		names[fmt.Sprintf("spec.healthChecks[%d].namespace", i)] = c.Namespace
	}
	for _, field := range slices.Sorted(maps.Keys(accounts)) {
		if name := accounts[field]; name != "" {
			if err := accountName(field, name); err != nil {
				return err
			}
		}
	}
	for _, field := range slices.Sorted(maps.Keys(names)) {
		if problems := content.IsPathSegmentName(names[field]); len(problems) > 0 {
			return &failure.Error{Op: "read", Object: field, Kind: failure.Invalid,
				Err: fmt.Errorf("%q is no name of an object: it %s", names[field], problems[0]), Remedy: "correct it"}
		}
	}
	return nil
}

// Platform reports whether units of the namespace are the platform's own.
func (t Tenancy) Platform(namespace string) bool {
	platform := t.PlatformNamespaces
	if platform == nil {
		platform = DefaultPlatformNamespaces()
	}
	return slices.Contains(platform, namespace)
}

// ownIdentity reports whether clouds may be asked with the engine's own identity for what lives in the namespace.
func (t Tenancy) ownIdentity(namespace string) bool { return !t.Foreign && !t.Confined(namespace) }

// Confined reports whether what lives in the namespace is a tenant's, which acts with
// the rights of its namespace and refers to nothing outside.
func (t Tenancy) Confined(namespace string) bool { return !t.Open && !t.Platform(namespace) }

// accountOf returns the service account, of the unit's own namespace, in whose name it
// is delivered, and the zero value for the engine's own rights.
func (t Tenancy) accountOf(a address) types.NamespacedName {
	name := a.account
	switch {
	case name != "":
	case t.DefaultServiceAccount != "":
		name = t.DefaultServiceAccount
	case t.Confined(a.unit.Namespace) && a.kubeConfig == nil: // a kubeconfig has its own rights
		name = confinedAccount
	default:
		return types.NamespacedName{}
	}
	return types.NamespacedName{Namespace: a.unit.Namespace, Name: name}
}

// Admit says why a Kustomization may not refer to what it refers to. It looks at
// names only: whether another tenant's object exists must make no difference.
func (t Tenancy) Admit(k *kustomizev1.Kustomization) error {
	if err := checkNames(k); err != nil {
		return err
	}
	if source := sourceOf(k); !t.maySource(k, source) {
		return t.refused("spec.sourceRef", source.Kind+" "+source.NamespacedName.String(), k.Namespace)
	}
	return t.admitDependencies(kustomizev1.KustomizationKind, k)
}

// admitDependencies says why a unit of this kind may not depend on another.
func (t Tenancy) admitDependencies(kind string, o client.Object) error {
	for i, name := range dependenciesOf(o) {
		if !t.mayDepend(o, name) {
			return t.refused(fmt.Sprintf("spec.dependsOn[%d]", i), kind+" "+name.String(), o.GetNamespace())
		}
	}
	return nil
}

func (t Tenancy) maySource(k *kustomizev1.Kustomization, source sourceKey) bool {
	return source.Namespace == k.Namespace || !t.NoCrossNamespaceRefs && !t.Confined(k.Namespace)
}

// Dependencies are no matter of --no-cross-namespace-refs, as in the toolkit.
func (t Tenancy) mayDepend(o client.Object, name types.NamespacedName) bool {
	return name.Namespace == o.GetNamespace() || !t.Confined(o.GetNamespace())
}

// MayRefer says why an object may not refer to one of another namespace: field is
// the one that does, object names it with its kind. It is the rule for everything
// other than the source and the dependencies of Kustomizations.
func (t Tenancy) MayRefer(from, field, object, to string) error {
	if to == "" || to == from || !t.NoCrossNamespaceRefs && !t.Confined(from) {
		return nil
	}
	return t.refused(field, object, from)
}

// admissible returns those dependencies that a unit may have: what it may not depend
// on must not feel that it is named.
func (t Tenancy) admissible(o client.Object) []types.NamespacedName {
	return slices.DeleteFunc(dependenciesOf(o), func(name types.NamespacedName) bool { return !t.mayDepend(o, name) })
}

// refused is the failure of a reference that tenancy does not allow.
func (t Tenancy) refused(field, object, namespace string) error {
	if !t.Confined(namespace) {
		return &failure.Error{Op: "use", Object: object, Kind: failure.Refused,
			Err:    fmt.Errorf("%s names another namespace, and --no-cross-namespace-refs is set", field),
			Remedy: "name one of namespace " + namespace}
	}
	return &failure.Error{Op: "use", Object: object, Kind: failure.Refused,
		Err:    fmt.Errorf("%s names another namespace, and tenancy is locked: namespace %s may refer to its own objects only", field, namespace),
		Remedy: fmt.Sprintf("name one of namespace %s, or have an administrator %s", namespace, opening)}
}

// opening is what an administrator can do for a unit that relies on open tenancy.
const opening = "put it into a platform namespace, add its namespace to --platform-namespaces, or set --tenancy=open"

// explain adds to the refusal of an API server why the unit was delivered in the name
// of that account, where the unit does not say it itself.
func (t Tenancy) explain(a address, err error) error {
	account := t.accountOf(a)
	if account.Name == "" || a.account != "" || !errors.Is(err, failure.Of(failure.Denied)) {
		return err
	}
	why, remedy := "it is the one of --default-service-account", ""
	if t.DefaultServiceAccount == "" {
		why = fmt.Sprintf("tenancy is locked, %s is no platform namespace, and spec.serviceAccountName is not set", account.Namespace)
	}
	if t.Confined(account.Namespace) {
		remedy = ", or have an administrator " + opening
	}
	return &failure.Error{Op: "deliver as", Kind: failure.Denied, Object: "ServiceAccount " + account.String(),
		Err:    fmt.Errorf("%s: %w", why, err),
		Remedy: "set spec.serviceAccountName to an account of this namespace that has the rights" + remedy}
}

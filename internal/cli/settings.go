package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/plan"
)

// defaultSettings is the ConfigMap in which a cluster keeps settings of its engine.
const defaultSettings = "flux-system/bowline-settings"

// settable returns the flags of the engine that a cluster may keep for it, which hold
// for whoever runs an engine on it, with what checks their values beyond their type.
// Where a process listens or stores is not of that sort.
func settable() map[string]func(string) error {
	anything := func(string) error { return nil }
	return map[string]func(string) error{
		"audit-interval": anything, "concurrency": anything, "custom-apply-stage-kinds": anything, "feature-gates": anything, "max-file-size": anything,
		"no-cross-namespace-refs": anything, "no-remote-bases": anything,
		"default-decryption-service-account": func(v string) error { return controller.Tenancy{DefaultServiceAccount: v}.Validate() },
		"sops-age-secret":                    func(v string) error { _, err := nameOfOwn("sops-age-secret", v, "flux-system"); return err },
		"sops-vault-configmap":               func(v string) error { _, err := nameOfOwn("sops-vault-configmap", v, "flux-system"); return err },
		"deletion-budget":                    func(v string) error { _, err := plan.ParseBudget(v); return err },
		"default-service-account":            func(v string) error { return controller.Tenancy{DefaultServiceAccount: v}.Validate() },
		"platform-namespaces": func(v string) error {
			return controller.Tenancy{PlatformNamespaces: strings.Split(v, ",")}.Validate()
		},
		"tenancy": func(v string) error { _, err := controller.ParseTenancy(v); return err },
	}
}

// engineSettings are flags of the engine that a cluster keeps in a ConfigMap: its
// keys are names of flags, its values what they are set to.
type engineSettings struct {
	name   types.NamespacedName
	values map[string]string
}

// settingsName reads the value of --settings. The zero value means none.
func settingsName(s string) (types.NamespacedName, error) {
	if s == "" {
		return types.NamespacedName{}, nil
	}
	namespace, name, ok := strings.Cut(s, "/")
	if !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return types.NamespacedName{}, &failure.Error{Op: "read flag", Object: "--settings", Kind: failure.Invalid,
			Err: fmt.Errorf("%q names no ConfigMap", s), Remedy: "write it as NAMESPACE/NAME"}
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, nil
}

// readSettings returns what the cluster keeps for its engine; nothing where there is
// no such ConfigMap.
func readSettings(ctx context.Context, c client.Reader, name types.NamespacedName) (engineSettings, error) {
	out := engineSettings{name: name}
	if name.Name == "" {
		return out, nil
	}
	var m corev1.ConfigMap
	err := c.Get(ctx, name, &m)
	switch {
	case err == nil:
		out.values = m.Data
		return out, nil
	case apierrors.IsNotFound(err):
		return out, nil
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		return out, &failure.Error{Op: "read", Object: out.String(), Kind: failure.Denied, Err: err,
			Remedy: "give the engine's identity the right to get it"}
	default:
		return out, &failure.Error{Op: "read", Object: out.String(), Kind: failure.Unavailable, Err: err,
			Remedy: "check that the API server runs and that the kubeconfig names it"}
	}
}

// apply sets the flags that were not given on the command line.
func (s engineSettings) apply(flags *pflag.FlagSet) error {
	known := settable()
	for _, key := range slices.Sorted(maps.Keys(s.values)) {
		flag, check, value := flags.Lookup(key), known[key], strings.TrimSpace(s.values[key])
		if flag == nil || check == nil {
			return s.wrong(key, errors.New("there is no setting of this name"), "use "+strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		if err := check(value); err != nil {
			return s.wrong(key, err, "")
		}
		if flag.Changed {
			continue
		}
		if err := flag.Value.Set(value); err != nil {
			return s.wrong(key, err, "correct the value")
		}
	}
	return nil
}

// wrong says which setting of which ConfigMap cannot be used.
func (s engineSettings) wrong(key string, err error, remedy string) error {
	return &failure.Error{Op: "read " + s.String(), Object: "key " + key, Kind: failure.Invalid, Err: err, Remedy: remedy}
}

// String names the ConfigMap.
func (s engineSettings) String() string { return "ConfigMap " + s.name.String() }

package cli

import (
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
)

// What a cluster keeps becomes the engine's flags, those that are given win, and
// what cannot be meant is an error that names ConfigMap and key.
func TestSettings(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, reason string
		kept         map[string]string
		given        []string
		open         bool
		platform     string
		wrong        string // in the error
	}{
		{name: "none", reason: "tenants are locked in unless somebody says otherwise", platform: "flux-system bowline-system"},
		{name: "open", reason: "the cluster had it so", kept: map[string]string{"tenancy": "open\n"}, open: true, platform: "flux-system bowline-system"},
		{name: "platform", reason: "the list replaces the default", kept: map[string]string{"platform-namespaces": "flux-system,ops"}, platform: "flux-system ops"},
		{name: "flag wins", reason: "whoever starts the engine has the last word",
			kept: map[string]string{"tenancy": "open", "platform-namespaces": "ops"}, given: []string{"--tenancy=locked", "--platform-namespaces=flux-system"}, platform: "flux-system"},
		{name: "unknown key", reason: "a typing error must not leave a door open", kept: map[string]string{"no-cross-namespace-ref": "true"}, wrong: "key no-cross-namespace-ref: there is no setting"},
		{name: "flag that is no setting", reason: "it is about the process, not the cluster", kept: map[string]string{"data-dir": "/"}, wrong: "key data-dir: there is no setting"},
		{name: "bad mode", reason: "neither is meant", kept: map[string]string{"tenancy": "half-open"}, wrong: `key tenancy: `},
		{name: "bad value that a flag hides", reason: "it comes to light when the flag goes", kept: map[string]string{"tenancy": "half-open"}, given: []string{"--tenancy=open"}, wrong: `key tenancy: `},
		{name: "bad boolean", reason: "neither is meant", kept: map[string]string{"no-cross-namespace-refs": "perhaps"}, wrong: "key no-cross-namespace-refs: "},
		{name: "bad namespace", reason: "it frees nobody", kept: map[string]string{"platform-namespaces": "flux-system, ops"}, wrong: "key platform-namespaces: "},
		{name: "bad account", reason: "accounts are of the unit's own namespace", kept: map[string]string{"default-service-account": "ops/gitops"}, wrong: "key default-service-account: "},
		{name: "no platform namespace", reason: "a tenant could have written it",
			kept: map[string]string{"default-service-account": "admin"}, given: []string{"--platform-namespaces=ops"}, wrong: "it is in no platform namespace"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			var o controllerOptions
			cmd := &cobra.Command{}
			o.addEngine(cmd)
			if err := cmd.Flags().Parse(row.given); err != nil {
				t.Fatal(err)
			}
			kept := engineSettings{name: types.NamespacedName{Namespace: "flux-system", Name: "bowline-settings"}, values: row.kept}
			err := o.settle(kept, cmd.Flags())
			if row.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), "ConfigMap flux-system/bowline-settings") || !strings.Contains(err.Error(), row.wrong) {
					t.Errorf("the verdict is %v, want %q: %s", err, row.wrong, row.reason)
				}
				return
			}
			got := o.engine.Tenancy
			if err != nil || got.Open != row.open || strings.Join(got.PlatformNamespaces, " ") != row.platform {
				t.Errorf("%v; the engine would run with %+v: %s", err, got, row.reason)
			}
		})
	}
}

package flux

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/version"

	"github.com/bowline-dev/bowline/internal/failure"
)

// immaterial are arguments of the kustomize-controller that say how it runs, not
// what it delivers: where it listens, what it logs, how often it asks. Which objects it
// watches, Supported has looked at.
var immaterial = []string{
	"concurrent", "concurrent-ssa", "enable-leader-election", "events-addr", "graceful-shutdown-timeout", "health-addr",
	"http-retry", "interval-jitter-percentage", "kube-api-burst", "kube-api-qps", "leader-election-lease-duration",
	"leader-election-release-on-cancel", "leader-election-renew-deadline", "leader-election-retry-period", "log-encoding",
	"log-level", "max-retry-delay", "metrics-addr", "min-retry-delay", "requeue-dependency", "storage-adv-addr",
	"storage-path", "token-cache-max-duration", "token-cache-max-size", "watch-all-namespaces", "watch-configs-label-selector",
	watchSelector,
}

// immaterialGates are feature gates of the same sort.
var immaterialGates = []string{
	"CacheSecretsAndConfigMaps", "CancelHealthCheckOnNewRevision", "DirectSourceFetch", "DisableConfigWatchers", "DisableFailFastBehavior",
	"DisableStatusPollerCache", "ExternalArtifact", "GroupChangeLog", "MigrateAPIVersion", "ObjectLevelWorkloadIdentity",
}

// engineGates are the feature gates that Bowline's engine has by the same names, with
// their defaults there.
var engineGates = map[string]bool{"AdditiveCELDependencyCheck": false, strictGate: true}

// strictGate makes a variable without a value an error. Flux has it on by default
// since the minor version strictSince.
const (
	strictGate  = "StrictPostBuildSubstitutions"
	strictSince = 9
)

// Settings returns what the engine has to be told to treat tenants as this
// installation does, and deliver what it delivers: names of flags with their values.
// settable reports whether the engine has a setting of a name. An argument that
// matters and that it does not have is an error.
func (i *Installation) Settings(settable func(string) bool) (map[string]string, error) {
	var out map[string]string
	var from *Controller
	for _, c := range i.role(kustomizeController) {
		settings, err := c.settings(i.Version, settable)
		if err != nil {
			return nil, err
		}
		if from != nil && !maps.Equal(out, settings) {
			return nil, &failure.Error{Op: "read the arguments of", Object: c.String(), Kind: failure.Unsupported,
				Err: fmt.Errorf("they differ from those of %s, and one engine has one set", from), Remedy: "make them equal first"}
		}
		out, from = settings, c
	}
	for _, c := range i.role(helmController) {
		if err := c.agrees(out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// helmImmaterial are arguments of the helm-controller that say how it runs. It has those of
// the kustomize-controller besides.
var helmImmaterial = []string{
	"http-timeout", "oom-watch-current-memory-path", "oom-watch-interval", "oom-watch-max-memory-path", "oom-watch-memory-threshold", "snapshot-digest-algo",
}

// helmImmaterialGates are feature gates of the same sort.
var helmImmaterialGates = []string{"AdoptLegacyReleases", "OOMWatch"}

// agrees says why a helm-controller cannot be taken over from together with a
// kustomize-controller of these settings: one engine has one set for both.
func (c *Controller) agrees(settings map[string]string) error {
	for _, name := range []string{"default-service-account", "no-cross-namespace-refs"} {
		value := c.Args[name]
		if value == "false" {
			value = ""
		}
		if value != settings[name] {
			return c.unsupported(fmt.Sprintf("--%s is %q and %q for the kustomize-controller, and one engine has one", name, value, settings[name]), "make them equal first")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Args)) {
		value := c.Args[name]
		known := slices.Contains(immaterial, name) || slices.Contains(helmImmaterial, name) || name == "feature-gates"
		if !known && value != "" && value != "false" && settings[name] != value {
			return c.refuse("--" + name + "=" + value)
		}
	}
	for gate := range strings.SplitSeq(c.Args["feature-gates"], ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(gate), "=")
		on, err := strconv.ParseBool(value)
		told := strings.Contains(settings["feature-gates"], name+"=true")
		switch {
		case name == "", slices.Contains(immaterialGates, name), slices.Contains(helmImmaterialGates, name):
		case err != nil, on && !told:
			return c.refuse("--feature-gates=" + gate)
		}
	}
	return nil
}

func (c *Controller) settings(distribution string, settable func(string) bool) (map[string]string, error) {
	// Without further arguments, Flux lets every Kustomization act with its own
	// rights, refer to other namespaces and name remote bases.
	out := map[string]string{"tenancy": "open", "no-remote-bases": "false"}
	for _, name := range slices.Sorted(maps.Keys(c.Args)) {
		value := c.Args[name]
		switch {
		case name == "feature-gates", slices.Contains(immaterial, name):
		case value == "" || value == "false" && name != "no-remote-bases":
		case !settable(name):
			return nil, c.refuse("--" + name + "=" + value)
		case name == "sops-age-secret" || name == "sops-vault-configmap":
			out[name] = c.Namespace + "/" + value
		default:
			out[name] = value
		}
	}
	gates, err := c.gates(distribution)
	if err != nil {
		return nil, err
	}
	if gates != "" {
		out["feature-gates"] = gates
	}
	return out, nil
}

// gates returns those feature gates that are set otherwise than the engine has them.
func (c *Controller) gates(distribution string) (string, error) {
	set := map[string]bool{}
	if minorOf(cmp.Or(c.Version, distribution)) < strictSince {
		set[strictGate] = false
	}
	for gate := range strings.SplitSeq(c.Args["feature-gates"], ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(gate), "=")
		on, err := strconv.ParseBool(value)
		_, known := engineGates[name]
		switch {
		case name == "", slices.Contains(immaterialGates, name):
		case err != nil, !known && on:
			return "", c.refuse("--feature-gates=" + gate)
		case known:
			set[name] = on
		}
	}
	maps.DeleteFunc(set, func(name string, on bool) bool { return engineGates[name] == on })
	var pairs []string
	for _, name := range slices.Sorted(maps.Keys(set)) {
		pairs = append(pairs, fmt.Sprintf("%s=%t", name, set[name]))
	}
	return strings.Join(pairs, ","), nil
}

// minorOf returns the minor part of a version, which is the same for the controller
// and the distribution.
func minorOf(tag string) uint {
	v, err := version.ParseGeneric(tag)
	if err != nil {
		return 0
	}
	return v.Minor()
}

func (c *Controller) refuse(argument string) error {
	return c.unsupported(fmt.Sprintf("it runs with %s, which this version does not do", argument),
		"see whether the fleet can do without it, and remove it from the deployment first")
}

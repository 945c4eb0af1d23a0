package flux

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/failure"
)

// installed is an installation of deployments, each with an image and its arguments.
func installed(version string, deployments ...[]string) *Installation {
	out := &Installation{Namespace: "flux-system", Version: version}
	for i, d := range deployments {
		out.Controllers = append(out.Controllers, controllerOf(appsv1.Deployment{
			ObjectMeta: metav1.ObjectMeta{Namespace: "flux-system", Name: fmt.Sprintf("controller-%d", i)},
			Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{Containers: []corev1.Container{
				{Name: "proxy", Image: "proxy:v9"}, {Name: "manager", Image: d[0], Args: d[1:]},
			}}}},
		}))
	}
	return out
}

// labelled is a current installation whose deployment has a label.
func labelled(name, value string) *Installation {
	out := installed("v2.9.5", []string{ks + ":v1.9.5"})
	out.Controllers[0].Labels = map[string]string{name: value}
	return out
}

const ks = "ghcr.io/fluxcd/kustomize-controller"

func TestSupported(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, reason string
		flux         *Installation
		words        string // of the refusal; empty when there is none
	}{
		{"current", "its API is the one that is served", installed("v2.9.5", []string{ks + ":v1.9.5"}), ""},
		{"mirrored", "the name of the image counts, not its registry", installed("", []string{"registry.example.com:5000/a/b/kustomize-controller:v1.0.0"}), ""},
		{"tag and digest", "the tag tells", installed("", []string{ks + ":v1.2.0@sha256:0123"}), ""},
		{"digest, and a label", "the distribution's version tells", installed("v2.4.0", []string{ks + "@sha256:0123"}), ""},
		{"digest", "nothing tells", installed("", []string{ks + "@sha256:0123"}), "label it app.kubernetes.io/version=v2.x.y"},
		{"old", "its API is another", installed("v0.41.2", []string{ks + ":v0.35.1"}), "its version is v0.35.1; v1 is supported, of Flux v2; upgrade Flux first"},
		{"next", "nobody knows its API yet", installed("v3.0.0", []string{ks + ":v2.0.0"}), "its version is v2.0.0"},
		{"old source-controller", "it is replaced as well", installed("", []string{ks + ":v1.0.0"}, []string{"source-controller:v0.36.1"}), "Deployment/flux-system/controller-1"},
		{"old helm-controller", "it is replaced as well", installed("", []string{ks + ":v1.0.0"}, []string{"helm-controller:v0.37.0"}), "its version is v0.37.0"},
		{"image controllers", "they are left alone", installed("", []string{ks + ":v1.0.0"}, []string{"image-reflector-controller:v0.37.0"}), ""},
		{"source-watcher", "its first API is of its second major version", installed("", []string{ks + ":v1.9.5"}, []string{"source-watcher:v2.2.4"}), ""},
		{"old source-watcher", "it is replaced as well", installed("", []string{ks + ":v1.9.5"}, []string{"source-watcher:v1.1.0"}), "its version is v1.1.0; v2 is supported"},
		{"source-watcher of one namespace", "the engine serves all", installed("", []string{ks + ":v1.9.5"}, []string{"source-watcher:v2.2.4", "--watch-all-namespaces=false"}), "Deployment/flux-system/controller-1"},
		{"managed by the operator", "it would start the controllers again", labelled("app.kubernetes.io/managed-by", "flux-operator"), "the Flux Operator manages it, and would start it again; remove FluxInstance/flux-system/flux first without its controllers"},
		{"instance of the operator", "its labels may be overlaid", labelled("fluxcd.controlplane.io/name", "main"), "remove FluxInstance/flux-system/main first"},
		{"namespace of the operator", "its labels may be overlaid", labelled("fluxcd.controlplane.io/namespace", "ops"), "remove FluxInstance/ops/flux first"},
		{"managed by something else", "a chart does not heal by itself", labelled("app.kubernetes.io/managed-by", "Helm"), ""},
		{"some objects", "the engine serves all", installed("", []string{ks + ":v1.9.5", "--watch-label-selector=team=a"}), "it serves some objects only (--watch-label-selector=team=a), and Bowline serves all"},
		{"some sources", "the engine serves all", installed("", []string{ks + ":v1.9.5"}, []string{"source-controller:v1.9.5", "--watch-label-selector", "team"}), "--watch-label-selector=team"},
		{"some objects of a shard", "the others are nobody's", installed("", []string{ks + ":v1.9.5", "--watch-label-selector=team=a,sharding.fluxcd.io/key=one"}), "it serves some objects only"},
		{"key that looks like a shard's", "it is another label", installed("", []string{ks + ":v1.9.5", "--watch-label-selector=my.sharding.fluxcd.io/key=one"}), "it serves some objects only"},
		{"selector that cannot be read", "nobody knows what it means", installed("", []string{ks + ":v1.9.5", "--watch-label-selector=sharding.fluxcd.io/key=("}), "it serves some objects only"},
		{"shards", "together they serve all", installed("", []string{ks + ":v1.9.5", "--watch-label-selector=!sharding.fluxcd.io/key"}, []string{ks + ":v1.9.5", "--watch-label-selector=sharding.fluxcd.io/key in (one, two)"}), ""},
		{"no selector", "it chooses nothing", installed("", []string{ks + ":v1.9.5", "--watch-label-selector="}), ""},
		{"one namespace", "the engine serves all", installed("", []string{ks + ":v1.9.5", "--watch-all-namespaces=false"}), "--watch-all-namespaces=false"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			err := row.flux.Supported()
			if row.words == "" && err != nil || row.words != "" && (err == nil || !strings.Contains(err.Error(), row.words)) {
				t.Errorf("the verdict is %v, want %q: %s", err, row.words, row.reason)
			}
			if err != nil && !errors.Is(err, failure.Of(failure.Unsupported)) {
				t.Errorf("%v is of kind %q", err, failure.KindOf(err))
			}
		})
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	one := func(args ...string) *Installation { return installed("", append([]string{ks + ":v1.9.5"}, args...)) }
	open := func(more ...string) map[string]string {
		out := map[string]string{"tenancy": "open", "no-remote-bases": "false"}
		for i := 0; i < len(more); i += 2 {
			out[more[i]] = more[i+1]
		}
		return out
	}
	for _, row := range []struct {
		name, reason string
		flux         *Installation
		want         map[string]string
		words        string // of the refusal
	}{
		{"none", "Flux locks nobody in by itself", one(), open(), ""},
		{"how it runs", "that is the engine's own affair", one("--log-level=debug", "--concurrent=20", "--enable-leader-election"), open(), ""},
		{"locked down", "as the multi-tenancy example does", one("--no-cross-namespace-refs=true", "--no-remote-bases=true", "--default-service-account=default"),
			open("no-cross-namespace-refs", "true", "no-remote-bases", "true", "default-service-account", "default"), ""},
		{"without a value", "a flag alone is set", one("--no-remote-bases"), open("no-remote-bases", "true"), ""},
		{"two words", "so the controller reads it as well", one("--default-service-account", "flux-tenant", "--no-remote-bases"),
			open("default-service-account", "flux-tenant", "no-remote-bases", "true"), ""},
		{"set to what holds anyway", "it says nothing", one("--no-cross-namespace-refs=false", "--default-service-account="), open(), ""},
		{"key of the controller", "it is in the controller's namespace", one("--sops-age-secret=sops"), open("sops-age-secret", "flux-system/sops"), ""},
		{"argument that the engine lacks", "secrets could not be read", one("--override-manager=vaults"), nil, "it runs with --override-manager=vaults, which this version does not do"},
		{"list of the controller", "it is in the controller's namespace", one("--sops-vault-configmap=vaults"), open("sops-vault-configmap", "flux-system/vaults"), ""},
		{"argument of tomorrow", "nobody knows what it means", one("--no-such=1"), nil, "--no-such=1"},
		{"gates that matter not", "they change how, not what", one("--feature-gates=DisableStatusPollerCache=true,CacheSecretsAndConfigMaps=true"), open(), ""},
		{"gate that the engine has", "it is told", one("--feature-gates=AdditiveCELDependencyCheck=true"), open("feature-gates", "AdditiveCELDependencyCheck=true"), ""},
		{"gate that is off", "it says nothing", one("--feature-gates=AdditiveCELDependencyCheck=false"), open(), ""},
		{"gate of tomorrow", "nobody knows what it means", one("--feature-gates=NoSuch=true"), nil, "NoSuch=true"},
		{"lenient variables", "the engine can be told", one("--feature-gates=StrictPostBuildSubstitutions=false"), open("feature-gates", "StrictPostBuildSubstitutions=false"), ""},
		{"before variables were strict", "builds go on as they were", installed("", []string{ks + ":v1.8.2"}), open("feature-gates", "StrictPostBuildSubstitutions=false"), ""},
		{"before that, and strict", "somebody chose so", installed("", []string{ks + ":v1.8.2", "--feature-gates=StrictPostBuildSubstitutions=true"}), open(), ""},
		{"distribution before that", "its minor version is the controller's", installed("v2.7.0", []string{ks + "@sha256:0123"}), open("feature-gates", "StrictPostBuildSubstitutions=false"), ""},
		{"equal shards", "one engine does for all", installed("", []string{ks + ":v1.9.5", "--no-remote-bases"}, []string{ks + ":v1.9.5", "--no-remote-bases=true", "--watch-label-selector=sharding.fluxcd.io/key=one"}),
			open("no-remote-bases", "true"), ""},
		{"shards that differ", "one engine has one set", installed("", []string{ks + ":v1.9.5", "--no-remote-bases"}, []string{ks + ":v1.9.5"}), nil, "make them equal first"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			got, err := row.flux.Settings(func(name string) bool {
				return name == "no-remote-bases" || name == "no-cross-namespace-refs" || name == "default-service-account" || name == "sops-age-secret" || name == "sops-vault-configmap"
			})
			if row.words != "" {
				if err == nil || !strings.Contains(err.Error(), row.words) || !errors.Is(err, failure.Of(failure.Unsupported)) {
					t.Errorf("the verdict is %v, want %q: %s", err, row.words, row.reason)
				}
				return
			}
			if err != nil || !maps.Equal(got, row.want) {
				t.Errorf("got %v (%v), want %v: %s", got, err, row.want, row.reason)
			}
		})
	}
}

// A command line is read as the controllers read theirs, wherever it is written.
func TestArgs(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, reason  string
		command, args []string
		want          map[string]string
	}{
		{"one word", "the value follows the sign", nil, []string{"--default-service-account=a=b"}, map[string]string{"default-service-account": "a=b"}},
		{"two words", "the value is the next word", nil, []string{"--default-service-account", "flux-tenant"}, map[string]string{"default-service-account": "flux-tenant"}},
		{"before another", "a flag is no value", nil, []string{"--some-switch", "--log-level", "debug"}, map[string]string{"some-switch": "true", "log-level": "debug"}},
		{"switch before a word", "a switch takes no word", nil, []string{"--no-remote-bases", "stray", "--watch-all-namespaces"},
			map[string]string{"no-remote-bases": "true", "watch-all-namespaces": "true"}},
		{"alone at the end", "there is no next word", nil, []string{"--some-switch"}, map[string]string{"some-switch": "true"}},
		{"command", "arguments may be part of it", []string{"kustomize-controller", "--default-service-account", "flux-tenant"}, []string{"--no-cross-namespace-refs"},
			map[string]string{"default-service-account": "flux-tenant", "no-cross-namespace-refs": "true"}},
		{"command and arguments", "they are one line", []string{"kustomize-controller", "--default-service-account"}, []string{"flux-tenant"},
			map[string]string{"default-service-account": "flux-tenant"}},
		{"twice", "the last one counts", nil, []string{"--log-level=info", "--log-level", "debug"}, map[string]string{"log-level": "debug"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			c := controllerOf(appsv1.Deployment{Spec: appsv1.DeploymentSpec{Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				Containers: []corev1.Container{{Name: "manager", Image: ks + ":v1.9.5", Command: row.command, Args: row.args}}}}}})
			if !maps.Equal(c.Args, row.want) {
				t.Errorf("read %v, want %v: %s", c.Args, row.want, row.reason)
			}
		})
	}
}

// The helm-controller's arguments have to mean the same as the kustomize-controller's.
func TestSettingsOfBoth(t *testing.T) {
	t.Parallel()
	locked := []string{"--default-service-account=default", "--no-cross-namespace-refs=true"}
	for _, row := range []struct {
		name, reason string
		kustomize    []string
		helm         []string
		words        string // of the refusal
	}{
		{"none", "both deliver with their own rights", nil, nil, ""},
		{"both locked down", "one engine does the same", locked, locked, ""},
		{"how it runs", "that is the engine's own affair", nil, []string{"--concurrent=10", "--oom-watch-interval=1s", "--feature-gates=OOMWatch=true"}, ""},
		{"only one locked down", "the other's tenants would change", locked, nil, `--default-service-account is "" and "default" for the kustomize-controller`},
		{"only Helm locked down", "Kustomizations would be locked in", nil, []string{"--no-cross-namespace-refs=true"}, `--no-cross-namespace-refs is "true" and ""`},
		{"set to what holds anyway", "it says nothing", nil, []string{"--no-cross-namespace-refs=false", "--feature-gates=UseHelm3Defaults=false"}, ""},
		{"gate that changes what is done", "the engine cannot be told", nil, []string{"--feature-gates=DetectDrift=true"}, "it runs with --feature-gates=DetectDrift=true"},
		{"argument of tomorrow", "nobody knows what it means", nil, []string{"--no-such=1"}, "it runs with --no-such=1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			i := installed("", append([]string{ks + ":v1.9.5"}, row.kustomize...), append([]string{"helm-controller:v1.6.4"}, row.helm...))
			_, err := i.Settings(func(name string) bool { return !strings.Contains(name, "such") })
			if row.words == "" && err != nil || row.words != "" && (err == nil || !strings.Contains(err.Error(), row.words)) {
				t.Errorf("the verdict is %v, want %q: %s", err, row.words, row.reason)
			}
		})
	}
}

// Who uses sources is stopped before who fetches them; nobody else is stopped.
func TestReplaced(t *testing.T) {
	t.Parallel()
	i := installed("", []string{"source-controller:v1.0.0"}, []string{"helm-controller:v1.0.0"}, []string{ks + ":v1.0.0"},
		[]string{"source-watcher:v2.0.0"}, []string{ks + ":v1.0.0"})
	var got []string
	for _, c := range i.Replaced() {
		got = append(got, c.Role)
	}
	if want := "kustomize-controller kustomize-controller helm-controller source-watcher source-controller"; strings.Join(got, " ") != want {
		t.Errorf("stopped are %v, want %s", got, want)
	}
}

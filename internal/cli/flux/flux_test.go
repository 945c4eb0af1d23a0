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
		{"old helm-controller", "it is left alone", installed("", []string{ks + ":v1.0.0"}, []string{"helm-controller:v0.37.0"}), ""},
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
		{"equal shards", "one engine does for all", installed("", []string{ks + ":v1.9.5", "--no-remote-bases"}, []string{ks + ":v1.9.5", "--no-remote-bases=true", "--watch-label-selector=a=b"}),
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

// Who uses sources is stopped before who fetches them; nobody else is stopped.
func TestReplaced(t *testing.T) {
	t.Parallel()
	i := installed("", []string{"source-controller:v1.0.0"}, []string{"helm-controller:v1.0.0"}, []string{ks + ":v1.0.0"},
		[]string{"source-watcher:v2.0.0"}, []string{ks + ":v1.0.0"})
	var got []string
	for _, c := range i.Replaced() {
		got = append(got, c.Role)
	}
	if want := "kustomize-controller kustomize-controller source-watcher source-controller"; strings.Join(got, " ") != want {
		t.Errorf("stopped are %v, want %s", got, want)
	}
}

package controller

import (
	"fmt"
	"testing"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/charttest"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
)

// A repository of add-ons and an application, composed of artifacts and released from charts in
// registries and a Helm repository, as its authors wrote it, converges on an engine of open
// tenancy, as the fleet has it: the addresses on public hosts lead to loopback by mirrors, where charts of
// the names, versions and values that the fleet gives them take the place of the authors'.
func TestFleetOfCharts(t *testing.T) {
	t.Parallel()
	dir := fleet(t, "kustomize-helm-example")
	for cluster, want := range map[string]struct{ podinfo, acme string }{
		"production": {"6.8.0", "https://acme-v02.api.letsencrypt.org/directory"},
		"staging":    {"6.9.0-rc.1", "https://acme-staging-v02.api.letsencrypt.org/directory"}, // takes versions before a release
	} {
		t.Run(cluster, func(t *testing.T) {
			t.Parallel()
			s, revision := chartsStage(t, dir)
			s.unit("flux-system", func(k *kustomizev1.Kustomization) {
				k.Spec.Path, k.Spec.TargetNamespace, k.Spec.SourceRef.Name = "./clusters/"+cluster, "", "flux-system"
			})
			s.awaitLive("flux-system", revision)
			for _, name := range []string{"infra-controllers", "infra-configs", "apps"} {
				s.awaitUnit(name, "ready", ready)
			}
			s.releasedIn("cert-manager", "cert-manager", "1.19.2")
			s.releasedIn("envoy-gateway-system", "envoy-gateway", "1.8.0-rc.2")
			s.releasedIn("podinfo", "podinfo", want.podinfo)
			if got := s.fieldOf("cert-manager.io", "v1", "ClusterIssuer", "", "letsencrypt", "spec", "acme", "server"); got != want.acme {
				t.Errorf("the server of the issuer is %q, want %q: a patch of this cluster", got, want.acme)
			}
			if got, want := s.fieldOf("gateway.networking.k8s.io", "v1", "HTTPRoute", "podinfo", "podinfo", "metadata", "annotations", "host"), "podinfo."+cluster; got != want {
				t.Errorf("the route is for %q, want %q: values of this cluster over those of the base", got, want)
			}
			redis := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "podinfo-redis", Namespace: "podinfo"}}
			s.read(redis)
			if got, want := redis.Spec.Template.Spec.Containers[0].Image, "public.ecr.aws/docker/library/redis:8.6.2"; got != want {
				t.Errorf("the image is %s, want %s: values of the base", got, want)
			}
		})
	}
}

// chartsStage is a cluster of its own, as it is after the bootstrap, with stand-ins for the
// places that the charts are published at.
func chartsStage(t *testing.T, dir string) (s *stage, revision string) {
	t.Helper()
	const address = "https://github.com/fluxcd/flux2-kustomize-helm-example"
	cluster := testkit.Start(t, testkit.WithControllers())
	server := testkit.NewGitServer(t)
	repo := server.Repo("fleet")
	reg := ocitest.NewRegistry(t)
	for _, version := range []string{"0.9.0", "1.18.0", "1.19.2", "2.0.0"} {
		reg.PushChart("jetstack/charts/cert-manager", standInCertManager(version).Archive(t))
	}
	for _, version := range []string{"1.7.9", "1.8.0-rc.2"} {
		reg.PushChart("envoyproxy/gateway-helm", standInGateway(version).Archive(t))
	}
	charts := charttest.NewServer(t, []testkit.Chart{standInPodinfo("6.7.1"), standInPodinfo("6.8.0"), standInPodinfo("6.9.0-rc.1")})
	engine := engineFor(t, cluster.Config, func(o *Options) {
		o.Tenancy = Tenancy{Open: true}
		o.Mirrors = []string{
			address + "=" + repo.URL(), "oci://quay.io/=http://" + reg.Host() + "/", "oci://docker.io/=http://" + reg.Host() + "/",
			"https://stefanprodan.github.io/podinfo=" + charts.URL(),
		}
	})
	s = stageOn(t, cluster.Config)
	s.engine, s.git, s.repo, s.namespace = engine, server, repo, "flux-system"
	s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}})
	revision = "main@sha1:" + repo.CommitDir(dir)
	s.source(func(g *sourcev1.GitRepository) { g.Name, g.Spec.URL = "flux-system", address })
	return s, revision
}

// releasedIn waits until a HelmRelease is ready, at a version of its chart.
func (s *stage) releasedIn(namespace, name, version string) {
	s.Helper()
	there := *s
	there.namespace = namespace
	h := there.awaitRelease(name, "ready", func(h *helmv2.HelmRelease) bool { return report.IsReady(h, h.Generation) })
	latest := h.Status.History.Latest()
	// A chart in a registry is told from another of its version by its digest.
	if latest == nil || latest.ChartVersion != version && len(latest.ChartVersion) != len(version)+len("+0123456789ab") {
		s.Errorf("%s/%s is released as %+v, want version %s", namespace, name, latest, version)
	}
}

// fieldOf reads one text of an object of any kind.
func (s *stage) fieldOf(group, version, kind, namespace, name string, path ...string) string {
	s.Helper()
	u := &unstructured.Unstructured{}
	u.SetAPIVersion(group + "/" + version)
	u.SetKind(kind)
	u.SetNamespace(namespace)
	u.SetName(name)
	s.read(u)
	text, _, err := unstructured.NestedString(u.Object, path...)
	if err != nil {
		s.Fatal(err)
	}
	return text
}

// standInDefinition is one that takes anything.
func standInDefinition(group, kind, plural, scope string) string {
	return fmt.Sprintf(`apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: %[3]s.%[1]s
  annotations: {api-approved.kubernetes.io: "unapproved, a stand-in"}
spec:
  group: %[1]s
  names: {kind: %[2]s, plural: %[3]s, listKind: %[2]sList}
  scope: %[4]s
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
`, group, kind, plural, scope)
}

// standInDeployment is a template of one with the name of the release and a suffix.
func standInDeployment(suffix, image string) string {
	return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .Release.Name }}%[1]s
  labels: {helm.sh/chart: "{{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}"}
spec:
  selector: {matchLabels: {app: "{{ .Release.Name }}%[1]s"}}
  template:
    metadata: {labels: {app: "{{ .Release.Name }}%[1]s"}}
    spec: {containers: [{name: main, image: %[2]s}]}
`, suffix, image)
}

func standInJob(name, hook string) string {
	return fmt.Sprintf(`apiVersion: batch/v1
kind: Job
metadata:
  name: "{{ .Release.Name }}-%s"
  annotations: {helm.sh/hook: "%s", helm.sh/hook-delete-policy: "before-hook-creation,hook-succeeded"}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: main, image: "registry.example/job:1"}]}}}
`, name, hook)
}

// standInCertManager makes its definitions in a template, if values say so.
func standInCertManager(version string) testkit.Chart {
	return testkit.Chart{Name: "cert-manager", Version: version, Files: map[string]string{
		"values.yaml":               "crds: {enabled: false, keep: true}\nconfig: {}\n",
		"values.schema.json":        `{"type": "object", "properties": {"crds": {"type": "object", "additionalProperties": {"type": "boolean"}}}}`,
		"templates/crds.yaml":       "{{ if .Values.crds.enabled }}\n" + standInDefinition("cert-manager.io", "ClusterIssuer", "clusterissuers", "Cluster") + "{{ end }}\n",
		"templates/deployment.yaml": standInDeployment("", `"registry.example/cert-manager:{{ .Chart.Version }}"`),
		"templates/config.yaml": "{{ if not .Values.config.enableGatewayAPI }}{{ fail \"values of the fleet are missing\" }}{{ end }}\n" +
			"apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cert-manager}\ndata: {config.yaml: {{ .Values.config | toYaml | quote }}}\n",
		"templates/startup.yaml": standInJob("startupapicheck", "post-install"),
	}}
}

// standInGateway has its definitions in the folder for them, and makes certificates before all else.
func standInGateway(version string) testkit.Chart {
	const group = "gateway.networking.k8s.io"
	return testkit.Chart{Name: "gateway-helm", Version: version, Files: map[string]string{
		"crds/gatewayapi.yaml": standInDefinition(group, "GatewayClass", "gatewayclasses", "Cluster") + "---\n" +
			standInDefinition(group, "Gateway", "gateways", "Namespaced") + "---\n" + standInDefinition(group, "HTTPRoute", "httproutes", "Namespaced"),
		"templates/certgen.yaml":    standInJob("certgen", "pre-install,pre-upgrade"),
		"templates/deployment.yaml": standInDeployment("", "registry.example/gateway:1"),
	}}
}

// standInPodinfo has a route, a cache and a test, each if values say so.
func standInPodinfo(version string) testkit.Chart {
	return testkit.Chart{Name: "podinfo", Version: version, Files: map[string]string{
		"values.yaml":               "redis: {enabled: false}\nhttpRoute: {enabled: false}\n",
		"templates/deployment.yaml": standInDeployment("", `"registry.example/podinfo:{{ .Chart.Version }}"`),
		"templates/redis.yaml":      "{{ with .Values.redis }}{{ if .enabled }}\n{{ $image := printf \"%s:%s\" .repository .tag }}\n{{ with $ }}\n" + standInDeployment("-redis", `"{{ $image }}"`) + "{{ end }}{{ end }}{{ end }}\n",
		"templates/route.yaml": "{{ if .Values.httpRoute.enabled }}\n{{ if not (.Capabilities.APIVersions.Has \"gateway.networking.k8s.io/v1\") }}{{ fail \"the cluster has no routes\" }}{{ end }}\n" +
			"apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: {{ .Release.Name }}\n  annotations: {host: {{ index .Values.httpRoute.hostnames 0 }}}\n" +
			"spec:\n  parentRefs: {{- toYaml .Values.httpRoute.parentRefs | nindent 4 }}\n  rules: {{- toYaml .Values.httpRoute.rules | nindent 4 }}\n{{ end }}\n",
		"templates/test.yaml": standInJob("test", "test-success"),
	}}
}

package controller

import (
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	localv1 "github.com/bowline-dev/bowline/api/local/v1alpha1"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// One hub serves all: a management cluster has one manager of Cluster API. What stops the engine comes last.
func TestProvision(t *testing.T) {
	t.Parallel()
	h := newFleetHub(t)
	text, err := os.ReadFile(filepath.Join("..", "..", "templates", "local", "template.yaml"))
	h.must(err)
	h.template(text)
	clusterAPIArrives(t, h)
	t.Run("cases", func(t *testing.T) { // ends before the hub does
		for name, test := range map[string]func(*fleetHub){
			"parameters": wrongParameters, "nothing": nothingRendered, "template": templateComesAndChanges,
			"never ready": neverReady, "refused": refusedByWebhook, "kubeconfig": kubeconfigOfACluster, "join": joinsByItself, "taken": nameTaken,
			"another way": comesInAnotherWay, "suspended": suspendedIsLeft, "account": inTheNameOfAnAccount,
		} {
			t.Run(name, func(t *testing.T) { t.Parallel(); test(h.of(t)) })
		}
	})
	t.Run("life", func(t *testing.T) {
		life := h.of(t)
		lifeOfACluster(life)
		h.engine = life.engine
	})
}

// A cluster is made from its template, by hubs that are killed on the way, and deleted wholly, by a hub that is killed
// on the way as well.
func lifeOfACluster(h *fleetHub) {
	h.must(h.engine.stop())
	c := h.cluster("edge", "local", `{"nodeGroups": [{"name": "md", "size": 1}]}`)
	made := map[string]types.UID{}
	for _, at := range []moment{
		{"its unit is written", func() bool { return h.there(h.unit(c)) }},
		{"the Cluster is delivered", func() bool {
			return h.there(&clusterv1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name}})
		}},
		{"the control plane is started", func() bool { return len(h.planesOf("-edge-")) == 1 }},
		{"the control plane is initialized", func() bool {
			of := &clusterv1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name}}
			return h.there(of) && of.Status.Initialization.ControlPlaneInitialized != nil && *of.Status.Initialization.ControlPlaneInitialized
		}},
	} {
		h.killed(at)
		h.sameAsBefore(made, c)
	}
	h.start()
	h.says(c, fleetv1.RenderedCondition, fleetv1.RenderedReason, "6 objects")
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.ProvisionedReason)
	h.must(wait.PollUntilContextTimeout(h.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := h.Get(ctx, client.ObjectKeyFromObject(c), c) // Cluster API takes it over a moment later
		return strings.HasPrefix(c.Status.Endpoint, "https://127.0.0.1:"), err
	}))
	if s := c.Status; s.Provider != localv1.LocalClusterKind || !strings.HasPrefix(s.KubernetesVersion, "v1.") {
		h.Errorf("it says provider %q, version %q", s.Provider, s.KubernetesVersion)
	}
	h.sameAsBefore(made, c)
	if len(made) != 3 || len(h.planesOf("-edge-")) != 1 {
		h.Errorf("there are %d of its objects, and %d control planes", len(made), len(h.planesOf("-edge-")))
	}

	// What is wrong now takes nothing away.
	h.parameters(c, `{"nodeGroups": "many"}`)
	h.says(c, fleetv1.RenderedCondition, fleetv1.InvalidParametersReason)
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.ProvisionedReason)
	h.must(h.Get(h.Context(), client.ObjectKeyFromObject(h.unit(c)), h.unit(c)))
	h.stillHealed(c)
	h.poolIsKept(c)

	// One that is suspended is not healed either.
	h.change(c, func() { c.Spec.Suspend = true })
	k := h.unit(c)
	h.must(wait.PollUntilContextTimeout(h.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := h.Get(ctx, client.ObjectKeyFromObject(k), k)
		return k.Spec.Suspend, err
	}))
	h.change(c, func() { c.Spec.Suspend = false })

	h.must(h.engine.stop())
	h.must(h.Delete(h.Context(), c))
	h.killed(moment{"its Cluster is being deleted", func() bool {
		of := &clusterv1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name}}
		return !h.there(of) || of.DeletionTimestamp != nil
	}})
	h.start()
	h.gone(c)
	h.nothingLeft(c)
}

// stillHealed: a hub that is started while the parameters are wrong heals what they became when they were right.
func (h *fleetHub) stillHealed(c *fleetv1.FleetCluster) {
	h.Helper()
	h.must(h.engine.stop())
	md := &clusterv1.MachineDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name + "-md"}}
	h.must(h.Get(h.Context(), client.ObjectKeyFromObject(md), md))
	md.Spec.Replicas = new(int32)
	h.must(h.Update(h.Context(), md, client.FieldOwner("somebody")))
	h.start()
	err := wait.PollUntilContextTimeout(h.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := h.Get(ctx, client.ObjectKeyFromObject(md), md)
		return err == nil && *md.Spec.Replicas == 1, err
	})
	if err != nil {
		h.Fatalf("not healed: %v; it has %d replicas\n%s", err, *md.Spec.Replicas, h.engine.log.about(c.Name))
	}
	h.says(c, fleetv1.RenderedCondition, fleetv1.InvalidParametersReason)
}

// poolIsKept: a pool of machines under another name is a new pool, and the old one, with its nodes, goes when somebody says so.
func (h *fleetHub) poolIsKept(c *fleetv1.FleetCluster) {
	h.Helper()
	h.parameters(c, `{"nodeGroups": [{"name": "next", "size": 1}]}`)
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.ProvisionedReason, "cluster-edge", "MachineDeployment/default/edge-md needs approval", "bowline approve kustomization cluster-edge")
	for _, name := range []string{"-md", "-next"} {
		md := &clusterv1.MachineDeployment{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name + name}}
		if !h.there(md) || md.DeletionTimestamp != nil {
			h.Errorf("MachineDeployment %s%s is gone", c.Name, name)
		}
	}
}

// moment is when a hub is killed.
type moment struct {
	name string
	is   func() bool
}

// killed has a process serve as the hub until a moment has come, and kills it then.
func (h *fleetHub) killed(at moment) {
	h.Helper()
	process := startChild(h, h.instance.Kubeconfig, h.data)
	defer process.kill(h)
	err := wait.PollUntilContextTimeout(h.Context(), 5*time.Millisecond, provisioning, true, func(context.Context) (bool, error) { return at.is(), nil })
	if err != nil {
		h.Fatalf("not until %s: %v\n%s", at.name, err, process.output.about(""))
	}
}

// there reports whether there is an object, and reads it.
func (h *fleetHub) there(o client.Object) bool {
	h.Helper()
	err := h.Get(h.Context(), client.ObjectKeyFromObject(o), o)
	h.must(client.IgnoreNotFound(err))
	return err == nil
}

// sameAsBefore notes what there is of a cluster, and fails the test where something that was there is gone or was made anew.
func (h *fleetHub) sameAsBefore(made map[string]types.UID, c *fleetv1.FleetCluster) {
	h.Helper()
	at := metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name}
	for kind, o := range map[string]client.Object{"Cluster": &clusterv1.Cluster{ObjectMeta: at},
		"LocalControlPlane": &localv1.LocalControlPlane{ObjectMeta: at}, "LocalCluster": &localv1.LocalCluster{ObjectMeta: at}} {
		before, known := made[kind]
		switch there := h.there(o); {
		case known && o.GetUID() != before:
			h.Errorf("%s %s is another one than before, or gone", kind, c.Name)
		case there:
			made[kind] = o.GetUID()
		}
	}
}

// nothingLeft says what there still is of a cluster.
func (h *fleetHub) nothingLeft(c *fleetv1.FleetCluster) {
	h.Helper()
	at := func(suffix string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name + suffix}
	}
	h.gone(&clusterv1.Cluster{ObjectMeta: at("")})
	h.gone(&localv1.LocalCluster{ObjectMeta: at("")})
	h.gone(&localv1.LocalControlPlane{ObjectMeta: at("")})
	h.gone(&clusterv1.MachineDeployment{ObjectMeta: at("-md")})
	h.gone(&corev1.Secret{ObjectMeta: at("-kubeconfig")})
	h.gone(h.unit(c))
	h.gone(&sourcev1.ExternalArtifact{ObjectMeta: h.unit(c).ObjectMeta})
	err := wait.PollUntilContextTimeout(h.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		var left localv1.LocalMachineTemplateList // whose Cluster owns them: the garbage collector takes them
		err := h.List(ctx, &left, client.InNamespace(c.Namespace), client.MatchingLabels{kustomizev1.GroupVersion.Group + "/name": h.unit(c).Name})
		return len(left.Items) == 0, err
	})
	if err != nil {
		h.Errorf("machine templates are left: %v", err)
	}
	if left := h.planesOf("-" + c.Name + "-"); len(left) > 0 {
		h.Errorf("control plane %s is left", left[0].Name)
	}
}

func wrongParameters(h *fleetHub) {
	c := h.cluster("typo", "local", `{"nodeGroups": "many"}`)
	h.says(c, fleetv1.RenderedCondition, fleetv1.InvalidParametersReason, "spec.template.parameters.nodeGroups", "ClusterTemplate/default/local")
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.ProvisioningReason, "nothing was delivered yet")
	h.must(h.Delete(h.Context(), c))
	h.gone(c)
}

func nothingRendered(h *fleetHub) {
	h.template([]byte(`{"apiVersion": "fleet.bowline.dev/v1alpha1", "kind": "ClusterTemplate", "metadata": {"name": "empty"}, "spec": {"objects": [
		{"when": "false", "template": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}}}]}}`))
	c := h.cluster("hollow", "empty", "{}")
	h.says(c, fleetv1.RenderedCondition, fleetv1.NothingRenderedReason, "every object is left out")
}

// templateOf is one that makes a Cluster with that as its infrastructure, and more objects.
func templateOf(name, infrastructure, more string) []byte {
	return fmt.Appendf(nil, `{"apiVersion": "fleet.bowline.dev/v1alpha1", "kind": "ClusterTemplate", "metadata": {"name": %q}, "spec": {"objects": [
		{"template": {"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "Cluster", "metadata": {"name": "${cluster.name}"}, "spec": {
			"infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": %q, "name": "${cluster.name}"},
			"controlPlaneRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalControlPlane", "name": "${cluster.name}"}}}}%s]}}`, name, infrastructure, more)
}

func templateComesAndChanges(h *fleetHub) {
	c := h.cluster("early", "late", "{}")
	h.says(c, fleetv1.RenderedCondition, fleetv1.TemplateNotFoundReason, "ClusterTemplate/default/late", "spec.template.name")
	of := h.template([]byte(`{"apiVersion": "fleet.bowline.dev/v1alpha1", "kind": "ClusterTemplate", "metadata": {"name": "late"}, "spec": {"objects": [
		{"template": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "${cluster.name}"}}}]}}`))
	h.says(c, fleetv1.RenderedCondition, fleetv1.RenderedReason, "1 object")
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.ProvisioningFailedReason, "the template makes no Cluster", "${cluster.name}")
	made := &corev1.ConfigMap{}
	h.must(wait.PollUntilContextTimeout(h.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := h.Get(ctx, client.ObjectKeyFromObject(c), made)
		return err == nil, client.IgnoreNotFound(err)
	}))

	before := of.DeepCopy()
	of.Spec.Objects = append(of.Spec.Objects, fleetv1.TemplateObject{Template: apiextensionsv1.JSON{
		Raw: []byte(`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "${cluster.name}-too"}}`)}})
	h.must(h.Patch(h.Context(), of, client.MergeFrom(before)))
	h.says(c, fleetv1.RenderedCondition, fleetv1.RenderedReason, "2 objects")

	h.must(h.Delete(h.Context(), of))
	h.says(c, fleetv1.RenderedCondition, fleetv1.TemplateNotFoundReason)
	h.must(h.Get(h.Context(), client.ObjectKeyFromObject(c), made))

	h.must(h.Delete(h.Context(), c))
	h.gone(c)
	h.gone(made)
}

// clusterAPIArrives: what waited for Cluster API goes on when it is installed, and then lacks a provider.
func clusterAPIArrives(t *testing.T, h *fleetHub) {
	t.Helper()
	h.template(templateOf("acme", "AcmeCluster", ""))
	c := h.cluster("nowhere", "acme", "{}")
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.ProvisioningFailedReason, "install Cluster API")
	testkit.NewClusterAPI(t, h.instance.Kubeconfig)
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.ProvisioningFailedReason, "AcmeCluster nowhere", "does not serve the kind AcmeCluster of infrastructure.cluster.x-k8s.io; install the provider")
	if c.Status.Provider != "AcmeCluster" {
		h.Errorf("the provider is %q", c.Status.Provider)
	}
}

// neverReady: the infrastructure waits for the control plane, which says why there is none.
func neverReady(h *fleetHub) {
	c := h.cluster("odd", "local", `{"version": "v1.12.0", "nodeGroups": []}`)
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.ProvisioningReason, "LocalControlPlane odd", localv1.VersionUnavailableReason, "use v1.36 or v1.35")
	h.must(h.Delete(h.Context(), c))
	h.gone(c)
}

func refusedByWebhook(h *fleetHub) {
	h.template(templateOf("refused", "LocalCluster", `, {"template": {"apiVersion": "cluster.x-k8s.io/v1beta2", "kind": "MachineDeployment", "metadata": {"name": "${cluster.name}"}, "spec": {
		"clusterName": "${cluster.name}", "replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"c": "d"}}, "spec": {
			"clusterName": "${cluster.name}", "bootstrap": {"dataSecretName": "x"},
			"infrastructureRef": {"apiGroup": "infrastructure.cluster.x-k8s.io", "kind": "LocalMachineTemplate", "name": "x"}}}}}}`))
	c := h.cluster("wrong", "refused", "{}")
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.ProvisioningFailedReason, "Kustomization cluster-wrong", "MachineDeployment", "spec.template.metadata.labels")
}

func joinsByItself(h *fleetHub) {
	c := &fleetv1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Name: "field"}, Spec: fleetv1.FleetClusterSpec{Join: &fleetv1.JoinSpec{}}}
	h.make(c)
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.NothingToProvisionReason, "joins by itself")
}

// nameTaken: a Kustomization that is somebody else's is left alone.
func nameTaken(h *fleetHub) {
	k := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: "cluster-taken"}, Spec: kustomizev1.KustomizationSpec{
		Suspend: true, Interval: metav1.Duration{Duration: never}, SourceRef: kustomizev1.CrossNamespaceSourceReference{Kind: sourcev1.GitRepositoryKind, Name: "x"}}}
	h.make(k)
	c := h.cluster("taken", "local", `{"nodeGroups": []}`)
	h.says(c, fleetv1.RenderedCondition, fleetv1.RenderFailedReason, "Kustomization default/cluster-taken", "belongs to somebody else")
	h.must(h.Delete(h.Context(), c))
	h.gone(c)
	h.must(h.Get(h.Context(), client.ObjectKeyFromObject(k), k))
}

// kubeconfigOfACluster: one that works, one that is refused, one that leads nowhere, and one that comes back.
func kubeconfigOfACluster(h *fleetHub) {
	c := &fleetv1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Name: "existing"}, Spec: fleetv1.FleetClusterSpec{
		KubeConfig: &fleetv1.KubeConfigReference{SecretRef: meta.SecretKeyReference{Name: "existing"}}}}
	h.make(c)
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.KubeConfigInvalidReason, "Secret default/existing", "create it, or correct spec.kubeConfig.secretRef")

	other := testkit.Start(h)
	good, err := os.ReadFile(other.Kubeconfig)
	h.must(err)
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "existing"}, Data: map[string][]byte{"value": good}}
	h.make(s)
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.ProvisionedReason, "the API server answers")
	if c.Status.Endpoint != other.Config.Host || !strings.HasPrefix(c.Status.KubernetesVersion, "v1.") {
		h.Errorf("it says endpoint %q and version %q", c.Status.Endpoint, c.Status.KubernetesVersion)
	}

	put := func(text []byte) {
		s.Data = map[string][]byte{"value": text}
		h.must(h.Update(h.Context(), s))
	}
	const token = "a-token-that-nobody-may-see"
	put(fmt.Appendf(nil, `{"apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
		"clusters": [{"name": "c", "cluster": {"server": %q, "certificate-authority-data": %q}}], "users": [{"name": "u", "user": {"token": %q}}]}`,
		other.Config.Host, base64.StdEncoding.EncodeToString(other.Config.CAData), token))
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.KubeConfigInvalidReason, "refuses the kubeconfig")
	if m := apimeta.FindStatusCondition(c.Status.Conditions, fleetv1.ProvisionedCondition).Message; strings.Contains(m, token) {
		h.Errorf("%q tells the token", m)
	}
	put([]byte(strings.ReplaceAll(string(good), other.Config.Host, "https://127.0.0.1:1")))
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.UnreachableReason, "https://127.0.0.1:1 does not answer", "refused")
	put(good)
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.ProvisionedReason)
	other.Stop() // of which no event tells
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.UnreachableReason)
	h.change(c, func() { c.Annotations = map[string]string{fleetv1.LostAnnotation: "true"} }) // nobody waits for it
	h.must(h.Delete(h.Context(), c))
	h.gone(c)
}

// oneMap is a template of one ConfigMap with the name of the cluster.
func oneMap(name string) []byte {
	return fmt.Appendf(nil, `{"apiVersion": "fleet.bowline.dev/v1alpha1", "kind": "ClusterTemplate", "metadata": {"name": %q}, "spec": {"objects": [
		{"template": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "${cluster.name}"}}}]}}`, name)
}

// appears waits until an object is there.
func (h *fleetHub) appears(o client.Object) {
	h.Helper()
	key := client.ObjectKeyFromObject(o)
	err := wait.PollUntilContextTimeout(h.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := h.Get(ctx, key, o)
		return err == nil, client.IgnoreNotFound(err)
	})
	if err != nil {
		h.Fatalf("%T %s is not there: %v", o, key, err)
	}
}

func mapOf(c *fleetv1.FleetCluster) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: c.Name}}
}

// comesInAnotherWay: a cluster that has a template no longer keeps what was made from it.
func comesInAnotherWay(h *fleetHub) {
	h.template(oneMap("before"))
	c := h.cluster("adopted", "before", "{}")
	h.appears(mapOf(c))
	h.change(c, func() { c.Spec.Template, c.Spec.Join = nil, &fleetv1.JoinSpec{} })
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.NothingToProvisionReason)
	h.gone(h.unit(c))
	h.must(h.Get(h.Context(), client.ObjectKeyFromObject(c), mapOf(c)))
	h.must(h.Get(h.Context(), client.ObjectKeyFromObject(c), c))
	if apimeta.FindStatusCondition(c.Status.Conditions, fleetv1.RenderedCondition) != nil {
		h.Errorf("it still says what became of a template: %+v", c.Status.Conditions)
	}
	h.must(h.Delete(h.Context(), c))
	h.gone(c)
}

// suspendedIsLeft: what was made for a cluster that is suspended is not healed, and stays when it is deleted.
func suspendedIsLeft(h *fleetHub) {
	h.template(oneMap("plain"))
	c := h.cluster("asleep", "plain", "{}")
	h.appears(mapOf(c))
	h.change(c, func() { c.Spec.Suspend = true })
	k := h.unit(c)
	h.must(wait.PollUntilContextTimeout(h.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := h.Get(ctx, client.ObjectKeyFromObject(k), k)
		return k.Spec.Suspend, err
	}))
	h.must(h.Delete(h.Context(), c))
	h.gone(c)
	h.gone(k)
	h.must(h.Get(h.Context(), client.ObjectKeyFromObject(c), mapOf(c)))
}

// inTheNameOfAnAccount: a template's objects are delivered with the rights of the account that the cluster names.
func inTheNameOfAnAccount(h *fleetHub) {
	h.make(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "clusters"}})
	c := &fleetv1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Name: "modest"}, Spec: fleetv1.FleetClusterSpec{
		Template: &fleetv1.TemplateReference{Name: "local", ServiceAccountName: "clusters"}}}
	h.make(c)
	h.says(c, fleetv1.ProvisionedCondition, fleetv1.ProvisioningFailedReason, "Kustomization cluster-modest", "system:serviceaccount:default:clusters")
	h.must(h.Delete(h.Context(), c))
	h.gone(c)
}

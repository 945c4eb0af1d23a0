package localprovider_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	"sigs.k8s.io/cluster-api/util/kubeconfig"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	localv1 "github.com/bowline-dev/bowline/api/local/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/fleet/localprovider"
	"github.com/bowline-dev/bowline/internal/fleet/template"
	"github.com/bowline-dev/bowline/internal/localkube"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// patience is for everything that takes other processes: the machine may be busy.
const patience = 2 * time.Minute

// hub is a management cluster with Cluster API's own manager and the provider.
type hub struct {
	testing.TB
	client.Client
	namespace string
	planes    localprovider.Embedded
}

func newHub(t *testing.T) *hub {
	t.Helper()
	cfg := testkit.Cluster(t)
	local, err := crds.Local()
	if err == nil {
		err = crds.Install(t.Context(), cfg, local)
	}
	if err != nil {
		t.Fatal(err)
	}
	testkit.NewClusterAPI(t, testkit.Kubeconfig(t))
	root, err := os.MkdirTemp("", "bowline-local-") //nolint:usetesting // the path of t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	if err := localprovider.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{TB: t, Client: c, namespace: testkit.Namespace(t), planes: localprovider.Embedded{Executable: testkit.Localkube(t), Root: root, Unsynced: true}}
	t.Cleanup(func() { h.deletePlanes(); _ = os.RemoveAll(root) })
	h.run(cfg, scheme)
	return h
}

// run runs the provider until the test ends.
func (h *hub) run(cfg *rest.Config, scheme *runtime.Scheme) {
	h.Helper()
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{Scheme: scheme, Logger: logr.Discard(), Metrics: server.Options{BindAddress: "0"}})
	if err == nil {
		err = localprovider.Register(mgr, h.planes)
	}
	if err != nil {
		h.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(h.Context()))
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	h.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			h.Errorf("the provider ended: %v", err)
		}
	})
}

// planesOf returns the control planes on disk whose names hold a word.
func (h *hub) planesOf(word string) (all []localkube.ControlPlane) {
	entries, _ := os.ReadDir(h.planes.Root)
	for _, entry := range entries {
		p := localkube.ControlPlane{Executable: h.planes.Executable, Root: h.planes.Root, Name: entry.Name()}
		if strings.Contains(p.Name, word) && p.Exists() {
			all = append(all, p)
		}
	}
	return all
}

// deletePlanes ends what a failed test left.
func (h *hub) deletePlanes() {
	for _, p := range h.planesOf("") {
		if err := p.Delete(context.WithoutCancel(h.Context())); err != nil {
			h.Error(err)
		}
	}
}

// until waits until an object says what it is to say.
func until[T client.Object](h *hub, c client.Reader, object T, what string, is func() bool) {
	h.Helper()
	key := client.ObjectKeyFromObject(object)
	err := wait.PollUntilContextTimeout(h.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := c.Get(ctx, key, object)
		return err == nil && is(), client.IgnoreNotFound(err)
	})
	if err != nil {
		h.Fatalf("%s: not %s: %v; it is %+v", key, what, err, object)
	}
	h.Logf("%s: %s", key.Name, what)
}

func (h *hub) untilGone(object client.Object) {
	h.Helper()
	key := client.ObjectKeyFromObject(object)
	err := wait.PollUntilContextTimeout(h.Context(), 50*time.Millisecond, patience, true, func(ctx context.Context) (bool, error) {
		err := h.Get(ctx, key, object)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
	if err != nil {
		h.Fatalf("%s is still there: %v; %+v", key, err, object)
	}
}

// declare makes a cluster with workers from the template that ships.
func (h *hub) declare(name, version string, workers int32) (*clusterv1.Cluster, *clusterv1.MachineDeployment) {
	h.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "templates", "local", "template.yaml"))
	if err != nil {
		h.Fatal(err)
	}
	of := &fleetv1.ClusterTemplate{}
	if err := yaml.UnmarshalStrict(text, of); err != nil {
		h.Fatal(err)
	}
	parameters := fmt.Sprintf(`{"nodeGroups": [{"name": "md", "size": %d, "zone": "a"}]`, workers)
	if version != "" {
		parameters += fmt.Sprintf(`, "version": %q`, version)
	}
	cluster := &fleetv1.FleetCluster{
		ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: name, Labels: map[string]string{"environment": "test"}},
		Spec: fleetv1.FleetClusterSpec{Template: &fleetv1.TemplateReference{
			Name: of.Name, Parameters: &apiextensionsv1.JSON{Raw: []byte(parameters + "}")}}},
	}
	objects, err := template.NewCompiler().Render(h.Context(), of, cluster)
	if err != nil {
		h.Fatal(err)
	}
	for _, o := range objects {
		if err := h.Create(h.Context(), o); err != nil {
			h.Fatalf("create %s %s: %v", o.GetKind(), o.GetName(), err)
		}
	}
	meta := metav1.ObjectMeta{Namespace: h.namespace, Name: name}
	deployment := &clusterv1.MachineDeployment{ObjectMeta: meta}
	deployment.Name += "-md"
	if err := h.Get(h.Context(), client.ObjectKeyFromObject(deployment), deployment); err != nil {
		h.Fatal(err)
	}
	return &clusterv1.Cluster{ObjectMeta: meta}, deployment
}

// member returns a client of a cluster by the kubeconfig that everybody uses.
func (h *hub) member(cluster *clusterv1.Cluster) client.Client {
	h.Helper()
	data, err := kubeconfig.FromSecret(h.Context(), h.Client, client.ObjectKeyFromObject(cluster))
	if err != nil {
		h.Fatal(err)
	}
	cfg, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		h.Fatal(err)
	}
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		h.Fatal(err)
	}
	return c
}

// nodes returns the versions of the ready nodes of a member.
func (h *hub) nodes(member client.Client) (ready []string) {
	h.Helper()
	var list corev1.NodeList
	if err := member.List(h.Context(), &list); err != nil {
		h.Fatal(err)
	}
	for _, n := range list.Items {
		for _, c := range n.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				ready = append(ready, n.Status.NodeInfo.KubeletVersion)
			}
		}
	}
	return ready
}

// machines checks that nodes are as their machines ask, and that these say where they are.
func (h *hub) machines(member client.Client) {
	h.Helper()
	var machines localv1.LocalMachineList
	if err := h.List(h.Context(), &machines, client.InNamespace(h.namespace)); err != nil || len(machines.Items) == 0 {
		h.Fatalf("%d machines: %v", len(machines.Items), err)
	}
	for i := range machines.Items {
		m, node := &machines.Items[i], &corev1.Node{}
		if err := member.Get(h.Context(), client.ObjectKey{Name: m.Name}, node); err != nil {
			h.Fatal(err)
		}
		for name, want := range map[corev1.ResourceName]string{corev1.ResourceCPU: m.Spec.CPU, corev1.ResourceMemory: m.Spec.Memory} {
			if got := node.Status.Capacity[name]; want == "" || got.String() != want {
				h.Errorf("node %s has %s of %s, want %s", node.Name, got.String(), name, want)
			}
		}
		if zone := node.Labels[corev1.LabelTopologyZone]; m.Spec.Zone != "a" || zone != "a" {
			h.Errorf("node %s is in zone %q, its machine in %q", node.Name, zone, m.Spec.Zone)
		}
		if m.Spec.ProviderID == "" || m.Spec.ProviderID != node.Spec.ProviderID || len(m.Status.Addresses) == 0 {
			h.Errorf("machine %s is %q of %q, at %v", m.Name, m.Spec.ProviderID, node.Spec.ProviderID, m.Status.Addresses)
		}
	}
}

func replicas(deployment *clusterv1.MachineDeployment, n int32) func() bool {
	return func() bool {
		s := deployment.Status
		return s.AvailableReplicas != nil && *s.AvailableReplicas == n && s.Replicas != nil && *s.Replicas == n && s.UpToDateReplicas != nil && *s.UpToDateReplicas == n
	}
}

// One hub serves all: a management cluster has one manager of Cluster API, and one provider of a kind.
func TestProvider(t *testing.T) {
	h := newHub(t)
	t.Run("cases", func(t *testing.T) { // ends before the hub does
		t.Run("life", func(t *testing.T) { t.Parallel(); lifeOfACluster(h.of(t)) })
		t.Run("control plane", func(t *testing.T) { t.Parallel(); controlPlane(h.of(t)) })
	})
}

// of returns the hub for another test.
func (h *hub) of(t testing.TB) *hub {
	other := *h
	other.TB = t
	return &other
}

// A cluster is made, scaled, upgraded and deleted by Cluster API's own manager, through nothing but its contracts.
func lifeOfACluster(h *hub) {
	built, err := localkube.ControlPlane{Executable: h.planes.Executable}.Version(h.Context())
	if err != nil {
		h.Fatal(err)
	}
	cluster, workers := h.declare("edge", "v1.35.0", 2)

	until(h, h, cluster, "provisioned", func() bool { return cluster.Status.Phase == string(clusterv1.ClusterPhaseProvisioned) })
	until(h, h, workers, "two workers", replicas(workers, 2))
	if e := cluster.Spec.ControlPlaneEndpoint; e.Host != "127.0.0.1" || e.Port == 0 {
		h.Errorf("its endpoint is %+v", e)
	}
	member := h.member(cluster)
	if all := h.nodes(member); len(all) != 2 || all[0] != "v1.35.0" {
		h.Errorf("the ready nodes are %v", all)
	}
	h.machines(member)

	h.change(workers, func() { *workers.Spec.Replicas = 1 })
	until(h, h, workers, "one worker", replicas(workers, 1))

	plane := &localv1.LocalControlPlane{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "edge"}}
	until(h, h, plane, "the old version", func() bool { return plane.Status.Version == "v1.35.0" })
	h.change(plane, func() { plane.Spec.Version = built })
	until(h, h, plane, "the new version", func() bool { return plane.Status.Version == built })
	h.change(workers, func() { workers.Spec.Template.Spec.Version = built })
	until(h, h, workers, "upgraded", func() bool { all := h.nodes(member); return len(all) == 1 && all[0] == built })

	if err := h.Delete(h.Context(), cluster); err != nil {
		h.Fatal(err)
	}
	h.untilGone(cluster)
	if left := h.planesOf("edge"); len(left) > 0 {
		h.Errorf("%s is left behind", left[0].Name)
	}
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "edge-kubeconfig"}}
	if err := h.Get(h.Context(), client.ObjectKeyFromObject(secret), secret); !apierrors.IsNotFound(err) {
		h.Errorf("the kubeconfig is still there: %v", err)
	}
}

func (h *hub) change(o client.Object, change func()) {
	h.Helper()
	before, ok := o.DeepCopyObject().(client.Object)
	if !ok {
		h.Fatalf("%T", o)
	}
	change()
	if err := h.Patch(h.Context(), o, client.MergeFrom(before)); err != nil {
		h.Fatal(err)
	}
}

// A control plane that is killed comes back with all that it had; one of a version that there is none of says so.
func controlPlane(h *hub) {
	h.declare("odd", "v1.12.0", 0)
	plane := &localv1.LocalControlPlane{ObjectMeta: metav1.ObjectMeta{Namespace: h.namespace, Name: "odd"}}
	until(h, h, plane, "refused", func() bool {
		return len(plane.Status.Conditions) == 1 && plane.Status.Conditions[0].Reason == localv1.VersionUnavailableReason &&
			strings.Contains(plane.Status.Conditions[0].Message, "Kubernetes v1.12.0") && strings.Contains(plane.Status.Conditions[0].Message, "use v1.36 or v1.35")
	})

	cluster, _ := h.declare("killed", "", 0)
	until(h, h, cluster, "provisioned", func() bool { return cluster.Status.Phase == string(clusterv1.ClusterPhaseProvisioned) })
	member := h.member(cluster)
	kept := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "kept"}}
	if err := member.Create(h.Context(), kept); err != nil {
		h.Fatal(err)
	}
	h.kill("killed")
	until(h, reachable{member}, kept, "back", func() bool { return true })
}

// reachable takes a server that is away for one that does not have the object yet.
type reachable struct{ client.Client }

func (r reachable) Get(ctx context.Context, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
	if err := r.Client.Get(ctx, key, o, opts...); err != nil {
		return apierrors.NewNotFound(corev1.Resource("configmaps"), key.Name)
	}
	return nil
}

// kill ends a control plane as a power cut would.
func (h *hub) kill(name string) {
	h.Helper()
	planes := h.planesOf("-" + name + "-")
	if len(planes) != 1 {
		h.Fatalf("there are %d control planes of %s", len(planes), name)
	}
	state, err := planes[0].State(h.Context())
	if err != nil || !state.Running() {
		h.Fatalf("%s: %+v, %v", name, state, err)
	}
	process, err := os.FindProcess(state.PID)
	if err == nil {
		err = process.Kill()
	}
	if err != nil {
		h.Fatal(err)
	}
}

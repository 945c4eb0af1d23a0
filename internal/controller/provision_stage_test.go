package controller

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/go-logr/logr"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrlconfig "sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/fleet/localprovider"
	"github.com/bowline-dev/bowline/internal/fleet/provision"
	"github.com/bowline-dev/bowline/internal/localkube"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// provisioning is how long it may take until a cluster is made or gone, by other processes, on a busy machine.
const provisioning = 3 * time.Minute

// fleetHub is a hub with an engine and the local provider; Cluster API comes later.
type fleetHub struct {
	testing.TB
	client.Client
	instance *testkit.Instance
	data     string
	engine   *liveEngine
	planes   localprovider.Embedded
}

func newFleetHub(t *testing.T) *fleetHub {
	t.Helper()
	h := &fleetHub{TB: t, instance: testkit.Start(t, testkit.WithControllers(), testkit.WithNodes(0)), data: t.TempDir()}
	root, err := os.MkdirTemp("", "bowline-local-") //nolint:usetesting // the path of t.TempDir may be too long for a socket
	h.must(err)
	h.planes = localprovider.Embedded{Executable: testkit.Localkube(t), Root: root, Unsynced: true}
	t.Cleanup(h.deletePlanes)
	for _, of := range []func() ([]*unstructured.Unstructured, error){crds.Fleet, crds.Local} {
		all, err := of()
		h.must(err)
		h.must(crds.Install(t.Context(), h.instance.Config, all))
	}
	h.startProvider()
	h.start()
	t.Cleanup(func() { _ = h.engine.stop() })
	return h
}

func (h *fleetHub) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}

// start starts the engine, anew where it was stopped.
func (h *fleetHub) start() {
	h.Helper()
	e, err := startEngine(h.instance.Config, h.data, func(o *Options) { o.probeInterval, o.patience = time.Second, 2*time.Second })
	h.must(err)
	h.engine = e
}

// startProvider runs the local provider until the test ends.
func (h *fleetHub) startProvider() {
	h.Helper()
	scheme, err := NewScheme()
	h.must(err)
	h.must(localprovider.AddToScheme(scheme))
	h.Client, err = client.New(h.instance.Config, client.Options{Scheme: scheme})
	h.must(err)
	again := true
	mgr, err := ctrl.NewManager(h.instance.Config, ctrl.Options{Scheme: scheme, Logger: logr.Discard(), Metrics: server.Options{BindAddress: "0"},
		Controller: ctrlconfig.Controller{SkipNameValidation: &again}})
	h.must(err)
	h.must(localprovider.Register(mgr, h.planes))
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

// deletePlanes ends what a failed test left.
func (h *fleetHub) deletePlanes() {
	for _, p := range h.planesOf("") {
		_ = p.Delete(context.WithoutCancel(h.Context()))
	}
	_ = os.RemoveAll(h.planes.Root)
}

// planesOf returns the control planes on disk whose names hold a word.
func (h *fleetHub) planesOf(word string) (all []localkube.ControlPlane) {
	entries, _ := os.ReadDir(h.planes.Root)
	for _, entry := range entries {
		p := localkube.ControlPlane{Executable: h.planes.Executable, Root: h.planes.Root, Name: entry.Name()}
		if strings.Contains(p.Name, word) && p.Exists() {
			all = append(all, p)
		}
	}
	return all
}

// make makes an object in the namespace of the fleet.
func (h *fleetHub) make(o client.Object) {
	h.Helper()
	o.SetNamespace(metav1.NamespaceDefault)
	h.must(h.Create(h.Context(), o))
}

// template makes a ClusterTemplate from a text.
func (h *fleetHub) template(text []byte) *fleetv1.ClusterTemplate {
	h.Helper()
	of := &fleetv1.ClusterTemplate{}
	h.must(yaml.UnmarshalStrict(text, of))
	h.make(of)
	return of
}

// cluster makes a FleetCluster from a template.
func (h *fleetHub) cluster(name, template, parameters string) *fleetv1.FleetCluster {
	h.Helper()
	c := &fleetv1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"environment": "test"}}, Spec: fleetv1.FleetClusterSpec{
		Template: &fleetv1.TemplateReference{Name: template, Parameters: &apiextensionsv1.JSON{Raw: []byte(parameters)}}}}
	h.make(c)
	return c
}

// says waits until a condition of a cluster has a reason and holds some words.
func (h *fleetHub) says(c *fleetv1.FleetCluster, kind, reason string, words ...string) {
	h.Helper()
	err := wait.PollUntilContextTimeout(h.Context(), 50*time.Millisecond, provisioning, true, func(ctx context.Context) (bool, error) {
		if err := h.Get(ctx, client.ObjectKeyFromObject(c), c); err != nil {
			return false, err
		}
		is := apimeta.FindStatusCondition(c.Status.Conditions, kind)
		if is == nil || is.Reason != reason || is.ObservedGeneration != c.Generation {
			return false, nil
		}
		for _, word := range words {
			if !strings.Contains(is.Message, word) {
				return false, nil
			}
		}
		return true, nil
	})
	if err != nil {
		h.Fatalf("%s is not %s of %s with %q: %v; it says %+v\n%s", kind, reason, c.Name, words, err, c.Status.Conditions, h.engine.log.about(c.Name))
	}
}

func (h *fleetHub) change(c *fleetv1.FleetCluster, change func()) {
	h.Helper()
	h.must(h.Get(h.Context(), client.ObjectKeyFromObject(c), c))
	before := c.DeepCopy()
	change()
	h.must(h.Patch(h.Context(), c, client.MergeFrom(before)))
}

func (h *fleetHub) parameters(c *fleetv1.FleetCluster, parameters string) {
	h.Helper()
	h.change(c, func() { c.Spec.Template.Parameters = &apiextensionsv1.JSON{Raw: []byte(parameters)} })
}

// gone waits until an object is.
func (h *fleetHub) gone(o client.Object) {
	h.Helper()
	key := client.ObjectKeyFromObject(o)
	err := wait.PollUntilContextTimeout(h.Context(), 50*time.Millisecond, provisioning, true, func(ctx context.Context) (bool, error) {
		err := h.Get(ctx, key, o)
		return apierrors.IsNotFound(err), client.IgnoreNotFound(err)
	})
	if err != nil {
		h.Fatalf("%T %s is still there: %v; %+v\n%s", o, key, err, o, h.engine.log.about(key.Name))
	}
}

func (h *fleetHub) unit(c *fleetv1.FleetCluster) *kustomizev1.Kustomization {
	return &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: provision.UnitName(c.Name)}}
}

func (h *fleetHub) of(t testing.TB) *fleetHub {
	other := *h
	other.TB = t
	return &other
}

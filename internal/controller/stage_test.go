package controller

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/testkit"
)

// never is an interval that no test lives to see: what happens, happens by an event.
const never = 10 * time.Hour

// lasting is how long a unit of a test waits for health and for what its objects wait
// for, where that it ends is not what the test is about: longer than a test waits for
// the unit to say so, however slow the machine is.
const lasting = 10 * patience

// shortest is the timeout of a Kustomization of which a test sees the end: there is none
// below it.
var shortest = &metav1.Duration{Duration: 30 * time.Second}

// stage is what one test plays on: a namespace of a cluster that an engine
// serves, and a Git server with one repository.
type stage struct {
	*testing.T
	engine    *liveEngine // nil when the engine is in another process
	client    client.WithWatch
	namespace string
	git       *testkit.GitServer
	repo      *testkit.Repo
}

// newStage is a stage on the shared engine.
func newStage(t *testing.T, opts ...testkit.GitOption) *stage {
	t.Helper()
	e := sharedEngine(t)
	s := stageOn(t, e.config, opts...)
	s.engine = e
	return s
}

// stageOn is a stage on any cluster. What the test makes through it is deleted at the
// end, by the engine if it still runs.
func stageOn(t *testing.T, config *rest.Config, opts ...testkit.GitOption) *stage {
	t.Helper()
	scheme, err := NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	if err := rbacv1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	made, err := kubernetes.NewForConfigOrDie(config).CoreV1().Namespaces().Create(t.Context(),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatalf("make a namespace: %v", err)
	}
	s := &stage{T: t, client: c, namespace: made.Name, git: testkit.NewGitServer(t, opts...)}
	s.repo = s.git.Repo("fleet")
	t.Cleanup(s.clear)
	return s
}

// clear deletes what the test has left, and shows what the engine said about it
// if the test failed.
func (s *stage) clear() {
	ctx := s.background()
	in := client.InNamespace(s.namespace)
	_ = s.client.DeleteAllOf(ctx, &kustomizev1.Kustomization{}, in)
	_ = s.client.DeleteAllOf(ctx, &helmv2.HelmRelease{}, in)
	_ = s.client.DeleteAllOf(ctx, &swapi.ArtifactGenerator{}, in)
	_ = s.client.DeleteAllOf(ctx, &sourcev1.ExternalArtifact{}, in)
	_ = s.client.DeleteAllOf(ctx, &sourcev1.HelmChart{}, in)
	_ = s.client.DeleteAllOf(ctx, &sourcev1.HelmRepository{}, in)
	_ = s.client.DeleteAllOf(ctx, &sourcev1.GitRepository{}, in)
	_ = s.client.DeleteAllOf(ctx, &sourcev1.Bucket{}, in)
	_ = s.client.DeleteAllOf(ctx, &sourcev1.OCIRepository{}, in)
	_ = s.client.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}})
	if s.Failed() && s.engine != nil {
		s.Logf("the engine's log:\n%s", s.engine.log.about(s.namespace))
	}
}

// background is a context for what is done after the test.
func (s *stage) background() context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.Context()), 10*time.Second)
	_ = time.AfterFunc(10*time.Second, cancel)
	return ctx
}

// source makes a GitRepository "fleet" for the stage's repository.
func (s *stage) source(change ...func(*sourcev1.GitRepository)) *sourcev1.GitRepository {
	s.Helper()
	g := &sourcev1.GitRepository{
		ObjectMeta: metav1.ObjectMeta{Name: "fleet", Namespace: s.namespace},
		Spec: sourcev1.GitRepositorySpec{
			URL: s.repo.URL(), Interval: metav1.Duration{Duration: never}, Timeout: &metav1.Duration{Duration: 20 * time.Second},
			Reference: &sourcev1.GitRepositoryRef{Branch: "main"},
		},
	}
	for _, c := range change {
		c(g)
	}
	s.create(g)
	return g
}

// unit makes a Kustomization of the repository's folder of the same name, which
// prunes and never comes back by itself.
func (s *stage) unit(name string, change ...func(*kustomizev1.Kustomization)) *kustomizev1.Kustomization {
	s.Helper()
	k := &kustomizev1.Kustomization{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace},
		Spec: kustomizev1.KustomizationSpec{
			Path: "./" + name, Prune: true, TargetNamespace: s.namespace,
			Interval: metav1.Duration{Duration: never}, RetryInterval: &metav1.Duration{Duration: never},
			Timeout:   &metav1.Duration{Duration: lasting},
			SourceRef: kustomizev1.CrossNamespaceSourceReference{Kind: sourcev1.GitRepositoryKind, Name: "fleet"},
		},
	}
	for _, c := range change {
		c(k)
	}
	s.create(k)
	return k
}

func (s *stage) create(o client.Object) {
	s.Helper()
	if err := s.client.Create(s.Context(), o); err != nil {
		s.Fatalf("create %s: %v", o.GetName(), err)
	}
}

// edit changes an object on the cluster.
func edit[T client.Object](s *stage, o T, change func(T)) {
	s.Helper()
	before, _ := o.DeepCopyObject().(T)
	s.read(before)
	after, _ := before.DeepCopyObject().(T)
	change(after)
	if err := s.client.Patch(s.Context(), after, client.MergeFrom(before)); err != nil {
		s.Fatalf("edit %s: %v", o.GetName(), err)
	}
}

func (s *stage) read(o client.Object) {
	s.Helper()
	if err := s.client.Get(s.Context(), client.ObjectKeyFromObject(o), o); err != nil {
		s.Fatalf("read %s: %v", o.GetName(), err)
	}
}

// ask requests a reconcile, as people and hooks do, and returns the request.
func (s *stage) ask(o client.Object) string {
	s.Helper()
	request := fmt.Sprint(time.Now().UnixNano())
	edit(s, o, func(o client.Object) {
		annotations := maps.Clone(o.GetAnnotations())
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[meta.ReconcileRequestAnnotation] = request
		o.SetAnnotations(annotations)
	})
	return request
}

func (s *stage) fleet() *sourcev1.GitRepository {
	return &sourcev1.GitRepository{ObjectMeta: metav1.ObjectMeta{Name: "fleet", Namespace: s.namespace}}
}

// push commits files, has the source fetched and returns the revision.
func (s *stage) push(files map[string]string) string {
	s.Helper()
	revision := "main@sha1:" + s.repo.Commit(files)
	s.ask(s.fleet())
	return revision
}

// remove commits the removal of files and has the source fetched.
func (s *stage) remove(paths ...string) string {
	s.Helper()
	revision := "main@sha1:" + s.repo.Delete(paths...)
	s.ask(s.fleet())
	return revision
}

// configMap is the manifest of a ConfigMap.
func configMap(name, value string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\ndata:\n  value: %q\n", name, value)
}

// config reads a ConfigMap of the stage's namespace.
func (s *stage) config(name string) *corev1.ConfigMap {
	s.Helper()
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}}
	s.read(m)
	return m
}

// identity is what shows that an object was left alone.
type identity struct{ uid, version string }

// delivered returns the identities of the objects of a kind that Kustomizations of
// the stage have delivered.
func (s *stage) delivered(gvk schema.GroupVersionKind) map[string]identity {
	s.Helper()
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
	err := s.client.List(s.Context(), list, client.InNamespace(s.namespace), client.HasLabels{"kustomize.toolkit.fluxcd.io/name"})
	if err != nil {
		s.Fatalf("list %s: %v", gvk.Kind, err)
	}
	out := map[string]identity{}
	for i := range list.Items {
		o := &list.Items[i]
		out[o.GetName()] = identity{string(o.GetUID()), o.GetResourceVersion()}
	}
	return out
}

func (s *stage) deliveredConfigs() map[string]identity {
	s.Helper()
	return s.delivered(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
}

// untouched fails the test when what runs is not exactly what ran before.
func (s *stage) untouched(before map[string]identity) {
	s.Helper()
	if now := s.deliveredConfigs(); !maps.Equal(now, before) {
		s.Errorf("what runs has been touched: it was\n%v\nand is\n%v", before, now)
	}
}

package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// patience is how long a test waits for what has to come. It is far above what
// anything takes, so that a slow machine fails no test.
const patience = 60 * time.Second

// never is an interval that no test lives to see: what happens, happens by an event.
const never = 10 * time.Hour

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
	_ = s.client.DeleteAllOf(ctx, &sourcev1.GitRepository{}, in)
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
			Timeout:   &metav1.Duration{Duration: 30 * time.Second},
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

// awaitUnit waits until the Kustomization is as it should be, and returns it.
func (s *stage) awaitUnit(name, what string, ok func(*kustomizev1.Kustomization) bool) *kustomizev1.Kustomization {
	s.Helper()
	return await(s, &kustomizev1.KustomizationList{}, name, what, ok)
}

// awaitSource waits until the GitRepository "fleet" is as it should be, and returns it.
func (s *stage) awaitSource(what string, ok func(*sourcev1.GitRepository) bool) *sourcev1.GitRepository {
	s.Helper()
	return await(s, &sourcev1.GitRepositoryList{}, "fleet", what, ok)
}

// awaitLive waits until the Kustomization is ready at the revision.
func (s *stage) awaitLive(name, revision string) *kustomizev1.Kustomization {
	s.Helper()
	return s.awaitUnit(name, "ready at "+revision, func(k *kustomizev1.Kustomization) bool {
		return report.IsReady(k, k.Status.ObservedGeneration) && k.Status.LastAppliedRevision == revision
	})
}

// awaitFailure waits until the object is not ready for this reason, with a
// message that holds all of the words.
func (s *stage) awaitFailure(name, reason string, words ...string) *kustomizev1.Kustomization {
	s.Helper()
	return s.awaitUnit(name, fmt.Sprintf("not ready: %s: %q", reason, words), func(k *kustomizev1.Kustomization) bool {
		return says(k, metav1.ConditionFalse, reason, words...)
	})
}

func (s *stage) awaitSourceFailure(reason string, words ...string) *sourcev1.GitRepository {
	s.Helper()
	return s.awaitSource(fmt.Sprintf("not ready: %s: %q", reason, words), func(g *sourcev1.GitRepository) bool {
		return says(g, metav1.ConditionFalse, reason, words...)
	})
}

// says reports whether the Ready condition is as given, for the newest generation.
func says(o report.Conditioned, status metav1.ConditionStatus, reason string, words ...string) bool {
	c := report.Condition(o, meta.ReadyCondition)
	if c == nil || c.Status != status || c.Reason != reason || c.ObservedGeneration != o.GetGeneration() {
		return false
	}
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(c.Message, w) })
}

// await watches one object of the stage's namespace until it is as it should be.
func await[T client.Object](s *stage, list client.ObjectList, name, what string, ok func(T) bool) T {
	s.Helper()
	var last T
	err := s.follow(list, name, func(e apiwatch.Event) bool {
		o, is := e.Object.(T)
		if !is || e.Type == apiwatch.Deleted {
			return false
		}
		last = o
		return ok(o)
	})
	if err != nil {
		s.Fatalf("%s/%s is not %s: %v; last seen: %s", s.namespace, name, what, err, standingOf(last))
	}
	return last
}

// awaitGone waits until an object does not exist. The list says of which kind it is.
func (s *stage) awaitGone(o client.Object, list client.ObjectList) {
	s.Helper()
	err := s.follow(list, o.GetName(), func(apiwatch.Event) bool {
		return apierrors.IsNotFound(s.client.Get(s.Context(), client.ObjectKeyFromObject(o), o))
	})
	if err != nil {
		s.Fatalf("%s/%s is not gone: %v", s.namespace, o.GetName(), err)
	}
}

// follow hands the events of one object to done until it returns true. A watch
// begins with an empty event and the object as it is; one that ends is begun again.
func (s *stage) follow(list client.ObjectList, name string, done func(apiwatch.Event) bool) error {
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	for ctx.Err() == nil {
		w, err := s.client.Watch(ctx, list, client.InNamespace(s.namespace), client.MatchingFields{"metadata.name": name})
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) && s.engine != nil {
				return err
			}
			continue
		}
		if reached(w, done) {
			return nil
		}
	}
	return ctx.Err()
}

func reached(w apiwatch.Interface, done func(apiwatch.Event) bool) bool {
	defer w.Stop()
	if done(apiwatch.Event{}) {
		return true
	}
	for e := range w.ResultChan() {
		if done(e) {
			return true
		}
	}
	return false
}

func standingOf(o client.Object) string {
	c, ok := o.(report.Conditioned)
	if !ok || c == report.Conditioned(nil) || isNil(o) {
		return "nothing"
	}
	var words []string
	for _, c := range c.GetConditions() {
		words = append(words, fmt.Sprintf("%s=%s %s: %s", c.Type, c.Status, c.Reason, c.Message))
	}
	return strings.Join(words, "\n\t")
}

func isNil(o client.Object) bool {
	switch x := o.(type) {
	case *kustomizev1.Kustomization:
		return x == nil
	case *sourcev1.GitRepository:
		return x == nil
	default:
		return o == nil
	}
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

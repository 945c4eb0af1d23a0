package apply

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// rig is an applier on the real API server, and a record of what it told.
type rig struct {
	*Applier
	t         *testing.T
	namespace string

	mu      sync.Mutex
	journal []string
	counts  map[string]int
	stuck   error // what Ready says of definitions, when set
}

func newRig(t *testing.T) *rig {
	t.Helper()
	cluster, err := kube.NewCluster(testkit.Cluster(t))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, namespace: testkit.Namespace(t), counts: map[string]int{}}
	r.Applier = &Applier{Cluster: cluster, Manager: "kustomize-controller", Journal: r, Observe: r, Slots: make(chan struct{}, 4), Count: r.count}
	return r
}

func (r *rig) count(request string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.counts[request]++
}

func (r *rig) note(what string, id object.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.journal = append(r.journal, what+" "+id.Kind+"/"+id.Name)
}

func (r *rig) Applying(id object.ID) { r.note("applying", id) }
func (r *rig) Applied(id object.ID, _ string, _ *metav1.PartialObjectMetadata) {
	r.note("applied", id)
}
func (r *rig) NotApplied(id object.ID)                              { r.note("failed", id) }
func (r *rig) Deleted(id object.ID)                                 { r.note("deleted", id) }
func (r *rig) Watch(context.Context, schema.GroupVersionKind) error { return nil }

// Ready reads the conditions of a definition.
func (r *rig) Ready(id object.ID) (bool, error) {
	if r.stuck != nil {
		return false, r.stuck
	}
	live, err := r.Live(r.t.Context(), plan.Action{ID: id, Version: "v1"})
	if err != nil || live == nil {
		return false, err
	}
	conditions, _, _ := unstructured.NestedSlice(live.Object, "status", "conditions")
	return slices.ContainsFunc(conditions, func(c any) bool {
		m, _ := c.(map[string]any)
		return m["type"] == "Established" && m["status"] == "True"
	}), nil
}

// parse reads one object per text; NS stands for the namespace of the test.
func (r *rig) parse(texts ...string) []*unstructured.Unstructured {
	r.t.Helper()
	var out []*unstructured.Unstructured
	for _, text := range texts {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(strings.ReplaceAll(text, "NS", r.namespace)), &u.Object); err != nil {
			r.t.Fatal(err)
		}
		out = append(out, u)
	}
	return out
}

func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	err := wait.PollUntilContextTimeout(r.t.Context(), 10*time.Millisecond, 20*time.Second, true, func(context.Context) (bool, error) { return ok(), nil })
	if err != nil {
		r.t.Fatalf("waited in vain until %s", what)
	}
}

// do applies the objects in one plan.
func (r *rig) do(edit func(*plan.Action), texts ...string) ChangeSet {
	r.t.Helper()
	p, objects := &plan.Plan{}, plan.Objects{}
	for _, u := range r.parse(texts...) {
		a := plan.Action{Verb: plan.Create, ID: object.IDOf(u), Version: u.GroupVersionKind().Version}
		if edit != nil {
			edit(&a)
		}
		p.Actions = append(p.Actions, a)
		objects[a.ID] = u
	}
	return r.Apply(r.t.Context(), p, objects)
}

func (r *rig) must(texts ...string) {
	r.t.Helper()
	if err := r.do(nil, texts...).Err(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) live(kind, name string) *unstructured.Unstructured {
	r.t.Helper()
	live, err := r.Live(r.t.Context(), plan.Action{ID: object.ID{Kind: kind, Namespace: r.namespace, Name: name}, Version: "v1"})
	if err != nil {
		r.t.Fatal(err)
	}
	return live
}

const (
	gadgets = `{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: gadgets.NS.example.com}, spec: {group: NS.example.com, scope: Namespaced,
 names: {kind: Gadget, plural: gadgets}, versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]}}`
	gadget  = `{apiVersion: NS.example.com/v1, kind: Gadget, metadata: {name: one, namespace: NS}, spec: {size: 1}}`
	inside  = `{apiVersion: v1, kind: ConfigMap, metadata: {name: inside, namespace: NS-new}, data: {a: "1"}}`
	made    = `{apiVersion: v1, kind: Namespace, metadata: {name: NS-new}}`
	config  = `{apiVersion: v1, kind: ConfigMap, metadata: {name: config, namespace: NS}, data: {a: "1"}}`
	unknown = `{apiVersion: example.com/v1, kind: Nothing, metadata: {name: x, namespace: NS}}`
	badName = `{apiVersion: v1, kind: ConfigMap, metadata: {name: Not_A_Name, namespace: NS}}`
	lost    = `{apiVersion: v1, kind: ConfigMap, metadata: {name: lost, namespace: NS-nowhere}}`
	typo    = `{apiVersion: v1, kind: Service, metadata: {name: typo, namespace: NS}, spec: {prots: [{port: 80}]}}`
)

// A definition and an object of its kind go in one plan: the object waits, and is
// applied by the next run after the definition is established.
func TestDefinitionBeforeItsObjects(t *testing.T) {
	r := newRig(t)
	r.eventually("everything is applied", func() bool {
		done := r.do(nil, gadget, gadgets, inside, made)
		for _, res := range done {
			if res.Err != nil && !errors.Is(res.Err, ErrPending) && failure.KindOf(res.Err) != failure.NotFound {
				t.Fatal(res.Err)
			}
		}
		return done.Err() == nil
	})
	first := slices.Index(r.journal, "applied CustomResourceDefinition/gadgets."+r.namespace+".example.com")
	if at := slices.Index(r.journal, "applying Gadget/one"); first < 0 || at < first {
		t.Errorf("the object was sent before its definition: %v", r.journal)
	}
	if at := slices.Index(r.journal, "applying ConfigMap/inside"); at < slices.Index(r.journal, "applied Namespace/"+r.namespace+"-new") {
		t.Errorf("the object was sent before its namespace: %v", r.journal)
	}
}

func TestDefinitionThatWillNotBeEstablished(t *testing.T) {
	r := newRig(t)
	r.stuck = errors.New("its names are not accepted")
	done := r.do(nil, gadgets, gadget, config)
	if err := done.Err(); err == nil || errors.Is(err, ErrPending) || strings.Count(err.Error(), "not accepted") != 1 {
		t.Errorf("got %v, want the cause, once, and no more waiting", err)
	}
	if r.live("ConfigMap", "config") != nil {
		t.Error("a later stage was applied")
	}
}

func TestSkippedDefinitionIsNotWaitedFor(t *testing.T) {
	r := newRig(t)
	done := r.do(func(a *plan.Action) {
		if definesKinds(a.ID) {
			a.Verb = plan.Skip
		}
	}, gadgets, config)
	if err := done.Err(); err != nil || r.live("ConfigMap", "config") == nil {
		t.Errorf("the plan waits for what it leaves alone: %v", err)
	}
}

func TestEveryFailureIsReported(t *testing.T) {
	r := newRig(t)
	done := r.do(nil, unknown, badName, lost, typo, config)
	want := map[string]struct {
		kind  failure.Kind
		words string
	}{
		"x":          {failure.NotFound, "install the CustomResourceDefinition"},
		"Not_A_Name": {failure.Invalid, "metadata.name"},
		"lost":       {failure.NotFound, "deliver Namespace " + r.namespace + "-nowhere"},
		"typo":       {failure.Invalid, ".spec.prots: field not declared in schema"},
		"config":     {},
	}
	if len(done) != len(want) {
		t.Fatalf("%d results, want %d", len(done), len(want))
	}
	for _, res := range done {
		w := want[res.ID.Name]
		if failure.KindOf(res.Err) != w.kind || w.words != "" && !strings.Contains(res.Err.Error(), w.words) {
			t.Errorf("%s: got %v of kind %q, want %q of kind %q", res.ID, res.Err, failure.KindOf(res.Err), w.words, w.kind)
		}
		if res.Err != nil && (strings.Contains(res.Err.Error(), "\n") || !strings.Contains(res.Err.Error(), res.ID.String())) {
			t.Errorf("the error is not one line that names its object: %q", res.Err)
		}
	}
	if len(done.Changed()) != 1 {
		t.Errorf("changed %v, want the one good object", done.Changed())
	}
}

// What cannot change is named, and replaced where the plan says so; what is
// invalid besides is never deleted for it.
func TestImmutableFields(t *testing.T) {
	job := `{apiVersion: batch/v1, kind: Job, metadata: {name: o, namespace: NS}, spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: "x:VALUE"}]}}}}`
	claim := `{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: o, namespace: NS}, spec: {accessModes: [VALUE], storageClassName: "", resources: {requests: {storage: 1Gi}}}}`
	web := `{apiVersion: apps/v1, kind: Deployment, metadata: {name: o, namespace: NS}, spec: {selector: {matchLabels: {app: VALUE}}, template: {metadata: {labels: {app: VALUE}}, spec: {containers: [{name: c, image: x}]}}}}`
	binding := `{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: o, namespace: NS}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: VALUE}, subjects: []}`
	class := `{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: NS-o}, value: VALUE}`
	frozen := `{apiVersion: v1, kind: ConfigMap, metadata: {name: o, namespace: NS}, immutable: true, data: {a: "VALUE"}}`
	secret := `{apiVersion: v1, kind: Secret, metadata: {name: o, namespace: NS}, type: VALUE}`
	storage := `{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: NS-o}, provisioner: VALUE}`
	cases := []struct{ name, text, before, after, field string }{
		{"job template", job, "1", "2", "spec.template: field is immutable"},
		{"claim", claim, "ReadWriteOnce", "ReadOnlyMany", "spec: Forbidden: spec is immutable"},
		{"selector", web, "a", "b", "spec.selector: field is immutable"},
		{"role", binding, "a", "b", "roleRef: cannot change roleRef"},
		{"priority", class, "1", "2", "value: Forbidden: may not be changed in an update"},
		{"frozen", frozen, "1", "2", "data: Forbidden: field is immutable"},
		{"secret type", secret, "a", "b", "type: field is immutable"},
		{"provisioner", storage, "a", "b", "provisioner: field is immutable"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			old, changed := strings.ReplaceAll(c.text, "VALUE", c.before), strings.ReplaceAll(c.text, "VALUE", c.after)
			r.must(old)
			err := r.do(nil, changed).Err()
			if err == nil || failure.KindOf(err) != failure.Invalid || !strings.Contains(err.Error(), c.field) ||
				!strings.Contains(err.Error(), "force") || strings.Contains(err.Error(), "\n") || len(err.Error()) > 600 {
				t.Errorf("got %v; want one short line that says %q and how to replace", err, c.field)
			}
			if err := r.do(func(a *plan.Action) { a.Replace = true }, changed).Err(); !errors.Is(err, ErrPending) || r.counts["delete"] != 1 {
				t.Errorf("with replacement: %v after %d deletions, want one and then to wait", err, r.counts["delete"])
			}
		})
	}
}

func TestInvalidIsNeverReplaced(t *testing.T) {
	r := newRig(t)
	text := `{apiVersion: batch/v1, kind: Job, metadata: {name: o, namespace: NS}, spec: {backoffLimit: LIMIT, template: {spec: {restartPolicy: Never, containers: [{name: c, image: "IMAGE"}]}}}}`
	r.must(strings.NewReplacer("LIMIT", "1", "IMAGE", "a").Replace(text))
	err := r.do(func(a *plan.Action) { a.Replace = true }, strings.NewReplacer("LIMIT", "-1", "IMAGE", "b").Replace(text)).Err()
	if failure.KindOf(err) != failure.Invalid || r.counts["delete"] != 0 {
		t.Errorf("got %v after %d deletions: what could not be made anew must stay", err, r.counts["delete"])
	}
}

func TestFieldsOfKubectl(t *testing.T) {
	create := func(r *rig, manager string) {
		u := r.parse(`{apiVersion: v1, kind: ConfigMap, metadata: {name: config, namespace: NS, annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}}, data: {a: theirs, b: theirs}}`)[0]
		if _, err := r.configMaps().Create(r.t.Context(), u, metav1.CreateOptions{FieldManager: manager}); err != nil {
			r.t.Fatal(err)
		}
	}
	applied := func(r *rig, manager string) {
		force := true
		body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"config"},"data":{"a":"theirs","b":"theirs"}}`
		if _, err := r.configMaps().Patch(r.t.Context(), "config", types.ApplyPatchType, []byte(body), metav1.PatchOptions{FieldManager: manager, Force: &force}); err != nil {
			r.t.Fatal(err)
		}
	}
	cases := []struct {
		name, reason, manager string
		by                    func(*rig, string)
		mode                  plan.Mode
		keeps                 bool
	}{
		{"kubectl apply", "Git says what there is", "kubectl-client-side-apply", create, plan.Override, false},
		{"kubectl apply --server-side", "Git says what there is", "kubectl", applied, plan.Override, false},
		{"kubectl edit", "Git says what there is", "kubectl-edit", create, plan.Override, false},
		{"this engine before server-side apply", "it is the same owner", "kustomize-controller", create, plan.Override, false},
		{"merge", "the annotation says so", "kubectl-client-side-apply", create, plan.Merge, true},
		{"an operator", "what others add is theirs", "some-operator", create, plan.Override, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			c.by(r, c.manager)
			if err := r.do(func(a *plan.Action) { a.Mode = c.mode }, config).Err(); err != nil {
				t.Fatal(err)
			}
			data, _, _ := unstructured.NestedStringMap(r.live("ConfigMap", "config").Object, "data")
			if _, kept := data["b"]; kept != c.keeps || data["a"] != "1" {
				t.Errorf("got %v: %s", data, c.reason)
			}
			annotations := r.live("ConfigMap", "config").GetAnnotations()
			if _, kept := annotations["kubectl.kubernetes.io/last-applied-configuration"]; kept && !c.keeps {
				t.Error("the record of kubectl apply stays")
			}
			before := r.counts["apply"]
			if err := r.do(nil, config).Err(); err != nil || !c.keeps && r.counts["apply"] != before+1 {
				t.Errorf("the next apply costs %d requests (%v), want one", r.counts["apply"]-before, err)
			}
		})
	}
}

func (r *rig) configMaps() interface {
	Create(context.Context, *unstructured.Unstructured, metav1.CreateOptions, ...string) (*unstructured.Unstructured, error)
	Patch(context.Context, string, types.PatchType, []byte, metav1.PatchOptions, ...string) (*unstructured.Unstructured, error)
	Delete(context.Context, string, metav1.DeleteOptions, ...string) error
} {
	return r.Cluster.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).Namespace(r.namespace)
}

// No error tells the value of a Secret, in whatever form the API server puts it.
func TestSecretsStayOutOfErrors(t *testing.T) {
	cases := []struct{ name, text, value string }{
		{"number", `{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: NS}, data: {pin: 867530912}}`, "867530912"},
		{"not base64", `{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: NS}, data: {key: "hunter2-in-the-clear"}}`, "hunter2-in-the-clear"},
		{"bad type", `{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: NS}, type: kubernetes.io/dockerconfigjson, data: {.dockerconfigjson: aHVudGVyMi1kb2NrZXI=}}`, "hunter2-docker"},
		{"bad key", `{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: NS}, stringData: {"a b": "hunter2-text"}}`, "hunter2-text"},
		{"a map", `{apiVersion: v1, kind: Secret, metadata: {name: s, namespace: NS}, data: {deep: {er: hunter2-deep}}}`, "hunter2-deep"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			err := r.do(nil, c.text).Err()
			if err == nil {
				t.Fatal("the API server takes it: this test proves nothing")
			}
			if strings.Contains(err.Error(), c.value) {
				t.Errorf("the value is told: %v", err)
			}
			_, err = r.Settled(t.Context(), r.parse(c.text)[0], nil)
			if err == nil || strings.Contains(err.Error(), c.value) {
				t.Errorf("the value is told by a dry run: %v", err)
			}
		})
	}
}

// A plan does not outlive its context while it waits for its turn.
func TestContextEndsTheWaitForASlot(t *testing.T) {
	r := newRig(t)
	r.Slots = make(chan struct{}) // somebody else has all
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	u := r.parse(config)[0]
	id := object.IDOf(u)
	done := r.Apply(ctx, &plan.Plan{Actions: []plan.Action{{Verb: plan.Create, ID: id, Version: "v1"}}}, plan.Objects{id: u})
	if err := done.Err(); !errors.Is(err, context.Canceled) || len(done) != 1 {
		t.Errorf("got %v, want the object reported as not sent", err)
	}
}

func TestExists(t *testing.T) {
	r := newRig(t)
	r.must(config)
	cases := []struct {
		name   string
		kind   schema.GroupVersionKind
		object string
		want   bool
	}{
		{"there", schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, "config", true},
		{"not there", schema.GroupVersionKind{Version: "v1", Kind: "ConfigMap"}, "other", false},
		{"of a kind that is not served", schema.GroupVersionKind{Group: "example.com", Version: "v1", Kind: "Nothing"}, "x", false},
	}
	for _, c := range cases {
		got, err := r.Exists(t.Context(), c.kind, object.ID{Group: c.kind.Group, Kind: c.kind.Kind, Namespace: r.namespace, Name: c.object})
		if err != nil || got != c.want {
			t.Errorf("%s: got %v, %v", c.name, got, err)
		}
	}
	away := testkit.Cluster(t)
	away.Host = "https://127.0.0.1:1"
	var err error
	if r.Cluster, err = kube.NewCluster(away); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Exists(t.Context(), cases[0].kind, object.ID{Kind: "ConfigMap", Namespace: r.namespace, Name: "config"}); failure.KindOf(err) != failure.Unavailable {
		t.Errorf("an API server that does not answer: %v; it must not pass for an object that is not there", err)
	}
}

package release

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/observe"
)

func TestOwnership(t *testing.T) {
	r := newRig(t, "ownership")
	put := func(name string, labels, annotations map[string]string) observe.Reference {
		u := &unstructured.Unstructured{}
		u.SetAPIVersion("v1")
		u.SetKind("ConfigMap")
		u.SetNamespace(r.namespace)
		u.SetName(name)
		u.SetLabels(labels)
		u.SetAnnotations(annotations)
		if labels != nil || annotations != nil {
			if err := r.live.send(t.Context(), u); err != nil {
				t.Fatal(err)
			}
		}
		return referenceOf(u)
	}
	helms := map[string]string{managedByLabel: managedByHelm}
	of := func(name string) map[string]string {
		return map[string]string{releaseAnnotation: name, namespaceAnnotation: r.namespace}
	}
	claim := Claim{Unit: r.unit, Name: "demo", Namespace: r.namespace, Objects: []observe.Reference{
		put("absent", nil, nil), put("ours", helms, of("demo")),
		put("delivered", map[string]string{"helm.toolkit.fluxcd.io/name": "demo", "helm.toolkit.fluxcd.io/namespace": r.namespace}, nil),
	}}
	if err := r.live.CheckOwnership(t.Context(), claim); err != nil {
		t.Errorf("what is absent or ours is refused: %v", err)
	}
	claim.Objects = append(claim.Objects, put("nobodys", map[string]string{"a": "b"}, nil), put("others", helms, of("other")))
	err := r.live.CheckOwnership(t.Context(), claim)
	if !errors.Is(err, ErrForeign) || !errors.Is(err, failure.Of(failure.Refused)) {
		t.Fatalf("gave %v", err)
	}
	for _, want := range []string{"ConfigMap/" + r.namespace + "/nobodys (of no release)", "ConfigMap/" + r.namespace + "/others (of release " + r.namespace + "/other)"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
}

func crd(t *testing.T, plural, description string) *unstructured.Unstructured {
	t.Helper()
	var u unstructured.Unstructured
	data, err := yaml.YAMLToJSON(fmt.Appendf(nil, `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: %[1]s.release.example.org, annotations: {about: %[2]q}}
spec:
  group: release.example.org
  scope: Namespaced
  names: {plural: %[1]s, singular: %[1]s, kind: Kind%[1]s}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
`, plural, description))
	if err != nil {
		t.Fatal(err)
	}
	if err := u.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return &u
}

func TestDefinitions(t *testing.T) {
	r := newRig(t, "definitions")
	plural := strings.ReplaceAll(r.namespace, "-", "") // of this run: definitions outlive it
	for _, c := range []struct {
		name   string
		policy v2.CRDsPolicy
		about  string
		want   string
		reason string
	}{
		{"skip", v2.Skip, "one", "", "nothing is installed"},
		{"create", "", "two", "two", "Create is the default"},
		{"create again", v2.Create, "three", "two", "what is there stays"},
		{"replace", v2.CreateReplace, "four", "four", "what is there is applied anew"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := &Definitions{
				Live: r.live, Follow: r.ledger, Clock: r.clock, Unit: r.unit, Policy: c.policy, Timeout: time.Minute,
				Objects: []*unstructured.Unstructured{crd(t, plural, c.about)},
			}
			if p := r.drive(d.Advance, func(Progress) {}); !p.Done {
				t.Fatalf("ended with %+v", p)
			}
			live, err := r.live.whole(t.Context(), referenceOf(d.Objects[0]))
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if live != nil {
				got = live.GetAnnotations()["about"]
				if _, ok := condition(live, "Established"); !ok {
					t.Error("it is not established")
				}
			}
			if got != c.want {
				t.Errorf("it is about %q, want %q: %s", got, c.want, c.reason)
			}
		})
	}
	d := &Definitions{Live: r.live, Follow: r.ledger, Clock: r.clock, Unit: r.unit, Policy: "Sometimes"}
	if p, err := d.Advance(t.Context()); err != nil || !errors.Is(p.Failed, failure.Of(failure.Invalid)) {
		t.Errorf("a policy that there is none of gave %+v, %v", p, err)
	}
}

func TestUninstall(t *testing.T) {
	r := newRig(t, "uninstall")
	const manifest = `---
apiVersion: v1
kind: ConfigMap
metadata: {name: plain}
---
apiVersion: v1
kind: Secret
metadata: {name: kept, annotations: {helm.sh/resource-policy: keep}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: foreign}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: held, finalizers: [example.org/hold]}
---
apiVersion: gone.example.org/v1
kind: Gone
metadata: {name: gone}
`
	record := r.begin(manifest, jobHook("before", 0, helmrelease.HookPreDelete), jobHook("after", 0, helmrelease.HookPostDelete, helmrelease.HookSucceeded))
	for i, doc := range strings.Split(manifest, "---\n")[1:5] {
		u, err := r.live.read(t.Context(), doc, r.namespace)
		if err != nil {
			t.Fatal(err)
		}
		name := "demo"
		if i == 2 {
			name = "other" // which took it from ours
			object.SetOwner(u, object.Owner{Group: object.HelmGroup, Name: r.unit.Name, Namespace: r.unit.Namespace})
		}
		Dress(u, name, r.namespace)
		if err := r.live.send(t.Context(), u); err != nil {
			t.Fatal(err)
		}
	}
	run := &Removal{Hooks: r.hooks(), Store: r.store, Record: record, Spec: v2.Uninstall{KeepHistory: true}, Timeout: time.Minute, Action: v2.ReleaseActionUninstall}
	var waits []string
	p := r.drive(func(ctx context.Context) (Progress, error) { return run.Advance(ctx) }, func(p Progress) {
		waits = append(waits, p.Object.ID.Name)
		if p.Object.ID.Name == "held" {
			if got := r.again(t.Context()).Info.Status; got != "uninstalling" {
				t.Errorf("meanwhile it is %s", got)
			}
			if _, err := r.client.CoreV1().ConfigMaps(r.namespace).Patch(t.Context(), "held", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil && !apierrors.IsNotFound(err) {
				t.Fatal(err)
			}
			// Another process goes on from here.
			run = &Removal{Hooks: r.hooks(), Store: r.store, Record: r.again(t.Context()), Spec: run.Spec, Timeout: time.Minute, Action: run.Action}
			return
		}
		r.well(p)
	})
	if !p.Done || waits[0] != "before" || waits[len(waits)-1] != "after" {
		t.Fatalf("ended with %+v after %v", p, waits)
	}
	if got := r.again(t.Context()); got.Info.Status != "uninstalled" || got.Info.Deleted.IsZero() {
		t.Errorf("recorded %+v", got.Info)
	}
	maps, err := r.client.CoreV1().ConfigMaps(r.namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range maps.Items {
		if m.Name == "plain" || m.Name == "held" {
			t.Errorf("%s is left", m.Name)
		}
	}
	if _, err := r.client.CoreV1().Secrets(r.namespace).Get(t.Context(), "kept", metav1.GetOptions{}); err != nil {
		t.Errorf("what is to be kept gave %v", err)
	}
	if got := strings.Join(run.Left, "; "); !strings.Contains(got, "Secret/"+r.namespace+"/kept") || !strings.Contains(got, "ConfigMap/"+r.namespace+"/foreign (it is not of this release)") {
		t.Errorf("left is told as %s", got)
	}
	// Without history nothing is recorded any more.
	run.Spec.KeepHistory = false
	if p, err := run.Advance(t.Context()); err != nil || !p.Done {
		t.Fatalf("%+v, %v", p, err)
	}
	if _, err := r.store.Last(t.Context(), "demo"); !errors.Is(err, ErrAbsent) {
		t.Errorf("without history the storage gives %v", err)
	}
}

// What the record does not name goes with proof only: the unit delivered it, and it still says so.
func TestUninstallBesides(t *testing.T) {
	r := newRig(t, "besides")
	record := r.begin("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: named, annotations: {helm.sh/resource-policy: keep}}\n")
	ours := object.Owner{Group: object.HelmGroup, Name: r.unit.Name, Namespace: r.unit.Namespace}
	rows := []struct {
		name, reason, release string
		owner                 object.Owner
		labels, annotations   map[string]string
		stays                 bool
	}{
		{name: "left", reason: "the revision before had it", release: "demo", owner: ours},
		{name: "unlabelled", reason: "nothing says that the unit delivered it", release: "demo", stays: true},
		{name: "labelled-for-another", reason: "it is another unit's", release: "demo", owner: object.Owner{Group: object.HelmGroup, Name: "other", Namespace: r.namespace}, stays: true},
		{name: "taken", reason: "another release took it since", release: "other", owner: ours, stays: true},
		{name: "delivered", reason: "a Kustomization took it since", release: "demo", owner: ours, labels: object.Owner{Group: object.KustomizeGroup, Name: "apps", Namespace: r.namespace}.Labels(), stays: true},
		{name: "kept", reason: "its policy says so", release: "demo", owner: ours, annotations: map[string]string{"helm.sh/resource-policy": "keep"}, stays: true},
		{name: "named", reason: "the record says to keep it, whatever the live object says", release: "demo", owner: ours, stays: true},
	}
	besides := []observe.Reference{{ID: object.ID{Group: "gone.example.org", Kind: "Gone", Namespace: r.namespace, Name: "gone"}, Version: "v1"}}
	for _, row := range rows {
		u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap"}}
		u.SetNamespace(r.namespace)
		u.SetName(row.name)
		u.SetLabels(row.labels)
		u.SetAnnotations(row.annotations)
		if row.owner.Name != "" {
			object.SetOwner(u, row.owner)
		}
		Dress(u, row.release, r.namespace)
		if err := r.live.send(t.Context(), u); err != nil {
			t.Fatal(err)
		}
		besides = append(besides, referenceOf(u))
	}
	run := &Removal{Hooks: r.hooks(), Store: r.store, Record: record, Timeout: time.Minute, Action: v2.ReleaseActionUninstall, Besides: besides}
	if p := r.drive(run.Advance, func(Progress) {}); !p.Done {
		t.Fatalf("ended with %+v", p)
	}
	for _, row := range rows {
		_, err := r.client.CoreV1().ConfigMaps(r.namespace).Get(t.Context(), row.name, metav1.GetOptions{})
		if stays := err == nil; stays != row.stays || err != nil && !apierrors.IsNotFound(err) {
			t.Errorf("%s is there: %v, %v; %s", row.name, stays, err, row.reason)
		}
	}
}

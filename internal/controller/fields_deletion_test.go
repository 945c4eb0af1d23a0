package controller

import (
	"fmt"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/report"
)

// there reports whether a ConfigMap of the stage exists and is not being deleted.
func (s *stage) there(name string) bool {
	s.Helper()
	m := s.aMap(name)
	err := s.client.Get(s.Context(), client.ObjectKeyFromObject(m), m)
	if err != nil && !apierrors.IsNotFound(err) {
		s.Fatal(err)
	}
	return err == nil && m.DeletionTimestamp == nil
}

func TestPrune(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.repo.Commit(map[string]string{
		"on/a.yaml": configMap("on-stays", "1"), "on/b.yaml": configMap("on-goes", "1"),
		"off/a.yaml": configMap("off-stays", "1"), "off/b.yaml": configMap("off-goes", "1"),
		"on/c.yaml": configMap("on-taken", "1"),
	})
	s.source()
	s.unit("on")
	s.unit("off", func(k *kustomizev1.Kustomization) { k.Spec.Prune = false })
	first := s.push(map[string]string{"on/a.yaml": configMap("on-stays", "2")})
	s.awaitLive("on", first)
	s.awaitLive("off", first)
	second := s.remove("on/b.yaml", "off/b.yaml")
	on, off := s.awaitLive("on", second), s.awaitLive("off", second)
	for name, want := range map[string]bool{"on-stays": true, "on-goes": false, "off-stays": true, "off-goes": true} {
		if got := s.there(name); got != want {
			t.Errorf("%s is there: %t, want %t", name, got, want)
		}
	}
	if len(on.Status.Inventory.Entries) != 2 || len(off.Status.Inventory.Entries) != 1 {
		t.Errorf("inventories hold %v and %v, want two objects and one", on.Status.Inventory.Entries, off.Status.Inventory.Entries)
	}
	// What was kept while it was off is not deleted when it is turned on.
	edit(s, s.kustomization("off"), func(k *kustomization) { k.Spec.Prune = true })
	again := s.push(map[string]string{"off/a.yaml": configMap("off-stays", "2")})
	if s.awaitLive("off", again); !s.there("off-goes") {
		t.Error("turning pruning on deleted what had been kept")
	}
	// Proof: an object of the inventory that no longer carries our labels is somebody else's.
	s.awaitLive("on", again)
	edit(s, s.kustomization("on"), func(k *kustomization) { k.Spec.Suspend = true })
	// The engine, which hears of both in this order, knows of the suspension by then.
	request := s.ask(s.kustomization("off"))
	s.awaitUnit("off", "asked", func(k *kustomizev1.Kustomization) bool { return k.Status.LastHandledReconcileAt == request })
	edit(s, s.aMap("on-taken"), func(m *corev1.ConfigMap) { m.Labels = nil })
	third := s.remove("on/c.yaml")
	s.awaitSource("at the third revision", atRevision(third))
	edit(s, s.kustomization("on"), func(k *kustomization) { k.Spec.Suspend = false })
	if k := s.awaitLive("on", third); len(k.Status.Inventory.Entries) != 1 || !s.there("on-taken") {
		t.Errorf("without our labels it is there: %t; inventory %v", s.there("on-taken"), k.Status.Inventory.Entries)
	}
}

// What becomes of what a Kustomization delivered when it is deleted.
func TestDeletionPolicy(t *testing.T) {
	t.Parallel()
	rows := []struct {
		name, reason string
		set          func(*kustomizev1.KustomizationSpec)
		stays        bool
	}{
		{name: "default-prune", reason: "as prune says", set: func(*kustomizev1.KustomizationSpec) {}},
		{name: "default-keep", reason: "as prune says", set: func(k *kustomizev1.KustomizationSpec) { k.Prune = false }, stays: true},
		{name: "mirror", reason: "as prune says", set: func(k *kustomizev1.KustomizationSpec) { k.DeletionPolicy = kustomizev1.DeletionPolicyMirrorPrune }},
		{name: "mirror-keep", reason: "as prune says", stays: true, set: func(k *kustomizev1.KustomizationSpec) {
			k.Prune, k.DeletionPolicy = false, kustomizev1.DeletionPolicyMirrorPrune
		}},
		{name: "delete", reason: "whatever prune says", set: func(k *kustomizev1.KustomizationSpec) {
			k.Prune, k.DeletionPolicy = false, kustomizev1.DeletionPolicyDelete
		}},
		{name: "wait", reason: "whatever prune says", set: func(k *kustomizev1.KustomizationSpec) {
			k.Prune, k.DeletionPolicy = false, kustomizev1.DeletionPolicyWaitForTermination
		}},
		{name: "orphan", reason: "whatever prune says", set: func(k *kustomizev1.KustomizationSpec) { k.DeletionPolicy = kustomizev1.DeletionPolicyOrphan }, stays: true},
		{name: "suspended", reason: "what is suspended does nothing", stays: true, set: func(*kustomizev1.KustomizationSpec) {}},
	}
	s := newStage(t)
	files := map[string]string{}
	for _, row := range rows {
		files[row.name+"/a.yaml"] = configMap(row.name, "1")
	}
	revision := "main@sha1:" + s.repo.Commit(files)
	s.source()
	for _, row := range rows {
		s.unit(row.name, func(k *kustomizev1.Kustomization) { row.set(&k.Spec) })
	}
	for _, row := range rows {
		s.awaitLive(row.name, revision)
		k := s.kustomization(row.name)
		edit(s, k, func(k *kustomization) { k.Spec.Suspend = row.name == "suspended" })
		if err := s.client.Delete(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range rows {
		s.awaitGone(s.kustomization(row.name), &kustomizev1.KustomizationList{})
		if got := s.there(row.name); got != row.stays {
			t.Errorf("%s: %s: what it delivered is there: %t, want %t", row.name, row.reason, got, row.stays)
		}
	}
}

// With WaitForTermination a Kustomization stays until all it delivered is gone,
// and says what it waits for; with Delete it does not wait.
func TestWaitForTermination(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	revision := "main@sha1:" + s.repo.Commit(map[string]string{"waits/a.yaml": configMap("waited-for", "1"), "goes/a.yaml": configMap("left", "1")})
	s.source()
	waits := s.unit("waits", func(k *kustomizev1.Kustomization) {
		k.Spec.DeletionPolicy = kustomizev1.DeletionPolicyWaitForTermination
	})
	goes := s.unit("goes", func(k *kustomizev1.Kustomization) { k.Spec.DeletionPolicy = kustomizev1.DeletionPolicyDelete })
	s.awaitLive("waits", revision)
	s.awaitLive("goes", revision)
	for _, name := range []string{"waited-for", "left"} {
		edit(s, s.aMap(name), func(m *corev1.ConfigMap) { m.Finalizers = []string{"example.test/hold"} })
	}
	release := func(name string) {
		edit(s, s.aMap(name), func(m *corev1.ConfigMap) { m.Finalizers = nil })
	}
	for _, k := range []*kustomization{waits, goes} {
		if err := s.client.Delete(t.Context(), k); err != nil {
			t.Fatal(err)
		}
	}
	s.awaitUnit("waits", "waiting", func(k *kustomization) bool {
		c := report.Condition(k, meta.ReadyCondition)
		return c != nil && strings.Contains(c.Message, "waiting for termination of ConfigMap/"+s.namespace+"/waited-for")
	})
	s.awaitGone(goes, &kustomizev1.KustomizationList{})
	release("left")
	release("waited-for")
	s.awaitGone(waits, &kustomizev1.KustomizationList{})
}

// A commit that deletes more than the budget's share waits for approval; all else
// in it is delivered meanwhile. An approval covers the deletions that it was given
// for and no others.
func TestDeletionBudgetOfShares(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := map[string]string{"app/stays.yaml": configMap("stays", "1")}
	for i := range 9 {
		files[fmt.Sprintf("app/%d.yaml", i)] = configMap(fmt.Sprintf("c%d", i), "1")
	}
	first := "main@sha1:" + s.repo.Commit(files)
	s.source()
	s.unit("app")
	s.awaitLive("app", first)

	s.repo.Commit(map[string]string{"app/stays.yaml": configMap("stays", "2")})
	second := s.remove("app/0.yaml", "app/1.yaml", "app/2.yaml", "app/3.yaml", "app/4.yaml", "app/5.yaml", "app/6.yaml")
	k := s.awaitFailure("app", report.ReasonApprovalRequired, "deleting 7 of 10 objects exceeds the budget of 50%",
		"ConfigMap/"+s.namespace+"/c0", "bowline approve kustomization app -n "+s.namespace+" --plan ")
	if got := s.config("stays").Data["value"]; got != "2" || !s.there("c0") {
		t.Errorf("meanwhile stays holds %q, and c0 is there: %t", got, s.there("c0"))
	}
	if k.Status.LastAttemptedRevision != second || k.Status.LastAppliedRevision != first || len(k.Status.Inventory.Entries) != 10 {
		t.Errorf("attempted %q, applied %q, inventory %v", k.Status.LastAttemptedRevision, k.Status.LastAppliedRevision, k.Status.Inventory.Entries)
	}
	old := held(k)
	s.approve("app", "anything")
	// Another list, before the approval: the old one does not cover it.
	third := s.remove("app/7.yaml")
	k = s.awaitFailure("app", report.ReasonApprovalRequired, "deleting 8 of 10 objects")
	if held(k) == old {
		t.Errorf("the digest %q is that of another list", old)
	}
	s.approve("app", old)
	// What the wrong approval does is seen from what comes after it.
	fourth := s.push(map[string]string{"app/stays.yaml": configMap("stays", "4")})
	k = s.awaitUnit("app", "attempted at the fourth revision", func(k *kustomization) bool {
		return k.Status.LastAttemptedRevision == fourth && says(k, "False", report.ReasonApprovalRequired)
	})
	if got := s.config("stays").Data["value"]; got != "4" || !s.there("c0") || !s.there("c7") {
		t.Errorf("approved for another list (%s), c0 is there: %t, c7: %t; stays holds %q", third, s.there("c0"), s.there("c7"), got)
	}
	s.approve("app", held(k))
	k = s.awaitLive("app", fourth)
	if s.there("c0") || s.there("c7") || !s.there("c8") || len(k.Status.Inventory.Entries) != 2 {
		t.Errorf("approved, c0 is there: %t, c7: %t, c8: %t; inventory %v", s.there("c0"), s.there("c7"), s.there("c8"), k.Status.Inventory.Entries)
	}
}

// Deletions that take back what the commit before took out by mistake need no
// approval any more.
func TestDeletionBudgetTakenBack(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := map[string]string{}
	for i := range 8 {
		files[fmt.Sprintf("app/%d.yaml", i)] = configMap(fmt.Sprintf("c%d", i), "1")
	}
	first := "main@sha1:" + s.repo.Commit(files)
	s.source()
	s.unit("app")
	s.awaitLive("app", first)
	before := s.deliveredConfigs()
	s.remove("app/0.yaml", "app/1.yaml", "app/2.yaml", "app/3.yaml", "app/4.yaml", "app/5.yaml", "app/6.yaml")
	s.awaitFailure("app", report.ReasonApprovalRequired)
	s.awaitLive("app", s.push(files))
	s.untouched(before)
}

// Kinds that take other things with them, or hold data, never go without approval.
func TestDeletionBudgetOfKinds(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	for kind, manifest := range map[string]string{
		"namespace": "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: " + s.namespace + "-extra\n",
		"claim": "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: data\n  namespace: " + s.namespace + "\nspec:\n  accessModes: [ReadWriteOnce]\n" +
			"  resources:\n    requests: {storage: 1Gi}\n",
		"definition": thingDefinition(s.namespace),
	} {
		s.repo.Commit(map[string]string{kind + "/a.yaml": manifest, kind + "/b.yaml": inNamespace(configMap(kind, "1"), s.namespace)})
	}
	rows := []struct{ name, object string }{
		{"namespace", "Namespace/" + s.namespace + "-extra"},
		{"claim", "PersistentVolumeClaim/" + s.namespace + "/data"},
		{"definition", "CustomResourceDefinition/things." + s.namespace + ".test"},
	}
	s.source()
	for _, row := range rows {
		// A target namespace would rename the Namespace too.
		s.unit(row.name, func(k *kustomizev1.Kustomization) { k.Spec.TargetNamespace = "" })
	}
	for _, row := range rows {
		s.awaitUnit(row.name, "ready", func(k *kustomization) bool { return says(k, "True", meta.ReconciliationSucceededReason) })
	}
	revision := s.remove("namespace/a.yaml", "claim/a.yaml", "definition/a.yaml")
	for _, row := range rows {
		k := s.awaitFailure(row.name, report.ReasonApprovalRequired, "deleting "+row.object+" needs approval")
		s.approve(row.name, held(k))
	}
	for _, row := range rows {
		if k := s.awaitLive(row.name, revision); len(k.Status.Inventory.Entries) != 1 {
			t.Errorf("%s: inventory %v, want only the ConfigMap", row.name, k.Status.Inventory.Entries)
		}
	}
}

// thingDefinition is the manifest of a definition of Things, of a group of its own.
func thingDefinition(group string) string {
	return fmt.Sprintf(`apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: things.%[1]s.test
spec:
  group: %[1]s.test
  scope: Namespaced
  names: {plural: things, singular: thing, kind: Thing, listKind: ThingList}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}
`, group)
}

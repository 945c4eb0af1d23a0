package controller

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// memberStage is a stage on a cluster of its own that knows the fleet's kinds, in the namespace
// of its assignment, with an engine that keeps its data in the folder.
func memberStage(t *testing.T, dir string) (*stage, *rest.Config) {
	t.Helper()
	instance := testkit.Start(t)
	fleet, err := crds.Fleet()
	if err != nil {
		t.Fatal(err)
	}
	if err := crds.Install(t.Context(), instance.Config, fleet); err != nil {
		t.Fatal(err)
	}
	engine := engineFor(t, instance.Config, func(o *Options) { o.DataDir = dir })
	s := stageOn(t, instance.Config)
	s.engine, s.namespace = engine, fleetv1.MemberNamespace
	s.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}})
	return s, instance.Config
}

func rawJSON(t *testing.T, v any) apiextensionsv1.JSON {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return apiextensionsv1.JSON{Raw: raw}
}

// assignedSource is the stage's repository, as a source of a namespace.
func (s *stage) assignedSource(namespace string) fleetv1.AssignedSource {
	return fleetv1.AssignedSource{Kind: sourcev1.GitRepositoryKind, Namespace: namespace, Name: "fleet", Spec: rawJSON(s.T, sourcev1.GitRepositorySpec{
		URL: s.repo.URL(), Interval: metav1.Duration{Duration: never}, Reference: &sourcev1.GitRepositoryRef{Branch: "main"},
	})}
}

// assignedUnit is a Kustomization of the repository's folder of the same name.
func (s *stage) assignedUnit(namespace, name string) fleetv1.AssignedUnit {
	return fleetv1.AssignedUnit{Kind: kustomizev1.KustomizationKind, Namespace: namespace, Name: name, Spec: rawJSON(s.T, kustomizev1.KustomizationSpec{
		Path: "./" + name, Prune: true, TargetNamespace: namespace, Interval: metav1.Duration{Duration: never},
		RetryInterval: &metav1.Duration{Duration: never}, Timeout: &metav1.Duration{Duration: lasting},
		SourceRef: kustomizev1.CrossNamespaceSourceReference{Kind: sourcev1.GitRepositoryKind, Name: "fleet"},
	})}
}

func (s *stage) placed(name string, dependsOn []string, units ...fleetv1.AssignedUnit) fleetv1.AssignedPlacement {
	return fleetv1.AssignedPlacement{Name: name, DependsOn: dependsOn, Units: units}
}

// copyOf makes the member's copy of an assignment.
func (s *stage) copyOf(name string, spec fleetv1.ClusterAssignmentSpec) *fleetv1.ClusterAssignment {
	s.Helper()
	a := &fleetv1.ClusterAssignment{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace, Labels: map[string]string{fleetv1.LabelSelf: "true"}}, Spec: spec}
	s.copied(a)
	s.create(a)
	return a
}

// copied marks a copy as a member's link does.
func (s *stage) copied(a *fleetv1.ClusterAssignment) {
	s.Helper()
	is, err := a.Spec.Fingerprint()
	if err != nil {
		s.Fatal(err)
	}
	metav1.SetMetaDataAnnotation(&a.ObjectMeta, fleetv1.CopiedAnnotation, is)
}

// reassign changes a copy as a member's link does.
func reassign(s *stage, a *fleetv1.ClusterAssignment, change func(*fleetv1.ClusterAssignment)) {
	s.Helper()
	edit(s, a, func(a *fleetv1.ClusterAssignment) {
		change(a)
		s.copied(a)
	})
}

// awaitCarriedOut waits until the copy is ready for the reason, with this digest.
func (s *stage) awaitCarriedOut(name, reason, digest string) *fleetv1.ClusterAssignment {
	s.Helper()
	return await(s, &fleetv1.ClusterAssignmentList{}, name, reason+" at "+digest, func(a *fleetv1.ClusterAssignment) bool {
		return says(a, metav1.ConditionTrue, reason) && a.Status.Digest == digest
	})
}

// versions returns the versions of what the member has of the fleet.
func (s *stage) fleetVersions(but ...string) map[string]string {
	s.Helper()
	out := s.fleetObjects(client.Object.GetResourceVersion)
	for _, name := range but {
		delete(out, name)
	}
	return out
}

// fleetObjects returns something of all that the member has of the fleet.
func (s *stage) fleetObjects(what func(client.Object) string) map[string]string {
	s.Helper()
	out := map[string]string{}
	for kind, list := range map[string]client.ObjectList{
		"ClusterAssignment": &fleetv1.ClusterAssignmentList{}, "Kustomization": &kustomizev1.KustomizationList{},
		"ExternalArtifact": &sourcev1.ExternalArtifactList{}, "GitRepository": &sourcev1.GitRepositoryList{},
	} {
		if err := s.client.List(s.Context(), list); err != nil {
			s.Fatal(err)
		}
		for _, o := range itemsOf(list) {
			out[kind+" "+o.GetNamespace()+"/"+o.GetName()] = what(o)
		}
	}
	return out
}

func itemsOf(list client.ObjectList) (out []client.Object) {
	switch l := list.(type) {
	case *fleetv1.ClusterAssignmentList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	case *kustomizev1.KustomizationList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	case *sourcev1.ExternalArtifactList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	case *sourcev1.GitRepositoryList:
		for i := range l.Items {
			out = append(out, &l.Items[i])
		}
	}
	return out
}

func (s *stage) in(namespace string) *stage {
	other := *s
	other.namespace = namespace
	return &other
}

// What a hub assigned runs, is healed, and is the same after a restart; a copy that is
// lost takes nothing along; leaving takes all of it.
func TestAssignment(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, config := memberStage(t, dir)
	revision := s.push0(map[string]string{
		"base/a.yaml": configMap("base", "1"), "web/a.yaml": configMap("web", "1"), "job/a.yaml": configMap("job", "1"),
	})
	spec := fleetv1.ClusterAssignmentSpec{
		Digest: "sha256:one", UnitCount: 3,
		Sources: []fleetv1.AssignedSource{s.assignedSource(s.namespace), s.assignedSource("team")},
		Sync:    []fleetv1.AssignedUnit{s.assignedUnit(s.namespace, "base")},
		Placements: []fleetv1.AssignedPlacement{
			s.placed("apps", nil, s.assignedUnit(s.namespace, "web")), s.placed("teams", nil, s.assignedUnit("team", "job")),
		},
	}
	a := s.copyOf("member-1", spec)
	s.awaitCarriedOut(a.Name, meta.ReconciliationSucceededReason, "sha256:one")
	s.awaitLive("base", revision)
	s.awaitLive("web", revision)
	s.in("team").awaitLive("job", revision)
	ready := func(k *kustomizev1.Kustomization) bool { return report.IsReady(k, k.Status.ObservedGeneration) }
	for _, name := range []string{"fleet-sources", "fleet-sync", "placement-apps", "placement-teams"} {
		k := s.awaitUnit(name, "ready", ready)
		if k.Labels[fleetv1.LabelMadeBy] != fleetv1.MadeByAssignment || !k.Spec.Prune || k.Spec.Wait != strings.HasPrefix(name, "placement-") || len(k.OwnerReferences) > 0 {
			t.Errorf("%s: labels %v, spec %+v", name, k.Labels, k.Spec)
		}
	}

	// A commit moves one pin: only the sources are written.
	before := s.fleetVersions()
	reassign(s, a, func(a *fleetv1.ClusterAssignment) {
		a.Spec.Sources[1].Spec.Raw = []byte(strings.Replace(string(a.Spec.Sources[1].Spec.Raw), `"10h0m0s"`, `"11h0m0s"`, 1))
		a.Spec.Digest = "sha256:two"
	})
	s.awaitCarriedOut(a.Name, meta.ReconciliationSucceededReason, "sha256:two")
	s.in("team").awaitSource("changed", func(g *sourcev1.GitRepository) bool { return g.Spec.Interval.Duration == 11*time.Hour })
	for name, version := range s.fleetVersions("ClusterAssignment bowline-system/member-1", "Kustomization bowline-system/fleet-sources", "ExternalArtifact bowline-system/fleet-sources", "GitRepository team/fleet") {
		if before[name] != version {
			t.Errorf("one source was changed, and %s was written", name)
		}
	}

	assignmentHeals(s, ready)
	assignmentRestarts(s, config, dir, a)
	assignmentEdited(s, a, config, dir)

	// The copy is lost, and comes back under another name.
	uid := s.kustomizationNow("placement-apps").UID
	if err := s.client.Delete(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	s.awaitGone(a, &fleetv1.ClusterAssignmentList{})
	spec.Digest = "sha256:three"
	a = s.copyOf("member-one", spec)
	s.awaitCarriedOut(a.Name, meta.ReconciliationSucceededReason, "sha256:three")
	if k := s.kustomizationNow("placement-apps"); k.UID != uid {
		t.Errorf("the copy was made anew, and so was placement-apps")
	}

	reassign(s, a, func(a *fleetv1.ClusterAssignment) { a.Spec.Leave = fleetv1.DeletionPolicyDelete })
	s.awaitCarriedOut(a.Name, fleetv1.ReasonLeft, "sha256:three")
	for name := range s.fleetVersions("ClusterAssignment bowline-system/" + a.Name) {
		t.Errorf("%s is still there", name)
	}
	for _, m := range []client.ObjectKey{{Namespace: s.namespace, Name: "web"}, {Namespace: "team", Name: "job"}} {
		if err := s.client.Get(t.Context(), m, &corev1.ConfigMap{}); !apierrors.IsNotFound(err) {
			t.Errorf("ConfigMap %s: %v, want it gone", m, err)
		}
	}
	s.read(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "team"}})
}

// kustomizationNow reads one of the stage's namespace.
func (s *stage) kustomizationNow(name string) *kustomizev1.Kustomization {
	s.Helper()
	k := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}}
	s.read(k)
	return k
}

// What is made of the copy, and what that delivers, is put back when somebody changes it.
func assignmentHeals(s *stage, ready func(*kustomizev1.Kustomization) bool) {
	s.Helper()
	edit(s, s.kustomizationNow("web"), func(k *kustomizev1.Kustomization) { k.Spec.Path = "./job" })
	s.awaitUnit("web", "as it was placed", func(k *kustomizev1.Kustomization) bool { return k.Spec.Path == "./web" && ready(k) })
	edit(s, s.kustomizationNow("placement-apps"), func(k *kustomizev1.Kustomization) {
		k.Spec.Suspend, k.Spec.Prune, k.Spec.TargetNamespace, k.Labels = true, false, "elsewhere", nil
	})
	s.awaitUnit("placement-apps", "as it was made", func(k *kustomizev1.Kustomization) bool {
		return !k.Spec.Suspend && k.Spec.Prune && k.Spec.TargetNamespace == "" && k.Labels[fleetv1.LabelMadeBy] == fleetv1.MadeByAssignment && ready(k)
	})
	ea := s.awaitArtifact("fleet-sync", "there", hasArtifact)
	if err := s.client.Delete(s.Context(), ea.DeepCopy()); err != nil {
		s.Fatal(err)
	}
	s.awaitArtifact("fleet-sync", "made again", func(now *sourcev1.ExternalArtifact) bool {
		return now.UID != ea.UID && hasArtifact(now) && now.Status.Artifact.Revision == ea.Status.Artifact.Revision
	})
	edit(s, ea, func(ea *sourcev1.ExternalArtifact) { ea.Labels = nil })
	s.awaitArtifact("fleet-sync", "labelled again", func(ea *sourcev1.ExternalArtifact) bool {
		return ea.Labels[fleetv1.LabelMadeBy] == fleetv1.MadeByAssignment
	})
	s.awaitUnit("fleet-sync", "ready", ready)
}

// After a restart the artifacts are there again, and nothing is written that is as it should be.
func assignmentRestarts(s *stage, config *rest.Config, dir string, a *fleetv1.ClusterAssignment) {
	s.Helper()
	if err := s.engine.stop(); err != nil {
		s.Fatal(err)
	}
	s.read(a)
	changed := []string{"Kustomization bowline-system/base", "Kustomization bowline-system/fleet-sync"}
	before := s.fleetVersions(changed...)
	edit(s, s.kustomizationNow("base"), func(k *kustomizev1.Kustomization) { k.Spec.Path = "./job" })
	s.engine = engineFor(s.T, config, func(o *Options) { o.DataDir = dir })
	s.awaitUnit("base", "healed from an artifact that was made anew", func(k *kustomizev1.Kustomization) bool {
		return k.Spec.Path == "./base" && report.IsReady(k, k.Status.ObservedGeneration)
	})
	pass(300 * time.Millisecond)
	for name, version := range s.fleetVersions(changed...) {
		if before[name] != version {
			s.Errorf("a restart wrote %s: it was at %q and is at %s", name, before[name], version)
		}
	}
}

// What somebody else than the link writes into the copy is not carried out, whatever it says, and neither is one that nobody vouches
// for; one that was carried out is, also after a restart and without the note that older links did not make.
func assignmentEdited(s *stage, a *fleetv1.ClusterAssignment, config *rest.Config, dir string) {
	s.Helper()
	made := func() map[string]string {
		all := s.fleetObjects(func(o client.Object) string { return fmt.Sprintf("%s in generation %d", o.GetUID(), o.GetGeneration()) })
		delete(all, "ClusterAssignment "+a.Namespace+"/"+a.Name)
		return all
	}
	ran := made()
	unmoved := func(when string) {
		s.Helper()
		if now := made(); !maps.Equal(now, ran) {
			s.Errorf("%s, and what runs is no longer %v but %v", when, ran, now)
		}
	}
	s.read(a)
	right := a.Spec.DeepCopy()
	for _, by := range []struct {
		name string
		how  func(*fleetv1.ClusterAssignment)
	}{
		{"emptied", func(a *fleetv1.ClusterAssignment) { a.Spec.Sources, a.Spec.Sync, a.Spec.Placements = nil, nil, nil }},
		{"told to leave", func(a *fleetv1.ClusterAssignment) { a.Spec.Leave = fleetv1.DeletionPolicyDelete }},
		{"written without a note", func(a *fleetv1.ClusterAssignment) { a.Spec.Placements, a.Annotations = nil, nil }},
	} {
		edit(s, a, by.how)
		await(s, &fleetv1.ClusterAssignmentList{}, a.Name, "waited for after it was "+by.name, func(a *fleetv1.ClusterAssignment) bool {
			return says(a, metav1.ConditionUnknown, fleetv1.ReasonEdited, "what ran before goes on") && a.Status.ObservedGeneration == a.Generation
		})
		unmoved("it was " + by.name)
		reassign(s, a, func(a *fleetv1.ClusterAssignment) { a.Spec = *right.DeepCopy() })
		s.awaitCarriedOut(a.Name, meta.ReconciliationSucceededReason, right.Digest)
		unmoved("it was put right after it was " + by.name)
	}
	// As older links left it.
	edit(s, a, func(a *fleetv1.ClusterAssignment) { a.Annotations = nil })
	if err := s.engine.stop(); err != nil {
		s.Fatal(err)
	}
	edit(s, s.kustomizationNow("base"), func(k *kustomizev1.Kustomization) { k.Spec.Path = "./job" })
	s.engine = engineFor(s.T, config, func(o *Options) { o.DataDir = dir })
	s.awaitUnit("base", "healed of a copy without a note", func(k *kustomizev1.Kustomization) bool {
		return k.Spec.Path == "./base" && report.IsReady(k, k.Status.ObservedGeneration)
	})
	s.awaitCarriedOut(a.Name, meta.ReconciliationSucceededReason, right.Digest)
}

// What leaves an assignment goes within the budget; what leaves a cluster goes.
func TestAssignmentChanges(t *testing.T) {
	t.Parallel()
	s, _ := memberStage(t, t.TempDir())
	s.push0(map[string]string{"base/a.yaml": configMap("base", "1"), "extra/a.yaml": configMap("extra", "1"), "second/a.yaml": configMap("second", "1")})
	a := s.copyOf("member-1", fleetv1.ClusterAssignmentSpec{
		Digest: "sha256:one", Sources: []fleetv1.AssignedSource{s.assignedSource(s.namespace)},
		Sync: []fleetv1.AssignedUnit{s.assignedUnit(s.namespace, "base"), s.assignedUnit(s.namespace, "extra")},
		Placements: []fleetv1.AssignedPlacement{
			s.placed("first", nil, s.assignedUnit(s.namespace, "first")),
			s.placed("second", []string{"first"}, s.assignedUnit(s.namespace, "second")),
		},
	})
	gone := func(o client.Object) bool {
		return apierrors.IsNotFound(s.client.Get(t.Context(), client.ObjectKeyFromObject(o), o))
	}

	// The second waits for units of the first.
	s.awaitFailure("first", meta.BuildFailedReason)
	s.awaitFailure("placement-second", meta.DependencyNotReadyReason, "placement-first")
	second := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: "second", Namespace: s.namespace}}
	if !gone(second) {
		t.Error("second is there before first is ready")
	}
	revision := s.push(map[string]string{"first/a.yaml": configMap("first", "1")})
	s.awaitLive("second", revision)

	// A unit is taken out: it stays until the deletion is approved.
	reassign(s, a, func(a *fleetv1.ClusterAssignment) { a.Spec.Sync, a.Spec.Digest = a.Spec.Sync[:1], "sha256:two" })
	waits := s.awaitFailure("fleet-sync", report.ReasonApprovalRequired, "Kustomization/bowline-system/extra")
	plan := held(waits)
	s.awaitLive("extra", revision)
	reassign(s, a, func(a *fleetv1.ClusterAssignment) { a.Spec.ApprovedPlans = []string{"sha256:other", plan} })
	s.awaitGone(&kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: "extra", Namespace: s.namespace}}, &kustomizev1.KustomizationList{})
	s.awaitGone(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "extra", Namespace: s.namespace}}, &corev1.ConfigMapList{})
	if k := s.kustomizationNow("placement-first"); k.Annotations[AnnotationApprovedPlan] != "" {
		t.Errorf("a plan was approved that waits for nothing: %v", k.Annotations)
	}

	// A Placement leaves: with its Kustomization goes all that it brought.
	reassign(s, a, func(a *fleetv1.ClusterAssignment) {
		a.Spec.Placements, a.Spec.Digest = a.Spec.Placements[:1], "sha256:three"
	})
	s.awaitGone(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "second", Namespace: s.namespace}}, &corev1.ConfigMapList{})
	s.awaitGone(second, &kustomizev1.KustomizationList{})
	s.awaitGone(&sourcev1.ExternalArtifact{ObjectMeta: metav1.ObjectMeta{Name: "placement-second", Namespace: s.namespace}}, &sourcev1.ExternalArtifactList{})

	assignmentNameTaken(s, a)

	// Leaving, and what runs stays.
	reassign(s, a, func(a *fleetv1.ClusterAssignment) { a.Spec.Leave = fleetv1.DeletionPolicyOrphan })
	s.awaitCarriedOut(a.Name, fleetv1.ReasonLeft, "sha256:four")
	for _, name := range []string{"fleet-sources", "fleet-sync", "placement-first", "placement-third"} {
		if !gone(&kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}}) {
			t.Errorf("Kustomization %s is there", name)
		}
	}
	for _, name := range []string{"base", "first"} {
		s.awaitLive(name, revision)
		s.config(name)
	}
}

// Names that the fleet needs and somebody else has are told, hold up nothing else, and are
// taken once they are free.
func assignmentNameTaken(s *stage, a *fleetv1.ClusterAssignment) {
	s.Helper()
	theirs := s.unit("placement-third", func(k *kustomizev1.Kustomization) { k.Spec.Path = "./base"; k.Spec.Suspend = true })
	reassign(s, a, func(a *fleetv1.ClusterAssignment) {
		third := s.assignedUnit(s.namespace, "third")
		third.Spec.Raw = []byte(strings.Replace(string(third.Spec.Raw), "./third", "./second", 1))
		a.Spec.Placements = append(a.Spec.Placements, s.placed("third", nil, third))
		a.Spec.Digest = "sha256:four"
	})
	await(s, &fleetv1.ClusterAssignmentList{}, a.Name, "told that a name is taken", func(a *fleetv1.ClusterAssignment) bool {
		return says(a, metav1.ConditionFalse, fleetv1.ReasonNameTaken, "placement-third", "somebody else") && a.Status.Digest == "sha256:three"
	})
	if err := s.client.Delete(s.Context(), theirs); err != nil {
		s.Fatal(err)
	}
	s.awaitCarriedOut(a.Name, meta.ReconciliationSucceededReason, "sha256:four")
	s.awaitUnit("third", "ready", func(k *kustomizev1.Kustomization) bool { return report.IsReady(k, k.Status.ObservedGeneration) })

	other := s.copyOf("member-2", fleetv1.ClusterAssignmentSpec{Digest: "sha256:other"})
	await(s, &fleetv1.ClusterAssignmentList{}, other.Name, "told that there is another", func(a *fleetv1.ClusterAssignment) bool {
		return says(a, metav1.ConditionFalse, fleetv1.ReasonNameTaken, "member-1")
	})
	if err := s.client.Delete(s.Context(), other); err != nil {
		s.Fatal(err)
	}
}

package hub

import (
	"context"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// A hub that is a member itself keeps its own copy of its assignment under its own name. A FleetCluster of that name is
// refused and says so; neither that it is there nor that it goes changes the copy, and when the copy goes the name is free.
func TestTaken(t *testing.T) {
	t.Parallel()
	kinds := scheme(t)
	if err := corev1.AddToScheme(kinds); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(install(t), client.Options{Scheme: kinds})
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{TB: t, Client: c, namespace: v1alpha1.MemberNamespace, asked: &asked{all: map[string]int{}}}
	s.must(client.IgnoreAlreadyExists(s.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.namespace}})))
	t.Cleanup(func() { // the namespace stays
		ctx := context.Background()
		for _, name := range []string{"cloud", "mixed"} {
			_ = s.Patch(ctx, &v1alpha1.FleetCluster{ObjectMeta: s.meta(name)}, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`)))
		}
		for _, o := range []client.Object{&v1alpha1.FleetCluster{}, &v1alpha1.ClusterAssignment{}, &v1alpha1.ClusterReport{}, &v1alpha1.Placement{}, &sourcev1.GitRepository{}} {
			_ = s.DeleteAllOf(ctx, o, client.InNamespace(s.namespace))
		}
	})
	s.start(quick)
	s.source("fleet", first)
	s.place("apps", prod, unit("web"))
	own := &v1alpha1.ClusterAssignment{ObjectMeta: s.meta("cloud"), Spec: v1alpha1.ClusterAssignmentSpec{
		Digest: "sha256:of-the-hub-above", Incarnation: "11111111111111111111111111111111",
		Placements: []v1alpha1.AssignedPlacement{{Name: "from-above", Units: []v1alpha1.AssignedUnit{}}}}}
	own.Labels = map[string]string{v1alpha1.LabelSelf: "true"}
	s.must(s.Create(t.Context(), own))
	untouched := func(when string) {
		t.Helper()
		now := &v1alpha1.ClusterAssignment{}
		s.must(s.Get(t.Context(), client.ObjectKeyFromObject(own), now))
		if now.UID != own.UID || now.ResourceVersion != own.ResourceVersion {
			t.Errorf("%s: the hub's own copy was written: %+v", when, now)
		}
	}

	refused := s.cluster("cloud", prod)
	says(s, refused, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.ReasonNameTaken, "under the same name", "another name")
	if refused.Status.Phase != v1alpha1.PhaseFailing {
		t.Errorf("the phase is %s", refused.Status.Phase)
	}
	untouched("a FleetCluster of its name")
	// One that has joined in the meantime would be asked to leave.
	change(s, refused, func(c *v1alpha1.FleetCluster) { c.Labels = nil })
	before := refused.DeepCopy()
	refused.Status.Incarnation = "22222222222222222222222222222222"
	s.must(s.Status().Patch(t.Context(), refused, client.MergeFrom(before)))
	s.must(s.Delete(t.Context(), refused))
	s.gone(refused)
	s.gone(&v1alpha1.ClusterReport{ObjectMeta: s.meta("cloud")})
	untouched("a FleetCluster of its name that goes")

	again := s.cluster("cloud", prod)
	says(s, again, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.ReasonNameTaken)
	s.must(s.Delete(t.Context(), own))
	a := s.assignment("cloud", "apps", placements("apps"))
	if !metav1.IsControlledBy(a, again) || a.Labels[v1alpha1.LabelSelf] != "" {
		t.Errorf("the assignment is %+v", a.ObjectMeta)
	}
	says(s, again, meta.ReadyCondition, metav1.ConditionUnknown, v1alpha1.AwaitingReportReason)

	// What links of earlier versions have made of the two is the hub's own copy as well.
	mixed := s.cluster("mixed", prod)
	s.assignment("mixed", "apps", placements("apps"))
	own = &v1alpha1.ClusterAssignment{ObjectMeta: s.meta("mixed")}
	change(s, own, func(a *v1alpha1.ClusterAssignment) {
		a.Labels = map[string]string{v1alpha1.LabelSelf: "true"}
		a.Spec = v1alpha1.ClusterAssignmentSpec{Digest: "sha256:of-the-hub-above", Incarnation: "11111111111111111111111111111111"}
	})
	says(s, mixed, meta.ReadyCondition, metav1.ConditionFalse, v1alpha1.ReasonNameTaken)
	untouched("a FleetCluster that held its name")
	// A hub that is its own member has one object for both.
	system := &corev1.Namespace{}
	s.must(s.Get(t.Context(), client.ObjectKey{Name: metav1.NamespaceSystem}, system))
	before = mixed.DeepCopy()
	mixed.Status.ClusterID, mixed.Status.Incarnation = string(system.UID), "11111111111111111111111111111111"
	s.must(s.Status().Patch(t.Context(), mixed, client.MergeFrom(before)))
	s.assignment("mixed", "apps again", placements("apps"))
}

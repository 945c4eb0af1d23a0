package kube

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestStatuses(t *testing.T) {
	ctx, namespace := t.Context(), testkit.Namespace(t)
	direct, err := client.New(testkit.Cluster(t), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string]string{"app": "shop"}
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: "shop", Namespace: namespace}, Spec: appsv1.DeploymentSpec{
		Replicas: ptr.To[int32](0), Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "shop", Image: "shop"}}}},
	}}
	if err := direct.Create(ctx, d, client.FieldOwner("people")); err != nil {
		t.Fatal(err)
	}
	d.ManagedFields = nil // as in a cache
	stale := d.DeepCopy()
	statuses := connect(t).Statuses(appsv1.SchemeGroupVersion.WithKind("Deployment"), "deployments")
	put := func(o *appsv1.Deployment, generation int64) error {
		t.Helper()
		o.Status.ObservedGeneration = generation
		o.Spec.Replicas = ptr.To[int32](7) // which is no part of the status
		return statuses.Put(ctx, o, "engine")
	}
	for generation := range int64(2) { // the second with the version that the first noted
		if err := put(d, generation+1); err != nil {
			t.Fatal(err)
		}
	}
	if err := put(stale, 9); !apierrors.IsConflict(err) {
		t.Errorf("got %v for an object that was changed since it was read, want a conflict", err)
	}
	got := &appsv1.Deployment{}
	if err := direct.Get(ctx, client.ObjectKeyFromObject(d), got); err != nil {
		t.Fatal(err)
	}
	if got.ResourceVersion != d.ResourceVersion || got.Status.ObservedGeneration != 2 || *got.Spec.Replicas != 0 {
		t.Errorf("got version %s, observed generation %d and %d replicas; want %s, 2 and 0", got.ResourceVersion, got.Status.ObservedGeneration, *got.Spec.Replicas, d.ResourceVersion)
	}
	owners := map[string]string{}
	for _, f := range got.ManagedFields {
		owners[f.Manager] = f.Subresource
	}
	if len(owners) != 2 || owners["people"] != "" || owners["engine"] != "status" {
		t.Errorf("the fields belong to %v, want those of people and, of the status, of engine", owners)
	}
	gone := got.DeepCopy()
	gone.Name = "nothing"
	if err := put(gone, 1); !apierrors.IsNotFound(err) {
		t.Errorf("got %v for an object that is not there", err)
	}
}

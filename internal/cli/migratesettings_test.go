package cli

import (
	"errors"
	"maps"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/cli/flux"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// On a real API server, migrate writes its settings, takes those back that it wrote
// before, and leaves those of others alone both ways.
func TestMigratedSettings(t *testing.T) {
	t.Parallel()
	c, err := client.New(testkit.Cluster(t), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	type data = map[string]string
	for _, row := range []struct {
		name, reason string
		there        data   // before, of others; nil where there is no ConfigMap
		calls        []data // of migrate
		later        data   // set by others afterwards
		kept, left   data   // after the calls, and after the way back; left is nil where the object goes
	}{
		{name: "own", reason: "nothing of others is in it", calls: []data{{"tenancy": "open"}}, kept: data{"tenancy": "open"}},
		{name: "stale", reason: "Flux's arguments changed between two calls",
			calls: []data{{"tenancy": "open", "default-service-account": "a"}, {"tenancy": "open", "no-remote-bases": "true"}, {"tenancy": "open", "no-remote-bases": "true"}},
			kept:  data{"tenancy": "open", "no-remote-bases": "true"}},
		{name: "added later", reason: "the administrator's settings outlive migrate", calls: []data{{"tenancy": "open"}}, later: data{"concurrency": "4"},
			kept: data{"tenancy": "open", "concurrency": "4"}, left: data{"concurrency": "4"}},
		{name: "of others", reason: "the object and what was in it are theirs", there: data{"concurrency": "4"}, calls: []data{{"tenancy": "open"}, {"no-remote-bases": "true"}},
			kept: data{"concurrency": "4", "no-remote-bases": "true"}, left: data{"concurrency": "4"}},
		{name: "set by others as well", reason: "it was there before", there: data{"tenancy": "open"}, calls: []data{{"tenancy": "open"}, {"tenancy": "open"}},
			kept: data{"tenancy": "open"}, left: data{"tenancy": "open"}},
		{name: "empty object of others", reason: "migrate did not create it", there: data{}, calls: []data{{"tenancy": "open"}}, kept: data{"tenancy": "open"}, left: data{}},
		{name: "without migrate", reason: "it is none of its business", there: data{"tenancy": "locked"}, kept: data{"tenancy": "locked"}, left: data{"tenancy": "locked"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			name := types.NamespacedName{Namespace: testkit.Namespace(t), Name: "bowline-settings"}
			object := metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}
			if row.there != nil {
				if err := c.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: object, Data: row.there}); err != nil {
					t.Fatal(err)
				}
			}
			for _, values := range row.calls {
				if err := writeSettings(t.Context(), c, name, values); err != nil {
					t.Fatal(err)
				}
			}
			m := &corev1.ConfigMap{}
			if row.later != nil {
				if err := c.Get(t.Context(), name, m); err != nil {
					t.Fatal(err)
				}
				maps.Copy(m.Data, row.later)
				if err := c.Update(t.Context(), m); err != nil {
					t.Fatal(err)
				}
			}
			if kept, err := readSettings(t.Context(), c, name); err != nil || !maps.Equal(kept.values, row.kept) {
				t.Errorf("kept is %v (%v), want %v: %s", kept.values, err, row.kept, row.reason)
			}
			for range 2 { // the second call finds nothing of its own
				if _, err := removeSettings(t.Context(), c, name); err != nil {
					t.Fatal(err)
				}
			}
			m = &corev1.ConfigMap{}
			switch err := c.Get(t.Context(), name, m); {
			case row.left == nil && !apierrors.IsNotFound(err):
				t.Errorf("it is still there with %v (%v): %s", m.Data, err, row.reason)
			case row.left != nil && (err != nil || !maps.Equal(m.Data, row.left) || len(m.Annotations) != 0):
				t.Errorf("left is %v with annotations %v (%v), want %v: %s", m.Data, m.Annotations, err, row.left, row.reason)
			}
		})
	}
}

// A wrong setting writes nothing.
func TestWrongSettingIsNotWritten(t *testing.T) {
	t.Parallel()
	c, err := client.New(testkit.Cluster(t), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	name := types.NamespacedName{Namespace: testkit.Namespace(t), Name: "bowline-settings"}
	if err := writeSettings(t.Context(), c, name, map[string]string{"tenancy": "locked", "concurrency": "many"}); !errors.Is(err, failure.Of(failure.Invalid)) {
		t.Errorf("a bad value is written: %v", err)
	}
	if kept, err := readSettings(t.Context(), c, name); err != nil || len(kept.values) != 0 {
		t.Errorf("kept is %v (%v)", kept.values, err)
	}
}

// A controller comes back as it was: with as many replicas, and with what its
// annotation about deliveries said before.
func TestStopAndStart(t *testing.T) {
	t.Parallel()
	c, err := client.New(testkit.Cluster(t), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	const reconcile = "kustomize.toolkit.fluxcd.io/reconcile"
	for _, row := range []struct {
		name, reason string
		before       map[string]string
		scaledUp     bool // by somebody after the first stop, and stopped once more
	}{
		{"plain", "nothing was there", map[string]string{"note": "kept"}, false},
		{"disabled before", "somebody holds the deployment back from deliveries", map[string]string{reconcile: "disabled"}, false},
		{"another value", "it is theirs", map[string]string{reconcile: "enabled"}, false},
		{"plain, stopped twice", "the value that the second stop found is of the first", map[string]string{"note": "kept"}, true},
		{"disabled before, stopped twice", "the value that the first stop found counts", map[string]string{reconcile: "disabled"}, true},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			namespace, app := testkit.Namespace(t), map[string]string{"app": "kustomize-controller"}
			d := &appsv1.Deployment{
				ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "kustomize-controller", Labels: map[string]string{"app.kubernetes.io/part-of": "flux"}, Annotations: row.before},
				Spec: appsv1.DeploymentSpec{Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: app}, Template: corev1.PodTemplateSpec{
					ObjectMeta: metav1.ObjectMeta{Labels: app},
					Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "manager", Image: "kustomize-controller:v1.9.5"}}},
				}},
			}
			if err := c.Create(t.Context(), d); err != nil {
				t.Fatal(err)
			}
			find := func() *flux.Controller {
				i, err := flux.Find(t.Context(), c, namespace)
				if err != nil {
					t.Fatal(err)
				}
				return i.Replaced()[0]
			}
			if err := find().Stop(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if row.scaledUp {
				up := find()
				up.Spec.Replicas = new(int32(2))
				if err := c.Update(t.Context(), &up.Deployment); err != nil {
					t.Fatal(err)
				}
				if err := find().Stop(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
			if got := find(); *got.Spec.Replicas != 0 || got.Annotations[reconcile] != "disabled" {
				t.Errorf("stopped it has %d replicas and %v", *got.Spec.Replicas, got.Annotations)
			}
			if err := find().Start(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if got := find(); *got.Spec.Replicas != 2 || !maps.Equal(got.Annotations, row.before) {
				t.Errorf("started it has %d replicas and %v, want %v: %s", *got.Spec.Replicas, got.Annotations, row.before, row.reason)
			}
		})
	}
}

package release

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	v2 "github.com/fluxcd/helm-controller/api/v2"
	helmrelease "helm.sh/helm/v4/pkg/release/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/failure"
)

func testPod(name string) *helmrelease.Hook {
	return &helmrelease.Hook{
		Name: name, Kind: "Pod", Path: "demo/templates/tests/" + name + ".yaml", Events: []helmrelease.HookEvent{helmrelease.HookTest},
		Manifest: "apiVersion: v1\nkind: Pod\nmetadata:\n  name: " + name + "\nspec:\n  restartPolicy: Never\n  containers: [{name: main, image: example.org/none}]\n",
	}
}

// endPod has the pod that is waited for end in the phase.
func (r *rig) endPod(p Progress, phase corev1.PodPhase) {
	r.t.Helper()
	pods := r.client.CoreV1().Pods(r.namespace)
	pod, err := pods.Get(r.t.Context(), p.Object.ID.Name, metav1.GetOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
	pod.Status.Phase, pod.Status.Message = phase, "it says why"
	if _, err := pods.UpdateStatus(r.t.Context(), pod, metav1.UpdateOptions{}); err != nil {
		r.t.Fatal(err)
	}
}

func TestTests(t *testing.T) {
	for _, c := range []struct {
		name    string
		filters []v2.Filter
		phase   corev1.PodPhase
		want    map[string]string
		failed  bool
		reason  string
	}{
		{"all pass", nil, corev1.PodSucceeded, map[string]string{"one": "Succeeded", "two": "Succeeded"}, false, "one after the other"},
		{"one fails", nil, corev1.PodFailed, map[string]string{"one": "Failed", "two": ""}, true, "what comes after a failure does not run"},
		{"one is selected", []v2.Filter{{Name: "two"}}, corev1.PodSucceeded, map[string]string{"two": "Succeeded"}, false, "the other does not run"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, "hooks-test")
			record := r.begin("", testPod("two"), testPod("one"))
			p := r.drive(func(ctx context.Context) (Progress, error) {
				return r.hooks().Advance(ctx, HookRun{
					Record: record, Event: helmrelease.HookTest, Timeout: time.Minute,
					Only: func(name string) bool { return TestSelected(name, c.filters) },
				})
			}, func(p Progress) { r.endPod(p, c.phase) })
			if (p.Failed != nil) != c.failed || c.failed && !strings.Contains(p.Failed.Error(), "it says why") {
				t.Fatalf("ended with %+v: %s", p, c.reason)
			}
			got := TestHooks(r.again(t.Context()).Release, c.filters)
			for name, phase := range c.want {
				if got[name] == nil || got[name].Phase != phase {
					t.Errorf("%s is told as %+v: %s", name, got[name], c.reason)
				}
			}
			if len(got) != len(c.want) {
				t.Errorf("told %v: %s", got, c.reason)
			}
		})
	}
}

func TestHooksThatCannotBeMade(t *testing.T) {
	const secret = "c3dvcmRmaXNo"
	for _, c := range []struct {
		name     string
		manifest string
		kind     failure.Kind
		want     string
		reason   string
	}{
		{"unknown kind", "apiVersion: none.example.org/v1\nkind: None\nmetadata: {name: none}\n", failure.NotFound, "None", "nobody serves it"},
		{"refused", "apiVersion: v1\nkind: Service\nmetadata: {name: refused}\nspec: {ports: [{port: 99999}]}\n", failure.Invalid, "port", "the server says why"},
		{"refused secret", "apiVersion: v1\nkind: Secret\nmetadata: {name: refused}\ntype: kubernetes.io/tls\ndata: {" + "a.b/c: " + secret + "}\n", failure.Invalid, "Secret", "no value is told"},
		{"no object", "just words", failure.Invalid, "stored manifest", "it cannot be read"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, "hooks-refused")
			record := r.begin("", &helmrelease.Hook{Name: "it", Path: "demo/templates/it.yaml", Manifest: c.manifest, Events: []helmrelease.HookEvent{helmrelease.HookPreInstall}})
			p, err := r.run(record, helmrelease.HookPreInstall)(t.Context())
			if err == nil {
				err = p.Failed
			}
			if !errors.Is(err, failure.Of(c.kind)) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), secret) || strings.Contains(err.Error(), "\n") {
				t.Errorf("gave %v, want %q of kind %s: %s", err, c.want, c.kind, c.reason)
			}
			if h := r.again(t.Context()).Hooks[0]; p.Failed != nil && h.LastRun.Phase != helmrelease.HookPhaseFailed {
				t.Errorf("recorded as %+v", h.LastRun)
			}
		})
	}
}

func TestAHookThatSomebodyRemovesHasFailed(t *testing.T) {
	r := newRig(t, "hooks-removed")
	pre := helmrelease.HookPreUpgrade
	record := r.begin("", jobHook("migrate", 0, pre))
	made := r.countJobs()
	p := r.drive(r.run(record, pre), func(Progress) {
		background := metav1.DeletePropagationBackground
		err := r.client.BatchV1().Jobs(r.namespace).Delete(t.Context(), "migrate", metav1.DeleteOptions{PropagationPolicy: &background})
		if err != nil && !apierrors.IsNotFound(err) {
			t.Fatal(err)
		}
		record = r.again(t.Context()) // whoever goes on, too, knows that it was made
	})
	if p.Failed == nil || !strings.Contains(p.Failed.Error(), "removed before its end was seen") {
		t.Errorf("ended with %+v", p)
	}
	if got := made(); got["migrate"] != 1 {
		t.Errorf("it was made %d times", got["migrate"])
	}
}

func TestAHookWithoutAName(t *testing.T) {
	r := newRig(t, "hooks-generate")
	pre := helmrelease.HookPreUpgrade
	hook := jobHook("migrate", 0, pre)
	hook.Name, hook.Manifest = "", strings.Replace(hook.Manifest, "name: migrate", "generateName: migrate-", 1)
	record := r.begin("", hook)
	made := r.countJobs()
	p := r.drive(func(ctx context.Context) (Progress, error) {
		return r.run(r.again(ctx), pre)(ctx) // each call is another process
	}, func(p Progress) {
		if !strings.HasPrefix(p.Object.ID.Name, "migrate-") {
			t.Errorf("it is called %s", p.Object.ID.Name)
		}
		r.well(p)
	})
	if got := made(); !p.Done || len(got) != 1 {
		t.Errorf("ended with %+v, made %v for %s", p, got, record.Name)
	}
}

package controller

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"github.com/fluxcd/pkg/apis/meta"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/report"
)

// rollable is a chart whose revisions go wrong as the values say: the API server refuses
// one, a test of it fails, or neither its workload nor its job ever comes to anything.
func rollable() map[string]string {
	files := map[string]string{
		"templates/hook.yaml": hook("hook", "pre-rollback"),
		"templates/test.yaml": "{{ if .Values.bad }}\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: \"{{ .Release.Name }}_NOT\"\n  annotations: {helm.sh/hook: test}\n{{ end }}\n",
		"templates/old.yaml":  "{{ if not .Values.drop }}\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: \"{{ .Release.Name }}-old\"\n{{ end }}\n",
		"templates/job.yaml": `{{ if .Values.job }}
apiVersion: batch/v1
kind: Job
metadata: {name: "{{ .Release.Name }}"}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: job, image: "registry.test/job:does-not-exist"}]}}}
{{ end }}
`,
	}
	maps.Copy(files, waiting)
	maps.Copy(files, refusing)
	return files
}

// What the fields of a rollback say is so of a rollback, and of nothing else.
func TestReleaseRollbackFields(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", rollable()))
	short := &metav1.Duration{Duration: 10 * time.Second} // everything before that wait has to fit in as well
	unready, job := map[string]any{"replicas": 1, "tag": "does-not-exist"}, map[string]any{"job": true}
	refused, tested := map[string]any{"broken": true}, map[string]any{"replicas": 0, "drop": true, "bad": true}
	const failed, succeeded = "False RollbackFailed", "True RollbackSucceeded"
	rows := []struct {
		name, reason string
		first, next  map[string]any // the values, and those of the upgrade that fails
		rollback     helmv2.Rollback
		want         string
		hook, old    bool
	}{
		{"waits", "it waits for health as long as its own timeout says, after its hooks", unready, refused, helmv2.Rollback{Timeout: short}, failed, true, true},
		{
			"hasty", "it does not wait, runs no hooks, and replaces nothing", unready, refused,
			helmv2.Rollback{DisableWait: true, DisableHooks: true, Recreate: true, Force: true}, succeeded, false, true, //nolint:staticcheck // deprecated, and still in use
		},
		{"job", "it waits for jobs", job, refused, helmv2.Rollback{Timeout: short}, failed, true, true},
		{"no-job", "it does not wait for jobs", job, refused, helmv2.Rollback{DisableWaitForJobs: true}, succeeded, true, true},
		{"no-job-but", "it waits for all else", unready, refused, helmv2.Rollback{DisableWaitForJobs: true, Timeout: short}, failed, true, true},
		{"leaves", "what a rollback that fails brought back stays", unready, tested, helmv2.Rollback{Timeout: short}, failed, true, true},
		{"cleans", "what it brought back goes again", unready, tested, helmv2.Rollback{Timeout: short, CleanupOnFail: true}, failed, true, false},
	}
	for _, row := range rows {
		s.release(row.name, withValues(row.first), retries(0, helmv2.RollbackRemediationStrategy), func(h *helmv2.HelmRelease) {
			h.Spec.Install = &helmv2.Install{DisableWait: true}
			h.Spec.Test = &helmv2.Test{Enable: true}
			h.Spec.Upgrade.Remediation.RemediateLastFailure = ptr.To(true)
			h.Spec.Rollback = &row.rollback
		})
	}
	before := map[string]*appsv1.Deployment{}
	for _, row := range rows {
		s.awaitReleased(row.name, 1)
		before[row.name] = &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: row.name, Namespace: s.namespace}}
		s.read(before[row.name])
		values := maps.Clone(row.first)
		maps.Copy(values, row.next)
		edit(s, s.helmRelease(row.name), withValues(values))
	}
	for _, row := range rows {
		h := s.awaitRelease(row.name, "rolled back: "+row.reason, func(h *helmv2.HelmRelease) bool {
			return condition(h, helmv2.RemediatedCondition) == row.want
		})
		if got := s.hasConfig(row.name + "-hook"); got != row.hook {
			t.Errorf("%s: the hook ran: %v; %s", row.name, got, row.reason)
		}
		s.poll(fmt.Sprintf("so that %s: %s-old: %v", row.reason, row.name, row.old), func() bool { return s.hasConfig(row.name+"-old") == row.old })
		if len(s.revisions(row.name)) > 4 {
			t.Errorf("%s: it is rolled back again without a pause: %v", row.name, s.revisions(row.name))
		}
		if c := report.Condition(h, helmv2.RemediatedCondition); row.want == failed && !strings.Contains(c.Message, "health check failed after ") {
			t.Errorf("%s: %s; %s", row.name, c.Message, row.reason)
		}
		after := &appsv1.Deployment{}
		if err := s.client.Get(t.Context(), client.ObjectKeyFromObject(before[row.name]), after); err != nil || after.UID != before[row.name].UID {
			t.Errorf("%s: the workload was replaced (%v); %s", row.name, err, row.reason)
		}
	}
}

// The storage holds as many revisions as the field says, and five where it says nothing.
func TestReleaseMaxHistory(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", refusing))
	rows := []struct {
		name string
		most *int
		want []string
	}{
		{"default", nil, []string{"3 superseded", "4 superseded", "5 superseded", "6 superseded", "7 deployed"}},
		{"two", ptr.To(2), []string{"6 superseded", "7 deployed"}},
		{"all", ptr.To(0), []string{"1 superseded", "2 superseded", "3 superseded", "4 superseded", "5 superseded", "6 superseded", "7 deployed"}},
	}
	for _, row := range rows {
		s.release(row.name, func(h *helmv2.HelmRelease) { h.Spec.MaxHistory = row.most })
	}
	for version := range 7 {
		for _, row := range rows {
			if version > 0 {
				edit(s, s.helmRelease(row.name), withValues(map[string]any{"value": fmt.Sprint(version)}))
			}
		}
		for _, row := range rows {
			s.awaitReleased(row.name, version+1)
		}
	}
	for _, row := range rows {
		if got := s.revisions(row.name); !slices.Equal(got, row.want) {
			t.Errorf("%s: revisions %v, want %v", row.name, got, row.want)
		}
	}
	// What is deployed is kept, however many fail after it.
	for version := 8; version < 11; version++ {
		edit(s, s.helmRelease("two"), withValues(map[string]any{"broken": true, "value": fmt.Sprint(version)}))
		s.awaitRelease("two", "failed", func(h *helmv2.HelmRelease) bool {
			return h.Status.History.Latest().Version == version && h.Status.History.Latest().Status == "failed"
		})
	}
	if got, want := s.revisions("two"), []string{"10 failed", "7 deployed"}; !slices.Equal(got, want) {
		t.Errorf("revisions %v, want %v", got, want)
	}
}

// What the fields of an uninstall say is so of it.
func TestReleaseUninstallFields(t *testing.T) {
	t.Parallel()
	const hold = "bowline.test/hold"
	s := newStage(t)
	s.charts(chart("1.0.0", map[string]string{
		"templates/config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}\n  finalizers: [" + hold + "]\n",
		"templates/bye.yaml":    hook("bye", "pre-delete"),
	}))
	rows := []struct {
		name, reason string
		uninstall    helmv2.Uninstall
		waits, hook  bool
		child        func(object, child *corev1.ConfigMap) bool // whether what depends on the object is as it should be
	}{
		{"waits", "it waits as long as its own timeout says, after its hooks", helmv2.Uninstall{Timeout: &metav1.Duration{Duration: 2 * time.Second}}, true, true, goesAfter},
		{"quick", "it waits for nothing and runs no hooks", helmv2.Uninstall{DisableWait: true, DisableHooks: true}, false, false, goesAfter},
		{"background", "dependents go after it", helmv2.Uninstall{DisableWait: true, DeletionPropagation: ptr.To("background")}, false, true, goesAfter},
		{"foreground", "dependents go before it", helmv2.Uninstall{DisableWait: true, DeletionPropagation: ptr.To("foreground")}, false, true, goesBefore},
		{"orphan", "dependents stay", helmv2.Uninstall{DisableWait: true, DeletionPropagation: ptr.To("orphan")}, false, true, isOrphan},
	}
	for _, row := range rows {
		s.release(row.name, func(h *helmv2.HelmRelease) { h.Spec.Uninstall = &row.uninstall })
	}
	for _, row := range rows {
		h := s.awaitReleased(row.name, 1)
		owner := metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: row.name, UID: s.config(row.name).UID, BlockOwnerDeletion: ptr.To(true)}
		s.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Name: row.name + "-child", Namespace: s.namespace, Finalizers: []string{hold}, OwnerReferences: []metav1.OwnerReference{owner},
		}})
		s.delete(h)
	}
	for _, row := range rows {
		h := &helmv2.HelmRelease{ObjectMeta: metav1.ObjectMeta{Name: row.name, Namespace: s.namespace}}
		if row.waits {
			s.awaitReleaseFailure(row.name, helmv2.UninstallFailedReason, "ConfigMap/"+s.namespace+"/"+row.name+" is not gone after 2s", hold)
		} else {
			s.awaitGone(h, &helmv2.HelmReleaseList{})
		}
		m := s.config(row.name)
		if m.DeletionTimestamp == nil || !slices.Contains(m.Finalizers, hold) {
			t.Errorf("%s: it is not being deleted: %v, %v; %s", row.name, m.DeletionTimestamp, m.Finalizers, row.reason)
		}
		s.poll("so that "+row.reason, func() bool { return row.child(s.config(row.name), s.config(row.name+"-child")) })
		if got := s.hasConfig(row.name + "-bye"); got != row.hook {
			t.Errorf("%s: the hook ran: %v; %s", row.name, got, row.reason)
		}
		edit(s, s.config(row.name+"-child"), func(m *corev1.ConfigMap) { m.Finalizers = nil })
		edit(s, m, func(m *corev1.ConfigMap) { m.Finalizers = nil })
		if row.waits {
			s.awaitGone(h, &helmv2.HelmReleaseList{})
		}
	}
}

func goesAfter(object, child *corev1.ConfigMap) bool {
	return child.DeletionTimestamp == nil && len(child.OwnerReferences) == 1 && !slices.Contains(object.Finalizers, metav1.FinalizerDeleteDependents)
}

func goesBefore(object, child *corev1.ConfigMap) bool {
	return child.DeletionTimestamp != nil && slices.Contains(object.Finalizers, metav1.FinalizerDeleteDependents)
}

func isOrphan(_, child *corev1.ConfigMap) bool {
	return child.DeletionTimestamp == nil && len(child.OwnerReferences) == 0
}

// Uninstalling after an upgrade that failed half way removes what the newest revision does
// not name any more as well.
func TestReleaseUninstallsLeftovers(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	files := map[string]string{"templates/old.yaml": "{{ if not .Values.broken }}" + configMap("old", "1") + "{{ end }}"}
	maps.Copy(files, refusing)
	s.charts(chart("1.0.0", files))
	h := s.release("web")
	s.awaitReleased("web", 1)
	edit(s, h, withValues(map[string]any{"broken": true}))
	s.awaitRelease("web", "out of retries", func(h *helmv2.HelmRelease) bool {
		return condition(h, meta.StalledCondition) == "True RetriesExceeded"
	})
	old := s.config("old") // nothing is pruned while something cannot be applied
	if err := s.client.Delete(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	s.awaitGone(h, &helmv2.HelmReleaseList{})
	if err := s.client.Get(t.Context(), client.ObjectKeyFromObject(old), old); !apierrors.IsNotFound(err) {
		t.Errorf("what the revision before had is still there: %v", err)
	}
}

// What was rolled back for its post renderers alone is not taken for what is wanted, however often it is looked at.
func TestReleaseRolledBackForRenderers(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	s.charts(chart("1.0.0", nil))
	h := s.release("web", retries(1, helmv2.RollbackRemediationStrategy))
	s.awaitReleased("web", 1)
	edit(s, h, func(h *helmv2.HelmRelease) {
		h.Spec.CommonMetadata = &helmv2.CommonMetadata{Labels: map[string]string{"team": "no label!"}}
	})
	stalled := func(h *helmv2.HelmRelease) bool {
		return condition(h, meta.StalledCondition) == "True RetriesExceeded" && condition(h, meta.ReadyCondition) == "False RollbackSucceeded"
	}
	s.awaitRelease("web", "out of retries", stalled)
	token := s.ask(h)
	asked := s.awaitRelease("web", "asked", func(h *helmv2.HelmRelease) bool { return h.Status.LastHandledReconcileAt == token })
	if !stalled(asked) {
		t.Errorf("after a request: %s", standingOf(asked))
	}
	if want, got := []string{"1 superseded", "2 failed", "3 superseded", "4 failed", "5 deployed"}, s.revisions("web"); !slices.Equal(got, want) {
		t.Errorf("revisions %v, want %v", got, want)
	}
	edit(s, h, func(h *helmv2.HelmRelease) { h.Spec.CommonMetadata.Labels["team"] = "a" })
	s.awaitReleased("web", 6)
}

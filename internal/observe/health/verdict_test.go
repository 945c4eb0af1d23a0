package health

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// parse reads an object as a client would decode it: whole numbers are int64.
func parse(t *testing.T, doc string) *unstructured.Unstructured {
	t.Helper()
	js, err := yaml.YAMLToJSON([]byte(doc))
	if err != nil {
		t.Fatalf("the test's own YAML: %v\n%s", err, doc)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(js); err != nil {
		t.Fatalf("the test's own object: %v\n%s", err, doc)
	}
	return u
}

// of builds an object of a kind, at generation 2, with the given spec and status.
func of(t *testing.T, apiVersion, kind, spec, status string) *unstructured.Unstructured {
	t.Helper()
	return parse(t, "{apiVersion: "+apiVersion+", kind: "+kind+
		", metadata: {name: web, namespace: apps, uid: w, generation: 2}, spec: {"+spec+"}, status: {"+status+"}}")
}

type verdictCase struct {
	name, reason string
	spec, status string
	want         Status
	message      string
}

func checkVerdicts(t *testing.T, apiVersion, kind string, cases []verdictCase) {
	t.Helper()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			got := Of(of(t, apiVersion, kind, tc.spec, tc.status))
			if want := (Verdict{Status: tc.want, Message: tc.message}); got != want {
				t.Errorf("got %v %q, want %v %q: %s", got.Status, got.Message, want.Status, want.Message, tc.reason)
			}
		})
	}
}

func TestDeployment(t *testing.T) {
	t.Parallel()
	checkVerdicts(t, "apps/v1", "Deployment", []verdictCase{
		{"no status", "the controller has not been there", "replicas: 1", "", InProgress, notObserved},
		{"old generation", "the counts are about the spec before", "replicas: 1",
			"observedGeneration: 1, replicas: 1, updatedReplicas: 1, availableReplicas: 1", InProgress, notObserved},
		{"complete", "all replicas are updated and available, none is left over", "replicas: 2",
			"observedGeneration: 2, replicas: 2, updatedReplicas: 2, availableReplicas: 2", Current, ""},
		{"later generation", "a status of a later generation is about this spec, too", "replicas: 1",
			"observedGeneration: 3, replicas: 1, updatedReplicas: 1, availableReplicas: 1", Current, ""},
		{"no replicas wanted", "zero is a complete rollout", "replicas: 0", "observedGeneration: 2", Current, ""},
		{"too few updated", "first the new replicas must exist", "replicas: 3",
			"observedGeneration: 2, replicas: 3, updatedReplicas: 1, availableReplicas: 3", InProgress, "1 of 3 replicas are updated"},
		{"default replicas", "no spec.replicas means one", "", "observedGeneration: 2", InProgress, "0 of 1 replicas are updated"},
		{"paused", "a paused rollout goes nowhere by itself, so say so", "replicas: 3, paused: true",
			"observedGeneration: 2, replicas: 3, updatedReplicas: 1", InProgress, "its rollout is paused: 1 of 3 replicas are updated"},
		{"paused after it was complete", "there is nothing to wait for", "replicas: 1, paused: true",
			"observedGeneration: 2, replicas: 1, updatedReplicas: 1, availableReplicas: 1", Current, ""},
		{"old replicas left", "then the old ones must go", "replicas: 3",
			"observedGeneration: 2, replicas: 4, updatedReplicas: 3, availableReplicas: 4", InProgress, "old replicas still to end: 1"},
		{"too few available", "at last the new ones must be available", "replicas: 3",
			"observedGeneration: 2, replicas: 3, updatedReplicas: 3, availableReplicas: 2", InProgress, "2 of 3 updated replicas are available"},
		{"deadline exceeded", "the controller gave up", "replicas: 1, progressDeadlineSeconds: 60",
			`observedGeneration: 2, replicas: 1, updatedReplicas: 1, conditions: [{type: Available, status: "False"}, {type: Progressing, status: "False", reason: ProgressDeadlineExceeded}]`,
			Failed, "exceeded its progress deadline of 60 s: 0 of 1 updated replicas are available"},
		{"deadline of the spec before", "a new spec has not failed yet", "replicas: 1",
			`observedGeneration: 1, conditions: [{type: Progressing, status: "False", reason: ProgressDeadlineExceeded}]`, InProgress, notObserved},
	})
}

func TestStatefulSet(t *testing.T) {
	t.Parallel()
	const rolling = "replicas: 3, updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 0}}"
	checkVerdicts(t, "apps/v1", "StatefulSet", []verdictCase{
		{"no status", "the controller has not been there", rolling, "", InProgress, notObserved},
		{"old generation", "the counts are about the spec before", rolling, "observedGeneration: 1, readyReplicas: 3, updatedReplicas: 3", InProgress, notObserved},
		{"not ready", "every replica must be ready", rolling, "observedGeneration: 2, readyReplicas: 2, updatedReplicas: 3", InProgress, "2 of 3 replicas are ready"},
		{"not updated", "every replica must have the new revision", rolling, "observedGeneration: 2, readyReplicas: 3, updatedReplicas: 1", InProgress, "1 of 3 replicas are updated"},
		{"complete", "all ready, all updated", rolling, "observedGeneration: 2, readyReplicas: 3, updatedReplicas: 3", Current, ""},
		{"partition done", "pods below the partition stay as they are",
			"replicas: 3, updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 2}}",
			"observedGeneration: 2, readyReplicas: 3, updatedReplicas: 1, currentRevision: a, updateRevision: b", Current, ""},
		{"partition under way", "pods from the partition up must be updated",
			"replicas: 3, updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 1}}",
			"observedGeneration: 2, readyReplicas: 3, updatedReplicas: 1", InProgress, "1 of 2 replicas are updated"},
		{"partition beyond replicas", "nothing is to be updated then",
			"replicas: 3, updateStrategy: {type: RollingUpdate, rollingUpdate: {partition: 5}}",
			"observedGeneration: 2, readyReplicas: 3, updatedReplicas: 0", Current, ""},
		{"no partition, revisions differ", "without rollingUpdate the revisions decide", "replicas: 1, updateStrategy: {type: RollingUpdate}",
			"observedGeneration: 2, readyReplicas: 1, currentRevision: a, updateRevision: b", InProgress, "0 of 1 replicas are updated"},
		{"no partition, revisions equal", "without rollingUpdate the revisions decide", "replicas: 1, updateStrategy: {type: RollingUpdate}",
			"observedGeneration: 2, readyReplicas: 1, currentRevision: b, updateRevision: b", Current, ""},
		{"on delete, old pods", "replacing pods is somebody else's work", "replicas: 1, updateStrategy: {type: OnDelete}",
			"observedGeneration: 2, readyReplicas: 1, updatedReplicas: 0, currentRevision: a, updateRevision: b", Current, ""},
		{"on delete, not ready", "the pods must be well all the same", "replicas: 1, updateStrategy: {type: OnDelete}",
			"observedGeneration: 2", InProgress, "0 of 1 replicas are ready"},
	})
}

func TestDaemonSet(t *testing.T) {
	t.Parallel()
	const rolling = "updateStrategy: {type: RollingUpdate}"
	checkVerdicts(t, "apps/v1", "DaemonSet", []verdictCase{
		{"no status", "the controller has not been there", rolling, "", InProgress, notObserved},
		{"no nodes", "no node wants a pod", rolling, "observedGeneration: 2, desiredNumberScheduled: 0", Current, ""},
		{"not updated", "every node must have the new pod", rolling,
			"observedGeneration: 2, desiredNumberScheduled: 3, updatedNumberScheduled: 1, numberAvailable: 3", InProgress, "1 of 3 pods are updated"},
		{"not available", "every pod must be available", rolling,
			"observedGeneration: 2, desiredNumberScheduled: 3, updatedNumberScheduled: 3, numberAvailable: 2", InProgress, "2 of 3 pods are available"},
		{"complete", "all updated and available", rolling,
			"observedGeneration: 2, desiredNumberScheduled: 3, updatedNumberScheduled: 3, numberAvailable: 3", Current, ""},
		{"on delete, old pods", "replacing pods is somebody else's work", "updateStrategy: {type: OnDelete}",
			"observedGeneration: 2, desiredNumberScheduled: 3, updatedNumberScheduled: 0, numberAvailable: 3", Current, ""},
		{"on delete, not available", "the pods must be well all the same", "updateStrategy: {type: OnDelete}",
			"observedGeneration: 2, desiredNumberScheduled: 3, updatedNumberScheduled: 0, numberAvailable: 1", InProgress, "1 of 3 pods are available"},
	})
}

func TestJob(t *testing.T) {
	t.Parallel()
	checkVerdicts(t, "batch/v1", "Job", []verdictCase{
		{"started", "what depends on a Job needs it done", "completions: 2, parallelism: 2", "startTime: x, active: 2", InProgress, "0 of 2 pods have succeeded, 2 run, 0 failed"},
		{"complete", "the controller says so", "completions: 1", `succeeded: 1, conditions: [{type: Complete, status: "True"}]`, Current, ""},
		{"failed", "the controller gave up", "", `failed: 7, conditions: [{type: Failed, status: "True", reason: BackoffLimitExceeded, message: Job has reached the specified backoff limit}]`,
			Failed, "BackoffLimitExceeded: Job has reached the specified backoff limit"},
		{"about to fail", "it has failed already, its pods are only ending", "", `conditions: [{type: FailureTarget, status: "True", reason: DeadlineExceeded}]`, Failed, "DeadlineExceeded"},
		{"suspended", "nothing happens until somebody resumes it", "suspend: true", "", InProgress, "is suspended"},
	})
}

func TestDefinition(t *testing.T) {
	t.Parallel()
	checkVerdicts(t, "apiextensions.k8s.io/v1", "CustomResourceDefinition", []verdictCase{
		{"new", "nobody has looked at it", "", "", InProgress, "waits to be established"},
		{"names accepted", "the API is not served yet", "", `conditions: [{type: NamesAccepted, status: "True"}, {type: Established, status: "False", reason: Installing}]`, InProgress, "waits to be established"},
		{"established", "served under its names", "", `conditions: [{type: Established, status: "True"}, {type: NamesAccepted, status: "True"}]`, Current, ""},
		{"established, names unknown", "both are needed", "", `conditions: [{type: Established, status: "True"}]`, InProgress, "waits to be established"},
		{"names taken", "it is served under old names, if at all", "", `conditions: [{type: Established, status: "True"}, {type: NamesAccepted, status: "False", reason: PluralConflict, message: '"webs" is already in use'}]`,
			Failed, `its names are not accepted: PluralConflict: "webs" is already in use`},
		{"not established", "the API server says why", "", `conditions: [{type: NamesAccepted, status: "True"}, {type: Established, status: "False", reason: NotAccepted, message: conflict}]`, Failed, "is not established: NotAccepted: conflict"},
	})
}

func TestAPIService(t *testing.T) {
	t.Parallel()
	checkVerdicts(t, "apiregistration.k8s.io/v1", "APIService", []verdictCase{
		{"new", "nobody has tried it", "", "", InProgress, "waits to be available"},
		{"unreachable", "it may come up", "", `conditions: [{type: Available, status: "False", reason: MissingEndpoints, message: no endpoints}]`, InProgress, "is not available: MissingEndpoints: no endpoints"},
		{"available", "requests get there", "", `conditions: [{type: Available, status: "True"}]`, Current, ""},
	})
}

func TestOtherKinds(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, reason, object string
		want                 Verdict
	}{
		{"config map", "it is what it is", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}", Verdict{Status: Current}},
		{"claim", "kstatus wants it bound", "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a}, status: {phase: Pending}}",
			Verdict{InProgress, "PVC is not Bound. phase: Pending"}},
		{"custom, ready", "a Ready condition is understood", `{apiVersion: x.dev/v1, kind: X, metadata: {name: a}, status: {conditions: [{type: Ready, status: "True"}]}}`, Verdict{Status: Current}},
		{"custom, not ready", "its message is passed on as one line", `{apiVersion: x.dev/v1, kind: X, metadata: {name: a}, status: {conditions: [{type: Ready, status: "False", message: "no\n  disk"}]}}`,
			Verdict{InProgress, "no disk"}},
		{"custom, stalled", "its own controller gave up", `{apiVersion: x.dev/v1, kind: X, metadata: {name: a}, status: {conditions: [{type: Stalled, status: "True", message: bad spec}]}}`,
			Verdict{Failed, "bad spec"}},
		{"custom, generation", "its controller is behind", `{apiVersion: x.dev/v1, kind: X, metadata: {name: a, generation: 2}, status: {observedGeneration: 1}}`,
			Verdict{InProgress, "X generation is 2, but latest observed generation is 1"}},
		{"deleted", "deletion comes before everything else", `{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, deletionTimestamp: "2026-01-01T00:00:00Z", finalizers: [x.dev/a, x.dev/b]}}`,
			Verdict{Terminating, "is being deleted, waiting for x.dev/a, x.dev/b"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := Of(parse(t, tc.object)); got != tc.want {
				t.Errorf("got %+v, want %+v: %s", got, tc.want, tc.reason)
			}
		})
	}
	t.Run("unreadable", func(t *testing.T) {
		got := Of(parse(t, "{apiVersion: x.dev/v1, kind: X, metadata: {name: a}, status: {conditions: {a: b}}}"))
		if got.Status != Unknown || got.Message == "" {
			t.Errorf("got %+v, want Unknown with a message: conditions that are no list cannot be read", got)
		}
	})
}

func TestStatusText(t *testing.T) {
	t.Parallel()
	for s := Unknown; s <= Terminating; s++ {
		text, err := s.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back Status
		if err := back.UnmarshalText(text); err != nil || back != s {
			t.Errorf("%s reads back as %v, %v", text, back, err)
		}
	}
	var s Status
	if err := s.UnmarshalText([]byte("Fine")); err == nil || !strings.Contains(err.Error(), "InProgress") {
		t.Errorf("a word that is no status gives %v, want an error that lists the words", err)
	}
}

func TestLine(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, reason, in string
		limit            int
		want             string
	}{
		{"plain", "nothing to do", "all is well", 20, "all is well"},
		{"lines", "people read one line", " a\n\tb  c\r\n", 20, "a b c"},
		{"escapes", "a terminal must not be steered", "a\x1b[31mb\x00c", 20, "a [31mb c"},
		{"long", "cut with a mark", "abcdefghij", 8, "abcde…"},
		{"long, not in a letter", "never half a letter", "abcdéfghij", 8, "abcd…"},
		{"broken", "bytes that are no text go", "a\xffb", 8, "ab"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := line(tc.in, tc.limit); got != tc.want || len(got) > tc.limit {
				t.Errorf("got %q, want %q: %s", got, tc.want, tc.reason)
			}
		})
	}
}

func BenchmarkOf(b *testing.B) {
	js, err := yaml.YAMLToJSON([]byte("{apiVersion: apps/v1, kind: Deployment, metadata: {name: a, generation: 1}, spec: {replicas: 1}, status: {observedGeneration: 1, replicas: 1, updatedReplicas: 1, availableReplicas: 1, conditions: [{type: Progressing, status: 'True'}]}}"))
	if err != nil {
		b.Fatal(err)
	}
	u := &unstructured.Unstructured{}
	if err := u.UnmarshalJSON(js); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		Of(u)
	}
}

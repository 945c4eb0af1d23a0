package health

import (
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/object"
)

// decode reads typed test objects.
func decode[T any](t *testing.T, docs ...string) []T {
	t.Helper()
	var all []T
	for _, doc := range docs {
		var v T
		if err := yaml.UnmarshalStrict([]byte(doc), &v); err != nil {
			t.Fatalf("the test's own YAML: %v\n%s", err, doc)
		}
		all = append(all, v)
	}
	return all
}

// pod builds a pod that is not ready, called name, made at second 0 of the
// tests' day, with one container "web".
func pod(name, status string) string {
	return "{metadata: {name: " + name + ", namespace: apps, uid: " + name + `, creationTimestamp: "2026-01-01T00:00:00Z"},
 spec: {containers: [{name: web, image: "web:1", resources: {limits: {memory: 64Mi}}, readinessProbe: {httpGet: {port: 80}}}]},
 status: {` + status + "}}"
}

// web is the status of a pod whose container "web" has this state and count of
// restarts.
func web(phase, rest string) string {
	return "phase: " + phase + ", containerStatuses: [{name: web, image: x, imageID: y, ready: false, " + rest + "}]"
}

// event builds a warning about the object with that uid, seen at the given time
// of the tests' day.
func event(uid, at, reason, message string) string {
	return "{metadata: {name: e}, involvedObject: {uid: " + uid + `, fieldPath: "spec.containers{web}"}, type: Warning, reason: ` + reason +
		`, lastTimestamp: "2026-01-01T` + at + `Z", message: ` + "'" + message + "'}"
}

const (
	deploymentYAML = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: apps, uid: w, generation: 1}, spec: {replicas: 1}, status: {observedGeneration: 1}}"
	statefulYAML   = "{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: db, namespace: apps, uid: w, generation: 1}, spec: {replicas: 2}, status: {observedGeneration: 1}}"
	daemonYAML     = "{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: log, namespace: apps, uid: w, generation: 1}, status: {observedGeneration: 1, desiredNumberScheduled: 2}}"
	jobYAML        = "{apiVersion: batch/v1, kind: Job, metadata: {name: migrate, namespace: apps, uid: w, generation: 1}}"
)

func replicaSet(name, revision, replicas, failure string) string {
	return "{metadata: {name: " + name + ", namespace: apps, uid: " + name + ", annotations: {deployment.kubernetes.io/revision: '" + revision + "'}}, status: {replicas: " + replicas +
		", conditions: [{type: ReplicaFailure, status: 'True', reason: FailedCreate, message: '" + failure + "'}]}}"
}

type causeCase struct {
	name, reason      string
	workload          string
	sets, pods, warns []string
	kind              Kind
	object            object.ID
	stuck             bool
	message           string
}

func (tc causeCase) check(t *testing.T) {
	t.Helper()
	got := explain(evidence{
		workload: parse(t, tc.workload), pods: decode[corev1.Pod](t, tc.pods...),
		replicaSets: decode[appsv1.ReplicaSet](t, tc.sets...), events: decode[corev1.Event](t, tc.warns...),
	})
	if got.Kind != tc.kind || got.Message != tc.message || got.Stuck != tc.stuck {
		t.Errorf("%s\ngot  %q stuck=%v %q\nwant %q stuck=%v %q", tc.reason, got.Kind, got.Stuck, got.Message, tc.kind, tc.stuck, tc.message)
	}
	if tc.object != (object.ID{}) && got.Object != tc.object {
		t.Errorf("about %v, want %v", got.Object, tc.object)
	}
}

func TestRefusedPods(t *testing.T) {
	t.Parallel()
	rs := object.ID{Group: "apps", Kind: "ReplicaSet", Namespace: "apps", Name: "web-2"}
	const quota = `pods "web-2-abcde" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=0, limited: pods=0`
	for _, tc := range []causeCase{
		{name: "quota", reason: "the replica set says so", workload: deploymentYAML, sets: []string{replicaSet("web-2", "2", "0", quota)},
			kind: QuotaExceeded, object: rs, stuck: true,
			message: "quota leaves no room for its pods (ReplicaSet/apps/web-2): exceeded quota: compute, requested: pods=1, used: pods=0, limited: pods=0"},
		{name: "quota, old pods left", reason: "they give room when they end", workload: deploymentYAML,
			sets: []string{replicaSet("web-1", "1", "2", ""), replicaSet("web-2", "2", "0", quota)}, kind: QuotaExceeded, object: rs,
			message: "quota leaves no room for its pods (ReplicaSet/apps/web-2): exceeded quota: compute, requested: pods=1, used: pods=0, limited: pods=0"},
		{name: "revisions are numbers", reason: "ten is newer than nine", workload: deploymentYAML,
			sets: []string{replicaSet("web-10", "10", "0", quota), replicaSet("web-9", "9", "0", `pods "x" is forbidden: no`)}, kind: QuotaExceeded, stuck: true,
			message: "quota leaves no room for its pods (ReplicaSet/apps/web-10): exceeded quota: compute, requested: pods=1, used: pods=0, limited: pods=0"},
		{name: "quota wants limits", reason: "this, too, is the quota's word", workload: deploymentYAML,
			sets: []string{replicaSet("web-2", "2", "0", `pods "w" is forbidden: failed quota: compute: must specify limits.cpu for: web`)},
			kind: QuotaExceeded, stuck: true, message: "quota leaves no room for its pods (ReplicaSet/apps/web-2): failed quota: compute: must specify limits.cpu for: web"},
		{name: "limit range", reason: "the plugin gives no name, only its words", workload: deploymentYAML,
			sets: []string{replicaSet("web-2", "2", "0", `pods "w" is forbidden: [maximum cpu usage per Container is 500m, but limit is 2, maximum memory usage per Container is 64Mi, but limit is 1Gi]`)},
			kind: LimitRange, stuck: true, message: "limit range refuses its pods (ReplicaSet/apps/web-2): [maximum cpu usage per Container is 500m, but limit is 2, maximum memory usage per Container is 64Mi, but limit is 1Gi]"},
		{name: "limit ratio", reason: "a limit range as well", workload: deploymentYAML,
			sets: []string{replicaSet("web-2", "2", "0", `pods "w" is forbidden: cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000`)},
			kind: LimitRange, stuck: true, message: "limit range refuses its pods (ReplicaSet/apps/web-2): cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000"},
		{name: "service account", reason: "the pod may not run as nobody", workload: deploymentYAML,
			sets: []string{replicaSet("web-2", "2", "0", `pods "w-" is forbidden: error looking up service account apps/nope: serviceaccount "nope" not found`)},
			kind: MissingPermission, stuck: true, message: `missing permission to create its pods (ReplicaSet/apps/web-2): error looking up service account apps/nope: serviceaccount "nope" not found`},
		{name: "default service account", reason: "it comes with the namespace, a moment later", workload: deploymentYAML,
			sets: []string{replicaSet("web-2", "2", "0", `pods "w-" is forbidden: error looking up service account apps/default: serviceaccount "default" not found`)},
			kind: MissingPermission, message: `missing permission to create its pods (ReplicaSet/apps/web-2): error looking up service account apps/default: serviceaccount "default" not found`},
		{name: "pod security", reason: "a right that the namespace does not give", workload: deploymentYAML,
			sets: []string{replicaSet("web-2", "2", "0", `pods "w" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false`)},
			kind: MissingPermission, stuck: true, message: `missing permission to create its pods (ReplicaSet/apps/web-2): violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false`},
		{name: "webhook", reason: "somebody's policy", workload: deploymentYAML,
			sets: []string{replicaSet("web-2", "2", "0", `admission webhook "policy.example.com" denied the request: image is not signed`)},
			kind: AdmissionDenied, stuck: true, message: `admission refuses its pods (ReplicaSet/apps/web-2): admission webhook "policy.example.com" denied the request: image is not signed`},
		{name: "webhook away", reason: "it may come back", workload: deploymentYAML,
			sets: []string{replicaSet("web-2", "2", "0", `Internal error occurred: failed calling webhook "policy.example.com": connection refused`)},
			kind: AdmissionDenied, message: `admission refuses its pods (ReplicaSet/apps/web-2): Internal error occurred: failed calling webhook "policy.example.com": connection refused`},
		{name: "other", reason: "what is not known is quoted", workload: deploymentYAML,
			sets: []string{replicaSet("web-2", "2", "0", `Pod "w" is invalid: spec.priority: Forbidden: may not be set`)},
			kind: CreationRefused, message: `its pods cannot be created (ReplicaSet/apps/web-2): Pod "w" is invalid: spec.priority: Forbidden: may not be set`},
		{name: "stateful set", reason: "it tells by events", workload: statefulYAML,
			warns: []string{event("w", "00:00:09", "FailedCreate", `create Pod db-0 in StatefulSet db failed error: pods "db-0" is forbidden: exceeded quota: compute, requested: pods=1, used: pods=0, limited: pods=0`)},
			kind:  QuotaExceeded, stuck: true, message: "quota leaves no room for its pods (StatefulSet/apps/db): exceeded quota: compute, requested: pods=1, used: pods=0, limited: pods=0"},
		{name: "daemon set, latest event", reason: "the last word counts", workload: daemonYAML,
			warns: []string{
				event("w", "00:00:09", "FailedCreate", `Error creating: pods "log-a" is forbidden: exceeded quota: compute, requested: pods=1`),
				event("w", "00:01:00", "FailedCreate", `Error creating: pods "log-b" is forbidden: maximum cpu usage per Pod is 1, but limit is 2`)},
			kind: LimitRange, stuck: true, message: "limit range refuses its pods (DaemonSet/apps/log): maximum cpu usage per Pod is 1, but limit is 2"},
		{name: "daemon set, pods were created since", reason: "an old event is history", workload: daemonYAML,
			pods:  []string{strings.Replace(pod("log-a", ""), "00:00:00", "01:00:00", 1)},
			warns: []string{event("w", "00:00:09", "FailedCreate", `Error creating: pods "log-a" is forbidden: exceeded quota: compute`)}},
		{name: "daemon set, all pods there", reason: "nothing is missing, so nothing is refused", workload: daemonYAML,
			pods:  []string{pod("log-a", ""), pod("log-b", "")},
			warns: []string{event("w", "00:00:09", "FailedCreate", `Error creating: pods "log-a" is forbidden: exceeded quota: compute`)}},
		{name: "another object's event", reason: "the one before had the same name, not the same uid", workload: statefulYAML,
			warns: []string{event("older", "00:00:09", "FailedCreate", "create Pod db-0 failed error: exceeded quota: compute")}},
		{name: "not observed", reason: "the controller has not acted on this spec", workload: strings.Replace(deploymentYAML, "observedGeneration: 1", "observedGeneration: 0", 1),
			sets: []string{replicaSet("web-2", "2", "0", quota)}},
	} {
		t.Run(tc.name, tc.check)
	}
}

func TestImagesAndConfiguration(t *testing.T) {
	t.Parallel()
	waiting := func(reason, message string) []string {
		return []string{pod("web-a", web("Pending", "restartCount: 0, state: {waiting: {reason: "+reason+", message: '"+message+"'}}"))}
	}
	const where = " (container web of Pod/apps/web-a): "
	for _, tc := range []causeCase{
		{name: "image not found", reason: "the registry is sure", workload: deploymentYAML,
			pods: waiting("ErrImagePull", "not found"), kind: ImagePull, object: object.ID{Kind: "Pod", Namespace: "apps", Name: "web-a"}, stuck: true,
			message: "image cannot be pulled: web:1" + where + "ErrImagePull: not found"},
		{name: "backing off", reason: "newer kubelets keep the cause behind the back-off", workload: deploymentYAML,
			pods: waiting("ImagePullBackOff", `Back-off pulling image "web:1": ErrImagePull: rpc error: code = NotFound desc = web:1: not found`), kind: ImagePull, stuck: true,
			message: "image cannot be pulled: web:1" + where + "ErrImagePull: rpc error: code = NotFound desc = web:1: not found"},
		{name: "backing off, older kubelet", reason: "the event still has the registry's words", workload: deploymentYAML,
			pods:  waiting("ImagePullBackOff", `Back-off pulling image "web:1"`),
			warns: []string{event("web-a", "00:00:09", "Failed", `Failed to pull image "web:1": dial tcp: i/o timeout`)}, kind: ImagePull,
			message: "image cannot be pulled: web:1" + where + "ErrImagePull: dial tcp: i/o timeout"},
		{name: "backing off, no words", reason: "then the reason must do", workload: deploymentYAML,
			pods: waiting("ImagePullBackOff", `Back-off pulling image "web:1"`), kind: ImagePull, message: "image cannot be pulled: web:1" + where + "ImagePullBackOff"},
		{name: "image name", reason: "it will never be a name", workload: deploymentYAML,
			pods: waiting("InvalidImageName", "couldn''t parse image name"), kind: ImagePull, stuck: true,
			message: "image cannot be pulled: web:1" + where + "InvalidImageName: couldn't parse image name"},
		{name: "missing config map", reason: "named by the kubelet", workload: deploymentYAML,
			pods: waiting("CreateContainerConfigError", `configmap "settings" not found`), kind: ContainerConfig, stuck: true,
			message: "container cannot be configured" + where + `configmap "settings" not found`},
		{name: "command", reason: "there is no such file in the image", workload: deploymentYAML,
			pods: waiting("RunContainerError", `exec: "nope": executable file not found in $PATH`), kind: StartError,
			message: "container cannot be started" + where + `exec: "nope": executable file not found in $PATH`},
		{name: "starting", reason: "creating a container is no failure", workload: deploymentYAML, pods: waiting("ContainerCreating", "")},
		{name: "volume", reason: "the kubelet tells by event only", workload: deploymentYAML, pods: waiting("ContainerCreating", ""),
			warns: []string{event("web-a", "00:00:09", "FailedMount", `MountVolume.SetUp failed for volume "v" : secret "tls" not found`)}, kind: Volume, stuck: true,
			message: `volume cannot be mounted (Pod/apps/web-a): MountVolume.SetUp failed for volume "v" : secret "tls" not found`},
		{name: "network", reason: "the kubelet tells by event only", workload: deploymentYAML, pods: waiting("ContainerCreating", ""),
			warns: []string{event("web-a", "00:00:09", "FailedCreatePodSandBox", "Failed to create pod sandbox: no addresses left")}, kind: Sandbox,
			message: "node cannot set up the pod (Pod/apps/web-a): Failed to create pod sandbox: no addresses left"},
		{name: "unschedulable", reason: "a node may be added", workload: deploymentYAML,
			pods: []string{pod("web-a", `phase: Pending, conditions: [{type: PodScheduled, status: "False", reason: Unschedulable, message: "0/1 nodes are available: 1 Insufficient cpu."}]`)},
			kind: Unschedulable, message: "no node takes the pod (Pod/apps/web-a): 0/1 nodes are available: 1 Insufficient cpu."},
		{name: "gated", reason: "somebody holds it back", workload: deploymentYAML,
			pods: []string{pod("web-a", `phase: Pending, conditions: [{type: PodScheduled, status: "False", reason: SchedulingGated, message: Scheduling is blocked due to non-empty scheduling gates}]`)},
			kind: Unschedulable, message: "pod is held back by a scheduling gate (Pod/apps/web-a): Scheduling is blocked due to non-empty scheduling gates"},
		{name: "claim", reason: "the scheduler waits for the volume", workload: deploymentYAML,
			pods: []string{pod("web-a", `phase: Pending, conditions: [{type: PodScheduled, status: "False", reason: Unschedulable, message: "0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."}]`)},
			kind: VolumePending, message: "persistent volume claim is not bound (Pod/apps/web-a): 0/1 nodes are available: pod has unbound immediate PersistentVolumeClaims."},
		{name: "evicted", reason: "the pod failed as a whole", workload: deploymentYAML,
			pods: []string{pod("web-a", "phase: Failed, reason: Evicted, message: The node was low on memory.")},
			kind: Evicted, message: "pod failed (Pod/apps/web-a): Evicted: The node was low on memory."},
	} {
		t.Run(tc.name, tc.check)
	}
}

func TestRunningContainers(t *testing.T) {
	t.Parallel()
	const (
		crash   = "terminated: {exitCode: 3, reason: Error, startedAt: '2026-01-01T00:00:01Z', finishedAt: '2026-01-01T00:00:05Z', message: \"starting\\npanic: no database\\n\"}"
		killed  = "terminated: {exitCode: 137, reason: Error, startedAt: '2026-01-01T00:00:01Z', finishedAt: '2026-01-01T00:00:05Z'}"
		oom     = "terminated: {exitCode: 137, reason: OOMKilled, startedAt: '2026-01-01T00:00:01Z'}"
		running = "state: {running: {startedAt: '2026-01-01T00:01:00Z'}}"
		backoff = "state: {waiting: {reason: CrashLoopBackOff, message: back-off 40s restarting failed container}}"
	)
	one := func(rest string) []string { return []string{pod("web-a", web("Running", rest))} }
	for _, tc := range []causeCase{
		{name: "first crash", reason: "it may come up the next time", workload: deploymentYAML, pods: one("restartCount: 0, state: {" + crash + "}"),
			kind: Crash, message: "application crashes with exit code 3 (container web of Pod/apps/web-a): panic: no database"},
		{name: "crash loop", reason: "after so many restarts it does not come up by itself", workload: deploymentYAML,
			pods: one("restartCount: 4, " + backoff + ", lastState: {" + crash + "}"), kind: Crash, stuck: true,
			message: "application crashes with exit code 3 (container web of Pod/apps/web-a, 4 restarts): panic: no database"},
		{name: "crashed, runs again", reason: "it has not become ready since", workload: deploymentYAML,
			pods: one("restartCount: 1, " + running + ", lastState: {" + crash + "}"), kind: Crash,
			message: "application crashes with exit code 3 (container web of Pod/apps/web-a, 1 restart): panic: no database"},
		{name: "crashed long ago, probe fails now", reason: "what fails now counts", workload: deploymentYAML,
			pods:  one("restartCount: 1, " + running + ", lastState: {" + crash + "}"),
			warns: []string{event("web-a", "00:02:00", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")}, kind: ReadinessProbe,
			message: "readiness probe fails (container web of Pod/apps/web-a, 1 restart): HTTP probe failed with statuscode: 503"},
		{name: "probe of an earlier run", reason: "this run has not been probed", workload: deploymentYAML, pods: one("restartCount: 1, " + running + ", lastState: {" + crash + "}"),
			warns: []string{event("web-a", "00:00:04", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")},
			kind:  Crash, message: "application crashes with exit code 3 (container web of Pod/apps/web-a, 1 restart): panic: no database"},
		{name: "pod on its way out", reason: "the pod that stays is asked", workload: deploymentYAML, pods: []string{
			strings.Replace(pod("web-a", web("Running", "restartCount: 0, state: {"+crash+"}")), "uid: web-a,", "uid: web-a, deletionTimestamp: '2026-01-01T00:03:00Z',", 1),
			pod("web-b", web("Running", "restartCount: 0, "+running))},
			kind: ReadinessProbe, message: "readiness probe has not passed (container web of Pod/apps/web-b)"},
		{name: "signal", reason: "a number alone means little", workload: deploymentYAML, pods: one("restartCount: 0, state: {" + killed + "}"),
			kind: Crash, message: "application crashes with exit code 137, SIGKILL (container web of Pod/apps/web-a)"},
		{name: "out of memory", reason: "named, with the limit", workload: deploymentYAML, pods: one("restartCount: 5, " + backoff + ", lastState: {" + oom + "}"),
			kind: OOMKilled, stuck: true, message: "out of memory, the limit is 64Mi (container web of Pod/apps/web-a, 5 restarts)"},
		{name: "liveness", reason: "the kubelet killed it for the probe's sake", workload: deploymentYAML,
			pods: one("restartCount: 1, " + running + ", lastState: {" + killed + "}"), warns: []string{event("web-a", "00:00:04", "Unhealthy", "Liveness probe failed: connection refused")},
			kind: LivenessProbe, message: "liveness probe fails (container web of Pod/apps/web-a, 1 restart): connection refused"},
		{name: "liveness of an earlier run", reason: "this run ended by itself", workload: deploymentYAML,
			pods: one("restartCount: 1, " + running + ", lastState: {" + crash + "}"), warns: []string{event("web-a", "00:00:00", "Unhealthy", "Liveness probe failed: connection refused")},
			kind: Crash, message: "application crashes with exit code 3 (container web of Pod/apps/web-a, 1 restart): panic: no database"},
		{name: "readiness, told", reason: "the event has the probe's words", workload: deploymentYAML, pods: one("restartCount: 0, " + running),
			warns: []string{event("web-a", "00:02:00", "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503")},
			kind:  ReadinessProbe, message: "readiness probe fails (container web of Pod/apps/web-a): HTTP probe failed with statuscode: 503"},
		{name: "readiness, not told", reason: "events are best effort", workload: deploymentYAML, pods: one("restartCount: 0, " + running),
			kind: ReadinessProbe, message: "readiness probe has not passed (container web of Pod/apps/web-a)"},
		{name: "ends well", reason: "a Deployment's container must go on", workload: deploymentYAML, pods: one("restartCount: 3, " + backoff + ", lastState: {terminated: {exitCode: 0, reason: Completed}}"),
			kind: Crash, stuck: true, message: "application ends with exit code 0 although it should keep running (container web of Pod/apps/web-a, 3 restarts)"},
		{name: "job's pod failed", reason: "a Job tells by its pods", workload: jobYAML, pods: []string{pod("web-a", web("Failed", "restartCount: 0, state: {"+crash+"}"))},
			kind: Crash, message: "application crashes with exit code 3 (container web of Pod/apps/web-a): panic: no database"},
		{name: "job's container done", reason: "that is what it is for", workload: jobYAML, pods: one("restartCount: 0, state: {terminated: {exitCode: 0}}")},
		{name: "ready", reason: "a pod that is ready is not asked", workload: deploymentYAML,
			pods: []string{pod("web-a", web("Running", "restartCount: 9, "+running+", lastState: {"+crash+"}")+`, conditions: [{type: Ready, status: "True"}]`)}},
		{name: "most telling first", reason: "the image must be mended before the crash matters", workload: deploymentYAML, pods: []string{
			pod("web-a", web("Running", "restartCount: 9, "+backoff+", lastState: {"+crash+"}")),
			pod("web-b", web("Pending", "restartCount: 0, state: {waiting: {reason: InvalidImageName}}"))},
			kind: ImagePull, stuck: true, message: "image cannot be pulled: web:1 (container web of Pod/apps/web-b): InvalidImageName"},
		{name: "oldest pod speaks", reason: "the same evidence in another order gives the same answer", workload: deploymentYAML, pods: []string{
			pod("web-b", web("Running", "restartCount: 0, state: {"+killed+"}")), pod("web-a", web("Running", "restartCount: 0, state: {"+crash+"}"))},
			kind: Crash, message: "application crashes with exit code 3 (container web of Pod/apps/web-a): panic: no database"},
	} {
		t.Run(tc.name, tc.check)
	}
}

func TestInitContainers(t *testing.T) {
	t.Parallel()
	const spec = `{metadata: {name: web-a, namespace: apps, uid: web-a}, spec: {initContainers: [{name: migrate, image: m}], containers: [{name: web, image: w}]}, status: {phase: Pending,
 initContainerStatuses: [{name: migrate, image: x, imageID: y, restartCount: 0, STATE}], containerStatuses: [{name: web, image: x, imageID: y, restartCount: 0, ready: false, state: {waiting: {reason: PodInitializing}}}]}}`
	for _, tc := range []causeCase{
		{name: "fails", reason: "the pod waits for it", workload: deploymentYAML,
			pods: []string{strings.Replace(spec, "STATE", "ready: false, state: {terminated: {exitCode: 1, message: no such table}}", 1)},
			kind: Crash, message: "application crashes with exit code 1 (container migrate of Pod/apps/web-a): no such table"},
		{name: "runs", reason: "it takes its time", workload: deploymentYAML, pods: []string{strings.Replace(spec, "STATE", "ready: false, state: {running: {}}", 1)}},
		{name: "done, not marked ready", reason: "an init container is meant to end", workload: deploymentYAML, pods: []string{strings.Replace(spec, "STATE", "ready: false, state: {terminated: {exitCode: 0}}", 1)}},
		{name: "done", reason: "an init container is meant to end", workload: deploymentYAML, pods: []string{strings.Replace(spec, "STATE", "ready: true, state: {terminated: {exitCode: 0}}", 1)}},
	} {
		t.Run(tc.name, tc.check)
	}
}

func TestVerdictWithCause(t *testing.T) {
	t.Parallel()
	cause := Cause{Kind: Crash, Message: "application crashes"}
	for _, tc := range []struct {
		name, reason string
		verdict      Verdict
		cause        Cause
		want         string
	}{
		{"both", "how far, then why no further", Verdict{InProgress, "0 of 1 replicas are ready"}, cause, "0 of 1 replicas are ready: application crashes"},
		{"no cause", "nothing to add", Verdict{InProgress, "0 of 1 replicas are ready"}, Cause{}, "0 of 1 replicas are ready"},
		{"no words", "the cause alone", Verdict{Status: Unknown}, cause, "application crashes"},
		{"current", "there is nothing to explain", Verdict{Status: Current}, cause, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.verdict.With(tc.cause); got.Message != tc.want || got.Status != tc.verdict.Status {
				t.Errorf("got %+v, want %q: %s", got, tc.want, tc.reason)
			}
		})
	}
}

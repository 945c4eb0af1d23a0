package nodes

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	nodefast "sigs.k8s.io/kwok/kustomize/stage/node/fast"
	nodelease "sigs.k8s.io/kwok/kustomize/stage/node/heartbeat-with-lease"
	podfast "sigs.k8s.io/kwok/kustomize/stage/pod/fast"
	kwok "sigs.k8s.io/kwok/pkg/apis/internalversion"
	kwokconfig "sigs.k8s.io/kwok/pkg/config"
	"sigs.k8s.io/kwok/pkg/utils/gotpl"
)

// failing outweighs KWOK's own stages, which have weight zero, wherever both match.
const failing = 1

// How long a pod stays in a state before the next. A real kubelet takes longer from one attempt to
// the next each time; here the pauses are short, so that people and tests need not wait.
const (
	soon  = 300 * time.Millisecond
	later = 20 * time.Second
)

// query is a jq expression about a pod, and the values of which it must yield one.
type query struct {
	expression string
	values     []string
}

func phaseIs(phases ...string) query { return query{".status.phase", phases} }

func waitingFor(reason string) query {
	return query{".status.containerStatuses[]?.state.waiting.reason", []string{reason}}
}

// hasStatus matches when containers have, or have not, been heard of.
func hasStatus(yes string) query {
	return query{`if (.status.containerStatuses // []) == [] then "no" else "yes" end`, []string{yes}}
}

func hasTerminated() query {
	return query{`[.status.containerStatuses[]? | select(.state.terminated) | "yes"] | first`, []string{"yes"}}
}

// turn is one step in the life of a failing pod.
type turn struct {
	name    string
	failure Failure
	when    []query
	after   time.Duration
	status  statusFunc
	say     messagesFunc // nil: nothing
}

// turns lists how failing pods go on, from their start to their loop.
func turns() []turn {
	return []turn{
		{"image-pull", ImagePull, []query{hasStatus("no")}, 0, errImagePull, pullFailed},
		{"image-pull-back-off", ImagePull, []query{waitingFor(reasonErrImagePull)}, soon, imagePullBackOff, pullBackedOff},
		{"image-pull-again", ImagePull, []query{waitingFor(reasonImagePullBackOff)}, later, errImagePull, pullFailed},
		{"crash", Crash, []query{phaseIs("Pending")}, 0, crashed, nil},
		{"crash-back-off", Crash, []query{phaseIs("Running"), hasTerminated()}, soon, crashLoopBackOff, restartBackedOff},
		{"crash-again", Crash, []query{phaseIs("Running"), waitingFor(reasonCrashLoopBackOff)}, later, crashed, nil},
		{"never-ready", Readiness, []query{phaseIs("Pending")}, 0, neverReady, probeFailed},
	}
}

var podRef = kwok.StageResourceRef{APIGroup: "v1", Kind: "Pod"}

// allStages returns KWOK's stages for nodes and pods, and ours.
func allStages() (map[kwok.StageResourceRef][]*kwok.Stage, error) {
	stages := volumeStages()
	for _, text := range []string{
		nodefast.DefaultNodeInit, nodelease.DefaultNodeHeartbeatWithLease,
		podfast.DefaultPodReady, podfast.DefaultPodComplete, podfast.DefaultPodDelete,
	} {
		stage, err := kwokconfig.UnmarshalWithType[*kwok.Stage](text)
		if err != nil {
			return nil, err
		}
		stages[stage.Spec.ResourceRef] = append(stages[stage.Spec.ResourceRef], stage)
	}
	for _, t := range turns() {
		stages[podRef] = append(stages[podRef], t.stage())
	}
	return stages, nil
}

// stage puts a turn in KWOK's terms. Its templates only call back to this package.
func (t turn) stage() *kwok.Stage {
	selector := &kwok.StageSelector{MatchExpressions: []kwok.MatchExpression{
		{JQ: &kwok.SelectorJQ{Key: ".metadata.deletionTimestamp", Operator: kwok.SelectorOpDoesNotExist}},
		{JQ: &kwok.SelectorJQ{Key: failureQuery, Operator: kwok.SelectorOpIn, Values: []string{string(t.failure)}}},
	}}
	for _, q := range t.when {
		selector.MatchExpressions = append(selector.MatchExpressions, kwok.MatchExpression{
			JQ: &kwok.SelectorJQ{Key: q.expression, Operator: kwok.SelectorOpIn, Values: q.values},
		})
	}
	steps := []kwok.StageStep{{Patch: &kwok.StagePatch{
		Root: "status", Subresource: "status", Template: fmt.Sprintf(statusTemplate, t.name),
	}}}
	for i := range t.messageCount() {
		steps = append(steps, kwok.StageStep{Apply: &kwok.StageApply{Template: fmt.Sprintf(eventTemplate, t.name, i)}})
	}
	milliseconds := t.after.Milliseconds()
	return &kwok.Stage{
		ObjectMeta: metav1.ObjectMeta{Name: t.name},
		Spec: kwok.StageSpec{
			ResourceRef: podRef, Selector: selector, Weight: failing, Steps: steps,
			Delay: &kwok.StageDelay{DurationMilliseconds: &milliseconds},
		},
	}
}

// statusTemplate gives a failing pod an address once, as soon as it runs: the allocator of
// addresses is KWOK's.
const statusTemplate = `
{{ $status := failingStatus %q . }}
{{ if .status.podIP }}{{ $status }}
{{ else }}{{ $podIPs := PodIPsWith .spec.nodeName ( or .spec.hostNetwork false ) .metadata.uid .metadata.name .metadata.namespace -}}
{{ withAddresses $status ( NodeIPsWith .spec.nodeName ) $podIPs }}
{{ end }}`

const eventTemplate = `{{ failingEvent %q %d . }}`

// messageCount is how many events a turn has; a stage has to list them beforehand.
func (t turn) messageCount() int {
	if t.say == nil {
		return 0
	}
	return len(t.say(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{FailAnnotation: string(t.failure)}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{}}},
	}))
}

// templateFunctions are what our templates call. KWOK hands them the pod as decoded JSON and
// takes YAML, of which JSON is a part.
func templateFunctions() gotpl.FuncMap {
	all := turns()
	find := func(name string) turn {
		return all[slices.IndexFunc(all, func(t turn) bool { return t.name == name })]
	}
	return gotpl.FuncMap{
		"failingStatus": func(name string, data any) (string, error) {
			pod, err := decodePod(data)
			if err != nil {
				return "", err
			}
			return encode(find(name).status(pod, metav1.Now()))
		},
		"failingEvent": func(name string, index int, data any) (string, error) {
			pod, err := decodePod(data)
			if err != nil {
				return "", err
			}
			return encode(event(pod, find(name).say(pod)[index], metav1.Now()))
		},
		"withAddresses": withAddresses,
	}
}

// withAddresses adds addresses to an encoded status.
func withAddresses(encoded string, hostIPs, podIPs []string) (string, error) {
	var status corev1.PodStatus
	if err := json.Unmarshal([]byte(encoded), &status); err != nil {
		return "", err
	}
	for _, ip := range hostIPs {
		status.HostIPs = append(status.HostIPs, corev1.HostIP{IP: ip})
		status.HostIP = status.HostIPs[0].IP
	}
	for _, ip := range podIPs {
		status.PodIPs = append(status.PodIPs, corev1.PodIP{IP: ip})
		status.PodIP = status.PodIPs[0].IP
	}
	return encode(status)
}

func decodePod(data any) (*corev1.Pod, error) {
	encoded, err := json.Marshal(data)
	if err != nil {
		return nil, err
	}
	pod := &corev1.Pod{}
	return pod, json.Unmarshal(encoded, pod)
}

func encode(value any) (string, error) {
	encoded, err := json.Marshal(value)
	return string(encoded), err
}

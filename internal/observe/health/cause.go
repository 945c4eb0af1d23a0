package health

import (
	"slices"
	"strconv"

	"github.com/bowline-dev/bowline/internal/object"
)

// Kind says which sort of cause keeps a workload from being complete.
type Kind string

// The kinds of causes.
const (
	// None: nothing is known to be wrong; the workload is on its way.
	None Kind = ""
	// QuotaExceeded: a ResourceQuota leaves no room for the pod.
	QuotaExceeded Kind = "QuotaExceeded"
	// LimitRange: a LimitRange refuses the pod's requests or limits.
	LimitRange Kind = "LimitRange"
	// MissingPermission: the pod may not be created: its service account is
	// missing, RBAC forbids it, or Pod Security does.
	MissingPermission Kind = "MissingPermission"
	// AdmissionDenied: a webhook or an admission policy refuses the pod.
	AdmissionDenied Kind = "AdmissionDenied"
	// CreationRefused: the API server refuses the pod for another reason.
	CreationRefused Kind = "CreationRefused"
	// ImagePull: the container's image cannot be had.
	ImagePull Kind = "ImagePull"
	// ContainerConfig: a ConfigMap, a Secret or a key that the container names
	// is missing, or the container is refused before it starts.
	ContainerConfig Kind = "ContainerConfig"
	// StartError: the container's command cannot be started.
	StartError Kind = "StartError"
	// OOMKilled: the container used more memory than its limit.
	OOMKilled Kind = "OOMKilled"
	// LivenessProbe: the container is restarted because its liveness probe fails.
	LivenessProbe Kind = "LivenessProbe"
	// StartupProbe: the container is restarted because its startup probe fails.
	StartupProbe Kind = "StartupProbe"
	// Crash: the application ends by itself.
	Crash Kind = "Crash"
	// Volume: a volume cannot be attached or mounted.
	Volume Kind = "Volume"
	// Sandbox: the node cannot set up the pod, its network for instance.
	Sandbox Kind = "Sandbox"
	// VolumePending: a PersistentVolumeClaim is not bound.
	VolumePending Kind = "VolumePending"
	// Unschedulable: no node takes the pod.
	Unschedulable Kind = "Unschedulable"
	// Evicted: the node put the pod out, or the pod failed as a whole.
	Evicted Kind = "Evicted"
	// ReadinessProbe: the application runs and its readiness probe fails.
	ReadinessProbe Kind = "ReadinessProbe"
	// NotReady: the pod runs and is not ready for another reason.
	NotReady Kind = "NotReady"
)

// telling lists the kinds, the most telling first: what stops a pod earlier in
// its life comes first, because what comes later cannot be mended before it.
var telling = []Kind{
	QuotaExceeded, LimitRange, MissingPermission, AdmissionDenied, CreationRefused,
	ImagePull, ContainerConfig, StartError, OOMKilled, LivenessProbe, StartupProbe, Crash,
	Volume, Sandbox, VolumePending, Unschedulable, ReadinessProbe, NotReady, Evicted,
}

func rank(k Kind) int {
	if i := slices.Index(telling, k); i >= 0 {
		return i
	}
	return len(telling)
}

// Cause is why a workload is not complete. The zero Cause says that nothing is
// known to be wrong.
type Cause struct {
	Kind Kind
	// Object is where it shows: a pod, or the replica set or workload whose pods
	// are refused.
	Object object.ID
	// Container names the container that it is about; empty when it is about the
	// whole pod.
	Container string
	// Message is one line for people. It names the object and the container.
	Message string
	// ExitCode is how the container ended, for kinds where one did.
	ExitCode int32
	// Restarts counts how often the container has been started again.
	Restarts int32
	// Stuck is true when waiting longer will not help: the workload is going to
	// fail unless something besides it changes, such as a quota, a registry or a
	// ConfigMap. It is false where the cluster or the application may yet get
	// there by itself.
	Stuck bool
}

// maxDetail bounds what a cause quotes, in bytes.
const maxDetail = 300

// stuckAfter is the number of restarts after which an application that crashes
// is not expected to come up by itself. An application that waits for a
// database by crashing commonly does so a time or two.
const stuckAfter = 3

// With adds a cause to a verdict's message: the verdict says how far the
// object is, the cause why it gets no further.
func (v Verdict) With(c Cause) Verdict {
	switch {
	case c.Kind == None || v.Status == Current:
	case v.Message == "":
		v.Message = c.Message
	default:
		v.Message += ": " + c.Message
	}
	return v
}

// compose writes a cause's message: what is wrong, where, and the words of
// whoever noticed.
func compose(what, where, detail string) string {
	s := what + " (" + where + ")"
	if detail = line(detail, maxDetail); detail != "" {
		s += ": " + detail
	}
	return s
}

// inContainer names a container and its pod, and its restarts if there are any.
func inContainer(name string, pod object.ID, restarts int32) string {
	s := "container " + name + " of " + pod.String()
	switch {
	case restarts == 1:
		s += ", 1 restart"
	case restarts > 1:
		s += ", " + strconv.Itoa(int(restarts)) + " restarts"
	}
	return s
}

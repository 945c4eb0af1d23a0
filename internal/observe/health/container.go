package health

import (
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/bowline-dev/bowline/internal/object"
)

// container is one container of a pod, what was asked and what is.
type container struct {
	pod    object.ID
	name   string
	init   bool
	spec   corev1.Container
	status corev1.ContainerStatus
}

// containers lists the pod's containers that have a status: init containers
// first, each in the pod's own order.
func containers(p *corev1.Pod) []container {
	var all []container
	add := func(specs []corev1.Container, statuses []corev1.ContainerStatus, init bool) {
		for _, spec := range specs {
			for _, st := range statuses {
				if st.Name == spec.Name {
					all = append(all, container{pod: podID(p), name: spec.Name, init: init, spec: spec, status: st})
				}
			}
		}
	}
	add(p.Spec.InitContainers, p.Status.InitContainerStatuses, true)
	add(p.Spec.Containers, p.Status.ContainerStatuses, false)
	return all
}

// containerCause says what is wrong with a container. Forever means that it is
// meant to run without end.
func containerCause(c container, events []corev1.Event, forever bool) Cause {
	forever = forever && !c.init
	if w := c.status.State.Waiting; w != nil {
		if found := c.waiting(w, events); found.Kind != None {
			return found
		}
	}
	if c.status.Ready {
		return Cause{}
	}
	if t := c.status.State.Terminated; t != nil {
		return c.ended(t, events, forever)
	}
	if r := c.status.State.Running; r != nil {
		if ev, ok := c.unhealthy(events, "Readiness"); ok && !lastSeen(ev).Before(r.StartedAt.Time) {
			return c.cause(ReadinessProbe, "readiness probe fails", probeWords(ev))
		}
	}
	if t := c.status.LastTerminationState.Terminated; t != nil {
		return c.ended(t, events, forever)
	}
	if r := c.status.State.Running; r != nil && !c.init {
		return c.runsUnready()
	}
	return Cause{}
}

// cause builds a Cause about the container.
func (c container) cause(kind Kind, what, detail string) Cause {
	return Cause{
		Kind: kind, Object: c.pod, Container: c.name, Restarts: c.status.RestartCount,
		Message: compose(what, inContainer(c.name, c.pod, c.status.RestartCount), detail),
	}
}

// waiting explains the reasons for which the kubelet holds a container back.
func (c container) waiting(w *corev1.ContainerStateWaiting, events []corev1.Event) Cause {
	switch w.Reason {
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
		"RegistryUnavailable", "SignatureValidationFailed":
		return c.image(w, events)
	case "CreateContainerConfigError", "CreateContainerError", "PreCreateHookError":
		found := c.cause(ContainerConfig, "container cannot be configured", w.Message)
		found.Stuck = w.Reason == "CreateContainerConfigError"
		return found
	case "RunContainerError", "PreStartHookError", "PostStartHookError":
		found := c.cause(StartError, "container cannot be started", w.Message)
		found.Stuck = c.status.RestartCount >= stuckAfter
		return found
	}
	return Cause{}
}

var (
	backOff = regexp.MustCompile(`^Back-off pulling image "[^"]*"(: )?`)
	// goneForGood are the registries' words for what trying again cannot mend.
	goneForGood = regexp.MustCompile(`(?i)not found|manifest unknown|unauthorized|denied|does not exist|forbidden`)
)

// image explains why an image cannot be had.
func (c container) image(w *corev1.ContainerStateWaiting, events []corev1.Event) Cause {
	detail := backOff.ReplaceAllString(w.Message, "")
	if detail == "" {
		detail = c.pullError(events)
	}
	if detail == "" {
		detail = w.Reason
	} else if w.Reason != "ImagePullBackOff" && !strings.HasPrefix(detail, w.Reason) {
		detail = w.Reason + ": " + detail
	}
	found := c.cause(ImagePull, "image cannot be pulled: "+c.spec.Image, detail)
	found.Stuck = w.Reason == "InvalidImageName" || w.Reason == "ErrImageNeverPull" || goneForGood.MatchString(detail)
	return found
}

// pullError finds the registry's words in the events: older kubelets replace
// them in the status while they back off.
func (c container) pullError(events []corev1.Event) string {
	const said = "Failed to pull image "
	for _, ev := range events {
		if ev.Reason == "Failed" && c.isAbout(ev) && strings.HasPrefix(ev.Message, said) {
			_, detail, _ := strings.Cut(ev.Message, ": ")
			return "ErrImagePull: " + detail
		}
	}
	return ""
}

// ended explains a container that ended when it should not have.
func (c container) ended(t *corev1.ContainerStateTerminated, events []corev1.Event, forever bool) Cause {
	if t.ExitCode == 0 && t.Reason != "OOMKilled" && !forever {
		return Cause{}
	}
	found := c.cause(Crash, "application crashes with "+exit(t), lastLine(t.Message))
	switch probe, ev := c.killedByProbe(t, events); {
	case t.Reason == "OOMKilled":
		found = c.cause(OOMKilled, "out of memory"+c.memoryLimit(), lastLine(t.Message))
	case t.Reason == "ContainerCannotRun" || t.Reason == "StartError":
		found = c.cause(StartError, "container cannot be started", lastLine(t.Message))
	case probe == "Liveness":
		found = c.cause(LivenessProbe, "liveness probe fails", probeWords(ev))
	case probe == "Startup":
		found = c.cause(StartupProbe, "startup probe fails", probeWords(ev))
	case t.ExitCode == 0:
		found = c.cause(Crash, "application ends with exit code 0 although it should keep running", lastLine(t.Message))
	}
	found.ExitCode = t.ExitCode
	found.Stuck = c.status.RestartCount >= stuckAfter || found.Kind == StartError
	return found
}

// signals names what an exit code over 128 means, for the common ones.
var signals = map[int32]string{132: "SIGILL", 134: "SIGABRT", 135: "SIGBUS", 136: "SIGFPE", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}

func exit(t *corev1.ContainerStateTerminated) string {
	s := fmt.Sprintf("exit code %d", t.ExitCode)
	if name := signals[t.ExitCode]; name != "" {
		s += ", " + name
	}
	return s
}

func (c container) memoryLimit() string {
	if limit, ok := c.spec.Resources.Limits[corev1.ResourceMemory]; ok {
		return ", the limit is " + limit.String()
	}
	return ""
}

// killedByProbe finds the probe for whose sake the kubelet ended this run of
// the container.
func (c container) killedByProbe(t *corev1.ContainerStateTerminated, events []corev1.Event) (string, corev1.Event) {
	for _, probe := range []string{"Liveness", "Startup"} {
		if ev, ok := c.unhealthy(events, probe); ok && !lastSeen(ev).Before(t.StartedAt.Time) {
			return probe, ev
		}
	}
	return "", corev1.Event{}
}

// unhealthy returns the latest event of a failing probe of the container.
func (c container) unhealthy(events []corev1.Event, probe string) (corev1.Event, bool) {
	for _, ev := range events {
		if ev.Reason == "Unhealthy" && c.isAbout(ev) && strings.HasPrefix(ev.Message, probe+" probe ") {
			return ev, true
		}
	}
	return corev1.Event{}, false
}

// isAbout reports whether the event is about this container; an event that
// names none is about any.
func (c container) isAbout(ev corev1.Event) bool {
	path := ev.InvolvedObject.FieldPath
	return path == "" || strings.HasSuffix(path, "{"+c.name+"}")
}

// probeWords is what a probe's event says after "Readiness probe failed: ".
func probeWords(ev corev1.Event) string {
	if _, words, ok := strings.Cut(ev.Message, ": "); ok {
		return words
	}
	return ev.Message
}

// runsUnready explains a container that runs, has not crashed, and of whose
// probes no failure is told (yet).
func (c container) runsUnready() Cause {
	started := c.status.Started
	switch {
	case c.spec.StartupProbe != nil && started != nil && !*started:
		return c.cause(NotReady, "startup probe has not passed", "")
	case c.spec.ReadinessProbe != nil:
		return c.cause(ReadinessProbe, "readiness probe has not passed", "")
	}
	return c.cause(NotReady, "container runs and is not ready", "")
}

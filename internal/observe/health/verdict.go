// Package health is the room where objects are asked how they are, and why.
//
// [Of] gives the verdict on one object from what the object itself says: it is
// pure, cheap, and small enough to be kept for every object of a cluster.
// [Explain] answers the next question for a workload that is not complete: it
// reads the workload's replica sets, pods and events, and names the one cause
// that a person would act on.
package health

import (
	"fmt"
	"strings"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Status is the state of one object, in kstatus' words.
type Status uint8

// The states of an object.
const (
	// Unknown: the object's own status cannot be read.
	Unknown Status = iota
	// Current: what the object asks for is so.
	Current
	// InProgress: the cluster is working on it.
	InProgress
	// Failed: the cluster has given up on it, or says that it cannot be.
	Failed
	// Terminating: the object is being deleted.
	Terminating
)

var statusNames = [...]string{"Unknown", "Current", "InProgress", "Failed", "Terminating"}

// String returns kstatus' word for the status.
func (s Status) String() string {
	if int(s) < len(statusNames) {
		return statusNames[s]
	}
	return statusNames[Unknown]
}

// MarshalText implements encoding.TextMarshaler, so that reports and JSON carry
// the word.
func (s Status) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *Status) UnmarshalText(text []byte) error {
	for i, name := range statusNames {
		if name == string(text) {
			*s = Status(i)
			return nil
		}
	}
	return fmt.Errorf("%q is not a health status; use one of %s", text, strings.Join(statusNames[:], ", "))
}

// Verdict is what one object says about itself. It is comparable.
type Verdict struct {
	Status Status
	// Message says in one short line what is missing; empty when Current, since
	// there is one verdict for every object of the ledger.
	Message string
}

// maxMessage bounds a verdict's message, in bytes: conditions of custom
// resources may hold pages.
const maxMessage = 256

// Of judges u by its own content. Deployments, StatefulSets and DaemonSets are
// judged as `kubectl rollout status` does; a Job is Current once it has
// completed, not once it has started; definitions and API services once they
// are served; everything else as kstatus says.
func Of(u *unstructured.Unstructured) Verdict {
	if u.GetDeletionTimestamp() != nil {
		return terminating(u)
	}
	gvk := u.GroupVersionKind()
	switch gvk.Group + "/" + gvk.Kind {
	case "apps/Deployment":
		return deployment(u.Object)
	case "apps/StatefulSet":
		return statefulSet(u.Object)
	case "apps/DaemonSet":
		return daemonSet(u.Object)
	case "batch/Job":
		return job(u.Object)
	case "apiextensions.k8s.io/CustomResourceDefinition":
		return definition(u.Object)
	case "apiregistration.k8s.io/APIService":
		return apiService(u.Object)
	}
	return generic(u)
}

func current() Verdict { return Verdict{Status: Current} }

func inProgress(format string, args ...any) Verdict {
	return Verdict{Status: InProgress, Message: line(fmt.Sprintf(format, args...), maxMessage)}
}

func failed(format string, args ...any) Verdict {
	return Verdict{Status: Failed, Message: line(fmt.Sprintf(format, args...), maxMessage)}
}

func terminating(u *unstructured.Unstructured) Verdict {
	v := Verdict{Status: Terminating, Message: "is being deleted"}
	if f := u.GetFinalizers(); len(f) > 0 {
		v.Message = line("is being deleted, waiting for "+strings.Join(f, ", "), maxMessage)
	}
	return v
}

// generic asks kstatus, and translates.
func generic(u *unstructured.Unstructured) Verdict {
	res, err := status.Compute(u)
	if err != nil {
		return Verdict{Status: Unknown, Message: line("its status cannot be read: "+err.Error(), maxMessage)}
	}
	switch res.Status {
	case status.CurrentStatus:
		return current()
	case status.InProgressStatus:
		return inProgress("%s", res.Message)
	case status.FailedStatus:
		return failed("%s", res.Message)
	case status.TerminatingStatus:
		return terminating(u)
	default:
		return Verdict{Status: Unknown, Message: line(res.Message, maxMessage)}
	}
}

package health

import (
	"regexp"
	"strings"

	"github.com/bowline-dev/bowline/internal/object"
)

// The words by which the API server's admission refuses a pod. They come from
// the plugins themselves (resourcequota, limitranger, serviceaccount, pod
// security, webhook, validating policy) and are all that a controller passes
// on: the condition and the event hold text only.
var (
	quotaWords  = regexp.MustCompile(`exceeded quota: |failed quota: `)
	limitWords  = regexp.MustCompile(`(minimum|maximum) \S+ usage per \w+ is |\S+ max limit to request ratio per \w+ is `)
	policyWords = regexp.MustCompile(`admission webhook ".*" denied the request|failed calling webhook |ValidatingAdmissionPolicy '.*' denied request`)
	rightsWords = regexp.MustCompile(`is forbidden|[Uu]nauthorized|error looking up service account`)

	// preamble is what says no more than that a pod was refused: the action, and
	// the name of a pod that never was.
	preamble = regexp.MustCompile(`^(Error creating: |create (Pod|Claim) .*? failed error: )?(\S+ "[^"]*" is forbidden: )?`)
	ownSA    = regexp.MustCompile(`service ?account "default" not found`)
)

// refusal names why pods of owner are refused, from the controller's message.
func refusal(message string, owner object.ID, roomComes bool) Cause {
	c := Cause{Object: owner, Stuck: true}
	var what string
	switch {
	case quotaWords.MatchString(message):
		c.Kind, what = QuotaExceeded, "quota leaves no room for its pods"
		c.Stuck = !roomComes
	case limitWords.MatchString(message):
		c.Kind, what = LimitRange, "limit range refuses its pods"
	case policyWords.MatchString(message):
		c.Kind, what = AdmissionDenied, "admission refuses its pods"
		// A webhook that does not answer may yet do so.
		c.Stuck = !strings.Contains(message, "failed calling webhook ")
	case rightsWords.MatchString(message):
		c.Kind, what = MissingPermission, "missing permission to create its pods"
		// Every new namespace gets its default service account a moment later.
		c.Stuck = !ownSA.MatchString(message)
	default:
		c.Kind, what = CreationRefused, "its pods cannot be created"
		c.Stuck = false
	}
	detail := message
	if short := preamble.ReplaceAllString(message, ""); short != "" {
		detail = short
	}
	c.Message = compose(what, owner.String(), detail)
	return c
}

package kustomize

import (
	"net/url"
	"path"
	"regexp"
	"strings"
)

// What kustomize takes for a remote place is decided in packages that it does
// not export. The two functions below say the same; a test holds them against
// kustomize itself.

// isRemoteFile reports whether kustomize would get s over HTTP.
func isRemoteFile(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https")
}

var userPrefix = regexp.MustCompile(`^([a-zA-Z][a-zA-Z0-9-]*)@`)

// isRemoteBase reports whether kustomize would run git to clone s. It errs on
// the side of true: forms that kustomize would go on to reject for their path
// count as well, since none of them names anything local.
func isRemoteBase(s string) bool {
	if path.IsAbs(s) {
		return false
	}
	s, _, _ = strings.Cut(s, "?")
	lower := strings.ToLower(s)
	lower = strings.TrimPrefix(lower, "git::")
	for _, scheme := range []string{"ssh://", "https://", "http://", "file://"} {
		if strings.HasPrefix(lower, scheme) {
			return true
		}
	}
	lower = userPrefix.ReplaceAllString(lower, "\x00")
	return strings.HasPrefix(lower, "\x00") || strings.HasPrefix(lower, "github.com/") || strings.HasPrefix(lower, "github.com:")
}

func isRemote(s string) bool { return isRemoteFile(s) || isRemoteBase(s) }

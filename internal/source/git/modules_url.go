package git

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/transport"

	"github.com/bowline-dev/bowline/internal/source/reach"
)

// moduleURL reads the URL of a submodule as git does: one that begins with ./ or ../ is
// relative to that of the repository that names it, and host:path stands for SSH. No file of this machine and
// no other protocol can be named.
func moduleURL(parent, text string) (string, error) {
	if strings.HasPrefix(text, "./") || strings.HasPrefix(text, "../") {
		return relativeURL(parent, text)
	}
	e, err := transport.NewEndpoint(text)
	if err != nil {
		return "", errors.New("its url cannot be read")
	}
	switch e.Protocol {
	case "http", "https":
		return text, nil
	case "ssh":
		u := url.URL{Scheme: "ssh", Host: e.Host, Path: path.Join("/", e.Path)}
		if e.User != "" {
			u.User = url.User(e.User)
		}
		if e.Port != 0 && e.Port != 22 {
			u.Host = fmt.Sprintf("%s:%d", e.Host, e.Port)
		}
		return u.String(), nil
	case "file":
		return "", errors.New("its url is a path on this machine, and can only be http, https or ssh")
	default:
		return "", fmt.Errorf("its url is of the protocol %q, and can only be http, https or ssh", e.Protocol)
	}
}

func relativeURL(parent, text string) (string, error) {
	u, err := url.Parse(parent)
	if err != nil {
		return "", errors.New("its url is relative to one that cannot be read")
	}
	at := strings.Trim(u.Path, "/")
	for seg := range strings.SplitSeq(text, "/") {
		switch seg {
		case "", ".":
		case "..":
			if at == "" || at == "." {
				return "", errors.New("its url leads out of the server")
			}
			at = path.Dir(at)
		default:
			at = path.Join(at, seg)
		}
	}
	if at == "." || at == "" {
		return "", errors.New("its url names no repository")
	}
	u.Path, u.RawPath, u.RawQuery, u.Fragment = "/"+at, "", "", ""
	return u.String(), nil
}

// sameServer reports whether two URLs have the same scheme, host and port.
func sameServer(a, b string) bool {
	u, err := parseURL(a)
	if err != nil {
		return false
	}
	v, err := parseURL(b)
	return err == nil && u.Scheme == v.Scheme && strings.EqualFold(u.Hostname(), v.Hostname()) && portOf(u) == portOf(v)
}

func portOf(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return map[string]string{"http": "80", "https": "443", "ssh": "22"}[u.Scheme]
}

// authFor returns the credentials to use for a submodule. A repository may name any server, so what
// is secret goes to the server that it was given for and to no other. The authorities to trust are no
// secret, and with a commit's name known there is nothing that a server could make up.
func authFor(req Request, module string) Auth {
	if sameServer(req.URL, module) {
		return req.Auth
	}
	return Auth{TLS: reach.TLS{CA: req.Auth.TLS.CA}, KnownHosts: req.Auth.KnownHosts}
}

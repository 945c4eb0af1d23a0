package registry

import (
	"encoding/json"
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"github.com/bowline-dev/bowline/internal/source/reach"
)

// Keys of Secrets with logins at registries.
const (
	dockerConfigJSON = ".dockerconfigjson"
	dockerConfig     = ".dockercfg"
)

type anonymous struct{}

// Resolve implements authn.Keychain.
func (anonymous) Resolve(authn.Resource) (authn.Authenticator, error) { return authn.Anonymous, nil }

// Login is a keychain with one login for whatever registry asks.
func Login(a authn.Authenticator) authn.Keychain { return login{a} }

// Password is a keychain with a user name and a password for whatever registry asks.
func Password(username, password string) authn.Keychain {
	return login{authn.FromConfig(authn.AuthConfig{Username: username, Password: password})}
}

type login struct{ authn.Authenticator }

// Resolve implements authn.Keychain.
func (l login) Resolve(authn.Resource) (authn.Authenticator, error) { return l.Authenticator, nil }

// diverted holds the logins for a repository whose mirror is visited: those for the mirror's host if there
// are any, else those for the repository itself.
type diverted struct {
	authn.Keychain
	from name.Repository
}

// Resolve implements authn.Keychain.
func (d diverted) Resolve(of authn.Resource) (authn.Authenticator, error) {
	a, err := d.Keychain.Resolve(of)
	if err != nil || a != authn.Anonymous {
		return a, err
	}
	return d.Keychain.Resolve(d.from)
}

// logins are those of Secrets, by what they are for; the longest match wins.
type logins []loginFor

type loginFor struct {
	host, path string
	authn.Authenticator
}

// KeychainFromSecrets reads the logins in Secrets of type kubernetes.io/dockerconfigjson or
// kubernetes.io/dockercfg, which the first to match wins of. A host may be a pattern, as in
// "*.example.com", and may be followed by a path, which then has to begin that of the repository. Mistakes are of
// kind failure.Invalid and show nothing of the values.
func KeychainFromSecrets(secrets ...map[string][]byte) (authn.Keychain, error) {
	var all logins
	for _, data := range secrets {
		some, err := read(data)
		if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	slices.SortStableFunc(all, func(a, b loginFor) int { return len(b.path) - len(a.path) })
	return all, nil
}

func read(data map[string][]byte) (logins, error) {
	key, text := dockerConfigJSON, data[dockerConfigJSON]
	entries := map[string]authn.AuthConfig{}
	var err error
	if len(text) > 0 {
		config := struct {
			Auths map[string]authn.AuthConfig `json:"auths"`
		}{}
		err = json.Unmarshal(text, &config)
		entries = config.Auths
	} else if text = data[dockerConfig]; len(text) > 0 {
		key, err = dockerConfig, json.Unmarshal(text, &entries)
	} else {
		return nil, reach.BadKey("", key, errors.New("it is missing: the Secret has to be of type kubernetes.io/dockerconfigjson"))
	}
	if err != nil {
		return nil, reach.BadKey("", key, errors.New("it cannot be read: it has to be what docker login writes")) // the parser's words may hold parts of it
	}
	var found logins
	for address, entry := range entries {
		host, rest := split(address)
		found = append(found, loginFor{host, rest, authn.FromConfig(entry)})
	}
	// The order of a map is none.
	slices.SortFunc(found, func(a, b loginFor) int { return strings.Compare(a.host+"/"+a.path, b.host+"/"+b.path) })
	return found, nil
}

// split takes an address as docker login writes it apart: "https://index.docker.io/v1/", "ghcr.io",
// "registry.example.com:5000/team".
func split(address string) (host, rest string) {
	address = strings.TrimPrefix(strings.TrimPrefix(address, "https://"), "http://")
	host, rest, _ = strings.Cut(address, "/")
	rest = strings.Trim(rest, "/")
	if rest == "v1" || rest == "v2" {
		rest = ""
	}
	if host == "docker.io" || host == "registry-1.docker.io" {
		host = name.DefaultRegistry
	}
	return host, rest
}

// Resolve implements authn.Keychain.
func (all logins) Resolve(of authn.Resource) (authn.Authenticator, error) {
	repository := strings.TrimPrefix(strings.TrimPrefix(of.String(), of.RegistryStr()), "/")
	for _, l := range all {
		if l.matches(of.RegistryStr(), repository) {
			return l.Authenticator, nil
		}
	}
	return authn.Anonymous, nil
}

// matches compares hosts part by part, so that a star stands for one part and no more.
func (l loginFor) matches(host, repository string) bool {
	if l.path != "" && repository != l.path && !strings.HasPrefix(repository, l.path+"/") {
		return false
	}
	patterns, parts := strings.Split(l.host, "."), strings.Split(host, ".")
	if len(patterns) != len(parts) {
		return false
	}
	for i, p := range patterns {
		if ok, err := path.Match(p, parts[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

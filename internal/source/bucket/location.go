package bucket

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/bowline-dev/bowline/internal/failure"
)

// location is a bucket on a server.
type location struct {
	provider string
	// base is the URL of the server.
	base *url.URL
	// query is what the endpoint has as such: for Azure, it may hold a signature.
	query  string
	bucket string
	region string
	// display names the bucket in messages.
	display string
}

// id tells a bucket from all others; it holds no secret.
func (l *location) id() string {
	return strings.Join([]string{l.provider, l.base.String(), l.bucket, l.region}, "\n")
}

// locate reads where the bucket of a request is, mirrors applied.
func (s *Store) locate(req Request) (location, error) {
	l := location{provider: req.Provider, bucket: req.Bucket, region: req.Region}
	if req.Bucket == "" || strings.ContainsAny(req.Bucket, "/\\?#") {
		return l, invalidField("spec.bucketName", req.Bucket, "it is no name of a bucket", "give the bare name; spec.prefix says which part of it")
	}
	base, err := baseOf(req)
	if err != nil {
		return l, err
	}
	l.query, base.RawQuery = base.RawQuery, ""
	l.base, l.display = base, "bucket "+address(base, req.Bucket)
	if to := s.opts.Mirrors.Of(address(base, req.Bucket)); to != "" {
		if err := l.move(to); err != nil {
			return l, err
		}
	}
	if l.provider != Azure && strings.Trim(l.base.Path, "/") != "" {
		return l, invalidField("spec.endpoint", req.Endpoint, "it has a path", "give the server's host alone; spec.bucketName and spec.prefix say the rest")
	}
	return l, nil
}

// baseOf reads the endpoint.
func baseOf(req Request) (*url.URL, error) {
	text, scheme := req.Endpoint, "https"
	if req.Insecure {
		scheme = "http"
	}
	hasScheme := strings.Contains(text, "://")
	switch {
	case text == "":
		return nil, invalidField("spec.endpoint", text, "it is empty", "name the server")
	case req.Provider == Azure && !hasScheme:
		return nil, invalidField("spec.endpoint", text, "it has no scheme", "write it as https://<account>.blob.core.windows.net")
	case req.Provider != Azure && hasScheme:
		return nil, invalidField("spec.endpoint", plainEndpoint(text), "it has a scheme", "leave that out; spec.insecure says whether TLS is spoken")
	case !hasScheme:
		text = scheme + "://" + text
	}
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, invalidField("spec.endpoint", "", "it is no address of a server", "correct it")
	}
	if u.User != nil {
		return nil, invalidField("spec.endpoint", u.Host, "it has a user in it", "put credentials into the Secret that spec.secretRef names")
	}
	if u.Scheme == "http" && !req.Insecure {
		return nil, invalidField("spec.endpoint", u.Host, "it asks for a connection without TLS", "write https, or set spec.insecure to true")
	}
	u.Fragment, u.Path = "", strings.TrimSuffix(u.Path, "/")
	return u, nil
}

func plainEndpoint(text string) string {
	if u, err := url.Parse(text); err == nil {
		return u.Scheme + "://" + u.Host + u.Path
	}
	return ""
}

func address(base *url.URL, bucket string) string {
	return (&url.URL{Scheme: base.Scheme, Host: base.Host, Path: base.Path + "/" + bucket}).String()
}

// move takes the location to another address: the last part of its path is the bucket.
func (l *location) move(to string) error {
	u, err := url.Parse(to)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return &failure.Error{Op: "apply mirror to", Object: l.display, Kind: failure.Invalid, Err: errors.New("the result is no http or https address"), Remedy: "correct --mirror"}
	}
	path := strings.Trim(u.Path, "/")
	i := strings.LastIndexByte(path, '/')
	bucket := path[i+1:]
	if bucket == "" {
		return &failure.Error{Op: "apply mirror to", Object: l.display, Kind: failure.Invalid, Err: errors.New("the result names no bucket"), Remedy: "correct --mirror"}
	}
	display := l.display
	l.base, l.bucket = &url.URL{Scheme: u.Scheme, Host: u.Host}, bucket
	if i > 0 {
		l.base.Path = "/" + path[:i]
	}
	l.display = "bucket " + address(l.base, bucket) + " (mirror of " + strings.TrimPrefix(display, "bucket ") + ")"
	return nil
}

func invalidField(field, value, why, remedy string) error {
	if value != "" {
		field = fmt.Sprintf("%s %q", field, value)
	}
	return &failure.Error{Op: "read", Object: field, Kind: failure.Invalid, Err: errors.New(why), Remedy: remedy}
}

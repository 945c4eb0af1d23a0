package archive

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
)

// Fetch downloads a .tar.gz and reads it. digest is what the archive must have, as
// "sha256:<hex>", "sha384:<hex>" or "sha512:<hex>". Redirects are not followed: whoever
// publishes an archive says where it is. Errors are of kind failure.Unavailable,
// Timeout, NotFound, Invalid or Unsupported, and show nothing of an answer.
func Fetch(ctx context.Context, transport http.RoundTripper, address, digest string, limits Limits) (source.Artifact, error) {
	limits = limits.orDefaults()
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return source.Artifact{}, &failure.Error{Op: "fetch", Object: "archive", Kind: failure.Invalid,
			Err: errors.New("its address is no http or https URL"), Remedy: "correct it where it is published"}
	}
	object := (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
	sum, want, err := digester(digest)
	if err != nil {
		return source.Artifact{}, &failure.Error{Op: "fetch", Object: object, Kind: failure.KindOf(err), Err: err}
	}
	body, err := get(ctx, transport, u.String(), object)
	if err != nil {
		return source.Artifact{}, err
	}
	defer func() { _ = body.Close() }()
	counted := &io.LimitedReader{R: body, N: limits.MaxBytes + 1}
	artifact, err := ReadWith(ctx, io.TeeReader(counted, sum), Options{Limits: limits})
	if err == nil {
		_, err = io.Copy(sum, counted)
	}
	switch {
	case ctx.Err() != nil:
		return source.Artifact{}, &failure.Error{Op: "fetch", Object: object, Kind: failure.Timeout, Err: errors.New("it took too long"), Remedy: "check the server that publishes it"}
	case counted.N <= 0:
		return source.Artifact{}, &failure.Error{Op: "fetch", Object: object, Kind: failure.Invalid, Err: fmt.Errorf("the archive has more than %d bytes", limits.MaxBytes), Remedy: "have it made smaller"}
	case err != nil:
		return source.Artifact{}, &failure.Error{Op: "fetch", Object: object, Kind: failure.KindOf(err), Err: err}
	case subtle.ConstantTimeCompare(sum.Sum(nil), want) != 1:
		return source.Artifact{}, &failure.Error{Op: "fetch", Object: object, Kind: failure.Unavailable,
			Err: fmt.Errorf("what is there does not have the digest %s", digest), Remedy: "wait for it to be published anew, or check who changed it"}
	}
	return artifact, nil
}

func digester(digest string) (hash.Hash, []byte, error) {
	algorithm, text, _ := strings.Cut(digest, ":")
	var h hash.Hash
	switch algorithm {
	case "sha256":
		h = sha256.New()
	case "sha384":
		h = sha512.New384()
	case "sha512":
		h = sha512.New()
	default:
		return nil, nil, &failure.Error{Op: "verify", Kind: failure.Unsupported, Err: fmt.Errorf("the digest is of the kind %q", algorithm), Remedy: "publish it with sha256, sha384 or sha512"}
	}
	want, err := hex.DecodeString(text)
	if err != nil || len(want) != h.Size() {
		return nil, nil, &failure.Error{Op: "verify", Kind: failure.Invalid, Err: fmt.Errorf("%q is no digest", digest), Remedy: "correct it where it is published"}
	}
	return h, want, nil
}

func get(ctx context.Context, transport http.RoundTripper, address, object string) (io.ReadCloser, error) {
	fail := func(kind failure.Kind, err error) error {
		return &failure.Error{Op: "fetch", Object: object, Kind: kind, Err: err, Remedy: "check the server that publishes it"}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fail(failure.Invalid, errors.New("its address cannot be asked"))
	}
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(req)
	switch {
	case ctx.Err() != nil:
		return nil, fail(failure.Timeout, errors.New("it took too long"))
	case err != nil:
		var inner *url.Error
		if errors.As(err, &inner) {
			err = inner.Err // the address is said already
		}
		return nil, fail(failure.Unavailable, err)
	case answer.StatusCode == http.StatusOK:
		return answer.Body, nil
	}
	_ = answer.Body.Close()
	switch {
	case answer.StatusCode == http.StatusNotFound || answer.StatusCode == http.StatusGone:
		return nil, fail(failure.NotFound, errors.New("there is none"))
	case answer.StatusCode >= 300 && answer.StatusCode < 400:
		return nil, fail(failure.Invalid, errors.New("the server names another address, which is not followed"))
	default:
		return nil, fail(failure.Unavailable, fmt.Errorf("the server answered with %d", answer.StatusCode))
	}
}

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Content types of requests.
const (
	jsonBody   = "application/json"
	mergePatch = "application/merge-patch+json"
	applyPatch = "application/apply-patch+yaml"
)

// metadataOnly asks the API server to answer with an object's metadata alone,
// so that decoding answers does not eat the cores that are measured.
const metadataOnly = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"

// client sends requests to the API server without limiting itself and without
// decoding more than it needs.
type client struct {
	http *http.Client
	// watches has one connection for each watch, so that events do not queue
	// behind answers.
	watches *http.Client
	base    string
	config  *rest.Config
}

func newClient(kubeconfig string) (*client, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	cfg.QPS = -1
	h, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", cfg.Host, err)
	}
	single := rest.CopyConfig(cfg)
	single.NextProtos = []string{"http/1.1"}
	w, err := rest.HTTPClientFor(single)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", cfg.Host, err)
	}
	return &client{http: h, watches: w, base: strings.TrimSuffix(cfg.Host, "/"), config: cfg}, nil
}

// send sends one request and returns the answer's body, which the caller closes.
func (c *client) send(ctx context.Context, method, path, contentType, accept string, body []byte) (io.ReadCloser, error) {
	return c.sendOn(ctx, c.http, method, path, contentType, accept, body)
}

func (c *client) sendOn(ctx context.Context, on *http.Client, method, path, contentType, accept string, body []byte) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	req.Header.Set("Accept", accept)
	res, err := on.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if res.StatusCode >= http.StatusMultipleChoices {
		defer func() { _ = res.Body.Close() }()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 2048))
		return nil, &statusError{method: method, path: path, code: res.StatusCode, text: strings.TrimSpace(string(text))}
	}
	return res.Body, nil
}

// do sends one request and throws the answer away.
func (c *client) do(ctx context.Context, method, path, contentType string, body []byte) error {
	answer, err := c.send(ctx, method, path, contentType, metadataOnly, body)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, answer)
	_ = answer.Close()
	return err
}

// get decodes the object at path into out.
func (c *client) get(ctx context.Context, path, accept string, out any) error {
	answer, err := c.send(ctx, http.MethodGet, path, "", accept, nil)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Close() }()
	if err := json.NewDecoder(answer).Decode(out); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

// statusError is an answer that refuses a request.
type statusError struct {
	method, path, text string
	code               int
}

func (e *statusError) Error() string {
	return fmt.Sprintf("%s %s: %d %s", e.method, e.path, e.code, e.text)
}

// versioned is an object that knows its resource version.
type versioned interface {
	version() string
}

// event is one event of a watch, of which T holds what is needed.
type event[T versioned] struct {
	Type   string
	Object T
	// seen is when the event arrived here.
	seen time.Time
}

// follow watches path and calls each for every event, the objects that exist
// first, until ctx ends or the watch breaks. It calls open once the server
// answered, so that nothing after that is missed. Where the server closes a
// watch, as it may at any time, it goes on from the last event.
func follow[T versioned](ctx context.Context, c *client, path, selector string, open func(), each func(event[T])) error {
	query := url.Values{"watch": {"true"}, "timeoutSeconds": {"7200"}}
	if selector != "" {
		query.Set("fieldSelector", selector)
	}
	for {
		stream, err := c.sendOn(ctx, c.watches, http.MethodGet, path+"?"+query.Encode(), "", jsonBody, nil)
		var busy *statusError
		if errors.As(err, &busy) && busy.code == http.StatusTooManyRequests {
			// It has just learnt of the kind.
			if err := pause(ctx, 100*time.Millisecond); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return err
		}
		open()
		open = func() {}
		last, err := read(stream, each)
		_ = stream.Close()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) || last == "":
			return fmt.Errorf("watch %s: %w", path, err)
		}
		query.Set("resourceVersion", last)
	}
}

// read calls each for the events of one stream until it ends, and returns the
// resource version of the last one.
func read[T versioned](stream io.Reader, each func(event[T])) (last string, err error) {
	dec := json.NewDecoder(stream)
	for {
		var e event[T]
		if err := dec.Decode(&e); err != nil {
			return last, err
		}
		if e.Type == "ERROR" {
			return last, errors.New("the server refused to go on")
		}
		e.seen = time.Now()
		last = e.Object.version()
		each(e)
	}
}

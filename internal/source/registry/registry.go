// Package registry is the room that speaks with OCI registries for all who fetch from them:
// artifacts, charts and signatures. It finds out which tag is meant and which digest it has, reads
// manifests and layers, and believes no byte that does not have the digest it was asked for by.
//
// A visit begins with Client.Repository, under a context from WithTimeout. Nothing is asked twice
// within a visit, nothing is retried here: who fetches knows when it is time to try again.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/blob"
	"github.com/bowline-dev/bowline/internal/source/reach"
)

// Prefix is how the address of a repository begins.
const Prefix = "oci://"

// maxManifest is the size in bytes of the largest manifest that is read.
const maxManifest = 4 << 20

// Options are the settings of a Client.
type Options struct {
	// Blobs keeps layers. It is needed for Blob only.
	Blobs *blob.Store
	// Mirrors replace the beginnings of addresses. From begins with "oci://", To also with "http://" for a registry
	// without encryption, or "https://".
	Mirrors reach.Mirrors
}

// Client reaches registries. It is safe for use by many goroutines.
type Client struct {
	opts Options

	mu         sync.Mutex
	transports map[string]*http.Transport // guarded by mu; by what they were made of
}

// New returns a client.
func New(opts Options) *Client {
	return &Client{opts: opts, transports: map[string]*http.Transport{}}
}

// Close ends the connections that wait for more to do.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.transports {
		t.CloseIdleConnections()
	}
}

// Repository is one repository of a registry, as seen with the credentials of one user of it.
type Repository struct {
	client    *Client
	repo      name.Repository
	display   string
	access    Access
	original  name.Repository
	keychain  authn.Keychain
	transport http.RoundTripper
	puller    *remote.Puller
}

// Repository prepares to visit the repository at an address, or its mirror; it does not connect. The
// address is "oci://host[:port]/path", with neither tag nor digest. Errors are of kind failure.Invalid.
func (c *Client) Repository(address string, access Access) (*Repository, error) {
	repo, err := parse(address, access.Insecure)
	if err != nil {
		return nil, err
	}
	r := &Repository{client: c, repo: repo, original: repo, display: Prefix + repo.Name(), access: access, keychain: access.Keychain}
	if r.keychain == nil {
		r.keychain = anonymous{}
	}
	if to := c.opts.Mirrors.Of(address); to != "" {
		if err := r.divert(to); err != nil {
			return nil, err
		}
	}
	if r.transport, err = c.transport(r.repo.Registry, r.access); err != nil {
		return nil, err
	}
	r.puller, err = remote.NewPuller(r.Options()...)
	return r, err
}

// divert makes the repository the mirror of itself.
func (r *Repository) divert(to string) error {
	u, err := url.Parse(to)
	if err != nil {
		return badAddress("the mirror's address cannot be parsed")
	}
	r.access.Insecure = r.access.Insecure || u.Scheme == "http"
	if r.repo, err = parse(Prefix+u.Host+u.Path, r.access.Insecure); err != nil {
		return err
	}
	r.display = Prefix + r.repo.Name() + " (mirror of " + r.display + ")"
	r.keychain = diverted{r.keychain, r.original}
	return nil
}

func parse(address string, insecure bool) (name.Repository, error) {
	text, ok := strings.CutPrefix(address, Prefix)
	if !ok {
		return name.Repository{}, badAddress("it does not begin with " + Prefix)
	}
	if strings.ContainsRune(text, '@') {
		// Whatever stands there, it is not shown: it may be a password.
		return name.Repository{}, badAddress("it has an @; a digest belongs into the reference, and credentials into a Secret")
	}
	host, path, _ := strings.Cut(text, "/")
	if path == "" || host == "" {
		return name.Repository{}, badAddress("it names no repository of a host")
	}
	if strings.ContainsRune(path, ':') {
		return name.Repository{}, badAddress("it has a tag, which belongs into the reference")
	}
	var opts []name.Option
	if insecure {
		opts = append(opts, name.Insecure)
	}
	repo, err := name.NewRepository(text, opts...)
	if err != nil {
		return name.Repository{}, badAddress(err.Error())
	}
	return repo, nil
}

func badAddress(why string) error {
	return &failure.Error{Op: "read repository address", Kind: failure.Invalid, Err: fmt.Errorf("%w: %s", ErrAddress, why),
		Remedy: "write it as oci://host/path"}
}

// ErrAddress is what errors about the address of a repository match.
var ErrAddress = errors.New("it is no address of an OCI repository")

// String returns the address for messages, with that of which it is the mirror.
func (r *Repository) String() string { return r.display }

// Name is the repository that is visited: the mirror, where there is one.
func (r *Repository) Name() name.Repository { return r.repo }

// Transport is how requests go to the registry, without credentials.
func (r *Repository) Transport() http.RoundTripper { return r.transport }

// Options are what others need who read from the repository with the same library. They hold no
// context; add remote.WithContext.
func (r *Repository) Options() []remote.Option {
	return []remote.Option{
		remote.WithAuthFromKeychain(r.keychain), remote.WithTransport(r.transport),
		remote.WithUserAgent("bowline"), remote.WithRetryBackoff(remote.Backoff{Steps: 1}), remote.WithRetryStatusCodes(),
	}
}

// Tags lists the tags of the repository.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	tags, err := r.puller.List(ctx, r.repo)
	if err != nil {
		return nil, r.explain(ctx, "list the tags of", "", err)
	}
	return tags, nil
}

// Resolve returns the digest that a tag has now.
func (r *Repository) Resolve(ctx context.Context, tag string) (string, error) {
	ref, err := name.NewTag(r.repo.Name()+":"+tag, name.StrictValidation)
	if err != nil {
		return "", &failure.Error{Op: "resolve", Object: r.display, Kind: failure.Invalid, Err: fmt.Errorf("%q is no tag", tag), Remedy: "correct it"}
	}
	of := r.repo.Tag(ref.TagStr())
	desc, err := r.puller.Head(ctx, of)
	if err == nil {
		return desc.Digest.String(), nil
	}
	if answered(err) || ctx.Err() != nil {
		return "", r.explain(ctx, "resolve", ":"+tag, err)
	}
	// Some registries do not answer to HEAD in full; the manifest itself has a digest, too.
	full, err := r.puller.Get(ctx, of)
	if err != nil {
		return "", r.explain(ctx, "resolve", ":"+tag, err)
	}
	return full.Digest.String(), nil
}

// Layer is content that a manifest names.
type Layer struct {
	MediaType, Digest string
	// Size is its length in bytes.
	Size int64
	// Annotations are those of the layer.
	Annotations map[string]string
}

// Manifest says what an artifact is made of.
type Manifest struct {
	// Digest is that of the manifest itself.
	Digest string
	// Config is what tells one kind of artifact from another.
	Config Layer
	// Layers are in the order of the manifest.
	Layers []Layer
	// Annotations are those of the artifact.
	Annotations map[string]string
}

// Manifest reads the manifest with a digest. Of an image for many platforms it is that of
// linux/amd64, as the toolkit has it.
func (r *Repository) Manifest(ctx context.Context, digest string) (*Manifest, error) {
	if _, err := v1.NewHash(digest); err != nil {
		return nil, &failure.Error{Op: "pull", Object: r.display, Kind: failure.Invalid, Err: fmt.Errorf("%q is no digest", digest), Remedy: "write it as sha256:<64 hexadecimal digits>"}
	}
	desc, err := r.puller.Get(ctx, r.repo.Digest(digest))
	if err != nil {
		return nil, r.explain(ctx, "pull", "@"+digest, err)
	}
	if desc.Size > maxManifest {
		return nil, &failure.Error{Op: "pull", Object: r.display + "@" + digest, Kind: failure.Invalid, Err: fmt.Errorf("the manifest has more than %d bytes", maxManifest), Remedy: "correct the artifact"}
	}
	image, err := desc.Image()
	if err != nil {
		return nil, r.unreadable(ctx, digest, err)
	}
	m, err := image.Manifest()
	if err != nil || m.MediaType == types.DockerManifestSchema1 {
		return nil, r.unreadable(ctx, digest, err)
	}
	out := &Manifest{Digest: digest, Config: layerOf(m.Config), Annotations: m.Annotations}
	for _, l := range m.Layers {
		out.Layers = append(out.Layers, layerOf(l))
	}
	return out, nil
}

// unreadable says that what a digest names is no manifest, or that it did not come.
func (r *Repository) unreadable(ctx context.Context, digest string, err error) error {
	if ctx.Err() != nil || answered(err) {
		return r.explain(ctx, "pull", "@"+digest, err)
	}
	return &failure.Error{Op: "pull", Object: r.display + "@" + digest, Kind: failure.Invalid,
		Err: errors.Join(errors.New("it is no manifest that can be read"), err), Remedy: "push the artifact anew"}
}

func layerOf(d v1.Descriptor) Layer {
	return Layer{MediaType: string(d.MediaType), Digest: d.Digest.String(), Size: d.Size, Annotations: d.Annotations}
}

// Blob returns a layer, from the disk or from the registry.
func (r *Repository) Blob(ctx context.Context, l Layer) (blob.Blob, error) {
	object := r.display + "@" + l.Digest
	promise := blob.Promise{Digest: l.Digest, Size: l.Size, Object: object, From: r.repo.Name() + r.access.way()}
	b, err := r.client.opts.Blobs.Fetch(ctx, promise, func(ctx context.Context) (io.ReadCloser, error) {
		layer, err := r.puller.Layer(ctx, r.repo.Digest(l.Digest))
		if err != nil {
			return nil, err
		}
		return layer.Compressed()
	})
	if err != nil {
		return blob.Blob{}, r.explain(ctx, "pull", "@"+l.Digest, err)
	}
	return b, nil
}

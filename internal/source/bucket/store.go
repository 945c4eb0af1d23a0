// Package bucket is the room that shows a bucket of an object storage as a source.Artifact: of
// anything that speaks S3, of Google Cloud Storage and of Azure Blob Storage. A bucket is listed, and
// what the list says decides on the revision; only objects whose entity tag is new are downloaded, and
// each content is stored once, by its digest. Objects are read where they are stored.
package bucket

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/reach"
)

// The defaults of Options and Request.
const (
	DefaultMaxFileSize = 10 << 20
	DefaultMaxBytes    = 1 << 30
	DefaultMaxObjects  = 100_000
	DefaultTimeout     = 60 * time.Second
)

// The kinds of servers, with the toolkit's names.
const (
	Generic = "generic" // anything that speaks S3
	AWS     = "aws"
	Google  = "gcp"
	Azure   = "azure"
)

// Options are the settings of a Store.
type Options struct {
	// DataDir is the folder for what is downloaded; one Store at a time may use it.
	DataDir string
	// Mirrors replace the beginnings of addresses, which are written as
	// https://<endpoint>/<bucket>.
	Mirrors reach.Mirrors
	// MaxFileSize is the size in bytes above which an object is neither downloaded nor
	// can be read; DefaultMaxFileSize when 0. Larger objects do no harm as long as nobody reads them.
	MaxFileSize int64
	// MaxBytes bounds what is downloaded of one bucket, and MaxObjects how many objects of it are
	// shown; the defaults when 0.
	MaxBytes   int64
	MaxObjects int
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.MaxFileSize == 0 {
		o.MaxFileSize = DefaultMaxFileSize
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = DefaultMaxBytes
	}
	if o.MaxObjects == 0 {
		o.MaxObjects = DefaultMaxObjects
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Request says what to fetch.
type Request struct {
	// Provider is one of Generic, AWS, Google and Azure.
	Provider string
	// Bucket is the name of the bucket, or of the container.
	Bucket string
	// Endpoint is where the server is: a host with or without a port, and for Azure a URL. Insecure
	// allows one without TLS.
	Endpoint string
	Insecure bool
	// Region is where the bucket is; S3 asks for it when it is empty.
	Region string
	// Prefix is what the keys of all objects of interest begin with. It stays part of their paths.
	Prefix string
	// Ignore holds patterns in the format of .gitignore of what to leave out, after those of the file
	// .sourceignore at the root of the bucket; nil for none. None apply by default.
	Ignore *string
	// Login, TLS and Proxy say how to get there; without a Proxy, by the one that the environment names.
	Login Login
	TLS   reach.TLS
	Proxy *url.URL
	// Timeout limits the listing, and once more the downloads; DefaultTimeout when 0.
	Timeout time.Duration
	// For identifies who asks: what was downloaded for somebody serves nobody else, since the
	// server decides who may read what.
	For string
}

func (r Request) timeout() time.Duration {
	if r.Timeout <= 0 {
		return DefaultTimeout
	}
	return r.Timeout
}

// Store fetches buckets and keeps their objects. It is safe for use by many goroutines.
type Store struct {
	opts  Options
	blobs *blobs

	mu    sync.Mutex // guards lanes
	lanes map[string]*lane
}

// lane is what is known of a bucket for one who asks.
type lane struct {
	mu sync.Mutex // held during a fetch; guards what follows
	// reach tells the settings with which client was made.
	reach  string
	client client
	// shown is what last was made into an artifact.
	shown *shown
}

type shown struct {
	signature string
	artifact  source.Artifact
	tree      *content
}

// New opens a store, and removes what nobody has asked for in a long time.
func New(opts Options) (*Store, error) {
	opts = opts.withDefaults()
	dir, err := filepath.Abs(opts.DataDir)
	if err != nil {
		return nil, unwritable(opts.DataDir, err)
	}
	opts.DataDir = dir
	b, err := openBlobs(dir, opts.Now)
	if err != nil {
		return nil, unwritable(dir, err)
	}
	b.sweep(true)
	return &Store{opts: opts, blobs: b, lanes: map[string]*lane{}}, nil
}

func unwritable(dir string, err error) error {
	return &failure.Error{Op: "open bucket store", Object: dir, Kind: failure.Invalid, Err: err, Remedy: "give a data folder that can be written to"}
}

func (s *Store) lane(whom string) *lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lanes[whom] == nil {
		s.lanes[whom] = &lane{}
	}
	return s.lanes[whom]
}

// Forget ends what was kept for somebody.
func (s *Store) Forget(whom string) {
	s.mu.Lock()
	l := s.lanes[whom]
	delete(s.lanes, whom)
	s.mu.Unlock()
	if l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.client != nil {
			l.client.close()
		}
	}
	_ = os.Remove(s.blobs.stateFile(whom))
}

// Fetch lists the bucket, downloads what is new in it, and returns its state. When nothing is new,
// that costs the listing. Errors are of type failure.Error, name the bucket and no secret, and are
// of kind Unavailable, Timeout, Denied, NotFound or Invalid. What was fetched before stays
// readable whatever happens.
func (s *Store) Fetch(ctx context.Context, req Request) (source.Artifact, error) {
	where, err := s.locate(req)
	if err != nil {
		return source.Artifact{}, err
	}
	l := s.lane(req.For)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.connect(where, req); err != nil { //nolint:contextcheck // a client outlives the fetch, and asks nobody yet
		return source.Artifact{}, err
	}
	f := &fetch{store: s, lane: l, req: req, where: where}
	// A bucket that changes between the listing and a download is listed again.
	for range 3 {
		var artifact source.Artifact
		if artifact, err = f.once(ctx); !errors.Is(err, errMoved) {
			return artifact, err
		}
	}
	return source.Artifact{}, &failure.Error{Op: "fetch", Object: where.display, Kind: failure.Unavailable,
		Err: fmt.Errorf("it changes while it is read: %w", err), Remedy: "it is tried again; let writers pause for a moment"}
}

// connect makes the client of the lane, unless it has one with these settings.
func (l *lane) connect(where location, req Request) error {
	reach := where.id() + "\n" + fingerprint(req)
	if l.client != nil && l.reach == reach {
		return nil
	}
	c, err := newClient(where, req)
	if err != nil {
		return err
	}
	if l.client != nil {
		l.client.close()
	}
	l.client, l.reach = c, reach
	return nil
}

// Recall returns the revision that Fetch has returned last for the same For, perhaps to another
// process, from the disk alone. It is an error of kind NotFound when the revision is another
// one, is of another bucket, or is not there any more.
func (s *Store) Recall(_ context.Context, req Request, revision string) (source.Artifact, error) {
	where, err := s.locate(req)
	if err != nil {
		return source.Artifact{}, err
	}
	l := s.lane(req.For)
	l.mu.Lock()
	defer l.mu.Unlock()
	st := s.blobs.state(req.For)
	if req.For == "" || st.Location != where.id() || st.Revision == "" || st.Revision != revision || !s.blobs.all(st.Entries) {
		return source.Artifact{}, &failure.Error{Op: "recall", Object: where.display + " at " + revision, Kind: failure.NotFound,
			Err: errors.New("it is not in the data folder"), Remedy: "it is fetched again when the server can be reached"}
	}
	made, err := s.show(st)
	if err != nil {
		return source.Artifact{}, err
	}
	l.shown = made
	s.blobs.use(req.For)
	return made.artifact, nil
}

// sweep removes what belongs to nobody any more, unless that was done a while ago. What somebody
// has in use stays, however long ago it was written.
func (s *Store) sweep() {
	s.mu.Lock()
	for whom := range s.lanes {
		s.blobs.use(whom)
	}
	s.mu.Unlock()
	s.blobs.sweep(false)
}

// fingerprint tells one way to reach a server from another without giving it away.
func fingerprint(req Request) string {
	h := sha256.New()
	proxy := ""
	if req.Proxy != nil {
		proxy = req.Proxy.String()
	}
	for _, part := range append(req.Login.parts(), string(req.TLS.CA), string(req.TLS.Cert), string(req.TLS.Key), proxy, req.timeout().String()) {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(h.Sum(nil))
}

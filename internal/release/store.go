package release

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"

	"helm.sh/helm/v4/pkg/release/common"
	"helm.sh/helm/v4/pkg/storage"
	"helm.sh/helm/v4/pkg/storage/driver"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/kube"
)

// ErrAbsent is wrapped by the error for a revision that the storage does not hold.
var ErrAbsent = errors.New("there is no such revision")

// Journal is told of every write to the storage, so that the events which it causes
// are known as ours.
type Journal interface {
	// Writing is called before a write, and followed by Wrote or NotWritten.
	Writing(Key)
	// Wrote is called with what is stored now.
	Wrote(Key, Seen)
	// NotWritten is called when the write failed.
	NotWritten(Key)
	// Known returns the revisions of the release, newest first, and false where they are not
	// known and have to be asked for.
	Known(Key) ([]Seen, bool)
}

// Store is Helm's release storage in one namespace, as Secrets that Helm's own tools
// read and write. It keeps nothing, and is safe for concurrent use.
type Store struct {
	namespace string
	secrets   corev1client.SecretInterface
	metadata  metadata.ResourceInterface
	journal   Journal
}

// NewStore returns the storage in the namespace, as the cluster's clients may see it.
// Journal may be nil. No request is made.
func NewStore(c *kube.Cluster, namespace string, journal Journal) (*Store, error) {
	config := rest.CopyConfig(c.Config)
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	core, err := corev1client.NewForConfigAndClient(config, c.HTTP)
	if err != nil {
		return nil, &failure.Error{Op: "set up the release storage of", Kind: failure.Invalid, Object: namespace, Err: err}
	}
	if journal == nil {
		journal = unwatched{}
	}
	return &Store{
		namespace: namespace, secrets: core.Secrets(namespace), journal: journal,
		metadata: c.Metadata.Resource(secretResource).Namespace(namespace),
	}, nil
}

// unwatched is the journal of a storage that nobody watches.
type unwatched struct{}

func (unwatched) Writing(Key)              {}
func (unwatched) Wrote(Key, Seen)          {}
func (unwatched) NotWritten(Key)           {}
func (unwatched) Known(Key) ([]Seen, bool) { return nil, false }

// Namespace returns the namespace of the storage.
func (s *Store) Namespace() string { return s.namespace }

// SecretName returns the name of the Secret that holds a revision.
func SecretName(name string, version int) string {
	return storage.HelmStorageType + "." + name + ".v" + strconv.Itoa(version)
}

// History returns all revisions of the release, newest first; none is no error. It
// reads and decodes them whole; [Store.Revisions] costs less.
func (s *Store) History(ctx context.Context, name string) ([]*Record, error) {
	session, d := s.open(ctx, nil)
	found, err := d.Query(map[string]string{"name": name, "owner": "helm"})
	if err != nil && !errors.Is(err, driver.ErrReleaseNotFound) {
		return nil, s.failed("read the history of", name, session.cause(err))
	}
	var history []*Record
	for _, item := range found {
		rel, ok := item.(*Release)
		if !ok {
			continue
		}
		if secret, ok := session.read[SecretName(rel.Name, rel.Version)]; ok {
			history = append(history, recordOf(rel, secret))
		}
	}
	slices.SortFunc(history, func(a, b *Record) int { return cmp.Compare(b.Version, a.Version) })
	return history, nil
}

// Revisions returns which revisions of the release there are, newest first, without
// their content: from the journal where it knows, else by one request for metadata.
func (s *Store) Revisions(ctx context.Context, name string) ([]Seen, error) {
	if seen, ok := s.journal.Known(Key{Namespace: s.namespace, Name: name}); ok {
		return seen, nil
	}
	selector := labels.SelectorFromSet(labels.Set{"owner": "helm", "name": name}).String()
	list, err := s.metadata.List(ctx, metav1.ListOptions{LabelSelector: selector, FieldSelector: ofHelm})
	if err != nil {
		return nil, s.failed("list the revisions of", name, err)
	}
	var seen []Seen
	for i := range list.Items {
		if _, revision, ok := reduce(&list.Items[i]); ok {
			seen = append(seen, revision)
		}
	}
	sortSeen(seen)
	return seen, nil
}

// Get returns one revision. The error wraps [ErrAbsent] where there is none.
func (s *Store) Get(ctx context.Context, name string, version int) (*Record, error) {
	session, d := s.open(ctx, nil)
	key := SecretName(name, version)
	found, err := d.Get(key)
	if errors.Is(err, driver.ErrReleaseNotFound) {
		err = ErrAbsent
	}
	if err != nil {
		return nil, s.failed("read the revision", key, session.cause(err))
	}
	rel, ok := found.(*Release)
	if !ok {
		return nil, s.failed("read the revision", key, fmt.Errorf("it is of the form %T, which this version does not know", found))
	}
	return recordOf(rel, session.read[key]), nil
}

// Last returns the newest revision. The error wraps [ErrAbsent] where there is none.
func (s *Store) Last(ctx context.Context, name string) (*Record, error) {
	return s.newest(ctx, name, func(Seen) bool { return true })
}

// Deployed returns the newest revision that is deployed. The error wraps [ErrAbsent]
// where there is none.
func (s *Store) Deployed(ctx context.Context, name string) (*Record, error) {
	return s.newest(ctx, name, func(r Seen) bool { return r.Status == common.StatusDeployed })
}

func (s *Store) newest(ctx context.Context, name string, which func(Seen) bool) (*Record, error) {
	seen, err := s.Revisions(ctx, name)
	if err != nil {
		return nil, err
	}
	for _, revision := range seen {
		if which(revision) {
			return s.Get(ctx, name, revision.Version)
		}
	}
	return nil, s.failed("read", name, ErrAbsent)
}

// Create stores a new revision. Before that, the oldest are removed until fewer than
// maxHistory are left, but never the deployed one, as Helm does; 0 keeps all. That the
// revision is there already is a failure of kind Conflict: somebody else was faster.
func (s *Store) Create(ctx context.Context, r *Record, maxHistory int) error {
	if err := s.prune(ctx, r.Name, maxHistory-1); err != nil {
		return err
	}
	r.ResourceVersion = ""
	return s.write(ctx, "store the revision", r, func(d *driver.Secrets, key string) error { return d.Create(key, r.Release) })
}

// Update stores a revision anew. It is refused with a failure of kind Conflict when
// somebody else has written it since it was read.
func (s *Store) Update(ctx context.Context, r *Record) error {
	return s.write(ctx, "update the revision", r, func(d *driver.Secrets, key string) error { return d.Update(key, r.Release) })
}

func (s *Store) write(ctx context.Context, op string, r *Record, write func(*driver.Secrets, string) error) error {
	key := r.Key(s.namespace)
	session, d := s.open(ctx, r)
	s.journal.Writing(key)
	if err := write(d, SecretName(r.Name, r.Version)); err != nil {
		s.journal.NotWritten(key)
		return s.failed(op, SecretName(r.Name, r.Version), session.cause(err))
	}
	written := recordOf(r.Release, session.wrote)
	r.ResourceVersion, r.Writer, r.WrittenAt = written.ResourceVersion, written.Writer, written.WrittenAt
	s.journal.Wrote(key, r.Seen())
	return nil
}

// mark patches the metadata of the revision's Secret.
func (s *Store) mark(ctx context.Context, r *Record, patch []byte) error {
	key, name := r.Key(s.namespace), SecretName(r.Name, r.Version)
	s.journal.Writing(key)
	answer, err := s.metadata.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: Manager})
	if err != nil {
		s.journal.NotWritten(key)
		return s.failed("mark the revision", name, err)
	}
	r.ResourceVersion = answer.ResourceVersion
	s.journal.Wrote(key, r.Seen())
	return nil
}

// prune removes the oldest revisions until at most most are left; less than 0 keeps all.
func (s *Store) prune(ctx context.Context, name string, most int) error {
	if most < 0 {
		return nil
	}
	seen, err := s.Revisions(ctx, name)
	if err != nil {
		return err
	}
	deployed := slices.IndexFunc(seen, func(r Seen) bool { return r.Status == common.StatusDeployed })
	left := len(seen)
	for i := len(seen) - 1; i >= 0 && left > most; i-- {
		if i == deployed {
			continue
		}
		if err := s.Delete(ctx, name, seen[i].Version); err != nil {
			return err
		}
		left--
	}
	return nil
}

// Delete removes one revision; that it is gone already is no error.
func (s *Store) Delete(ctx context.Context, name string, version int) error {
	key := Key{Namespace: s.namespace, Name: name}
	s.journal.Writing(key)
	err := s.secrets.Delete(ctx, SecretName(name, version), metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		s.journal.NotWritten(key)
		return s.failed("remove the revision", SecretName(name, version), err)
	}
	s.journal.Wrote(key, Seen{Version: version})
	return nil
}

// Purge removes all revisions of the release, the newest last, so that what is left
// after an interruption still says what is there.
func (s *Store) Purge(ctx context.Context, name string) error {
	seen, err := s.Revisions(ctx, name)
	if err != nil {
		return err
	}
	for _, revision := range slices.Backward(seen) {
		if err := s.Delete(ctx, name, revision.Version); err != nil {
			return err
		}
	}
	return nil
}

// Supersede marks every deployed revision except one as superseded and returns those that it
// changed: at any time at most one revision of a release is deployed.
func (s *Store) Supersede(ctx context.Context, name string, except int) ([]*Record, error) {
	seen, err := s.Revisions(ctx, name)
	if err != nil {
		return nil, err
	}
	var changed []*Record
	for _, revision := range seen {
		if revision.Status != common.StatusDeployed || revision.Version == except {
			continue
		}
		r, err := s.Get(ctx, name, revision.Version)
		if errors.Is(err, ErrAbsent) {
			continue
		}
		if err != nil {
			return changed, err
		}
		r.SetStatus(common.StatusSuperseded, r.Info.Description)
		if err := s.Update(ctx, r); err != nil {
			return changed, err
		}
		changed = append(changed, r)
	}
	return changed, nil
}

// failed names the operation and the object. The Secret's content is in no error: the
// driver's errors speak of names, and the API server's of fields.
func (s *Store) failed(op, object string, err error) error {
	f := &failure.Error{Op: op, Kind: failure.Unavailable, Object: s.namespace + "/" + object, Err: err}
	switch {
	case errors.Is(err, ErrAbsent) || apierrors.IsNotFound(err):
		f.Kind = failure.NotFound
	case errors.Is(err, driver.ErrReleaseExists) || apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err):
		f.Kind = failure.Conflict
	case apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err):
		f.Kind, f.Remedy = failure.Denied, "give that user the right to get, list, create, update and delete Secrets there"
	case apierrors.IsRequestEntityTooLargeError(err) || apierrors.IsInvalid(err):
		f.Kind, f.Remedy = failure.Invalid, "make the chart smaller: Helm keeps it whole in one Secret, which holds 1 MiB at most"
	}
	return f
}

// session carries out one operation of Helm's driver, which knows neither contexts nor
// resource versions, and keeps what the driver drops.
type session struct {
	corev1client.SecretInterface
	ctx    context.Context //nolint:containedctx // the driver takes none, and a session is one call
	record *Record         // what is being written; nil for reads
	read   map[string]*corev1.Secret
	wrote  *corev1.Secret
	err    error // of the API server, before the driver put words around it
}

func (s *Store) open(ctx context.Context, r *Record) (*session, *driver.Secrets) {
	session := &session{SecretInterface: s.secrets, ctx: ctx, record: r, read: map[string]*corev1.Secret{}}
	d := driver.NewSecrets(session)
	d.SetLogger(slog.DiscardHandler)
	return session, d
}

// cause is the driver's error, or the one of the API server behind it.
func (s *session) cause(err error) error {
	if s.err != nil && !errors.Is(err, ErrAbsent) && !errors.Is(err, driver.ErrReleaseExists) {
		return s.err
	}
	return err
}

package bucket_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source"
	"github.com/bowline-dev/bowline/internal/source/bucket"
	"github.com/bowline-dev/bowline/internal/testkit/buckettest"
)

func newStore(t *testing.T, change ...func(*bucket.Options)) *bucket.Store {
	t.Helper()
	o := bucket.Options{DataDir: t.TempDir()}
	for _, c := range change {
		c(&o)
	}
	s, err := bucket.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func s3Request(s *buckettest.S3Server, change ...func(*bucket.Request)) bucket.Request {
	r := bucket.Request{
		Provider: bucket.Generic, Bucket: s.Bucket, Endpoint: s.Endpoint(), Insecure: true, For: "me", Timeout: 20 * time.Second,
		Login: bucket.Login{AccessKey: buckettest.S3AccessKey, SecretKey: buckettest.S3SecretKey},
	}
	for _, c := range change {
		c(&r)
	}
	return r
}

func fetched(t *testing.T, s *bucket.Store, r bucket.Request) source.Artifact {
	t.Helper()
	a, err := s.Fetch(t.Context(), r)
	if err != nil {
		t.Fatalf("fetch: %v", err)
	}
	return a
}

// filesOf reads all files of a tree.
func filesOf(t *testing.T, tree source.Tree) map[string]string {
	t.Helper()
	out := map[string]string{}
	var walk func(dir string)
	walk = func(dir string) {
		entries, err := tree.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			name := strings.TrimPrefix(dir+"/"+e.Name(), "./")
			if e.IsDir() {
				walk(name)
				continue
			}
			data, err := tree.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			out[name] = string(data)
		}
	}
	walk(".")
	return out
}

// An object is downloaded once for each content, and nothing when nothing is new.
func TestS3DownloadsWhatChanged(t *testing.T) {
	t.Parallel()
	s := buckettest.NewS3(t)
	store := newStore(t)
	files := map[string]string{"a.yaml": "1", "app/b.yaml": "2", "app/deep/c.yaml": "3", "same.yaml": "3"}
	s.Put(files)
	first := fetched(t, store, s3Request(s))
	if err := fstest.TestFS(first.Tree, "a.yaml", "app/deep/c.yaml"); err != nil {
		t.Error(err)
	}
	if got := filesOf(t, first.Tree); !maps.Equal(got, files) {
		t.Errorf("the tree has %v", got)
	}
	if reads := s.Reads(); len(reads) != 4 {
		t.Errorf("downloaded %v", reads)
	}
	before := len(s.Requests())
	if again := fetched(t, store, s3Request(s)); again.Tree != first.Tree || again.Revision != first.Revision {
		t.Errorf("%v, then %v", first, again)
	}
	if n := len(s.Requests()) - before; n != 1 {
		t.Errorf("%d requests where nothing is new, want one", n)
	}
	s.Put(map[string]string{"a.yaml": "new"})
	s.Delete("same.yaml")
	second := fetched(t, store, s3Request(s))
	if second.Revision == first.Revision || second.Digest == first.Digest {
		t.Errorf("nothing new: %v", second)
	}
	if reads := s.Reads(); len(reads) != 5 || reads[4] != "a.yaml" {
		t.Errorf("downloaded %v, want a.yaml again and nothing else", reads)
	}
	want := map[string]string{"a.yaml": "new", "app/b.yaml": "2", "app/deep/c.yaml": "3"}
	if got := filesOf(t, second.Tree); !maps.Equal(got, want) {
		t.Errorf("the tree has %v, want %v", got, want)
	}
	if got := filesOf(t, first.Tree); !maps.Equal(got, files) {
		t.Errorf("the tree of before has %v now", got)
	}
}

// The revision is the one that the toolkit's own controller gives to the same bucket.
func TestS3Revision(t *testing.T) {
	t.Parallel()
	s := buckettest.NewS3(t)
	s.Put(map[string]string{"b.yaml": "two", "a/a.yaml": "one", ".gitignore": "x", ".sourceignore": "*.md\n", "README.md": "left out"})
	a := fetched(t, newStore(t), s3Request(s))
	const one, two, x = "f97c5d29941bfb1b2fdab0874906ab82", "b8a9f715dbb64fd5c56e7783c6820a61", "9dd4e461268c8034f5c8564e155c67a6"
	sum := sha256.Sum256([]byte(".gitignore " + x + "\na/a.yaml " + one + "\nb.yaml " + two + "\n"))
	if want := "sha256:" + hex.EncodeToString(sum[:]); a.Revision != want {
		t.Errorf("revision %s, want %s", a.Revision, want)
	}
}

func TestS3IgnoreAndPrefix(t *testing.T) {
	t.Parallel()
	s := buckettest.NewS3(t)
	s.Put(map[string]string{
		".sourceignore": "*.md\nold/\n", "!first.yaml": "sorts before the rules", "!first.md": "so does this",
		"a.yaml": "", "a.md": "", "apps/a.yaml": "", "apps/a.md": "", "apps/old/x.yaml": "", "application.yaml": "", "logo.png": "",
	})
	text := func(s string) *string { return &s }
	for _, tc := range []struct {
		name, reason, prefix string
		ignore               *string
		want                 string
	}{
		{"rules of the bucket", "there are no others", "", nil, "!first.yaml .sourceignore a.yaml application.yaml apps/a.yaml logo.png"},
		{"rules of the spec win", "they come last", "", text("/*\n!/a.md\n"), ".sourceignore a.md"},
		{"prefix", "the rules of the bucket hold; a prefix is no folder", "app", nil, ".sourceignore application.yaml apps/a.yaml"},
		{"prefix that is a folder", "keys keep it", "apps/", nil, ".sourceignore apps/a.yaml"},
		{"prefix of nothing", "an empty artifact, as there", "none/", nil, ".sourceignore"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := fetched(t, newStore(t), s3Request(s, func(r *bucket.Request) { r.Prefix, r.Ignore = tc.prefix, tc.ignore }))
			got := strings.Join(slices.Sorted(maps.Keys(filesOf(t, a.Tree))), " ")
			if got != tc.want {
				t.Errorf("%s: the tree has %s, want %s", tc.reason, got, tc.want)
			}
		})
	}
}

// A list in many pages is one list.
func TestS3ManyObjects(t *testing.T) {
	t.Parallel()
	s := buckettest.NewS3(t)
	files := map[string]string{}
	for i := range 1100 {
		files[fmt.Sprintf("d%d/f%d.yaml", i%10, i)] = fmt.Sprint(i % 100)
	}
	s.Put(files)
	dir := t.TempDir()
	store := newStore(t, func(o *bucket.Options) { o.DataDir = dir })
	if got := filesOf(t, fetched(t, store, s3Request(s)).Tree); !maps.Equal(got, files) {
		t.Errorf("the tree has %d files", len(got))
	}
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "*", "*"))
	if err != nil || len(blobs) != 100 {
		t.Errorf("%d contents on disk, %v; want 100: each is stored once", len(blobs), err)
	}
	few := newStore(t, func(o *bucket.Options) { o.MaxObjects = 1000 })
	if _, err := few.Fetch(t.Context(), s3Request(s)); !isKind(err, failure.Invalid, "more than 1000 objects", "spec.prefix") {
		t.Errorf("too many: %v", err)
	}
}

func isKind(err error, kind failure.Kind, words ...string) bool {
	if failure.KindOf(err) != kind {
		return false
	}
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(err.Error(), w) })
}

// A large object is not downloaded, and does no harm as long as nobody reads it.
func TestS3LargeObject(t *testing.T) {
	t.Parallel()
	s := buckettest.NewS3(t)
	s.Put(map[string]string{"a.yaml": "1", "huge.bin": strings.Repeat("x", 2000)})
	store := newStore(t, func(o *bucket.Options) { o.MaxFileSize = 1000 })
	a := fetched(t, store, s3Request(s))
	if reads := s.Reads(); len(reads) != 1 {
		t.Errorf("downloaded %v", reads)
	}
	if data, err := a.Tree.ReadFile("a.yaml"); err != nil || string(data) != "1" {
		t.Errorf("a.yaml: %s, %v", data, err)
	}
	if _, err := a.Tree.ReadFile("huge.bin"); !isKind(err, failure.Invalid, "huge.bin", "2000 bytes") {
		t.Errorf("huge.bin: %v", err)
	}
	if info, err := a.Tree.Stat("huge.bin"); err != nil || info.Size() != 2000 {
		t.Errorf("huge.bin: %v, %v", info, err)
	}
	small := newStore(t, func(o *bucket.Options) { o.MaxBytes = 2000 })
	if _, err := small.Fetch(t.Context(), s3Request(s)); !isKind(err, failure.Invalid, "more than 2000 bytes together", "spec.ignore") {
		t.Errorf("all together: %v", err)
	}
}

// After a restart, what somebody was given last is there for him, and nothing is downloaded again.
func TestS3Recall(t *testing.T) {
	t.Parallel()
	s := buckettest.NewS3(t)
	s.Put(map[string]string{"a.yaml": "1", "b/b.yaml": "2"})
	dir := t.TempDir()
	in := func(o *bucket.Options) { o.DataDir = dir }
	first := fetched(t, newStore(t, in), s3Request(s))
	store := newStore(t, in)
	s.Refuse(503)
	a, err := store.Recall(t.Context(), s3Request(s), first.Revision)
	if err != nil || a.Digest != first.Digest || filesOf(t, a.Tree)["b/b.yaml"] != "2" {
		t.Errorf("recalled %v, %v", a, err)
	}
	for name, change := range map[string]func(*bucket.Request){
		"another who asks": func(r *bucket.Request) { r.For = "you" },
		"nobody":           func(r *bucket.Request) { r.For = "" },
		"another bucket":   func(r *bucket.Request) { r.Bucket = "other" },
	} {
		if _, err := store.Recall(t.Context(), s3Request(s, change), first.Revision); !isKind(err, failure.NotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := store.Recall(t.Context(), s3Request(s), "sha256:00"); !isKind(err, failure.NotFound) {
		t.Errorf("another revision: %v", err)
	}
	s.Refuse(0)
	if again := fetched(t, store, s3Request(s)); again.Revision != first.Revision || len(s.Reads()) != 2 {
		t.Errorf("%s, and downloaded %v", again.Revision, s.Reads())
	}
	fetched(t, store, s3Request(s, func(r *bucket.Request) { r.For = "you" }))
	if len(s.Reads()) != 4 {
		t.Errorf("who asks for the first time got what the server was not asked for: %v", s.Reads())
	}
}

// What is damaged on disk is told, and downloaded again.
func TestS3Damage(t *testing.T) {
	t.Parallel()
	s := buckettest.NewS3(t)
	s.Put(map[string]string{"a.yaml": "good"})
	dir := t.TempDir()
	store := newStore(t, func(o *bucket.Options) { o.DataDir = dir })
	a := fetched(t, store, s3Request(s))
	blobs, _ := filepath.Glob(filepath.Join(dir, "blobs", "*", "*"))
	if err := os.WriteFile(blobs[0], []byte("evil"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Tree.ReadFile("a.yaml"); !isKind(err, failure.Unavailable, "damaged") {
		t.Errorf("damaged: %v", err)
	}
	a = fetched(t, store, s3Request(s))
	if data, err := a.Tree.ReadFile("a.yaml"); err != nil || string(data) != "good" {
		t.Errorf("after that: %s, %v", data, err)
	}
}

// What broke off goes on where it was.
func TestS3GoesOn(t *testing.T) {
	t.Parallel()
	s := buckettest.NewS3(t)
	files := map[string]string{}
	for i := range 40 {
		files[fmt.Sprintf("f%02d", i)] = fmt.Sprint(i)
	}
	s.Put(files)
	store := newStore(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.OnRead(func(key string) {
		if key == "f30" {
			cancel()
		}
	})
	if _, err := store.Fetch(ctx, s3Request(s)); err == nil {
		t.Fatal("fetched all")
	}
	s.OnRead(nil)
	before := len(s.Reads())
	if got := filesOf(t, fetched(t, store, s3Request(s)).Tree); !maps.Equal(got, files) {
		t.Errorf("the tree has %v", got)
	}
	if n := len(s.Reads()) - before; n > 25 {
		t.Errorf("%d objects were downloaded again of %d", n, len(files))
	}
}

// An object that goes or changes between the listing and the download: the bucket is listed again.
func TestS3MovesMeanwhile(t *testing.T) {
	t.Parallel()
	s := buckettest.NewS3(t)
	s.Put(map[string]string{"a.yaml": "1", "b.yaml": "1", "c.yaml": "1"})
	once := true
	s.OnRead(func(key string) {
		if key == "b.yaml" && once {
			once = false
			s.Delete("b.yaml")
			s.Put(map[string]string{"c.yaml": "2"})
		}
	})
	a := fetched(t, newStore(t), s3Request(s))
	if got := filesOf(t, a.Tree); !maps.Equal(got, map[string]string{"a.yaml": "1", "c.yaml": "2"}) {
		t.Errorf("the tree has %v", got)
	}
	n := 0
	s.OnRead(func(string) { n++; s.Put(map[string]string{"a.yaml": fmt.Sprint("restless", n)}) })
	if _, err := newStore(t).Fetch(t.Context(), s3Request(s)); !isKind(err, failure.Unavailable, "changes while it is read") {
		t.Errorf("a bucket that never rests: %v", err)
	}
}

// What is in use stays, however long nothing changes; what nobody asks for any more goes.
func TestS3Sweep(t *testing.T) {
	t.Parallel()
	s, other := buckettest.NewS3(t), buckettest.NewS3(t)
	s.Put(map[string]string{"a.yaml": "kept"})
	dir, now := t.TempDir(), time.Now()
	in := func(o *bucket.Options) { o.DataDir, o.Now = dir, func() time.Time { return now } }
	store := newStore(t, in)
	a := fetched(t, store, s3Request(s))
	for month := range 3 {
		now = now.Add(31 * 24 * time.Hour)
		other.Put(map[string]string{"b.yaml": fmt.Sprint(month)})
		fetched(t, store, s3Request(other, func(r *bucket.Request) { r.For = "you" }))
	}
	if got := filesOf(t, a.Tree); got["a.yaml"] != "kept" {
		t.Errorf("the tree has %v", got)
	}
	if blobs, _ := filepath.Glob(filepath.Join(dir, "blobs", "*", "*")); len(blobs) != 2 {
		t.Errorf("%d contents on disk, want the two that are in use", len(blobs))
	}
	now = now.Add(31 * 24 * time.Hour)
	newStore(t, in)
	if blobs, _ := filepath.Glob(filepath.Join(dir, "blobs", "*", "*")); len(blobs) != 0 {
		t.Errorf("%d contents on disk that nobody has asked for in a month", len(blobs))
	}
}

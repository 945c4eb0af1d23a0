package blob_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/blob"
)

func digestOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func open(t *testing.T, dir string, o blob.Options) *blob.Store {
	t.Helper()
	s, err := blob.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// server counts how often it is asked.
type server struct {
	text  string
	asked int
}

func (s *server) download(context.Context) (io.ReadCloser, error) {
	s.asked++
	return io.NopCloser(strings.NewReader(s.text)), nil
}

func TestFetch(t *testing.T) {
	for _, tc := range []struct {
		name, reason string
		promise      blob.Promise
		sent         string
		want         failure.Kind
	}{
		{"as promised", "it is kept", blob.Promise{Digest: digestOf("abc")}, "abc", ""},
		{"other bytes", "nobody asked for them", blob.Promise{Digest: digestOf("abc")}, "abd", failure.Unavailable},
		{"cut short", "they are other bytes", blob.Promise{Digest: digestOf("abc")}, "ab", failure.Unavailable},
		{"too large", "there is a limit", blob.Promise{Digest: digestOf("12345678901")}, "12345678901", failure.Invalid},
		{"too large, told", "nobody needs to try", blob.Promise{Digest: digestOf("abc"), Size: 11}, "abc", failure.Invalid},
		{"no digest", "it could be anything", blob.Promise{Digest: "sha256:../../x"}, "abc", failure.Invalid},
		{"weak digest", "it could be anything", blob.Promise{Digest: "md5:900150983cd24fb0d6963f7d28e17f72"}, "abc", failure.Invalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, blob.Options{MaxBlobSize: 10})
			from := &server{text: tc.sent}
			b, err := s.Fetch(t.Context(), tc.promise, from.download)
			if failure.KindOf(err) != tc.want || (err == nil) != (tc.want == "") {
				t.Fatalf("%s: error %v", tc.reason, err)
			}
			if err != nil {
				if files, _ := os.ReadDir(dir); len(files) != 0 {
					t.Errorf("it left %v", files)
				}
				return
			}
			data, err := b.Bytes()
			if err != nil || string(data) != tc.sent || b.Size != int64(len(tc.sent)) {
				t.Errorf("read %q, %v", data, err)
			}
			if _, err := open(t, dir, blob.Options{}).Fetch(t.Context(), tc.promise, from.download); err != nil || from.asked != 1 {
				t.Errorf("after a restart: %v, asked %d times", err, from.asked)
			}
		})
	}
}

// What has not been used for longest makes room.
func TestRoom(t *testing.T) {
	now := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	o := blob.Options{MaxBytes: 10, Now: func() time.Time { now = now.Add(time.Minute); return now }}
	s := open(t, dir, o)
	add := func(text string) blob.Blob {
		b, err := s.Fetch(t.Context(), blob.Promise{Digest: digestOf(text)}, (&server{text: text}).download)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	first, second := add("1111"), add("2222")
	if _, ok := s.Get(first.Digest); !ok {
		t.Fatal("it is not there")
	}
	third := add("3333")
	for _, row := range []struct {
		b    blob.Blob
		want bool
	}{{first, true}, {second, false}, {third, true}} {
		if _, ok := s.Get(row.b.Digest); ok != row.want {
			t.Errorf("%s is there: %t", row.b.Digest, ok)
		}
	}
	if _, err := second.Open(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error = %v", err)
	}
	// What is on disk when a store is opened makes room, too, and what is half written goes.
	if err := os.WriteFile(filepath.Join(dir, "new-1"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.MaxBytes = 4
	open(t, dir, o)
	if files, _ := os.ReadDir(dir); len(files) != 2 { // with who sent it
		t.Errorf("left are %v", files)
	}
}

// A file that somebody cut off is not taken for what it was.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, blob.Options{})
	b, err := s.Fetch(t.Context(), blob.Promise{Digest: digestOf("abc")}, (&server{text: "abc"}).download)
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 2 {
		t.Fatal(files, err)
	}
	if err := os.WriteFile(filepath.Join(dir, files[0].Name()), []byte("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	from := &server{text: "abc"}
	if b, err = s.Fetch(t.Context(), blob.Promise{Digest: b.Digest}, from.download); err != nil || from.asked != 1 {
		t.Errorf("error %v, asked %d times", err, from.asked)
	}
	if data, err := b.Bytes(); err != nil || string(data) != "abc" {
		t.Errorf("read %q, %v", data, err)
	}
}

// To know a digest is no right to the content: who promises it has to send it, once.
func TestSenders(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, blob.Options{})
	ours, theirs := &server{text: "abc"}, &server{text: "nothing"}
	promise := blob.Promise{Digest: digestOf("abc"), From: "ours"}
	if _, err := s.Fetch(t.Context(), promise, ours.download); err != nil {
		t.Fatal(err)
	}
	promise.From = "theirs"
	for _, s := range []*blob.Store{s, open(t, dir, blob.Options{})} {
		if _, err := s.Fetch(t.Context(), promise, theirs.download); !errors.Is(err, failure.Of(failure.Unavailable)) {
			t.Errorf("somebody who lacks it got it: %v", err)
		}
	}
	theirs.text, theirs.asked = "abc", 0
	for range 2 {
		if _, err := s.Fetch(t.Context(), promise, theirs.download); err != nil {
			t.Error(err)
		}
	}
	promise.From = "ours"
	if _, err := s.Fetch(t.Context(), promise, ours.download); err != nil || ours.asked != 1 || theirs.asked != 1 {
		t.Errorf("error %v, asked %d and %d times, want once each", err, ours.asked, theirs.asked)
	}
}

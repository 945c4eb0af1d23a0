package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
)

// record is what one who asked has got.
type record struct {
	// URL and Layer are what was asked for.
	URL   string `json:"url"`
	Layer Layer  `json:"layer"`
	// Revision and Digest are those of the artifact, Blob is the digest of its layer.
	Revision string            `json:"revision"`
	Digest   string            `json:"digest"`
	Blob     string            `json:"blob"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// is reports whether the record answers a request, once that came to this digest.
func (h record) is(req Request, digest string) bool {
	return h.URL == req.URL && h.Layer == req.Layer && h.Digest == digest
}

// unusedAfter is how long a record stays that nobody writes anew.
const unusedAfter = 30 * 24 * time.Hour

func nameOf(who string) string {
	sum := sha256.Sum256([]byte(who))
	return hex.EncodeToString(sum[:16])
}

// keep notes what one has got, for the next fetch and for the next process.
func (s *Store) keep(who string, have record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if who == "" || reflect.DeepEqual(s.has[who], have) {
		return nil
	}
	text, err := json.Marshal(have)
	if err == nil {
		err = replace(s.file(who), text)
	}
	if err != nil {
		return at(Pulling, &failure.Error{Op: "keep", Object: have.Revision, Kind: failure.Unavailable, Err: err, Remedy: "make room in the data folder"})
	}
	s.has[who] = have
	return nil
}

// replace writes a file that is either as it was or as it is to be.
func replace(file string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(file), "new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

// recorded reads what one got from the process before.
func (s *Store) recorded(who string) (record, bool) {
	var have record
	text, err := os.ReadFile(s.file(who))
	if err != nil || json.Unmarshal(text, &have) != nil {
		return record{}, false
	}
	return have, true
}

// dropUnused removes records of those who are gone, and what was half written.
func (s *Store) dropUnused() {
	files, _ := filepath.Glob(filepath.Join(s.opts.Dir, "*"))
	for _, name := range files {
		info, err := os.Stat(name)
		if err == nil && (filepath.Ext(name) != ".json" || s.opts.Now().Sub(info.ModTime()) > unusedAfter) {
			_ = os.Remove(name)
		}
	}
}

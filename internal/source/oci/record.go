package oci

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/bowline-dev/bowline/internal/source/disk"
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

const (
	// unusedAfter is how long a record stays that nobody has use for.
	unusedAfter = 30 * 24 * time.Hour
	// touchAfter is how old the mark of its last use becomes.
	touchAfter = 24 * time.Hour
)

// touch notes that a record is of use. The caller holds mu.
func (s *Store) touch(who string) {
	name, now := s.file(who), s.opts.Now()
	if info, err := os.Stat(name); err == nil && now.Sub(info.ModTime()) > touchAfter {
		_ = os.Chtimes(name, time.Time{}, now) // at worst it is fetched again
	}
}

func nameOf(who string) string {
	sum := sha256.Sum256([]byte(who))
	return hex.EncodeToString(sum[:16])
}

// keep notes what one has got, for the next fetch and for the next process.
func (s *Store) keep(who string, have record) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if who == "" {
		return nil
	}
	if reflect.DeepEqual(s.has[who], have) {
		s.touch(who)
		return nil
	}
	text, err := json.Marshal(have)
	if err == nil {
		err = disk.WriteFile(s.file(who), text)
	}
	if err != nil {
		return at(Pulling, err)
	}
	s.has[who] = have
	s.tidy()
	return nil
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

// tidy removes records of those who are gone, now and then. Not at the start, when those who are there have not asked
// yet: one that is suspended has nothing but its record. The caller holds mu.
func (s *Store) tidy() {
	now := s.opts.Now()
	if now.Sub(s.tidied) < touchAfter {
		return
	}
	s.tidied = now
	for who := range s.has {
		s.touch(who)
	}
	s.drop(func(name string, info os.FileInfo) bool {
		return filepath.Ext(name) == ".json" && now.Sub(info.ModTime()) > unusedAfter
	})
}

// dropPartial removes what was half written.
func (s *Store) dropPartial() {
	s.drop(func(name string, _ os.FileInfo) bool { return filepath.Ext(name) != ".json" })
}

func (s *Store) drop(unwanted func(name string, info os.FileInfo) bool) {
	files, _ := filepath.Glob(filepath.Join(s.opts.Dir, "*"))
	for _, name := range files {
		info, err := os.Stat(name)
		if err == nil && unwanted(name, info) {
			_ = os.Remove(name)
		}
	}
}

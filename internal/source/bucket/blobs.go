package bucket

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/disk"
)

// blobs is the data folder: contents by their digest, and for each who asks what he was given last.
//
//	blobs/<two digits>/<digest>   contents
//	state/<digest of a name>      what belongs to whom, as JSON
//	tmp/                          what is being written
type blobs struct {
	dir string
	now func() time.Time

	mu    sync.Mutex // guards swept
	swept time.Time
}

// state is what somebody was given last.
type state struct {
	// Location is where it is from: tags of elsewhere say nothing.
	Location string
	Revision string  `json:",omitempty"`
	Entries  []entry `json:",omitempty"`
	// Pending has been downloaded for what is to come.
	Pending []entry `json:",omitempty"`
}

func openBlobs(dir string, now func() time.Time) (*blobs, error) {
	b := &blobs{dir: dir, now: now}
	if err := os.RemoveAll(filepath.Join(dir, "tmp")); err != nil {
		return nil, err
	}
	for _, name := range []string{"tmp", "state", "blobs"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (b *blobs) path(sum string) string { return filepath.Join(b.dir, "blobs", sum[:2], sum) }

// has reports whether a content is there, by its size.
func (b *blobs) has(sum string, size int64) bool {
	info, err := os.Stat(b.path(sum))
	return err == nil && info.Size() == size
}

func (b *blobs) all(entries []entry) bool {
	for _, e := range entries {
		if e.Sum != "" && !b.has(e.Sum, e.Size) {
			return false
		}
	}
	return true
}

// put stores a content as it comes, and returns its digest and size. What breaks off is not stored.
func (b *blobs) put(r io.Reader) (sum string, size int64, err error) {
	file, err := os.CreateTemp(filepath.Join(b.dir, "tmp"), "blob-*")
	if err != nil {
		return "", 0, diskError(err)
	}
	defer func() { _ = os.Remove(file.Name()) }()
	h := sha256.New()
	written := &disk.Writer{File: file}
	size, err = io.Copy(io.MultiWriter(h, written), r)
	if written.Err == nil {
		written.Err = file.Close()
	} else {
		_ = file.Close()
	}
	if written.Err != nil {
		return "", 0, diskError(written.Err)
	}
	if err != nil {
		return "", 0, err
	}
	sum = hex.EncodeToString(h.Sum(nil))
	if err := os.MkdirAll(filepath.Dir(b.path(sum)), 0o700); err != nil {
		return "", 0, diskError(err)
	}
	if err := os.Rename(file.Name(), b.path(sum)); err != nil {
		return "", 0, diskError(err)
	}
	return sum, size, nil
}

func diskError(err error) error {
	return &failure.Error{Op: "write to the data folder", Kind: failure.Unavailable, Err: err, Remedy: "check its disk"}
}

// read returns a content. One that is not what its name says is removed, so that it is downloaded again.
func (b *blobs) read(sum string) ([]byte, error) {
	data, err := os.ReadFile(b.path(sum))
	if err == nil {
		if got := sha256.Sum256(data); hex.EncodeToString(got[:]) == sum {
			return data, nil
		}
		_ = os.Remove(b.path(sum))
		err = errors.New("it is damaged")
	}
	return nil, &failure.Error{Op: "read from the data folder", Object: "object sha256:" + sum, Kind: failure.Unavailable, Err: plainPath(err),
		Remedy: "it is downloaded again at the next reconciliation"}
}

// plainPath leaves out where on the disk something is.
func plainPath(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func (b *blobs) stateFile(whom string) string {
	sum := sha256.Sum256([]byte(whom))
	return filepath.Join(b.dir, "state", hex.EncodeToString(sum[:16]))
}

// state returns what somebody was given last; what cannot be read is nothing.
func (b *blobs) state(whom string) state {
	var st state
	if data, err := os.ReadFile(b.stateFile(whom)); err != nil || json.Unmarshal(data, &st) != nil {
		return state{}
	}
	return st
}

// save notes what somebody was given. Nobody is told when that fails: it is downloaded again after a restart.
func (b *blobs) save(whom string, st state) {
	var out bytes.Buffer
	if whom == "" || json.NewEncoder(&out).Encode(st) != nil {
		return
	}
	file, err := os.CreateTemp(filepath.Join(b.dir, "tmp"), "state-*")
	if err != nil {
		return
	}
	_, err = file.Write(out.Bytes())
	if cerr := file.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(file.Name(), b.stateFile(whom))
	}
	if err != nil {
		_ = os.Remove(file.Name())
	}
}

// use notes that what somebody was given is still in use.
func (b *blobs) use(whom string) {
	name, now := b.stateFile(whom), b.now()
	if info, err := os.Stat(name); err == nil && now.Sub(info.ModTime()) > spareFor {
		_ = os.Chtimes(name, now, now) // at worst it is downloaded again
	}
}

const (
	// unusedAfter is how long what somebody was given stays when he does not ask any more.
	unusedAfter = 30 * 24 * time.Hour
	// spareFor is how long a content stays that belongs to nobody: somebody may be reading it.
	spareFor = time.Hour
)

// sweep removes contents that belong to nobody any more, unless that was done a while ago.
func (b *blobs) sweep(always bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if !always && now.Sub(b.swept) < spareFor {
		return
	}
	b.swept = now
	wanted, ok := b.wanted(now)
	if !ok {
		return
	}
	names, _ := filepath.Glob(filepath.Join(b.dir, "blobs", "*", "*"))
	for _, name := range names {
		sum := filepath.Base(name)
		if wanted[sum] || strings.HasPrefix(sum, ".") {
			continue
		}
		if info, err := os.Stat(name); err == nil && now.Sub(info.ModTime()) > spareFor {
			_ = os.Remove(name)
		}
	}
}

// wanted returns the contents that belong to somebody, and false when that cannot be told.
func (b *blobs) wanted(now time.Time) (map[string]bool, bool) {
	names, err := filepath.Glob(filepath.Join(b.dir, "state", "*"))
	if err != nil {
		return nil, false
	}
	wanted := map[string]bool{}
	for _, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			continue
		}
		var st state
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, false
		}
		if now.Sub(info.ModTime()) > unusedAfter || json.Unmarshal(data, &st) != nil {
			_ = os.Remove(name)
			continue
		}
		for _, e := range append(st.Entries, st.Pending...) {
			wanted[e.Sum] = true
		}
	}
	return wanted, true
}

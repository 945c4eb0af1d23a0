package helmrepo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// scanJSON reads an index that is written as JSON, one version of a chart after the other.
func scanJSON(r io.Reader, to sink) error {
	lines := &lineCounter{r: r}
	d := json.NewDecoder(lines)
	lines.done = d.InputOffset
	s := jsonScan{to: to, d: d, charts: map[string]bool{}}
	err := s.index()
	if err == nil && !s.versioned {
		err = errors.New("there is no apiVersion in it")
	}
	var own *sinkError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return own.err
	case lines.err != nil:
		return lines.err
	}
	at := d.InputOffset()
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		at = syntax.Offset
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("it ends too early")
	}
	return &indexError{lines.at(at), err}
}

type jsonScan struct {
	to        sink
	d         *json.Decoder
	charts    map[string]bool
	versioned bool
}

// sinkError is one that the reading is not to blame for.
type sinkError struct{ err error }

func (e *sinkError) Error() string { return e.err.Error() }

func (s *jsonScan) index() error {
	return s.object(func(key string) error {
		switch key {
		case "apiVersion":
			var v string
			err := s.d.Decode(&v)
			s.versioned = v != ""
			return err
		case "entries":
			return s.object(s.chart)
		default:
			var skipped json.RawMessage
			return s.d.Decode(&skipped)
		}
	})
}

// object goes through the keys of an object, or of nothing.
func (s *jsonScan) object(each func(key string) error) error {
	t, err := s.d.Token()
	if err != nil || t == nil {
		return err
	}
	if t != json.Delim('{') {
		return fmt.Errorf("there is %v where an object is wanted", t)
	}
	for s.d.More() {
		t, err := s.d.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		if err := each(key); err != nil {
			return err
		}
	}
	_, err = s.d.Token()
	return err
}

func (s *jsonScan) chart(name string) error {
	if s.charts[name] {
		return fmt.Errorf("the chart %s is there twice", name)
	}
	s.charts[name] = true
	if err := s.to.chart(name); err != nil {
		return &sinkError{err}
	}
	t, err := s.d.Token()
	if err != nil || t == nil {
		return err
	}
	if t != json.Delim('[') {
		return fmt.Errorf("the versions of the chart %s are no list", name)
	}
	for s.d.More() {
		var e *entry
		if err := s.d.Decode(&e); err != nil {
			return err
		}
		if e == nil {
			continue
		}
		if err := s.to.version(*e); err != nil {
			return &sinkError{err}
		}
	}
	_, err = s.d.Token()
	return err
}

// maxAhead bounds what a decoder holds that it has not handed over, in bytes: an entry, and what it reads ahead.
const maxAhead = 3 * maxEntry

var errLargeEntry = fmt.Errorf("one entry has more than %d bytes", maxEntry)

// lineCounter remembers where lines end in the last piece that was read, which is where errors are.
type lineCounter struct {
	r      io.Reader
	err    error
	read   int64        // how much
	done   func() int64 // how much of that was handed over
	before int          // lines before the pieces that are kept
	offset int64        // of the pieces that are kept
	pieces []byte
}

// kept is how many bytes are searched for the line of an error; a decoder holds less ahead of it.
const kept = 8 << 20

// Read implements io.Reader.
func (l *lineCounter) Read(p []byte) (int, error) {
	if l.read-l.done() > maxAhead {
		return 0, errLargeEntry
	}
	n, err := l.r.Read(p)
	l.read += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		l.err = err
	}
	l.pieces = append(l.pieces, p[:n]...)
	if drop := len(l.pieces) - kept; drop > kept {
		l.before += bytes.Count(l.pieces[:drop], []byte("\n"))
		l.offset += int64(drop)
		l.pieces = append([]byte(nil), l.pieces[drop:]...)
	}
	return n, err
}

func (l *lineCounter) at(offset int64) int {
	end := min(max(offset-l.offset, 0), int64(len(l.pieces)))
	return l.before + bytes.Count(l.pieces[:end], []byte("\n")) + 1
}

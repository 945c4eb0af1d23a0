package helmrepo

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// entry is one version of a chart as an index lists it, as far as it matters here.
type entry struct {
	Version string   `json:"version" yaml:"version"`
	Created string   `json:"created" yaml:"created"`
	Digest  string   `json:"digest"  yaml:"digest"`
	URLs    []string `json:"urls"    yaml:"urls"`
}

// sink takes what is in an index, in the order that it is written in: a chart, then its versions.
type sink interface {
	chart(name string) error
	version(e entry) error
}

const (
	// maxLine and maxEntry bound what is held of an index at one time, in bytes.
	maxLine  = 1 << 20
	maxEntry = 4 << 20
)

// ErrIndex is what errors about a broken index match.
var ErrIndex = errors.New("the index is broken")

// indexError says where an index is broken.
type indexError struct {
	line int
	err  error
}

// Error implements error.
func (e *indexError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.err) }

// Is makes every such error match ErrIndex.
func (e *indexError) Is(target error) bool { return target == ErrIndex }

// Unwrap returns the cause.
func (e *indexError) Unwrap() error { return e.err }

// scanYAML reads an index line by line and decodes one version of a chart after the other, so that an
// index of any size takes the memory of one version. What is between the versions has to
// be written as every tool writes it: one key or one dash on a line.
func scanYAML(r io.Reader, to sink) error {
	s := &yamlScan{to: to, lines: bufio.NewReaderSize(r, maxLine)}
	for {
		text, err := s.lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			return &indexError{s.line + 1, fmt.Errorf("it has more than %d bytes", maxLine)}
		}
		if len(text) > 0 {
			s.line++
			if err := s.take(text); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return s.end()
		}
		if err != nil {
			return err
		}
	}
}

// part is a piece of the index that is decoded by itself.
type part struct {
	text []byte
	// lines are the numbers of its lines.
	lines []int
}

func (p *part) add(text []byte, line int) error {
	if len(p.text)+len(text) > maxEntry {
		return &indexError{line, fmt.Errorf("one entry has more than %d bytes", maxEntry)}
	}
	p.text, p.lines = append(p.text, text...), append(p.lines, line)
	return nil
}

func (p *part) reset() { p.text, p.lines = p.text[:0], p.lines[:0] }

// decode reads the piece; an error names the line of the index.
func (p *part) decode(into any) error {
	err := yaml.Unmarshal(p.text, into)
	if err == nil {
		return nil
	}
	line, words := p.lines[0], strings.TrimPrefix(err.Error(), "yaml: ")
	words = strings.TrimPrefix(words, "unmarshal errors:\n  ")
	words, _, _ = strings.Cut(words, "\n")
	var n int
	if _, scanErr := fmt.Sscanf(words, "line %d:", &n); scanErr == nil {
		_, words, _ = strings.Cut(words, ": ")
		if n >= 1 && n <= len(p.lines) {
			line = p.lines[n-1]
		}
	}
	return &indexError{line, errors.New(words)}
}

// yamlScan is where a scan is.
type yamlScan struct {
	to    sink
	lines *bufio.Reader
	line  int

	head     part // what is not in entries
	item     part // the version that is being read
	inside   bool // of entries
	found    bool // entries was there
	chart    string
	charts   map[string]bool
	keyAt    int // the indentation of charts, once known
	itemAt   int // that of the versions of this chart, once known
	hasItems bool
}

func (s *yamlScan) take(text []byte) error {
	if s.line == 1 {
		text = bytes.TrimPrefix(text, []byte("\xef\xbb\xbf"))
		if isPage(text) {
			return &indexError{1, errors.New("this is a web page and no index")}
		}
	}
	trimmed := bytes.TrimLeft(text, " ")
	indent := len(text) - len(trimmed)
	trimmed = bytes.TrimRight(trimmed, " \t\r\n")
	switch {
	case len(trimmed) == 0 || trimmed[0] == '#':
		if len(s.item.text) > 0 {
			return s.item.add(text, s.line)
		}
		return nil
	case !s.inside:
		return s.outside(text, trimmed, indent)
	case indent == 0 && trimmed[0] != '-' || bytes.Equal(trimmed, []byte("---")):
		if err := s.flush(); err != nil {
			return err
		}
		s.inside = false
		return s.outside(text, trimmed, indent)
	default:
		return s.within(text, trimmed, indent)
	}
}

// outside takes a line that is not part of entries.
func (s *yamlScan) outside(text, trimmed []byte, indent int) error {
	rest, ok := afterKey(trimmed, "entries")
	if !ok || indent != 0 {
		return s.head.add(text, s.line)
	}
	if s.found {
		return &indexError{s.line, errors.New("entries is there twice")}
	}
	s.found = true
	switch rest {
	case "", "null", "~", "{}":
		s.inside, s.charts = rest == "", map[string]bool{}
		return nil
	default:
		return &indexError{s.line, errors.New("the entries are not written with one chart on a line; have the index made by helm repo index")}
	}
}

// within takes a line of entries.
func (s *yamlScan) within(text, trimmed []byte, indent int) error {
	if trimmed[0] == '\t' {
		return &indexError{s.line, errors.New("it is indented with a tab")}
	}
	if s.keyAt == 0 {
		s.keyAt = indent
	}
	dash := trimmed[0] == '-' && (len(trimmed) == 1 || trimmed[1] == ' ')
	switch {
	case indent == s.keyAt && !dash:
		return s.key(trimmed)
	case s.chart == "" || indent < s.keyAt:
		return &indexError{s.line, errors.New("the indentation fits no chart")}
	case dash && !s.hasItems:
		s.itemAt, s.hasItems = indent, true
		return s.item.add(text, s.line)
	case dash && indent == s.itemAt:
		if err := s.flush(); err != nil {
			return err
		}
		return s.item.add(text, s.line)
	case !s.hasItems || indent <= s.itemAt:
		return &indexError{s.line, fmt.Errorf("the versions of the chart %s are no list", s.chart)}
	default:
		return s.item.add(text, s.line)
	}
}

// key takes a line that begins a chart.
func (s *yamlScan) key(trimmed []byte) error {
	if err := s.flush(); err != nil {
		return err
	}
	var key map[string]any
	p := part{text: trimmed, lines: []int{s.line}}
	if err := p.decode(&key); err != nil {
		return err
	}
	for name, value := range key {
		list, isList := value.([]any)
		if value != nil && (!isList || len(list) > 0) {
			return &indexError{s.line, fmt.Errorf("the versions of the chart %s are not written one after the other; have the index made by helm repo index", name)}
		}
		if s.charts[name] {
			return &indexError{s.line, fmt.Errorf("the chart %s is there twice", name)}
		}
		s.charts[name] = true
		s.chart, s.hasItems = name, false
		return s.to.chart(name)
	}
	return &indexError{s.line, errors.New("this is no name of a chart")}
}

// flush hands over the version that was read.
func (s *yamlScan) flush() error {
	if len(s.item.text) == 0 {
		return nil
	}
	if e, ok := quick(s.item.text, s.itemAt); ok {
		s.item.reset()
		return s.to.version(e)
	}
	var list []*entry
	err := s.item.decode(&list)
	s.item.reset()
	if err != nil {
		return err
	}
	for _, e := range list {
		if e == nil {
			continue
		}
		if err := s.to.version(*e); err != nil {
			return err
		}
	}
	return nil
}

// end checks what is left.
func (s *yamlScan) end() error {
	if err := s.flush(); err != nil {
		return err
	}
	var head struct {
		APIVersion string `yaml:"apiVersion"`
	}
	if len(s.head.text) > 0 {
		if err := s.head.decode(&head); err != nil {
			return err
		}
	}
	switch {
	case s.line == 0:
		return &indexError{1, errors.New("it is empty")}
	case head.APIVersion == "":
		return &indexError{s.line, errors.New("there is no apiVersion in it")}
	}
	return nil
}

// afterKey returns what follows a key on its line, without a comment.
func afterKey(trimmed []byte, key string) (string, bool) {
	for _, k := range []string{key + ":", `"` + key + `":`, "'" + key + "':"} {
		rest, ok := strings.CutPrefix(string(trimmed), k)
		if !ok || rest != "" && rest[0] != ' ' {
			continue
		}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "#") {
			rest = ""
		}
		return rest, true
	}
	return "", false
}

func isPage(text []byte) bool {
	begin := bytes.ToLower(bytes.TrimSpace(text[:min(len(text), 64)]))
	return bytes.HasPrefix(begin, []byte("<!doctype")) || bytes.HasPrefix(begin, []byte("<html"))
}

package helmrepo

import (
	"bytes"
	"slices"
	"strings"
)

// quick reads a version without a YAML parser, which takes most of the time that a large index
// needs, as long as every line of it is of a form that can mean one thing only: a key with a plain
// value, or an item of a list with one, at the indentation that every tool writes. It is not ok
// for anything else, however harmless, and the parser decides.
func quick(text []byte, indent int) (e entry, ok bool) {
	q := quickEntry{at: indent + 2, block: -1}
	for first := true; len(text) > 0; first = false {
		line := text
		if i := bytes.IndexByte(text, '\n'); i >= 0 {
			line, text = text[:i], text[i+1:]
		} else {
			text = nil
		}
		line = bytes.TrimSuffix(line, []byte("\r"))
		if first {
			if len(line) < q.at || line[indent] != '-' || line[indent+1] != ' ' {
				return entry{}, false
			}
			line = append(bytes.Repeat([]byte(" "), q.at), line[q.at:]...)
		}
		if !q.line(line) {
			return entry{}, false
		}
	}
	return q.entry, true
}

// quickEntry is a version as it is read.
type quickEntry struct {
	entry entry
	at    int // the indentation of its keys
	seen  []string
	// key is the one whose value follows on the next lines, and items how many items of a list there
	// have been.
	key   string
	items int
	// nested holds the keys of the mapping that the value is, or its latest item; open says that
	// the value of the last of them follows.
	nested []string
	open   bool
	// block is the indentation of the key whose value is a text of many lines, -1 while there is none, and
	// blockText that of the text, once known.
	block, blockText int
}

func (q *quickEntry) line(line []byte) bool {
	text := string(line)
	trimmed := strings.TrimLeft(text, " ")
	indent := len(text) - len(trimmed)
	if q.block >= 0 {
		if taken, ok := q.text(text, trimmed, indent); taken {
			return ok
		}
	}
	dash := strings.HasPrefix(trimmed, "- ")
	switch {
	case trimmed == "" || trimmed[0] == '\t':
		return false
	case indent == q.at && dash:
		return q.item(trimmed[2:])
	case indent == q.at:
		return q.field(trimmed)
	case indent != q.at+2 || q.key == "":
		return false
	case dash: // of a list inside of a mapping
		value, ok := scalar(trimmed[2:])
		_, _, mapping := split(trimmed[2:])
		return q.open && ok && value != "" && !mapping
	case q.items > 0 && len(q.nested) == 0: // after an item that is no mapping
		return false
	default:
		return q.nestedField(trimmed)
	}
}

// text takes a line of a text of many lines, unless it is over.
func (q *quickEntry) text(text, trimmed string, indent int) (taken, ok bool) {
	switch {
	case text == "":
		return true, q.blockText > 0
	case indent <= q.block:
		q.block = -1
		return false, false
	case trimmed == "" || trimmed[0] == '\t' || !printable(text):
		return true, false
	case q.blockText == 0:
		q.blockText = indent
	}
	return true, indent >= q.blockText
}

// begin notes that a text of many lines begins, if the value says so.
func (q *quickEntry) begin(value string, indent int) bool {
	switch value {
	case "|", "|-", "|+", ">", ">-", ">+":
		q.block, q.blockText = indent, 0
		return true
	}
	return false
}

// field takes a key of the version itself.
func (q *quickEntry) field(text string) bool {
	q.key, q.items, q.nested, q.open = "", 0, nil, false
	key, value, ok := q.split(text, q.at)
	if !ok || slices.Contains(q.seen, key) {
		return false
	}
	q.seen = append(q.seen, key)
	if q.block >= 0 {
		return key != "version" && key != "created" && key != "digest" && key != "urls"
	}
	if value == "" {
		q.key = key
		return key != "version" && key != "created" && key != "digest"
	}
	switch key {
	case "version":
		q.entry.Version = value
	case "created":
		q.entry.Created = value
	case "digest":
		q.entry.Digest = value
	case "urls":
		return value == "[]"
	}
	return true
}

// split is split that knows of texts of many lines.
func (q *quickEntry) split(text string, indent int) (key, value string, ok bool) {
	if at := strings.Index(text, ": "); at > 0 && q.begin(text[at+2:], indent) {
		key, _, ok = split(text[:at+1])
		return key, "", ok
	}
	return split(text)
}

// item takes an item of a list.
func (q *quickEntry) item(text string) bool {
	if q.key == "" || len(q.nested) > 0 && q.items == 0 {
		return false // a mapping cannot go on as a list
	}
	q.items, q.nested, q.open = q.items+1, nil, false
	if q.key != "urls" {
		if key, value, ok := split(text); ok && value != "" {
			q.nested = []string{key}
			return true
		}
	}
	value, ok := scalar(text)
	if !ok || value == "" {
		return false
	}
	if q.key == "urls" {
		q.entry.URLs = append(q.entry.URLs, value)
	}
	return true
}

// nestedField takes a key of a mapping inside of the version.
func (q *quickEntry) nestedField(text string) bool {
	key, value, ok := q.split(text, q.at+2)
	if !ok || q.key == "urls" || slices.Contains(q.nested, key) {
		return false
	}
	q.nested = append(q.nested, key)
	q.open = value == "" && q.block < 0
	return true
}

// keyLetters are those that a key may be made of here.
const keyLetters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./"

// split takes a line apart that is a key and a value; the value is "" where it follows.
func split(text string) (key, value string, ok bool) {
	i := strings.IndexByte(text, ':')
	if i <= 0 || i+1 < len(text) && text[i+1] != ' ' {
		return "", "", false
	}
	key = text[:i]
	if strings.Trim(key, keyLetters) != "" || key[0] == '-' || key[0] == '.' {
		return "", "", false
	}
	if i+1 == len(text) {
		return key, "", true
	}
	value, ok = scalar(text[i+2:])
	return key, value, ok && value != ""
}

// scalar returns a value that is written on one line: plain, or in quotes without anything that is escaped.
func scalar(text string) (string, bool) {
	switch {
	case text == "" || text == "null" || text == "Null" || text == "NULL" || !printable(text):
		return "", false
	case text == "[]" || text == "{}":
		return text, true
	case text[0] == '"' || text[0] == '\'':
		return quoted(text)
	}
	return text, isPlain(text)
}

func quoted(text string) (string, bool) {
	inner, ok := strings.CutSuffix(text[1:], text[:1])
	return inner, ok && inner != "" && !strings.ContainsAny(inner, "\"'\\")
}

// isPlain reports whether a text without quotes means itself.
func isPlain(text string) bool {
	return !strings.ContainsRune("-?:,[]{}#&*!|>'\"%@` \t~<=.", rune(text[0])) && !strings.HasSuffix(text, " ") && !strings.HasSuffix(text, ":") &&
		!strings.Contains(text, ": ") && !strings.Contains(text, " #")
}

// printable reports whether there is nothing in a text that YAML may refuse.
func printable(text string) bool {
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

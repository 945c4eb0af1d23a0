package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
	"k8s.io/apimachinery/pkg/util/duration"
)

// colour is an ANSI colour of a cell; the zero value is none.
type colour string

const (
	red    colour = "\x1b[31m"
	green  colour = "\x1b[32m"
	yellow colour = "\x1b[33m"
	grey   colour = "\x1b[90m"
	reset         = "\x1b[0m"
)

// cell is one field of a table.
type cell struct {
	text   string
	colour colour
}

func plain(text string) cell { return cell{text: text} }

// table prints rows in kubectl's style: three spaces between columns, no lines.
// Its widths only grow, so that rows that come later stay aligned where they can.
type table struct {
	out     io.Writer
	colours bool
	widths  []int
}

func newTable(out io.Writer) *table {
	return &table{out: out, colours: fancy(out)}
}

// fit widens the columns to hold rows.
func (t *table) fit(rows ...[]cell) {
	for _, row := range rows {
		for i, c := range row {
			if i == len(t.widths) {
				t.widths = append(t.widths, 0)
			}
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c.text))
		}
	}
}

// write prints rows, widening the columns first.
func (t *table) write(rows ...[]cell) error {
	t.fit(rows...)
	for _, row := range rows {
		if _, err := io.WriteString(t.out, t.line(row)+"\n"); err != nil {
			return err
		}
	}
	return nil
}

func (t *table) line(row []cell) string {
	var b strings.Builder
	for i, c := range row {
		text := c.text
		if t.colours && c.colour != "" {
			text = string(c.colour) + text + reset
		}
		b.WriteString(text)
		if i < len(row)-1 {
			b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(c.text)+3))
		}
	}
	return strings.TrimRight(b.String(), " ")
}

// fancy reports whether w is a terminal on which colour and repainting are
// welcome.
func fancy(w io.Writer) bool {
	f, ok := file(w)
	if !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return false
	}
	return term.IsTerminal(int(f.Fd()))
}

// age prints how long ago t was, as kubectl does.
func age(now, t time.Time) string {
	if t.IsZero() {
		return "<unknown>"
	}
	return duration.HumanDuration(now.Sub(t))
}

// shortRevision cuts the commit of "main@sha1:<commit>" to eight digits.
func shortRevision(revision string) string {
	i := strings.LastIndex(revision, ":")
	if i < 0 || len(revision)-i-1 <= 8 {
		return revision
	}
	return revision[:i+9]
}

// line keeps a message to one line of a table.
func line(message string) string { return strings.Join(strings.Fields(message), " ") }

func printf(w io.Writer, format string, args ...any) {
	// A closed pipe at the reader's end is the reader's choice, not a failure.
	_, _ = fmt.Fprintf(w, format, args...)
}

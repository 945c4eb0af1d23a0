package helmrepo

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/chart"
	"github.com/bowline-dev/bowline/internal/source/disk"
)

// Index is one state of the index of a repository. It lies on disk: looking up a chart reads
// the list of names and what is said of that chart.
type Index struct {
	// Digest is "sha256:<hex>" of the index as the repository sent it, and Size its length in bytes.
	Digest string
	Size   int64
	// name is that of its files without what they end with; of is the repository, for messages.
	name, of string
}

// The endings of the files of an index: what was sent, what matters of it, and where that is.
const (
	sentEnding   = ".index"
	chartsEnding = ".charts"
	namesEnding  = ".names"
)

// whole reports whether all files of the index are there: a process may have ended between one and the next.
func (i Index) whole() bool {
	for _, ending := range []string{sentEnding, chartsEnding, namesEnding} {
		if _, err := os.Stat(i.name + ending); err != nil {
			return false
		}
	}
	return true
}

// Open opens the index as it was sent.
func (i Index) Open() (*os.File, error) { return os.Open(i.name + sentEnding) }

// Versions returns the versions of a chart. One that is not in the index is a failure of kind
// NotFound that says which charts are.
func (i Index) Versions(name string) ([]chart.Version, error) {
	names, err := os.Open(i.name + namesEnding)
	if err != nil {
		return nil, i.lost(err)
	}
	defer func() { _ = names.Close() }()
	var near nearest
	lines := bufio.NewScanner(names)
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		if len(fields) != 3 {
			return nil, i.lost(errors.New("it is damaged"))
		}
		if fields[0] == name {
			return i.read(fields[1], fields[2])
		}
		near.see(name, fields[0])
	}
	if err := lines.Err(); err != nil {
		return nil, i.lost(err)
	}
	return nil, &failure.Error{Op: "find chart", Object: name, Kind: failure.NotFound,
		Err: fmt.Errorf("it is not in the index of %s: %s", i.of, near.words()), Remedy: "correct spec.chart"}
}

func (i Index) read(offset, length string) ([]chart.Version, error) {
	at, err := strconv.ParseInt(offset, 10, 64)
	n, err2 := strconv.ParseInt(length, 10, 64)
	if err := errors.Join(err, err2); err != nil {
		return nil, i.lost(err)
	}
	f, err := os.Open(i.name + chartsEnding)
	if err != nil {
		return nil, i.lost(err)
	}
	defer func() { _ = f.Close() }()
	var versions []chart.Version
	lines := bufio.NewScanner(io.NewSectionReader(f, at, n))
	lines.Buffer(nil, maxEntry)
	for lines.Scan() {
		var e entry
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return nil, i.lost(err)
		}
		created, _ := time.Parse(time.RFC3339Nano, e.Created) // one that nobody can read is none
		versions = append(versions, chart.Version{Version: e.Version, Created: created, Digest: e.Digest, URLs: e.URLs})
	}
	if err := lines.Err(); err != nil {
		return nil, i.lost(err)
	}
	return versions, nil
}

// lost says that what was written is not there any more, or not as it was.
func (i Index) lost(err error) error {
	return &failure.Error{Op: "read index", Object: i.of, Kind: failure.Unavailable, Err: err, Remedy: "check the data folder; the index is fetched again"}
}

// nearest collects the names that are most like one that is not there.
type nearest struct {
	like, first []string
	all         int
}

func (n *nearest) see(wanted, name string) {
	n.all++
	if len(n.first) < 5 {
		n.first = append(n.first, name)
	}
	if len(n.like) < 5 && (strings.Contains(name, wanted) || strings.Contains(wanted, name) || differ(wanted, name) <= 2) {
		n.like = append(n.like, name)
	}
}

func (n *nearest) words() string {
	switch {
	case n.all == 0:
		return "there are no charts in it"
	case len(n.like) > 0:
		return "there is " + strings.Join(n.like, ", ") + fmt.Sprintf(" among %d charts", n.all)
	case n.all > len(n.first):
		return fmt.Sprintf("there are %s and %d others", strings.Join(n.first, ", "), n.all-len(n.first))
	default:
		return "there are " + strings.Join(n.first, ", ")
	}
}

// differ counts the letters that have to change to make one short word of another; 3 stands for more.
func differ(a, b string) int {
	if len(a) > 64 || len(b) > 64 || len(a)-len(b) > 2 || len(b)-len(a) > 2 {
		return 3
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return min(row[len(b)], 3)
}

// take reads the index in a file once and writes down what matters of it beside.
func take(ctx interface{ Err() error }, sent *os.File, name string) (err error) {
	folder := filepath.Dir(name)
	charts, err := os.CreateTemp(folder, disk.New)
	if err != nil {
		return writing(err)
	}
	names, err := os.CreateTemp(folder, disk.New)
	if err != nil {
		_ = charts.Close()
		return errors.Join(writing(err), os.Remove(charts.Name()))
	}
	w := &writer{ctx: ctx, charts: bufio.NewWriter(charts), names: bufio.NewWriter(names)}
	err = w.all(sent)
	flushed := errors.Join(w.charts.Flush(), w.names.Flush(), charts.Sync(), names.Sync(), charts.Close(), names.Close())
	if err == nil && flushed != nil {
		err = writing(flushed)
	}
	if err == nil {
		if moved := errors.Join(os.Rename(charts.Name(), name+chartsEnding), os.Rename(names.Name(), name+namesEnding)); moved != nil {
			err = writing(moved)
		}
	}
	if err != nil {
		_ = os.Remove(charts.Name())
		_ = os.Remove(names.Name())
	}
	return err
}

func writing(err error) error {
	return &failure.Error{Op: "keep index", Kind: failure.Unavailable, Err: err, Remedy: "check the room and the rights in the data folder"}
}

// writer is the sink that writes down what matters of an index.
type writer struct {
	ctx           interface{ Err() error }
	charts, names *bufio.Writer
	current       string
	began, at     int64
}

func (w *writer) all(sent io.ReadSeeker) error {
	if _, err := sent.Seek(0, io.SeekStart); err != nil {
		return writing(err)
	}
	begin := make([]byte, 512)
	n, _ := io.ReadFull(sent, begin)
	if _, err := sent.Seek(0, io.SeekStart); err != nil {
		return writing(err)
	}
	scan := scanYAML
	if bytes.HasPrefix(bytes.TrimLeft(begin[:n], " \t\r\n\xef\xbb\xbf"), []byte("{")) {
		scan = scanJSON
	}
	if err := scan(sent, w); err != nil {
		return err
	}
	return w.close()
}

func (w *writer) chart(name string) error {
	if err := errors.Join(w.ctx.Err(), w.close()); err != nil {
		return err
	}
	if strings.ContainsAny(name, "\t\n") {
		return writing(fmt.Errorf("%q is no name of a chart", name))
	}
	w.current, w.began = name, w.at
	return nil
}

// close ends a chart.
func (w *writer) close() error {
	if w.current == "" {
		return nil
	}
	_, err := fmt.Fprintf(w.names, "%s\t%d\t%d\n", w.current, w.began, w.at-w.began)
	w.current = ""
	return err
}

func (w *writer) version(e entry) error {
	if e.Version == "" {
		return nil // as Helm does: nobody can ask for it
	}
	text, err := json.Marshal(e)
	if err != nil {
		return err
	}
	n, err := w.charts.Write(append(text, '\n'))
	w.at += int64(n)
	return err
}

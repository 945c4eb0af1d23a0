package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// figures are named numbers; the unit is part of the name.
type figures map[string]float64

// result is one row of the table.
type result struct {
	// ID names the measure for programs.
	ID string `json:"id"`
	// Measure names it for people, in the words of docs/benchmarks.md.
	Measure string `json:"measure"`
	// Text is what the table shows.
	Text    string  `json:"text"`
	Figures figures `json:"figures"`
	// Rounds are the seconds of each round where there was more than one.
	Rounds []float64 `json:"rounds,omitempty"`
}

// report is what one run found, and on what.
type report struct {
	Date    time.Time `json:"date"`
	Engine  string    `json:"engine"`
	Machine string    `json:"machine"`
	Units   int       `json:"units"`
	Results []result  `json:"results"`
	// Releases is how many HelmReleases there were, Helm what was found about them.
	Releases int      `json:"releases,omitempty"`
	Helm     []result `json:"helm,omitempty"`
	// Members is how many clusters a fleet had, Fleet what was found about their hub.
	Members int      `json:"members,omitempty"`
	Fleet   []result `json:"fleet,omitempty"`
}

func newReport(cfg *config) *report {
	return &report{
		Date: time.Now().UTC().Truncate(time.Second), Engine: cfg.engine, Units: cfg.units, Releases: cfg.helm, Members: cfg.members,
		Machine: fmt.Sprintf("%d cores (%s), %s/%s", runtime.NumCPU(), cpuModel(), runtime.GOOS, runtime.GOARCH),
	}
}

// cpuModel is the processor's name.
func cpuModel() string {
	data, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func (r *report) add(rows ...result) { r.Results = append(r.Results, rows...) }

// write prints the table, and the figures where asked.
func (r *report) write(cfg *config, stdout io.Writer) error {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	data = append(data, '\n')
	if cfg.jsonOut == "-" {
		_, err := stdout.Write(data)
		return err
	}
	if _, err := io.WriteString(stdout, r.table()); err != nil {
		return err
	}
	if cfg.jsonOut != "" {
		//nolint:gosec // a report is for everybody to read
		if err := os.WriteFile(cfg.jsonOut, data, 0o644); err != nil {
			return fmt.Errorf("write figures: %w", err)
		}
	}
	return nil
}

// table prints the results as Markdown tables.
func (r *report) table() string {
	var b strings.Builder
	write := func(n int, of string, each int, what string, rows []result) {
		if len(rows) == 0 {
			return
		}
		if b.Len() > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "%d %s of %d %s, %s\n\n| measure | result |\n|---|---|\n", n, of, each, what, r.Machine)
		for _, row := range rows {
			fmt.Fprintf(&b, "| %s | %s |\n", row.Measure, row.Text)
		}
	}
	write(r.Units, "units", objectsPerUnit, "objects", r.Results)
	write(r.Releases, "releases of one chart", objectsPerRelease, "objects", r.Helm)
	write(r.Members, "clusters", unitsPerMember, "units", r.Fleet)
	return b.String()
}

// seconds prints a time with the digits that mean something.
func seconds(d time.Duration) string {
	s := d.Seconds()
	switch {
	case s >= 100:
		return fmt.Sprintf("%.0f s", s)
	case s >= 1:
		return fmt.Sprintf("%.1f s", s)
	default:
		return fmt.Sprintf("%.3f s", s)
	}
}

func number(f float64) string {
	if f >= 100 {
		return fmt.Sprintf("%.0f", f)
	}
	return fmt.Sprintf("%.1f", f)
}

func count(n float64, one, many string) string {
	switch n {
	case 0:
		return "no " + one
	case 1:
		return "1 " + one
	default:
		return fmt.Sprintf("%.0f %s", n, many)
	}
}

func megabytes(n int64) string { return fmt.Sprintf("%.0f", float64(n)/1e6) }

// medianIndex returns where the median is; of an even number the larger one.
func medianIndex(d []time.Duration) int {
	return slices.Index(d, median(d))
}

func median(d []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}

func secondsOf(d []time.Duration) []float64 {
	var s []float64
	for _, x := range d {
		s = append(s, x.Seconds())
	}
	return s
}

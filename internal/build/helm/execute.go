package helm

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
	"text/template"

	"helm.sh/helm/v4/pkg/chart/common"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/engine"

	"github.com/bowline-dev/bowline/internal/failure"
)

// notesFile is the template whose text is for people.
const notesFile = "NOTES.txt"

// execute runs the templates and returns what each file becomes, by its path from the
// root chart's name on, and whether one of them asked the cluster. Host names are not looked up.
func (req Request) execute(ctx context.Context, chart *chartv2.Chart, values common.Values, secrets *secrets) (map[string]string, bool, error) {
	ask := &asking{req: req, ctx: ctx, secrets: secrets}
	e := engine.Engine{CustomTemplateFuncs: template.FuncMap{"lookup": ask.lookup}}
	files, err := e.RenderWithContext(ctx, chart, values)
	if ask.err != nil && err != nil {
		place, _ := explainTemplate(err)
		return nil, true, &failure.Error{Op: "render", Kind: failure.KindOf(ask.err), Object: req.at(place), Err: ask.err}
	}
	if err != nil {
		place, message := explainTemplate(err)
		return nil, false, req.invalid(place, errors.New(message), "correct the values, or the template")
	}
	return files, ask.used, nil
}

// takeNotes takes the notes out of files and returns those of the root chart.
func takeNotes(chart *chartv2.Chart, files map[string]string) string {
	notes := files[path.Join(chart.Name(), "templates", notesFile)]
	for name := range files {
		if strings.HasSuffix(name, notesFile) {
			delete(files, name)
		}
	}
	return notes
}

// maxMessage bounds the length of a message, in which a template can quote anything.
const maxMessage = 1000

var (
	// parseFailed is what Helm says of a template that is none.
	parseFailed = regexp.MustCompile(`(?s)^parse error at \(([^)]*)\): (.*)$`)
	// raised is what Helm says where a template called fail or required.
	raised = regexp.MustCompile(`(?s)^execution error (?:at|in) \(([^)]*)\): (.*)$`)
	// location is a file in a chart with its line, and mostly the column.
	location = regexp.MustCompile(`^([^\s:]+/[^\s:]+):(\d+)(?::\d+)?$`)
	// step is one template on the way to what failed, where Helm leaves the trace of Go's
	// templates as it is.
	step = regexp.MustCompile(`template: ([^\s:]+):(\d+)(?::\d+)?: executing "[^"]*" at <((?s:.*?))>: `)
	// action is the part of a template that failed.
	action = regexp.MustCompile(`^executing "(.*)" at <(.*)>:$`)
)

// explainTemplate makes of Helm's trace of a failed template, which has three lines for
// each template on the way, where it failed and why.
func explainTemplate(err error) (place, message string) {
	text := err.Error()
	for _, simple := range []*regexp.Regexp{parseFailed, raised} {
		if m := simple.FindStringSubmatch(text); m != nil {
			return withoutColumn(m[1]), shortened(m[2])
		}
	}
	if steps := step.FindAllStringSubmatchIndex(text, -1); len(steps) > 0 {
		part := func(i, group int) string { return text[steps[i][2*group]:steps[i][2*group+1]] }
		end := len(steps) - 1
		return failedAt(part(0, 1)+":"+part(0, 2), part(end, 1)+":"+part(end, 2), part(end, 3), text[steps[end][1]:])
	}
	var first, last, at, why string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if m := location.FindStringSubmatch(line); m != nil {
			last = m[1] + ":" + m[2]
			if first == "" {
				first = last
			}
			at, why = "", ""
			continue
		}
		if m := action.FindStringSubmatch(line); m != nil {
			at = m[2]
			continue
		}
		why = strings.TrimSpace(why + " " + line)
	}
	if last == "" {
		return "", shortened(text)
	}
	return failedAt(first, last, at, why)
}

// failedAt puts the first and the last template on the way, and what failed there and
// why, into one line.
func failedAt(first, last, at, why string) (place, message string) {
	message = why
	if at != "" {
		message = fmt.Sprintf("{{ %s }}: %s", at, why)
	}
	message = shortened(message)
	if first != last {
		message += ", included from " + first
	}
	return last, message
}

func withoutColumn(place string) string {
	if m := location.FindStringSubmatch(place); m != nil {
		return m[1] + ":" + m[2]
	}
	return place
}

// shortened folds a message into one line of a reasonable length.
func shortened(message string) string {
	message = oneLine(message)
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	return message
}

var yamlFailed = regexp.MustCompile(`(?s)^YAML parse error on (\S+): (.*)$`)

// explainYAML is the failure of a template that made no YAML.
func (req Request) explainYAML(err error) error {
	place, message := "", err.Error()
	if m := yamlFailed.FindStringSubmatch(message); m != nil {
		place, message = m[1], m[2]
	}
	for _, noise := range []string{"error converting YAML to JSON: ", "error unmarshaling JSON: ", "while decoding JSON: ", "yaml: "} {
		message = strings.TrimPrefix(message, noise)
	}
	return req.invalid(place, errors.New("what the template makes is not YAML of objects: "+shortened(message)), "correct the values, or the template")
}

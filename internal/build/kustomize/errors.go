package kustomize

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"

	"github.com/bowline-dev/bowline/internal/failure"
)

// invalid is the failure of input at a file and one entry of it.
func invalid(file, entry string, err error, remedy string) error {
	object := file
	if entry != "" {
		object += " (" + entry + ")"
	}
	return &failure.Error{Op: "build", Kind: failure.Invalid, Object: object, Err: err, Remedy: remedy}
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// invalidYAML is the failure of a file that is not the YAML it should be. The
// line that the parser names becomes part of the place.
func invalidYAML(file string, err error) error {
	return invalidYAMLAt(file, 0, err)
}

// invalidYAMLAt does the same for a document that starts after the given number
// of lines.
func invalidYAMLAt(file string, skipped int, err error) error {
	msg := oneLine(err.Error())
	for _, noise := range []string{"MalformedYAMLError: ", "error converting YAML to JSON: ", "error unmarshaling JSON: ", "while decoding JSON: ", "yaml: ", "unmarshal errors: "} {
		msg = strings.TrimPrefix(msg, noise)
	}
	place := file
	if m := yamlLine.FindStringSubmatch(msg); m != nil {
		n, _ := strconv.Atoi(m[1])
		place = fmt.Sprintf("%s:%d", file, n+skipped)
		msg = strings.TrimPrefix(msg, m[0])
	}
	return &failure.Error{Op: "build", Kind: failure.Invalid, Object: place, Err: errors.New("invalid YAML: " + msg), Remedy: "correct the file"}
}

// oneLine folds a message of many lines into one.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

var errLeaves = errors.New("the path leaves the repository")

// within returns the io/fs name of what a file in dir calls p, and errLeaves
// where that is outside the tree.
func within(dir, p string) (string, error) {
	if path.IsAbs(p) {
		return "", errors.New("an absolute path leaves the repository")
	}
	name := path.Join(dir, p)
	if name == ".." || strings.HasPrefix(name, "../") {
		return "", errLeaves
	}
	return name, nil
}

func quoted(path string) string { return strconv.Quote(orElse(path, "./")) }

package snapshot

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// IgnoreFile is the name of the files that hold patterns for the folder they are in.
const IgnoreFile = ".sourceignore"

// What is left out, as the source controller of Flux has it: what belongs to
// version control always, the rest when neither the source nor a
// .sourceignore has patterns of its own.
const (
	excludeVCS     = ".git/,.gitignore,.gitmodules,.gitattributes"
	excludeDefault = "*.jpg,*.jpeg,*.gif,*.png,*.wmv,*.flv,*.tar.gz,*.zip," +
		".github/,.circleci/,.travis.yml,.gitlab-ci.yml,appveyor.yml,.drone.yml,cloudbuild.yaml,codeship-services.yml,codeship-steps.yml," +
		"**/.goreleaser.yml,**/.sops.yaml,**/.flux.yaml"
)

// rules say which files are not part of the source.
type rules struct {
	matcher gitignore.Matcher
	// includes is true when a pattern takes files back in: then a folder that is
	// left out may hold files that are not.
	includes bool
	// byName is true when the last part of a path alone decides, given that the
	// folders above are not left out.
	byName bool
	// id names the patterns: equal ids, equal rules.
	id string
}

// ruleSet collects patterns in rising order of priority.
type ruleSet struct {
	patterns []gitignore.Pattern
	includes bool
	text     strings.Builder
}

// add takes the lines of an ignore file that is in dir.
func (s *ruleSet) add(text string, dir []string) {
	for line := range patternLines(text) {
		s.patterns = append(s.patterns, gitignore.ParsePattern(line, dir))
		s.includes = s.includes || strings.HasPrefix(line, "!")
		fmt.Fprintf(&s.text, "%q %q\n", dir, line)
	}
}

// ParseIgnore reads the patterns of an ignore file that is in dir, in rising order of priority.
func ParseIgnore(text string, dir []string) []gitignore.Pattern {
	var patterns []gitignore.Pattern
	for line := range patternLines(text) {
		patterns = append(patterns, gitignore.ParsePattern(line, dir))
	}
	return patterns
}

// patternLines are the lines of an ignore file that are patterns.
func patternLines(text string) iter.Seq[string] {
	return func(yield func(string) bool) {
		scanner := bufio.NewScanner(strings.NewReader(text))
		for scanner.Scan() {
			line := scanner.Text()
			if !strings.HasPrefix(line, "#") && strings.TrimSpace(line) != "" && !yield(line) {
				return
			}
		}
	}
}

// compile orders the patterns of the .sourceignore files and those of the
// source itself, which come last and so win.
func (s *ruleSet) compile(v view) *rules {
	base := excludeVCS
	if len(s.patterns) == 0 {
		base += "," + excludeDefault
	}
	patterns := make([]gitignore.Pattern, 0, len(s.patterns)+32)
	for p := range strings.SplitSeq(base, ",") {
		patterns = append(patterns, gitignore.ParsePattern(p, nil))
	}
	sum := sha256.Sum256([]byte(base + "\n" + s.text.String() + v.id()))
	return &rules{
		matcher:  gitignore.NewMatcher(append(patterns, s.patterns...)),
		includes: s.includes,
		byName:   len(s.patterns) == 0,
		id:       hex.EncodeToString(sum[:8]),
	}
}

package cli_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/charttest"
)

// TestScriptsOfFlux runs transcripts of the toolkit's own CLI, as it was published,
// against an engine that the transcripts start.
func TestScriptsOfFlux(t *testing.T) {
	t.Parallel()
	flux := testkit.Tool(t, "flux")
	bin := programs(t)
	if err := os.Symlink(flux, filepath.Join(bin, "flux")); err != nil {
		t.Fatal(err)
	}
	for _, script := range scriptsIn(t, "testdata/flux") {
		t.Run(filepath.Base(script), func(t *testing.T) {
			repo := testkit.NewGitServer(t).Repo("fleet")
			own := testkit.Start(t)
			if err := crds.Apply(t.Context(), own.Config); err != nil {
				t.Fatal(err)
			}
			params := scriptParams(t, script, bin, own.Kubeconfig, "default", "GIT="+repo.URL(), "CHARTS="+charttest.NewServer(t, []testkit.Chart{shopChart()}).URL())
			params.Cmds["commit"] = commitCommand(repo)
			testscript.Run(t, params)
		})
	}
}

// commitCommand makes the repository hold exactly the files of a folder:
//
//	commit FOLDER
func commitCommand(repo *testkit.Repo) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 1 {
			ts.Fatalf("usage: commit FOLDER")
		}
		repo.CommitDir(ts.MkAbs(args[0]))
	}
}

// plainly are the parts of other programs' output that differ from run to run,
// with what stands in for them.
var plainly = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\x1b\[[0-9;?]*[a-zA-Z]`), ""},
	{regexp.MustCompile(`\b[0-9a-f]{64}\b`), "SHA256"},
	{regexp.MustCompile(`\b[0-9a-f]{40}\b`), "COMMIT"},
	{regexp.MustCompile(`\bsha1:[0-9a-f]{8}\b`), "sha1:SHORT"},
	{regexp.MustCompile(`\b20\d\d-\d\d-\d\d[T ]\d\d:\d\d:\d\d[0-9.]*(Z| \+0000 UTC)`), "TIME"},
	{regexp.MustCompile(`\b[A-Z][a-z]{2} [A-Z][a-z]{2} +\d+ \d\d:\d\d:\d\d 20\d\d`), "TIME"},
	{regexp.MustCompile(`\+[0-9a-f]{12}\b`), "+DIGEST"},
	{regexp.MustCompile(`(?m)^\d+[ms](\d+s)? +`), "AGE "},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "HOST"},
	{regexp.MustCompile(`(fleet\.bowline\.dev/applied: )[-_0-9A-Za-z]{22}`), "${1}DIGEST"},
	{regexp.MustCompile(`(lastReconciledDuration: )\S+`), "${1}DURATION"},
	{regexp.MustCompile(`[ \t]+\n`), "\n"},
	{regexp.MustCompile(`\n\n+`), "\n\n"},
	{regexp.MustCompile(` *\t`), "  "},
}

// printPlain is main of the program by which transcripts make the output of
// other programs comparable: the same but for what differs from run to run.
func printPlain(in io.Reader, out io.Writer) int {
	text, err := io.ReadAll(in)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	plain := string(text)
	for _, p := range plainly {
		plain = p.what.ReplaceAllString(plain, p.with)
	}
	if plain = strings.TrimSpace(plain); plain != "" {
		plain += "\n"
	}
	if _, err := io.WriteString(out, plain); err != nil {
		return 1
	}
	return 0
}

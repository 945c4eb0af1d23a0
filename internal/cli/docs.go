package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bowline-dev/bowline/internal/failure"
)

func (a *app) docsCommand() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:    "docs --dir DIR",
		Short:  "Write the reference of all commands as Markdown",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return writeDocs(cmd.Root(), dir)
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "docs/cli", "`folder` to write to; its other Markdown files are removed")
	return cmd
}

// writeDocs writes one page per command. The same commands give the same bytes.
func writeDocs(root *cobra.Command, dir string) error {
	root.InitDefaultCompletionCmd()
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // documentation is for everybody
		return writeError(dir, err)
	}
	old, err := filepath.Glob(filepath.Join(dir, "*.md"))
	if err != nil {
		return writeError(dir, err)
	}
	for _, name := range old {
		if err := os.Remove(name); err != nil {
			return writeError(name, err)
		}
	}
	return writePages(root, dir)
}

func writePages(cmd *cobra.Command, dir string) error {
	name := filepath.Join(dir, pageName(cmd))
	if err := os.WriteFile(name, page(cmd), 0o644); err != nil { //nolint:gosec // as above
		return writeError(name, err)
	}
	for _, c := range documented(cmd) {
		if err := writePages(c, dir); err != nil {
			return err
		}
	}
	return nil
}

func writeError(name string, err error) error {
	return &failure.Error{Op: "write", Object: name, Kind: failure.Denied, Err: err}
}

func pageName(cmd *cobra.Command) string {
	return strings.ReplaceAll(commandName(cmd), " ", "_") + ".md"
}

// commandName is independent of the name by which the program was called.
func commandName(cmd *cobra.Command) string {
	if cmd.HasParent() {
		return commandName(cmd.Parent()) + " " + cmd.Name()
	}
	return cmd.Name()
}

// documented are the commands below cmd that its help lists, too.
func documented(cmd *cobra.Command) []*cobra.Command {
	var out []*cobra.Command
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			out = append(out, c)
		}
	}
	return out
}

func page(cmd *cobra.Command) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n\n%s.\n", commandName(cmd), cmd.Short)
	if cmd.Long != "" {
		fmt.Fprintf(&b, "\n%s\n", cmd.Long)
	}
	if cmd.Runnable() && cmd.HasParent() {
		fmt.Fprintf(&b, "\n```\n%s\n```\n", cmd.UseLine())
	}
	if cmd.Example != "" {
		fmt.Fprintf(&b, "\n## Examples\n\n```sh\n%s\n```\n", unindent(cmd.Example))
	}
	if flags := cmd.NonInheritedFlags(); flags.HasAvailableFlags() {
		fmt.Fprintf(&b, "\n## Flags\n\n```\n%s```\n", flags.FlagUsages())
	}
	if below := documented(cmd); len(below) > 0 {
		fmt.Fprintf(&b, "\n## Commands\n\n")
		for _, c := range below {
			fmt.Fprintf(&b, "- [%s](%s): %s\n", commandName(c), pageName(c), c.Short)
		}
	}
	if cmd.HasParent() {
		fmt.Fprintf(&b, "\nPart of [%s](%s).\n", commandName(cmd.Parent()), pageName(cmd.Parent()))
	}
	return b.Bytes()
}

func unindent(example string) string {
	lines := strings.Split(example, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, "  ")
	}
	return strings.Join(lines, "\n")
}

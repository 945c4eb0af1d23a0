package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
)

// addOutput adds -o with the given formats beside the default table.
func addOutput(cmd *cobra.Command, output *string, formats ...string) {
	cmd.Flags().StringVarP(output, "output", "o", "", "output `format`: "+strings.Join(formats, ", "))
	cmd.PreRunE = chain(cmd.PreRunE, func(*cobra.Command, []string) error {
		if *output == "" || slices.Contains(formats, *output) {
			return nil
		}
		return &failure.Error{Op: "read flag", Object: "--output", Kind: failure.Invalid,
			Err: fmt.Errorf("unknown format %q", *output), Remedy: "use one of: " + strings.Join(formats, ", ")}
	})
	// The formats are fixed strings; registering them cannot fail for a flag
	// that was just added.
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(formats, cobra.ShellCompDirectiveNoFileComp))
}

type runE = func(*cobra.Command, []string) error

func chain(first, second runE) runE {
	if first == nil {
		return second
	}
	return func(cmd *cobra.Command, args []string) error {
		if err := first(cmd, args); err != nil {
			return err
		}
		return second(cmd, args)
	}
}

// printValue writes v as JSON or YAML.
func printValue(out io.Writer, format string, v any) error {
	if format == "json" {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "    ")
		enc.SetEscapeHTML(false)
		return enc.Encode(v)
	}
	b, err := yaml.Marshal(v)
	if err != nil {
		return fmt.Errorf("print as YAML: %w", err)
	}
	_, err = out.Write(b)
	return err
}

// objectList is what kubectl prints for more than one object.
type objectList struct {
	APIVersion string          `json:"apiVersion"`
	Kind       string          `json:"kind"`
	Items      []client.Object `json:"items"`
}

// printObjects writes objects as JSON or YAML: one as itself when it was asked
// for by name, a List otherwise. Field ownership is left out, as kubectl does.
func printObjects(out io.Writer, format string, objects []client.Object, single bool) error {
	for _, o := range objects {
		o.SetManagedFields(nil)
	}
	if single && len(objects) == 1 {
		return printValue(out, format, objects[0])
	}
	if objects == nil {
		objects = []client.Object{}
	}
	return printValue(out, format, objectList{APIVersion: "v1", Kind: "List", Items: objects})
}

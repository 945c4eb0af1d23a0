package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/pipeline"
	"github.com/bowline-dev/bowline/internal/plan"
	"github.com/bowline-dev/bowline/internal/source/git"
)

type diffOptions struct {
	clusterFlags
	path          string
	revision      string
	budget        string
	noRemoteBases bool
	charts        chartOptions
	// strictSubstitute is the engine's StrictPostBuildSubstitutions.
	strictSubstitute bool
	// store keeps what is fetched, for the next preview; nil means nobody does.
	store *git.Store
	// ageSecret holds age keys for whoever names none, as the engine has it.
	ageSecret types.NamespacedName
}

func (a *app) diffCommand() *cobra.Command {
	o := &diffOptions{}
	cmd := &cobra.Command{
		Use:     "diff (kustomization NAME | helmrelease NAME) [flags]",
		Short:   "Show what delivering a Kustomization or HelmRelease would change",
		GroupID: groupPreview,
		Long: "Show what delivering a Kustomization would change on the cluster: from its repository as it is\n" +
			"now, from another revision of it, or from a working copy. It goes through the same stages as\n" +
			"the engine and changes nothing. Values of Secrets are shown as hashes that can only be compared\n" +
			"within one output.\n\n" +
			"Of a HelmRelease it shows the revision that the engine would make now, or would make of the chart\n" +
			"in --chart, --path or --revision and of the HelmRelease in --helmrelease-file: its objects, and a\n" +
			"line for each hook. The chart is otherwise the artifact that the engine serves.\n\n" +
			"The exit code is 0 when nothing would change, 1 when something would, and 2 after an error.",
		Example: "  bowline diff kustomization addons-metrics -n bowline-system --path .\n" +
			"  bowline diff kustomization addons-metrics -n bowline-system --revision feature\n" +
			"  bowline diff helmrelease shop -n apps --chart ./charts/shop\n" +
			"  bowline diff helmrelease shop -n apps --helmrelease-file apps/shop.yaml",
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeObjects(&o.clusterFlags, "kustomization", "helmrelease"),
		Annotations:       map[string]string{failureCode: fmt.Sprint(exitDiffFailed)},
		RunE: func(cmd *cobra.Command, args []string) error {
			changes, err := a.diff(cmd.Context(), o, args)
			if err == nil && changes {
				return &exitError{code: exitFailed}
			}
			return err
		},
	}
	o.addNamespace(cmd)
	f := cmd.Flags()
	f.StringVar(&o.path, "path", "", "root `folder` of a working copy of the source")
	f.StringVar(&o.revision, "revision", "", "`branch`, tag or commit of the source")
	f.StringVar(&o.budget, "deletion-budget", "50%", "the engine's deletion budget")
	f.BoolVar(&o.noRemoteBases, "no-remote-bases", true, "refuse kustomize bases that are named by URL")
	addStrictSubstitute(f, &o.strictSubstitute)
	o.charts.addFiles(f, "the artifact that the engine serves")
	cmd.MarkFlagsMutuallyExclusive("path", "revision", "chart")
	return cmd
}

func (a *app) diff(ctx context.Context, o *diffOptions, args []string) (changes bool, err error) {
	k, name, err := parseObject(args)
	if err != nil {
		return false, err
	}
	if k.gvk == helmReleaseKind().gvk {
		return a.diffRelease(ctx, o, name)
	}
	if k.gvk != kustomizationKind().gvk {
		return false, &failure.Error{Op: "read arguments", Kind: failure.Invalid, Err: fmt.Errorf("a %s changes nothing by itself", k.name)}
	}
	if o.charts.chart != "" || o.charts.file != "" {
		return false, &failure.Error{Op: "read flags", Kind: failure.Invalid, Err: errors.New("--chart and --helmrelease-file go with: helmrelease NAME")}
	}
	c, err := o.connect()
	if err != nil {
		return false, err
	}
	p, err := c.preview(ctx, o, name)
	if err != nil {
		return false, err
	}
	shown, err := a.printDifferences(p)
	if len(p.plan.Held) > 0 {
		printf(a.Err, "%s; these deletions would wait for approval\n", p.plan.HeldReason)
	}
	return shown > 0, err
}

// printDifferences prints every difference that a reader could see, and returns
// their number. Actions that the API server would refuse are all reported.
func (a *app) printDifferences(p previewed) (int, error) {
	key := redactionKey()
	colours := fancy(a.Out)
	shown := 0
	var errs []error
	for _, d := range p.differences {
		if d.Err != nil {
			errs = append(errs, object.ConcealError(d.Err, p.secrets))
			continue
		}
		text, err := difference(d, key, p.secrets)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if text == "" {
			continue
		}
		shown++
		if colours {
			text = colourDiff(text)
		}
		printf(a.Out, "%s", text)
	}
	return shown, errors.Join(errs...)
}

// difference is a unified diff of one object, empty when only what the engine
// writes for itself would change.
func difference(d pipeline.Difference, key []byte, secrets []string) (string, error) {
	redact := func(u *unstructured.Unstructured) *unstructured.Unstructured { return object.Redact(u, key) }
	if d.Decrypted {
		redact = func(u *unstructured.Unstructured) *unstructured.Unstructured { return object.RedactAll(u, key) }
	}
	before, err := readable(d.Before, redact, secrets)
	if err != nil {
		return "", err
	}
	after, err := readable(d.After, redact, secrets)
	if err != nil {
		return "", err
	}
	id := d.ID.String()
	text := string(diff.Diff("live/"+id, before, "git/"+id, after))
	if text == "" {
		return "", nil
	}
	// The first line is an invocation of diff that nobody made.
	_, text, _ = strings.Cut(text, "\n")
	if d.Verb == plan.Delete {
		text = strings.Replace(text, "+++ git/"+id, "+++ /dev/null", 1)
	} else if d.Before == nil {
		text = strings.Replace(text, "--- live/"+id, "--- /dev/null", 1)
	}
	return text, nil
}

// readable prints what a person wrote of an object, without what the API server
// and the engine keep in it, and without secrets.
func readable(u *unstructured.Unstructured, redact func(*unstructured.Unstructured) *unstructured.Unstructured, secrets []string) ([]byte, error) {
	if u == nil {
		return nil, nil
	}
	u = redact(u).DeepCopy()
	for _, field := range []string{"managedFields", "resourceVersion", "uid", "generation", "creationTimestamp", "selfLink"} {
		unstructured.RemoveNestedField(u.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(u.Object, "metadata", "annotations", object.AppliedDigestAnnotation)
	if len(u.GetAnnotations()) == 0 {
		unstructured.RemoveNestedField(u.Object, "metadata", "annotations")
	}
	unstructured.RemoveNestedField(u.Object, "status")
	text, err := yaml.Marshal(u.Object)
	if err != nil {
		return nil, fmt.Errorf("print %s: %w", object.IDOf(u), err)
	}
	return []byte(object.Conceal(string(text), secrets)), nil
}

func colourDiff(text string) string {
	lines := strings.SplitAfter(text, "\n")
	for i, l := range lines {
		tint := colour("")
		switch {
		case strings.HasPrefix(l, "@@"), strings.HasPrefix(l, "---"), strings.HasPrefix(l, "+++"):
			tint = grey
		case strings.HasPrefix(l, "+"):
			tint = green
		case strings.HasPrefix(l, "-"):
			tint = red
		}
		if body, ok := strings.CutSuffix(l, "\n"); ok && tint != "" {
			lines[i] = string(tint) + body + reset + "\n"
		}
	}
	return strings.Join(lines, "")
}

package cli

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
)

type getOptions struct {
	clusterFlags
	output string
	watch  bool
}

func (a *app) getCommand() *cobra.Command {
	o := &getOptions{}
	cmd := &cobra.Command{
		Use:     "get KIND [NAME...] [flags]",
		Short:   "List clusters, placements, sources, Kustomizations and HelmReleases with their state",
		GroupID: groupRead,
		Long: "List sources, Kustomizations and HelmReleases: the revision that they stand at, whether they are\n" +
			"suspended, whether they are ready, and if not, why. On a hub also the clusters of its fleet, each\n" +
			"with how many of its units are ready, and the placements, with on how many clusters they are.\n\n" +
			"KIND is sources, one kind of them (source git|oci|bucket|helm|chart, or gitrepositories,\n" +
			"ocirepositories, buckets, helmrepositories, helmcharts), kustomizations (ks), helmreleases (hr),\n" +
			"clusters, placements or all.",
		Example: "  bowline get all -A\n" +
			"  bowline get sources -n apps\n" +
			"  bowline get kustomization podinfo -o yaml\n" +
			"  bowline get clusters -A\n" +
			"  bowline get hr -A -o wide\n" +
			"  bowline get ks --watch",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeObjects(&o.clusterFlags, "clusters", "placements", "sources", "kustomizations", "helmreleases", "all"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.get(cmd.Context(), o, args)
		},
	}
	o.addNamespaces(cmd)
	addOutput(cmd, &o.output, "json", "yaml", "wide", "name")
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "keep printing changes until interrupted")
	return cmd
}

func (a *app) get(ctx context.Context, o *getOptions, args []string) error {
	ks, names, err := parseKinds(args)
	if err != nil {
		return err
	}
	if len(names) > 0 && o.allNamespaces {
		return &failure.Error{Op: "read arguments", Kind: failure.Invalid, Err: errNameInAll, Remedy: "use -n"}
	}
	c, err := o.connect()
	if err != nil {
		return err
	}
	if o.watch {
		return a.watch(ctx, c, o, ks, names)
	}
	objects, missing := c.read(ctx, ks, names)
	if missing != nil && len(slices.Concat(objects...)) == 0 {
		return missing
	}
	if err := a.printGet(c, o, ks, names, objects); err != nil {
		return err
	}
	return missing
}

const errNameInAll = constError("a name cannot be looked up in all namespaces")

// constError is an error that never changes.
type constError string

func (e constError) Error() string { return string(e) }

// read returns the objects asked for, by kind; the error is the first that
// occurred and does not keep the others from being returned. Of several kinds, those
// that the cluster does not serve are passed over while it serves any.
func (c *cluster) read(ctx context.Context, ks []kind, names []string) ([][]client.Object, error) {
	out := make([][]client.Object, len(ks))
	var first, unserved error
	served := false
	for i, k := range ks {
		objects, err := c.readKind(ctx, k, names)
		out[i] = objects
		switch {
		case err == nil:
			served = true
		case len(ks) > 1 && meta.IsNoMatchError(err):
			unserved = cmp.Or(unserved, err)
		default:
			first = cmp.Or(first, err)
		}
	}
	if !served {
		first = cmp.Or(first, unserved)
	}
	return out, first
}

func (c *cluster) readKind(ctx context.Context, k kind, names []string) ([]client.Object, error) {
	var out []client.Object
	var first error
	for _, name := range names {
		obj, err := c.get(ctx, k, name)
		if err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		out = append(out, obj)
	}
	if len(names) > 0 {
		return out, first
	}
	list := k.newList()
	if err := c.List(ctx, list, client.InNamespace(c.scope)); err != nil {
		return nil, err
	}
	out, err := items(list)
	for _, o := range out {
		o.GetObjectKind().SetGroupVersionKind(k.gvk)
	}
	return out, err
}

func (a *app) printGet(c *cluster, o *getOptions, ks []kind, names []string, objects [][]client.Object) error {
	all := slices.Concat(objects...)
	if o.output == "json" || o.output == "yaml" {
		return printObjects(a.Out, o.output, all, len(names) == 1)
	}
	if len(all) == 0 {
		printf(a.Err, "%s\n", c.nothingFound())
		return nil
	}
	printed := false
	for i, k := range ks {
		if len(objects[i]) == 0 {
			continue
		}
		if printed && o.output != "name" {
			printf(a.Out, "\n")
		}
		printed = true
		if err := o.view(k, len(ks) > 1).write(newTable(a.Out), objects[i]); err != nil {
			return err
		}
	}
	return nil
}

// view is how rows of one kind are laid out.
type view struct {
	kind      kind
	prefix    bool // print kind/name, as kubectl does for several kinds
	namespace bool
	wide      bool
	nameOnly  bool
	now       func() time.Time
}

func (o *getOptions) view(k kind, prefix bool) view {
	return view{kind: k, prefix: prefix, namespace: o.allNamespaces,
		wide: o.output == "wide", nameOnly: o.output == "name", now: time.Now}
}

func (v view) write(t *table, objects []client.Object) error {
	var rows [][]cell
	if !v.nameOnly {
		rows = append(rows, v.header())
	}
	for _, o := range objects {
		rows = append(rows, v.row(o))
	}
	return t.write(rows...)
}

func (v view) header() []cell {
	row := plainRow("NAME")
	if v.namespace {
		row = plainRow("NAMESPACE", "NAME")
	}
	for _, c := range v.columns() {
		row = append(row, plain(c.title))
	}
	return row
}

func plainRow(texts ...string) []cell {
	out := make([]cell, 0, len(texts))
	for _, t := range texts {
		out = append(out, plain(t))
	}
	return out
}

func (v view) row(o client.Object) []cell {
	name := o.GetName()
	if v.nameOnly {
		return plainRow(v.kind.name + "." + v.kind.gvk.Group + "/" + name)
	}
	if v.prefix {
		name = v.kind.name + "/" + name
	}
	row := plainRow(name)
	if v.namespace {
		row = plainRow(o.GetNamespace(), name)
	}
	for _, c := range v.columns() {
		row = append(row, c.text(v, o))
	}
	return row
}

func readyCell(c metav1.Condition) cell {
	out := cell{text: string(c.Status)}
	switch c.Status {
	case metav1.ConditionTrue:
		out.colour = green
	case metav1.ConditionFalse:
		out.colour = red
	default:
		out.colour = yellow
	}
	return out
}

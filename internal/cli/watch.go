package cli

import (
	"context"
	"errors"
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
)

// watch prints the objects and then every change of them until ctx ends.
func (a *app) watch(ctx context.Context, c *cluster, o *getOptions, ks []kind, names []string) error {
	if len(ks) != 1 {
		return &failure.Error{Op: "read arguments", Kind: failure.Invalid,
			Err: errors.New("only one kind can be watched at a time")}
	}
	v, t := o.view(ks[0], false), newTable(a.Out)
	wanted := func(obj client.Object) bool { return len(names) == 0 || slices.Contains(names, obj.GetName()) }
	printOne := func(obj client.Object) error {
		if o.output == "json" || o.output == "yaml" {
			obj.GetObjectKind().SetGroupVersionKind(ks[0].gvk)
			if o.output == "yaml" {
				printf(a.Out, "---\n")
			}
			return printObjects(a.Out, o.output, []client.Object{obj}, true)
		}
		return t.write(v.row(obj))
	}
	return c.follow(ctx, ks[0].newList, follower{
		listed: func(objects []client.Object) (bool, error) {
			objects = slices.DeleteFunc(objects, func(obj client.Object) bool { return !wanted(obj) })
			if o.output == "" || o.output == "wide" {
				return false, v.write(t, objects)
			}
			for _, obj := range objects {
				if err := printOne(obj); err != nil {
					return false, err
				}
			}
			return false, nil
		},
		changed: func(ch change) (bool, error) {
			if !wanted(ch.object) {
				return false, nil
			}
			return false, printOne(ch.object)
		},
	}, client.InNamespace(c.scope))
}

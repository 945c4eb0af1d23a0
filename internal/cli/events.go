package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

type eventsOptions struct {
	clusterFlags
	object string
	output string
	watch  bool
}

func (a *app) eventsCommand() *cobra.Command {
	o := &eventsOptions{}
	cmd := &cobra.Command{
		Use:     "events [flags]",
		Short:   "Show what happened to sources, Kustomizations and HelmReleases",
		GroupID: groupRead,
		Example: "  bowline events -A\n" +
			"  bowline events --for Kustomization/apps -n bowline-system --watch",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.events(cmd.Context(), o)
		},
	}
	o.addNamespaces(cmd)
	addOutput(cmd, &o.output, "json", "yaml")
	cmd.Flags().StringVar(&o.object, "for", "", "only events of this object, as `KIND/NAME`")
	cmd.Flags().BoolVarP(&o.watch, "watch", "w", false, "keep printing new events until interrupted")
	return cmd
}

func (a *app) events(ctx context.Context, o *eventsOptions) error {
	wanted, err := eventFilter(o.object)
	if err != nil {
		return err
	}
	c, err := o.connect()
	if err != nil {
		return err
	}
	scope := client.InNamespace(c.scope)
	if o.watch {
		return a.watchEvents(ctx, c, o, wanted, scope)
	}
	var list corev1.EventList
	if err := c.List(ctx, &list, scope); err != nil {
		return err
	}
	events := selectEvents(list.Items, wanted)
	if o.output != "" {
		return a.printEventValues(o.output, events)
	}
	if len(events) == 0 {
		printf(a.Err, "%s\n", strings.Replace(c.nothingFound(), "resources", "events", 1))
		return nil
	}
	return newTable(a.Out).write(append([][]cell{eventHeader(o.allNamespaces)}, eventRows(events, o.allNamespaces)...)...)
}

func (a *app) watchEvents(ctx context.Context, c *cluster, o *eventsOptions, wanted func(*corev1.Event) bool, scope client.ListOption) error {
	t := newTable(a.Out)
	show := func(events ...*corev1.Event) error {
		if o.output != "" {
			return a.printEventValues(o.output, events)
		}
		return t.write(eventRows(events, o.allNamespaces)...)
	}
	return c.follow(ctx, func() client.ObjectList { return &corev1.EventList{} }, follower{
		listed: func(objects []client.Object) (bool, error) {
			var events []*corev1.Event
			for _, obj := range objects {
				if e, ok := obj.(*corev1.Event); ok && wanted(e) {
					events = append(events, e)
				}
			}
			sortEvents(events)
			if o.output == "" {
				t.fit(eventRows(events, o.allNamespaces)...)
				if err := t.write(eventHeader(o.allNamespaces)); err != nil {
					return false, err
				}
			}
			return false, show(events...)
		},
		changed: func(ch change) (bool, error) {
			if e, ok := ch.object.(*corev1.Event); ok && !ch.deleted && wanted(e) {
				return false, show(e)
			}
			return false, nil
		},
	}, scope)
}

// eventFilter selects the events of one object, or, when there is none, of all
// kinds that the commands know.
func eventFilter(object string) (func(*corev1.Event) bool, error) {
	if object == "" {
		return func(e *corev1.Event) bool {
			return slices.ContainsFunc(kinds(), func(k kind) bool { return isAbout(e, k) })
		}, nil
	}
	k, name, err := parseObject([]string{object})
	if err != nil {
		return nil, err
	}
	return func(e *corev1.Event) bool { return isAbout(e, k) && e.InvolvedObject.Name == name }, nil
}

func isAbout(e *corev1.Event, k kind) bool {
	return e.InvolvedObject.Kind == k.gvk.Kind && strings.HasPrefix(e.InvolvedObject.APIVersion, k.gvk.Group+"/")
}

func selectEvents(all []corev1.Event, wanted func(*corev1.Event) bool) []*corev1.Event {
	var out []*corev1.Event
	for i := range all {
		if wanted(&all[i]) {
			out = append(out, &all[i])
		}
	}
	sortEvents(out)
	return out
}

// sortEvents puts the newest last, where a terminal shows it.
func sortEvents(events []*corev1.Event) {
	slices.SortStableFunc(events, func(a, b *corev1.Event) int {
		return cmp.Or(eventTime(a).Compare(eventTime(b)), cmp.Compare(a.Name, b.Name))
	})
}

// eventTime is when an event was last seen. Which field holds that depends on
// the age of the API by which it was written.
func eventTime(e *corev1.Event) time.Time {
	switch {
	case e.Series != nil:
		return e.Series.LastObservedTime.Time
	case !e.LastTimestamp.IsZero():
		return e.LastTimestamp.Time
	case !e.EventTime.IsZero():
		return e.EventTime.Time
	default:
		return e.CreationTimestamp.Time
	}
}

func eventHeader(namespaces bool) []cell {
	columns := []string{"LAST SEEN", "TYPE", "REASON", "OBJECT", "MESSAGE"}
	if namespaces {
		columns = append([]string{"NAMESPACE"}, columns...)
	}
	return plainRow(columns...)
}

func eventRows(events []*corev1.Event, namespaces bool) [][]cell {
	now := time.Now()
	rows := make([][]cell, 0, len(events))
	for _, e := range events {
		kind := cell{text: e.Type}
		if e.Type == corev1.EventTypeWarning {
			kind.colour = yellow
		}
		row := []cell{plain(age(now, eventTime(e))), kind, plain(e.Reason),
			plain(fmt.Sprintf("%s/%s", e.InvolvedObject.Kind, e.InvolvedObject.Name)), plain(line(e.Message))}
		if namespaces {
			row = append([]cell{plain(e.InvolvedObject.Namespace)}, row...)
		}
		rows = append(rows, row)
	}
	return rows
}

func (a *app) printEventValues(format string, events []*corev1.Event) error {
	objects := make([]client.Object, 0, len(events))
	for _, e := range events {
		e.APIVersion, e.Kind = "v1", "Event"
		objects = append(objects, e)
	}
	return printObjects(a.Out, format, objects, false)
}

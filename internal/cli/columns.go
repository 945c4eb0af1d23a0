package cli

import (
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

// column is one column of a kind's table, after the names.
type column struct {
	title string
	// wide columns are shown with -o wide only.
	wide bool
	text func(view, client.Object) cell
}

// columns are those that the view shows.
func (v view) columns() []column {
	all := v.kind.columns
	if all == nil {
		all = deliveryColumns()
	}
	return slices.DeleteFunc(slices.Clone(all), func(c column) bool { return c.wide && !v.wide })
}

// deliveryColumns are the columns of sources and of what is delivered from them.
func deliveryColumns() []column {
	return []column{
		{title: "REVISION", text: func(v view, o client.Object) cell {
			revision := v.kind.state(o).revision
			if !v.wide {
				revision = shortRevision(revision)
			}
			return plain(revision)
		}},
		suspendedColumn(), readyColumn(), messageColumn(),
		{title: "FROM", wide: true, text: func(v view, o client.Object) cell { return plain(v.kind.state(o).from) }},
		{title: "AGE", wide: true, text: ageColumn},
	}
}

func suspendedColumn() column {
	return column{title: "SUSPENDED", text: func(v view, o client.Object) cell {
		word := strconv.FormatBool(v.kind.state(o).suspended)
		return plain(strings.ToUpper(word[:1]) + word[1:])
	}}
}

func readyColumn() column {
	return column{title: "READY", text: func(v view, o client.Object) cell { return readyCell(v.kind.state(o).ready()) }}
}

func messageColumn() column {
	return column{title: "MESSAGE", text: func(v view, o client.Object) cell { return plain(line(v.kind.state(o).ready().Message)) }}
}

func ageColumn(v view, o client.Object) cell {
	return plain(age(v.now(), o.GetCreationTimestamp().Time))
}

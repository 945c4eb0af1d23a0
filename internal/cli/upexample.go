package cli

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/bowline-dev/bowline/examples"
	"github.com/bowline-dev/bowline/internal/failure"
)

// exampleNames lists the examples for people.
func exampleNames() string {
	var names []string
	for _, e := range examples.All() {
		names = append(names, e.Name)
	}
	return strings.Join(names, " or ")
}

// checkExample refuses what cannot be meant. Of an example that is there another one would delete all that it made.
func (b *bringUp) checkExample() error {
	o, s := b.options, &b.settings
	if o.example == "" {
		return nil
	}
	refuse := func(kind failure.Kind, remedy, format string, args ...any) error {
		return &failure.Error{Op: "read flag", Object: "--example", Kind: kind, Err: fmt.Errorf(format, args...), Remedy: remedy}
	}
	another := fmt.Sprintf("choose another --name, or remove it with `%s down --name %s`", b.name, b.plane.Name)
	switch {
	case o.repo != "":
		return refuse(failure.Invalid, "", "there is no example with --repo")
	case !slices.ContainsFunc(examples.All(), func(e examples.Example) bool { return e.Name == o.example }):
		return refuse(failure.Invalid, "use "+exampleNames(), "there is no example %q", o.example)
	case s.Repo != "":
		return refuse(failure.Conflict, another, "plane %s delivers %s", b.plane.Name, s.Repo)
	case b.plane.Exists() && cmp.Or(s.Example, examples.All()[0].Name) != o.example:
		return refuse(failure.Conflict, another, "plane %s was started with the example %s", b.plane.Name, cmp.Or(s.Example, examples.All()[0].Name))
	}
	return nil
}

// example is the one that the plane delivers, where it has no repository of somebody else's.
func (b *bringUp) example() examples.Example {
	all := examples.All()
	if i := slices.IndexFunc(all, func(e examples.Example) bool { return e.Name == b.settings.Example }); i >= 0 {
		return all[i]
	}
	return all[0]
}

// errNoGitServer: --git-port is of the plane's own Git server.
var errNoGitServer = errors.New("there is no Git server with --repo")

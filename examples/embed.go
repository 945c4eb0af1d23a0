// Package examples holds fleets that really run. The one named fleet is the
// repository that `bowline up` starts with.
package examples

import (
	"embed"
	"io/fs"
)

//go:embed all:fleet
var files embed.FS

// Fleet returns the example fleet as the root of a repository.
func Fleet() fs.FS {
	sub, err := fs.Sub(files, "fleet")
	if err != nil {
		panic(err) // the name is a constant that the directive above embeds
	}
	return sub
}

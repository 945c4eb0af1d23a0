// Package examples holds repositories that really run: what `bowline up` can start with.
package examples

import (
	"embed"
	"io/fs"
)

//go:embed all:fleet all:hierarchy
var files embed.FS

// Example is one of them.
type Example struct {
	// Name is what people choose it by.
	Name string
	// Path is the folder that the hub delivers.
	Path string
	// Files is the root of the repository.
	Files fs.FS
}

// All returns the examples; the first is the one that is started where nobody chose.
func All() []Example {
	return []Example{
		{Name: "fleet", Path: "./clusters/hub", Files: Fleet()},
		{Name: "hierarchy", Path: "./clusters/top", Files: Hierarchy()},
	}
}

// Fleet is a hub and two clusters.
func Fleet() fs.FS { return sub("fleet") }

// Hierarchy is a manager of managers, two management clusters, and two clusters of each.
func Hierarchy() fs.FS { return sub("hierarchy") }

func sub(name string) fs.FS {
	of, err := fs.Sub(files, name)
	if err != nil {
		panic(err) // the name is a constant that the directive above embeds
	}
	return of
}

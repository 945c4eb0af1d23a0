package compose

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/archive"
)

func isArchive(name string) bool {
	name = strings.ToLower(name)
	return strings.HasSuffix(name, ".tar.gz") || strings.HasSuffix(name, ".tgz")
}

// extract copies what an archive of the source holds.
func (c *copying) extract(name string) error {
	data, err := c.source.Tree.ReadFile(name)
	if err != nil {
		return err
	}
	inner, err := archive.Read(bytes.NewReader(data), archive.Limits{})
	if err != nil {
		return &failure.Error{Op: "extract", Object: fmt.Sprintf("%q", name), Kind: failure.KindOf(err), Err: err}
	}
	n, err := reference(inner, ".")
	if err != nil {
		return err
	}
	return c.lay(c.to, n)
}

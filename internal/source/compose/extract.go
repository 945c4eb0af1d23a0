package compose

import (
	"errors"
	"strings"

	"github.com/bowline-dev/bowline/internal/failure"
)

func isArchive(name string) bool {
	name = strings.ToLower(name)
	return strings.HasSuffix(name, ".tar.gz") || strings.HasSuffix(name, ".tgz")
}

// extract copies what an archive holds.
func (c *copying) extract(name string) error {
	return &failure.Error{Op: "copy", Object: name, Kind: failure.Unsupported, Err: errors.New("archives cannot be extracted yet")}
}

// Package source is the first stage of the main loop: from a reference (a
// branch, a tag, a digest) to an Artifact. This package holds the types that
// all backends share; each backend has a package below it.
package source

import (
	"io"
	"io/fs"
)

// Artifact is one immutable state of a source.
type Artifact struct {
	// Revision names the state for people, in the toolkit's form:
	// "main@sha1:<commit>", "v1.2.3@sha1:<commit>" or "sha1:<commit>".
	Revision string
	// Digest identifies the content, ignore rules applied: two artifacts with
	// one digest hold the same files.
	Digest string
	// Verified says whose signatures the revision was found to bear, for people; ""
	// when none were asked for.
	Verified string
	// Metadata is what the source says of the state besides, with the toolkit's keys;
	// nil when it says nothing. OriginRevision is in it.
	Metadata map[string]string
	// Tree reads the files.
	Tree Tree
	// Packed, when set, is the archive that holds the files, as it was published. It is what others
	// are served then, to the byte.
	Packed *Packed
}

// Packed is an archive that is handed on as it is.
type Packed struct {
	// Digest is "sha256:<hex>", and Size the length in bytes.
	Digest string
	Size   int64
	// Open reads it, for as long as the artifact is in use.
	Open func() (io.ReadCloser, error)
}

// originRevision is the key of the toolkit, and of OCI.
const originRevision = "org.opencontainers.image.revision"

// OriginRevision returns the revision of what the artifact was made of in the
// first place, and "" when nobody says.
func (a Artifact) OriginRevision() string { return a.Metadata[originRevision] }

// Tree is a read-only snapshot of files, safe for use by many goroutines.
//
// Names are those of io/fs: slash-separated, relative, "." for the root.
// Symbolic links are followed inside the tree; one that leads outside, in a
// circle or through more than 40 steps is an error of kind failure.Invalid that
// names the link. A name that does not exist gives an error that matches
// fs.ErrNotExist. Nothing is unpacked to disk to be read.
type Tree interface {
	fs.ReadDirFS
	fs.ReadFileFS
	fs.StatFS
	// Hash returns the content identity of the entry at name: of a regular
	// file its content, of a directory its listing (the names and types of its
	// entries, not what they hold). Equal hashes mean equal content.
	Hash(name string) (string, error)
}

package build

import (
	"context"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// EncryptedFile is a file that a kustomization names in a place where it may be
// encrypted.
type EncryptedFile struct {
	// Name is the path in the source, for messages.
	Name string
	// As is the name whose ending tells the form of the file: the key that a
	// generator gives it, or the name itself.
	As string
	// Env says that the form is dotenv where the ending tells none.
	Env  bool
	Data []byte
}

// Decrypter undoes the encryption of what a repository holds, for one build at a
// time. What it returns is plain text: it stays in memory and is neither written to
// disk nor logged.
type Decrypter interface {
	// File returns the plain text of a file, and its data where it is not encrypted.
	File(ctx context.Context, f EncryptedFile) ([]byte, error)
	// Object decrypts an object as kustomize made it, in place: a manifest that is
	// encrypted as a whole, and values in the data of a Secret. It reports whether
	// anything was encrypted.
	Object(ctx context.Context, u *unstructured.Unstructured) (bool, error)
	// Holds reports whether an object holds something that this decrypted, whatever its
	// kind: its values must not be shown.
	Holds(u *unstructured.Unstructured) bool
	// Conceal returns err as it may be shown: without anything in it that was
	// decrypted or that belongs to a key. It matches what err matches.
	Conceal(err error) error
}

package sops

import "github.com/bowline-dev/bowline/internal/failure"

// reason says why something cannot be decrypted, and what helps.
type reason struct {
	message, remedy string
	kind            failure.Kind
	err             error
}

func (r *reason) Error() string { return r.message }
func (r *reason) Unwrap() error { return r.err }

var (
	errMalformed = &reason{kind: failure.Invalid, message: "its sops section cannot be read, or it is not the form that its name says",
		remedy: "encrypt it anew with sops"}
	errNoObject = &reason{kind: failure.Invalid, message: "what it holds is no Kubernetes object", remedy: "correct the file and encrypt it anew"}
	errValue    = &reason{kind: failure.Invalid, message: "a value is not encrypted where its sops section says so, or was damaged or moved to another field since",
		remedy: "encrypt it anew with sops, and of manifests only the values, with --encrypted-regex '^(data|stringData)$'"}
	errMAC = &reason{kind: failure.Invalid, message: "its MAC does not match: the file was changed since it was encrypted, or the MAC is damaged",
		remedy: "encrypt it anew with sops"}
)

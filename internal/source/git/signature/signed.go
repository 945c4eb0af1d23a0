// Package signature is the room that checks who signed a Git commit or tag: it
// finds the signature in an object's bytes, and the bytes that were signed, as git
// itself does, and verifies the one against the other with the public keys of a
// Secret. OpenPGP is that of github.com/ProtonMail/go-crypto, SSH signatures those of
// github.com/hiddeco/sshsig. It reads nothing and keeps nothing.
package signature

import (
	"bytes"
	"errors"
)

// Signed is an object taken apart: what was signed, and the signature in its armor.
type Signed struct {
	Payload, Signature []byte
}

// ErrUnsigned says that an object bears no signature.
var ErrUnsigned = errors.New("it is not signed")

// ErrSeveral says that a commit has more than one signature header, which git never writes.
var ErrSeveral = errors.New("it has more than one signature")

// The header of a commit's signature, and the beginning of all headers that sign:
// git leaves every one of them out of what it signs, since a commit may also be signed
// for its name in another hash (gpgsig-sha256).
const (
	ownHeader = "gpgsig "
	anyHeader = "gpgsig"
)

// Commit takes a commit object apart.
func Commit(raw []byte) (Signed, error) {
	payload, signatures := split(raw)
	switch len(signatures) {
	case 0:
		return Signed{}, ErrUnsigned
	case 1:
		return Signed{Payload: payload, Signature: signatures[0]}, nil
	default:
		return Signed{}, ErrSeveral
	}
}

// Tag takes a tag object apart. Its signature is the end of its message.
func Tag(raw []byte) (Signed, error) {
	at := len(raw)
	for from := 0; from < len(raw); {
		if kindOf(raw[from:]) != unknown {
			at = from
		}
		end := bytes.IndexByte(raw[from:], '\n')
		if end < 0 {
			break
		}
		from += end + 1
	}
	if at == len(raw) {
		return Signed{}, ErrUnsigned
	}
	payload, _ := split(raw[:at])
	return Signed{Payload: payload, Signature: raw[at:]}, nil
}

// split takes the signatures out of the header of an object. The lines of a
// header that has many begin with a space, which is not part of its value; so
// a signature inside another header (mergetag) is never taken for the object's own.
func split(raw []byte) (payload []byte, signatures [][]byte) {
	payload = make([]byte, 0, len(raw))
	signing, own := false, false
	for rest := raw; len(rest) > 0; {
		line := rest
		if end := bytes.IndexByte(rest, '\n'); end >= 0 {
			line = rest[:end+1]
		}
		if line[0] == '\n' {
			return append(payload, rest...), signatures
		}
		rest = rest[len(line):]
		if line[0] != ' ' {
			signing, own = bytes.HasPrefix(line, []byte(anyHeader)), false
			if value, ok := bytes.CutPrefix(line, []byte(ownHeader)); ok {
				own = true
				signatures = append(signatures, bytes.Clone(value))
				continue
			}
		}
		switch {
		case own:
			last := len(signatures) - 1
			signatures[last] = append(signatures[last], line[1:]...)
		case !signing:
			payload = append(payload, line...)
		}
	}
	return payload, signatures
}

// kind is a format of signatures, in the words that people know.
type kind string

const (
	openPGP kind = "OpenPGP"
	sshSig  kind = "SSH"
	x509    kind = "X.509"
	unknown kind = "unknown"
)

// kindOf reads the first line of an armor.
func kindOf(armor []byte) kind {
	for _, k := range []struct {
		kind  kind
		begin string
	}{
		{openPGP, "-----BEGIN PGP SIGNATURE-----"}, {openPGP, "-----BEGIN PGP MESSAGE-----"},
		{sshSig, "-----BEGIN SSH SIGNATURE-----"}, {x509, "-----BEGIN SIGNED MESSAGE-----"},
	} {
		if bytes.HasPrefix(armor, []byte(k.begin)) {
			return k.kind
		}
	}
	return unknown
}

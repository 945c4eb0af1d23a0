package signature

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ProtonMail/go-crypto/openpgp"
	pgperrors "github.com/ProtonMail/go-crypto/openpgp/errors"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/bowline-dev/bowline/internal/failure"
)

// sshSuffix marks the entries of a Secret that hold SSH keys, as the source
// controller of Flux has it. All others hold OpenPGP key rings; by convention they end in ".asc".
const sshSuffix = ".sshpub"

// namespace is what git signs for; a signature for anything else is none.
const namespace = "git"

// Keys are the public keys whose signatures are trusted.
type Keys struct {
	id     string
	pgp    openpgp.EntityList
	ssh    []ssh.PublicKey
	broken []string
}

// ReadKeys reads the entries of a Secret: lines of authorized_keys where the
// name ends in ".sshpub", armored OpenPGP key rings everywhere else. Entries that cannot
// be read are passed over as long as one can. object names the Secret in errors,
// which are of kind failure.Invalid.
func ReadKeys(object string, data map[string][]byte) (*Keys, error) {
	k := &Keys{}
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(data)) {
		fmt.Fprintf(sum, "%q %d:%s", name, len(data[name]), data[name])
		var err error
		if strings.HasSuffix(name, sshSuffix) {
			err = k.addSSH(data[name])
		} else {
			err = k.addPGP(data[name])
		}
		if err != nil {
			k.broken = append(k.broken, name)
		}
	}
	k.id = hex.EncodeToString(sum.Sum(nil))
	if len(k.pgp) > 0 || len(k.ssh) > 0 {
		return k, nil
	}
	err := errors.New("it holds no public key")
	if len(k.broken) > 0 {
		err = fmt.Errorf("no public key can be read from %s", strings.Join(k.broken, ", "))
	}
	return nil, &failure.Error{
		Op: "read public keys from", Object: object, Kind: failure.Invalid, Err: err,
		Remedy: "put armored OpenPGP keys into entries that end in .asc, or SSH public keys into entries that end in .sshpub",
	}
}

// ID names the set of keys: equal IDs, equal keys.
func (k *Keys) ID() string { return k.id }

func (k *Keys) addSSH(text []byte) error {
	var keys []ssh.PublicKey
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 || line[0] == '#' {
			continue
		}
		key, _, _, _, err := ssh.ParseAuthorizedKey(line)
		if err != nil {
			return err
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return errors.New("no key")
	}
	k.ssh = append(k.ssh, keys...)
	return nil
}

const pgpBegin = "-----BEGIN PGP P" // …UBLIC KEY BLOCK, or …RIVATE KEY BLOCK

// addPGP reads key rings, of which an entry may hold several, one after the other.
func (k *Keys) addPGP(text []byte) error {
	blocks := strings.Split(string(text), pgpBegin)
	if len(blocks) < 2 {
		return errors.New("no key")
	}
	var all openpgp.EntityList
	for _, block := range blocks[1:] {
		ring, err := openpgp.ReadArmoredKeyRing(strings.NewReader(pgpBegin + block))
		if err != nil {
			return err
		}
		all = append(all, ring...)
	}
	k.pgp = append(k.pgp, all...)
	return nil
}

// Verify checks a signature and returns who made it: the ID of an OpenPGP key, or
// the SHA-256 fingerprint of an SSH key.
func (k *Keys) Verify(s Signed) (signer string, err error) {
	armor := bytes.TrimSpace(s.Signature)
	switch kind := kindOf(armor); {
	case kind == openPGP && len(k.pgp) == 0:
		return "", k.lacking(errors.New("it has an OpenPGP signature, and the Secret holds no OpenPGP key (an entry that ends in .asc)"))
	case kind == openPGP:
		signer, err = k.verifyPGP(s.Payload, armor)
	case kind == sshSig && len(k.ssh) == 0:
		return "", k.lacking(errors.New("it has an SSH signature, and the Secret holds no SSH key (an entry that ends in .sshpub)"))
	case kind == sshSig:
		signer, err = k.verifySSH(s.Payload, armor)
	default:
		return "", fmt.Errorf("it has a signature of the format %s; OpenPGP and SSH can be verified", kind)
	}
	return signer, k.lacking(err)
}

// lacking adds which entries of the Secret could not be read.
func (k *Keys) lacking(err error) error {
	if err == nil || len(k.broken) == 0 {
		return err
	}
	return fmt.Errorf("%w (no key can be read from the Secret's %s)", err, strings.Join(k.broken, ", "))
}

func (k *Keys) verifyPGP(payload, armor []byte) (string, error) {
	signer, err := openpgp.CheckArmoredDetachedSignature(k.pgp, bytes.NewReader(payload), bytes.NewReader(armor), nil)
	id := ""
	if signer != nil {
		id = signer.PrimaryKey.KeyIdString()
	}
	switch {
	case err == nil:
		return id, nil
	case errors.Is(err, pgperrors.ErrUnknownIssuer):
		return "", fmt.Errorf("none of the trusted keys made it: %w", err)
	case id != "":
		return "", fmt.Errorf("the key %s: %w", id, err)
	default:
		return "", err
	}
}

func (k *Keys) verifySSH(payload, armor []byte) (string, error) {
	sig, err := sshsig.Unarmor(armor)
	if err != nil {
		return "", fmt.Errorf("the SSH signature cannot be read: %w", err)
	}
	made := ssh.FingerprintSHA256(sig.PublicKey)
	// OpenSSH takes no signatures over SHA-1 either.
	if format := sig.Signature.Format; format == ssh.KeyAlgoRSA || format == "ssh-dss" {
		return "", fmt.Errorf("the SSH key %s signed with %s, which is not safe any more", made, format)
	}
	for _, key := range k.ssh {
		err := sshsig.Verify(bytes.NewReader(payload), sig, key, sig.HashAlgorithm, namespace)
		switch {
		case err == nil:
			return made, nil
		case !errors.Is(err, sshsig.ErrPublicKeyMismatch):
			return "", fmt.Errorf("the SSH key %s: %w", made, err)
		}
	}
	return "", fmt.Errorf("it was made by the SSH key %s, which is not trusted: %w", made, sshsig.ErrPublicKeyMismatch)
}

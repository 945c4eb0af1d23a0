package sops

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"

	"filippo.io/age"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/aws/aws-sdk-go-v2/aws"
	"golang.org/x/oauth2"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Names of the entries of a Secret that hold keys, as the toolkit's users know them.
const (
	extAge     = ".agekey"
	extOpenPGP = ".asc"
	entryVault = "sops.vault-token"
	entryAWS   = "sops.aws-kms"
	entryAzure = "sops.azure-kv"
	entryGCP   = "sops.gcp-kms"
)

// entries names them for messages.
const entries = "*.agekey, *.asc, sops.vault-token, sops.aws-kms, sops.azure-kv or sops.gcp-kms"

// Cloud is how requests to key services are authenticated where no
// key says so: with the identity of a workload. Each may be nil, which means not at all.
type Cloud struct {
	AWS   func(region string) aws.CredentialsProvider
	Azure azcore.TokenCredential
	GCP   oauth2.TokenSource
	// Vault logs in to the Vault or OpenBao server at an address and returns a token. It
	// decides which addresses may be told who asks.
	Vault func(ctx context.Context, address string) (string, error)
	// OwnIdentity lets an entry of a Secret name a managed identity of the engine's
	// machine. Whoever may write a Secret could otherwise have files decrypted that
	// are not its own.
	OwnIdentity bool
}

// Keys is what can decrypt the files of a unit.
type Keys struct {
	// from names where the keys are, for messages.
	from     string
	identity string
	age      []age.Identity
	openpgp  openpgp.EntityList
	vault    string
	cloud    Cloud
	// secrets are the texts that no message may quote.
	secrets []string
	// http sends the requests with which static credentials log in; nil means the
	// default of each.
	http *http.Client
}

// Open reads the entries of a Secret. from names it in messages; data may be
// nil, where the identity of a workload is all there is; identity names these keys,
// see Identity: keys of one identity are opened once, apart for each Cloud.OwnIdentity. Entries with other names are ignored. Errors are of kind Invalid and
// name the entry, never its content.
func (r *Ring) Open(from, identity string, data map[string][]byte, cloud Cloud) (*Keys, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := openedKey{identity, cloud.OwnIdentity}
	if k, ok := r.opened[key]; ok {
		return k, nil
	}
	k := &Keys{from: from, identity: identity, cloud: cloud, http: r.options.HTTPClient}
	for _, name := range slices.Sorted(maps.Keys(data)) {
		if err := k.add(name, data[name]); err != nil {
			return nil, &failure.Error{Op: "read keys of", Kind: failure.Invalid, Object: fmt.Sprintf("%s (%s)", from, name),
				Err: err, Remedy: "correct that entry of the Secret that spec.decryption.secretRef names"}
		}
	}
	if len(r.opened) >= maxOpened {
		clear(r.opened)
	}
	r.opened[key] = k
	return k, nil
}

// OnlyAge returns the entries that hold age keys.
func OnlyAge(data map[string][]byte) map[string][]byte {
	out := map[string][]byte{}
	for name, value := range data {
		if path.Ext(name) == extAge {
			out[name] = value
		}
	}
	return out
}

func (k *Keys) add(name string, value []byte) (err error) {
	switch {
	case path.Ext(name) == extAge:
		err = k.addAge(value)
	case path.Ext(name) == extOpenPGP:
		err = k.addOpenPGP(value)
	case name == entryVault:
		if k.vault = strings.TrimSpace(string(value)); k.vault == "" {
			err = errors.New("the token is empty")
		}
	case name == entryAWS:
		err = k.addAWS(value)
	case name == entryAzure:
		err = k.addAzure(value)
	case name == entryGCP:
		err = k.addGCP(value)
	default:
		return nil
	}
	for line := range strings.Lines(string(value)) {
		if line = strings.TrimSpace(line); len(line) >= shortestConcealed {
			k.secrets = append(k.secrets, line)
		}
	}
	return err
}

func (k *Keys) addAge(value []byte) error {
	// Of what the library says only the line is passed on: it may quote.
	found, err := age.ParseIdentities(bytes.NewReader(value))
	if err != nil {
		return errors.New("it holds no age identity that can be read: lines that start with AGE-SECRET-KEY-1 or AGE-SECRET-KEY-PQ-1")
	}
	k.age = append(k.age, found...)
	return nil
}

// addOpenPGP reads armoured private keys, one after the other.
func (k *Keys) addOpenPGP(value []byte) error {
	const begin = "-----BEGIN "
	_, rest, found := strings.Cut(string(value), begin)
	if !found {
		return errors.New("it holds no armoured OpenPGP key that can be read")
	}
	// The library reads beyond the end of a block, so that each gets its own text.
	for text := range strings.SplitSeq(rest, begin) {
		ring, err := openpgp.ReadArmoredKeyRing(strings.NewReader(begin + text))
		if err != nil {
			return errors.New("it holds no OpenPGP key that can be read")
		}
		for _, e := range ring {
			if err := usable(e); err != nil {
				return err
			}
		}
		k.openpgp = append(k.openpgp, ring...)
	}
	return nil
}

// usable says what an OpenPGP key lacks to decrypt.
func usable(e *openpgp.Entity) error {
	keys := []openpgp.Key{{PrivateKey: e.PrivateKey}}
	for _, sub := range e.Subkeys {
		keys = append(keys, openpgp.Key{PrivateKey: sub.PrivateKey})
	}
	locked := false
	for _, key := range keys {
		switch {
		case key.PrivateKey == nil || key.PrivateKey.Dummy():
		case key.PrivateKey.Encrypted:
			locked = true
		default:
			return nil
		}
	}
	if locked {
		return fmt.Errorf("the OpenPGP key %X is locked with a passphrase, which nobody could enter here", e.PrimaryKey.Fingerprint)
	}
	return fmt.Errorf("the OpenPGP key %X is a public key; a private one is needed", e.PrimaryKey.Fingerprint)
}

// names lists the keys at hand by what is public of them.
func (k *Keys) names() []string {
	var names []string
	for _, id := range k.age {
		switch id := id.(type) {
		case *age.X25519Identity:
			names = append(names, "age "+id.Recipient().String())
		case *age.HybridIdentity:
			names = append(names, "age "+shortened(id.Recipient().String()))
		}
	}
	for _, e := range k.openpgp {
		names = append(names, fmt.Sprintf("OpenPGP %X", e.PrimaryKey.Fingerprint))
	}
	return names
}

// shortened keeps post-quantum recipients, of about 2,000 characters, from filling messages.
func shortened(recipient string) string {
	const long = 70
	if len(recipient) <= long {
		return recipient
	}
	return recipient[:24] + "…" + recipient[len(recipient)-8:]
}

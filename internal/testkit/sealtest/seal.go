// Package sealtest encrypts files as SOPS does.
package sealtest

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
	"github.com/getsops/sops/v3/age"
	"github.com/getsops/sops/v3/cmd/sops/common"
	"github.com/getsops/sops/v3/cmd/sops/formats"
	"github.com/getsops/sops/v3/config"
	"github.com/getsops/sops/v3/keys"
	"github.com/getsops/sops/v3/pgp"
	"github.com/getsops/sops/v3/shamir"
)

// Sealing says how Seal encrypts.
type Sealing struct {
	// Format is "yaml", "json", "dotenv", "ini" or "binary"; empty means yaml.
	Format string
	// Only is the regular expression of the fields to encrypt; empty means all.
	Only string
	// MACOnlyEncrypted leaves what is not encrypted out of the MAC.
	MACOnlyEncrypted bool
	// Groups are the recipients: one group, of which any can decrypt, or several, of
	// which Threshold have to.
	Groups    [][]keys.MasterKey
	Threshold int
}

// ManifestFields is what people encrypt of manifests.
const ManifestFields = "^(data|stringData)$"

// Seal encrypts as `sops --encrypt` does.
func Seal(t testing.TB, plain string, s Sealing) []byte {
	t.Helper()
	store := common.StoreForFormat(formats.FormatFromString(s.format()), config.NewStoresConfig())
	branches, err := store.LoadPlainFile([]byte(plain))
	if err != nil {
		t.Fatalf("read what is to be encrypted: %v", err)
	}
	tree := sops.Tree{Branches: branches, Metadata: sops.Metadata{
		EncryptedRegex: s.Only, MACOnlyEncrypted: s.MACOnlyEncrypted, ShamirThreshold: s.Threshold, Version: "3.13.3",
	}}
	for _, g := range s.Groups {
		tree.Metadata.KeyGroups = append(tree.Metadata.KeyGroups, g)
	}
	if s.Only == "" {
		tree.Metadata.UnencryptedSuffix = "_unencrypted"
	}
	key := dataKey(t, s)
	cipher := aes.NewCipher()
	mac, err := tree.Encrypt(key, cipher)
	if err != nil {
		t.Fatalf("encrypt: %v", err)
	}
	tree.Metadata.LastModified = time.Now().UTC()
	tree.Metadata.MessageAuthenticationCode, err = cipher.Encrypt(mac, key, tree.Metadata.LastModified.Format(time.RFC3339))
	if err != nil {
		t.Fatalf("encrypt the MAC: %v", err)
	}
	out, err := store.EmitEncryptedFile(tree)
	if err != nil {
		t.Fatalf("write what was encrypted: %v", err)
	}
	return out
}

// dataKey makes a data key and encrypts it for the recipients, each with what it
// was given: the library itself would look for public keys and endpoints elsewhere.
func dataKey(t testing.TB, s Sealing) []byte {
	t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	parts := [][]byte{key}
	if len(s.Groups) > 1 {
		var err error
		if parts, err = shamir.Split(key, len(s.Groups), s.Threshold); err != nil {
			t.Fatalf("split a data key: %v", err)
		}
	}
	for i, group := range s.Groups {
		for _, recipient := range group {
			if err := recipient.Encrypt(parts[i]); err != nil {
				t.Fatalf("encrypt a data key: %v", err)
			}
		}
	}
	return key
}

func (s Sealing) format() string {
	if s.Format == "" {
		return "yaml"
	}
	return s.Format
}

// ForAge returns one group of recipients of age.
func ForAge(t testing.TB, recipients ...string) [][]keys.MasterKey {
	t.Helper()
	var group []keys.MasterKey
	for _, r := range recipients {
		k, err := age.MasterKeyFromRecipient(r)
		if err != nil {
			t.Fatalf("read a recipient: %v", err)
		}
		group = append(group, k)
	}
	return [][]keys.MasterKey{group}
}

// ForOpenPGP returns one group of recipients of OpenPGP.
func ForOpenPGP(t testing.TB, recipients ...*openpgp.Entity) [][]keys.MasterKey {
	t.Helper()
	// The library knows public keys from a file only.
	ring := filepath.Join(t.TempDir(), "pubring.gpg")
	var all bytes.Buffer
	for _, e := range recipients {
		if err := e.Serialize(&all); err != nil {
			t.Fatalf("write a public key: %v", err)
		}
	}
	if err := os.WriteFile(ring, all.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	var group []keys.MasterKey
	for _, e := range recipients {
		k := pgp.NewMasterKeyFromFingerprint(fmt.Sprintf("%X", e.PrimaryKey.Fingerprint))
		pgp.PubRing(ring).ApplyToMasterKey(k)
		group = append(group, k)
	}
	return [][]keys.MasterKey{group}
}

// ArmouredKey is the private key of e as `gpg --armor --export-secret-keys` prints it.
func ArmouredKey(t testing.TB, e *openpgp.Entity) string {
	t.Helper()
	return armoured(t, openpgp.PrivateKeyType, func(w io.Writer) error { return e.SerializePrivateWithoutSigning(w, nil) })
}

// ArmouredPublicKey is the public key of e.
func ArmouredPublicKey(t testing.TB, e *openpgp.Entity) string {
	t.Helper()
	return armoured(t, openpgp.PublicKeyType, func(w io.Writer) error { return e.Serialize(w) })
}

func armoured(t testing.TB, kind string, write func(io.Writer) error) string {
	t.Helper()
	var out bytes.Buffer
	w, err := armor.Encode(&out, kind, nil)
	if err == nil {
		err = write(w)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatalf("write a key: %v", err)
	}
	return out.String() + "\n"
}

package testkit

import (
	"testing"
	"time"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
	"github.com/getsops/sops/v3/age"
	"github.com/getsops/sops/v3/cmd/sops/common"
	"github.com/getsops/sops/v3/cmd/sops/formats"
	"github.com/getsops/sops/v3/config"
	"github.com/getsops/sops/v3/keys"
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
	key, errs := tree.GenerateDataKey()
	if len(errs) > 0 {
		t.Fatalf("encrypt a data key: %v", errs)
	}
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

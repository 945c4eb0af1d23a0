package sops

import (
	"context"
	"fmt"
	"time"

	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
	"github.com/getsops/sops/v3/cmd/sops/common"
	"github.com/getsops/sops/v3/cmd/sops/formats"
	"github.com/getsops/sops/v3/config"
)

// document is something encrypted, and the forms that it has and shall have.
type document struct {
	data    []byte
	in, out formats.Format
	// whole says that nobody changed it since it was encrypted, so that its MAC
	// must match.
	whole bool
}

// document decrypts.
func (d *Decrypter) document(ctx context.Context, doc document) (plain []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			// The library panics on some odd input.
			plain, err = nil, errMalformed
		}
	}()
	if len(doc.data) > maxFile {
		return nil, &reason{message: fmt.Sprintf("it has %d bytes, and at most %d are decrypted", len(doc.data), maxFile), remedy: "split it"}
	}
	tree, err := common.StoreForFormat(doc.in, config.NewStoresConfig()).LoadEncryptedFile(doc.data)
	if err != nil {
		return nil, errMalformed
	}
	key, err := d.dataKey(ctx, &tree.Metadata)
	if err != nil {
		return nil, err
	}
	if err := open(&tree, key, noting{aes.NewCipher(), &d.told}, doc.whole); err != nil {
		return nil, err
	}
	plain, err = common.StoreForFormat(doc.out, config.NewStoresConfig()).EmitPlainFile(tree.Branches)
	if err != nil {
		return nil, &reason{message: "what it holds cannot be written as " + formName(doc.out),
			remedy: "give the entry the ending of the file that was encrypted"}
	}
	return plain, nil
}

// open decrypts the values of a tree in place and checks its MAC: always that it is
// a MAC made with this data key, and of a document that nobody changed since also
// that it matches.
func open(tree *sops.Tree, key []byte, cipher sops.Cipher, whole bool) error {
	computed, err := tree.Decrypt(key, cipher)
	if err != nil {
		return errValue
	}
	stated, err := cipher.Decrypt(tree.Metadata.MessageAuthenticationCode, key, tree.Metadata.LastModified.Format(time.RFC3339))
	if err != nil || stated == "" {
		return errMAC
	}
	if whole && stated != computed {
		return errMAC
	}
	return nil
}

// noting is a cipher that remembers what it decrypts, so that no message quotes it.
type noting struct {
	sops.Cipher
	told *concealed
}

// Decrypt implements sops.Cipher.
func (n noting) Decrypt(text string, key []byte, path string) (any, error) {
	value, err := n.Cipher.Decrypt(text, key, path)
	if err == nil {
		n.told.add(fmt.Sprint(plainOf(value)))
	}
	return value, err
}

func plainOf(value any) any {
	switch value := value.(type) {
	case []byte:
		return string(value)
	case sops.Comment:
		return value.Value
	}
	return value
}

func formName(f formats.Format) string {
	switch f {
	case formats.Dotenv:
		return "dotenv"
	case formats.Ini:
		return "INI"
	case formats.Json:
		return "JSON"
	case formats.Yaml:
		return "YAML"
	case formats.Binary:
	}
	return "a binary file"
}

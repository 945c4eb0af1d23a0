package sops

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/keyservice"
	vaultapi "github.com/hashicorp/vault/api"
	"golang.org/x/oauth2"

	"github.com/bowline-dev/bowline/internal/failure"
)

// dataKey returns the key that the values of a document are encrypted with. What
// keys at hand can decrypt is decrypted at once; only for the rest is a key service
// asked, once for the same document and keys.
func (d *Decrypter) dataKey(ctx context.Context, m *sops.Metadata) ([]byte, error) {
	id := answerID(d.keys.identity, m)
	if key := d.ring.answers.known(id); key != nil {
		return key, nil
	}
	here := &server{ctx: ctx, keys: d.keys, options: d.ring.options}
	key, err := here.recover(m)
	if err == nil {
		d.ring.answers.keep(id, key)
		return key, nil
	}
	if len(here.remote) == 0 {
		return nil, d.noKey(here)
	}
	keys, options := d.keys, d.ring.options
	return d.ring.answers.ask(ctx, question{id: id, services: here.remote, wake: d.wake, ask: func(ctx context.Context) ([]byte, error) {
		there := &server{ctx: ctx, keys: keys, options: options, reach: true}
		key, err := there.recover(m)
		if err != nil {
			return nil, d.noKey(there)
		}
		return key, nil
	}})
}

// recover gets the data key with what the server holds. The library asks without a
// context, so that each question has a server of its own, which has one.
func (s *server) recover(m *sops.Metadata) ([]byte, error) {
	copied := *m // the library notes the key in it
	return copied.GetDataKeyWithKeyServices([]keyservice.KeyServiceClient{keyservice.NewCustomLocalClient(s)}, sops.DefaultDecryptionOrder)
}

// answerID identifies a data key by what it is encrypted as and for whom.
func answerID(identity string, m *sops.Metadata) string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s\n%d\n", identity, m.ShamirThreshold)
	for _, group := range m.KeyGroups {
		_, _ = fmt.Fprintln(h, len(group))
		for _, key := range group {
			_, _ = fmt.Fprintf(h, "%s %q %q\n", key.TypeToIdentifier(), key.ToString(), key.EncryptedDataKey())
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// noKey says who could decrypt the document, and why nobody here does.
func (d *Decrypter) noKey(s *server) error {
	r := &reason{kind: failure.Invalid}
	var refused []string
	for _, f := range s.refused {
		refused = append(refused, f.recipient+": "+s.issued.from(oneLineOf(told(f.err))))
		if r.err == nil {
			r.err, r.kind = f.err, kindOf(f.err)
		}
	}
	recipients := strings.Join(s.recipients, ", ")
	if len(refused) > 0 {
		r.message = d.told.from("the key service refuses: " + strings.Join(refused, "; "))
		if recipients != "" {
			r.message += "; it is also encrypted for " + recipients
		}
		r.remedy = "let the credentials of " + d.keys.from + " decrypt with that key"
		return r
	}
	if recipients == "" {
		r.message, r.remedy = "its sops section names nobody that it is encrypted for", "encrypt it anew with sops"
		return r
	}
	at := "no key is at hand"
	if names := d.keys.names(); len(names) > 0 {
		at = "the keys at hand are " + strings.Join(names, ", ")
	} else if len(d.keys.secrets) == 0 {
		at = d.keys.from + " holds no key"
	}
	r.message = "it is encrypted for " + recipients + ", and " + at
	r.remedy = "put the private key of one of them into the Secret of spec.decryption.secretRef, as entry " + entries +
		", or encrypt the file for a key that is there"
	return r
}

// kindOf says whether asking a key service again may help.
func kindOf(err error) failure.Kind {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return failure.Timeout
	}
	return failure.Denied
}

// told is what may be passed on of a refusal. Files and keys name any address: a server there
// that is no key service, and that only the engine can reach, must not be read by way of
// messages.
func told(err error) error {
	var vault *vaultapi.ResponseError
	var azure *azcore.ResponseError
	var login *oauth2.RetrieveError
	var status int
	switch {
	case errors.As(err, &vault) && vault.RawError:
		status = vault.StatusCode
	case errors.As(err, &azure) && azure.ErrorCode == "":
		status = azure.StatusCode
	case errors.As(err, &login) && login.ErrorCode == "" && login.Response != nil:
		status = login.Response.StatusCode
	default:
		return err
	}
	return fmt.Errorf("what answers with status %d is no key service", status)
}

// discreet gives out tokens, and the failures of those who issue them as told.
type discreet struct{ oauth2.TokenSource }

// Token implements oauth2.TokenSource.
func (d discreet) Token() (*oauth2.Token, error) {
	token, err := d.TokenSource.Token()
	if err != nil {
		return nil, told(err)
	}
	return token, nil
}

// rulers are what Azure's library draws around what it quotes.
var rulers = regexp.MustCompile(`-{4,}`)

// maxRefusal bounds what is passed on of an answer, in bytes.
const maxRefusal = 400

func oneLineOf(err error) string {
	text := strings.Join(strings.Fields(rulers.ReplaceAllString(err.Error(), " ")), " ")
	if len(text) > maxRefusal {
		text = strings.ToValidUTF8(text[:maxRefusal], "") + "…"
	}
	return text
}

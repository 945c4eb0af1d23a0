package sops

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"

	"filippo.io/age"
	agearmor "filippo.io/age/armor"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/getsops/sops/v3/azkv"
	"github.com/getsops/sops/v3/gcpkms"
	"github.com/getsops/sops/v3/hcvault"
	"github.com/getsops/sops/v3/keyservice"
	"github.com/getsops/sops/v3/kms"
)

// server is the key service that the library asks, in this process: it knows the
// keys of one unit and nothing else. The library's own would look for keys in the
// environment, in the home folder and by running programs.
type server struct {
	keyservice.UnimplementedKeyServiceServer
	// ctx bounds the questions, which come without one.
	ctx     context.Context
	keys    *Keys
	options Options
	// reach says that services of others may be asked. Without it they are noted in
	// remote.
	reach  bool
	remote []string
	// recipients are those for which no key is at hand, refused what services
	// answered.
	recipients []string
	refused    []refusal
	// issued are tokens that were got on the way, which no message may quote.
	issued concealed
}

type refusal struct {
	recipient string
	err       error
}

var (
	errNoKey     = errors.New("no key is at hand")
	errElsewhere = errors.New("only a key service can tell")
)

// Encrypt implements keyservice.KeyServiceServer and fails: builds only decrypt.
func (s *server) Encrypt(context.Context, *keyservice.EncryptRequest) (*keyservice.EncryptResponse, error) {
	return nil, errors.ErrUnsupported
}

// Decrypt implements keyservice.KeyServiceServer.
func (s *server) Decrypt(_ context.Context, req *keyservice.DecryptRequest) (*keyservice.DecryptResponse, error) {
	plain, err := s.decrypt(req.GetKey(), req.GetCiphertext())
	if err != nil {
		return nil, err
	}
	return &keyservice.DecryptResponse{Plaintext: plain}, nil
}

func (s *server) decrypt(key *keyservice.Key, text []byte) ([]byte, error) {
	switch k := key.GetKeyType().(type) {
	case *keyservice.Key_AgeKey:
		return s.here("age "+shortened(k.AgeKey.GetRecipient()), text, s.keys.withAge)
	case *keyservice.Key_PgpKey:
		return s.here("OpenPGP "+k.PgpKey.GetFingerprint(), text, s.keys.withOpenPGP)
	case *keyservice.Key_VaultKey:
		v := k.VaultKey
		return s.there(fmt.Sprintf("Vault %s (%s/keys/%s)", v.GetVaultAddress(), v.GetEnginePath(), v.GetKeyName()), v.GetVaultAddress(),
			s.keys.vault != "" || s.keys.cloud.Vault != nil, func() ([]byte, error) { return s.vault(v, text) })
	case *keyservice.Key_KmsKey:
		return s.there("AWS KMS "+k.KmsKey.GetArn(), "aws "+region(k.KmsKey.GetArn()), s.keys.cloud.AWS != nil,
			func() ([]byte, error) { return s.aws(k.KmsKey, text) })
	case *keyservice.Key_AzureKeyvaultKey:
		a := k.AzureKeyvaultKey
		return s.there(fmt.Sprintf("Azure Key Vault %s/keys/%s", strings.TrimSuffix(a.GetVaultUrl(), "/"), a.GetName()), a.GetVaultUrl(),
			s.keys.cloud.Azure != nil, func() ([]byte, error) { return s.azure(a, text) })
	case *keyservice.Key_GcpKmsKey:
		return s.there("GCP KMS "+k.GcpKmsKey.GetResourceId(), "gcp", s.keys.cloud.GCP != nil,
			func() ([]byte, error) { return s.gcp(k.GcpKmsKey, text) })
	}
	s.recipients = append(s.recipients, "a key of a kind that is not supported")
	return nil, errNoKey
}

// here tries a key that is at hand.
func (s *server) here(recipient string, text []byte, with func([]byte) ([]byte, error)) ([]byte, error) {
	plain, err := with(text)
	if err != nil {
		s.recipients = append(s.recipients, recipient)
		return nil, errNoKey
	}
	return plain, nil
}

// there asks a key service, if there are credentials for it.
func (s *server) there(recipient, service string, credentials bool, ask func() ([]byte, error)) ([]byte, error) {
	switch {
	case !credentials:
		s.recipients = append(s.recipients, recipient)
		return nil, errNoKey
	case !s.reach:
		s.remote = append(s.remote, service)
		return nil, errElsewhere
	}
	plain, err := ask()
	if err != nil {
		s.refused = append(s.refused, refusal{recipient, err})
	}
	return plain, err
}

func (k *Keys) withAge(text []byte) ([]byte, error) {
	if len(k.age) == 0 {
		return nil, errNoKey
	}
	r, err := age.Decrypt(agearmor.NewReader(strings.NewReader(string(text))), k.age...)
	if err != nil {
		return nil, err
	}
	return whole(r)
}

// maxDataKey bounds a data key, or a part of one, in bytes.
const maxDataKey = 4096

// whole reads a data key. OpenPGP can compress: a small message may be of any length.
func whole(r io.Reader) ([]byte, error) {
	key, err := io.ReadAll(io.LimitReader(r, maxDataKey+1))
	if err == nil && len(key) > maxDataKey {
		err = errMalformed
	}
	return key, err
}

// smallestRSA admits keys of 1024 bits, as gpg does.
const smallestRSA = 1024

func (k *Keys) withOpenPGP(text []byte) ([]byte, error) {
	if len(k.openpgp) == 0 {
		return nil, errNoKey
	}
	block, err := armor.Decode(strings.NewReader(string(text)))
	if err != nil {
		return nil, err
	}
	m, err := openpgp.ReadMessage(block.Body, k.openpgp, nil, &packet.Config{MinRSABits: smallestRSA})
	if err != nil {
		return nil, err
	}
	return whole(m.UnverifiedBody)
}

func (s *server) vault(v *keyservice.VaultKey, text []byte) ([]byte, error) {
	key := hcvault.MasterKey{VaultAddress: v.GetVaultAddress(), EnginePath: v.GetEnginePath(), KeyName: v.GetKeyName(), EncryptedKey: string(text)}
	token := s.keys.vault
	if token == "" {
		var err error
		if token, err = s.keys.cloud.Vault(s.ctx, v.GetVaultAddress()); err != nil {
			return nil, err
		}
	}
	s.issued.add(token)
	hcvault.Token(token).ApplyToMasterKey(&key)
	if s.options.HTTPClient != nil {
		copied := *s.options.HTTPClient // the library configures it
		hcvault.NewHTTPClient(&copied).ApplyToMasterKey(&key)
	}
	return key.DecryptContext(s.ctx)
}

var arn = regexp.MustCompile(`^arn:aws[\w-]*:kms:(.+):[0-9]+:(key|alias)/.+$`)

func region(name string) string {
	if m := arn.FindStringSubmatch(name); m != nil {
		return m[1]
	}
	return ""
}

func (s *server) aws(k *keyservice.KmsKey, text []byte) ([]byte, error) {
	// The profile that a file may name is of the machine of whoever encrypted it.
	key := kms.MasterKey{Arn: k.GetArn(), Role: k.GetRole(), EncryptedKey: string(text), EncryptionContext: map[string]*string{}}
	for name, value := range k.GetContext() {
		key.EncryptionContext[name] = &value
	}
	kms.NewCredentialsProvider(s.keys.cloud.AWS(region(k.GetArn()))).ApplyToMasterKey(&key)
	if s.options.HTTPClient != nil {
		kms.NewHTTPClient(s.options.HTTPClient).ApplyToMasterKey(&key)
	}
	return key.DecryptContext(s.ctx)
}

func (s *server) azure(k *keyservice.AzureKeyVaultKey, text []byte) ([]byte, error) {
	key := azkv.MasterKey{VaultURL: k.GetVaultUrl(), Name: k.GetName(), Version: k.GetVersion(), EncryptedKey: string(text)}
	azkv.NewTokenCredential(s.keys.cloud.Azure).ApplyToMasterKey(&key)
	if s.options.HTTPClient != nil {
		azkv.NewClientOptions(&azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: s.options.HTTPClient}}).ApplyToMasterKey(&key)
	}
	return key.DecryptContext(s.ctx)
}

func (s *server) gcp(k *keyservice.GcpKmsKey, text []byte) ([]byte, error) {
	key := gcpkms.MasterKey{ResourceID: k.GetResourceId(), EncryptedKey: string(text)}
	gcpkms.NewTokenSource(s.keys.cloud.GCP).ApplyToMasterKey(&key)
	gcpkms.ClientOptions(s.options.GCP).ApplyToMasterKey(&key)
	return key.DecryptContext(s.ctx)
}

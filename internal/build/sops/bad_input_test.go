package sops

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/testkit/sealtest"
)

func pgpKey(t *testing.T, name string) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity(name, "", name+"@example.com", nil)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestOpenPGP(t *testing.T) {
	one, two := pgpKey(t, "one"), pgpKey(t, "two")
	tests := []struct {
		name, reason, entry string
		recipients          []*openpgp.Entity
	}{
		{"one", "the key fits", sealtest.ArmouredKey(t, one), []*openpgp.Entity{one}},
		{"several keys in an entry", "an export may hold many", sealtest.ArmouredKey(t, two) + sealtest.ArmouredKey(t, one), []*openpgp.Entity{one}},
		{"several recipients", "any can decrypt", sealtest.ArmouredKey(t, two), []*openpgp.Entity{one, two}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Setenv("GNUPGHOME", t.TempDir()) // nothing may be found there
			u := parse(t, sealtest.Seal(t, secretManifest, sealtest.Sealing{Only: sealtest.ManifestFields, Groups: sealtest.ForOpenPGP(t, tt.recipients...)}))
			if _, err := decrypterWith(t, newRing(t), map[string]string{"key.asc": tt.entry}).Object(t.Context(), u); err != nil {
				t.Fatalf("%s: %v", tt.reason, err)
			}
			if got, _, _ := unstructured.NestedString(u.Object, "stringData", "password"); got != "hunter2-correct-horse" {
				t.Errorf("%s: password %q", tt.reason, got)
			}
		})
	}
}

// TestOpenPGPCompressed refuses a small message that stands for a large one.
func TestOpenPGPCompressed(t *testing.T) {
	compressing := &packet.Config{DefaultCompressionAlgo: packet.CompressionZLIB}
	key, err := openpgp.NewEntity("one", "", "one@example.com", compressing)
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	armoured, err := armor.Encode(&text, "PGP MESSAGE", nil)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := openpgp.Encrypt(armoured, []*openpgp.Entity{key}, nil, nil, compressing)
	if err != nil {
		t.Fatal(err)
	}
	const size = 8 << 20
	if _, err := plain.Write(make([]byte, size)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(plain.Close(), armoured.Close()); err != nil || text.Len() > size/100 {
		t.Fatalf("the message is of %d bytes: %v", text.Len(), err)
	}
	if got, err := (&Keys{openpgp: openpgp.EntityList{key}}).withOpenPGP(text.Bytes()); !errors.Is(err, errMalformed) {
		t.Errorf("%d bytes are taken for a key: %v", len(got), err)
	}
}

// TestKeyGroups decrypts with keys of two kinds at one time, of which none is enough.
func TestKeyGroups(t *testing.T) {
	a, p := ageKey(t), pgpKey(t, "one")
	groups := append(sealtest.ForAge(t, a.Recipient().String()), sealtest.ForOpenPGP(t, p)...)
	sealed := sealtest.Seal(t, secretManifest, sealtest.Sealing{Only: sealtest.ManifestFields, Groups: groups, Threshold: 2})
	entries := map[string]string{"a.agekey": a.String(), "p.asc": sealtest.ArmouredKey(t, p)}
	if _, err := decrypterWith(t, newRing(t), entries).Object(t.Context(), parse(t, sealed)); err != nil {
		t.Errorf("both keys: %v", err)
	}
	delete(entries, "p.asc")
	_, err := decrypterWith(t, newRing(t), entries).Object(t.Context(), parse(t, sealed))
	if !errors.Is(err, failure.Of(failure.Invalid)) || !strings.Contains(err.Error(), fmt.Sprintf("OpenPGP %X", p.PrimaryKey.Fingerprint)) {
		t.Errorf("one key: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	locked := pgpKey(t, "locked")
	if err := locked.EncryptPrivateKeys([]byte("passphrase"), nil); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, reason, entry, content, want string }{
		{"age", "it is no key", "id.agekey", "AGE-SECRET-KEY-1NOTAKEY", "Secret/flux-system/keys (id.agekey): it holds no age identity"},
		{"age recipient", "public keys decrypt nothing", "id.agekey", "age1notsecretkey", "(id.agekey)"},
		{"age plugin", "it would start a program", "id.agekey", "AGE-PLUGIN-YUBIKEY-1QQPSECRETXX", "(id.agekey)"},
		{"empty age", "it holds none", "id.agekey", "# only a comment\n", "(id.agekey)"},
		{"no armour", "it is no key", "x.asc", "secret-nonsense", "(x.asc): it holds no armoured OpenPGP key"},
		{"public", "it decrypts nothing", "x.asc", sealtest.ArmouredPublicKey(t, pgpKey(t, "pub")), "is a public key"},
		{"locked", "nobody could enter the passphrase", "x.asc", sealtest.ArmouredKey(t, locked), "locked with a passphrase"},
		{"vault", "it is empty", "sops.vault-token", " \n", "(sops.vault-token): the token is empty"},
		{"aws", "it is no YAML", "sops.aws-kms", "{secret-nonsense", "(sops.aws-kms): it is not the YAML"},
		{"aws half", "the secret key is missing", "sops.aws-kms", "aws_access_key_id: AKIASECRET", "lacks"},
		{"azure", "nothing to log in with", "sops.azure-kv", "tenantId: secret-tenant", "(sops.azure-kv): it needs clientId"},
		{"azure certificate", "it cannot be read", "sops.azure-kv", "tenantId: t\nclientId: c\nclientCertificate: secret-nonsense", "clientCertificate cannot be read"},
		{"azure machine", "it is the engine's own identity", "sops.azure-kv", "clientId: some-client", "(sops.azure-kv): it names a managed identity of the engine's machine"},
		{"azure machine and tenant", "without a secret it is the same", "sops.azure-kv", "tenantId: t\nclientId: c", "it names a managed identity of the engine's machine"},
		{"aws profile", "it is the engine's machine that has it", "sops.aws-kms", "aws_profile: default\nrole_arn: arn:aws:iam::1:role/r", "lacks"},
		{"empty aws", "the SDK would look around on the machine", "sops.aws-kms", "", "lacks"},
		{"empty azure", "the SDK would look around on the machine", "sops.azure-kv", "", "it needs clientId"},
		{"empty gcp", "the SDK would look around on the machine", "sops.gcp-kms", "{}", "are not accepted"},
		{"gcp", "it is no JSON", "sops.gcp-kms", "secret-nonsense", "(sops.gcp-kms): it is not the JSON"},
		{"gcp external", "it may name a file of this machine to send elsewhere", "sops.gcp-kms",
			`{"type":"external_account","credential_source":{"file":"/etc/shadow"},"token_url":"https://evil.example"}`, "are not accepted"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newRing(t).Open("Secret/flux-system/keys", "x", map[string][]byte{tt.entry: []byte(tt.content), "ignored": []byte("x")}, Cloud{})
			if err == nil || !errors.Is(err, failure.Of(failure.Invalid)) || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("%s: %v, want %q", tt.reason, err, tt.want)
			}
			oneLine(t, err)
			if strings.Contains(strings.ToLower(err.Error()), "secret-nonsense") || strings.Contains(err.Error(), "QQPSECRET") {
				t.Errorf("the message quotes the entry: %v", err)
			}
		})
	}
}

// TestOpenOwnIdentity opens the same entry for one that may use the identity of the
// engine's machine first, and then for one that may not.
func TestOpenOwnIdentity(t *testing.T) {
	ring := newRing(t)
	data := map[string][]byte{"sops.azure-kv": []byte("clientId: some-client")}
	if _, err := ring.Open("Secret/flux-system/keys", "x", data, Cloud{OwnIdentity: true}); err != nil {
		t.Fatalf("one that may: %v", err)
	}
	if _, err := ring.Open("Secret/flux-system/keys", "x", data, Cloud{}); !errors.Is(err, failure.Of(failure.Invalid)) {
		t.Errorf("one that may not: %v", err)
	}
}

func oneLine(t *testing.T, err error) {
	t.Helper()
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
}

var macText = regexp.MustCompile(`mac: ENC\[AES256_GCM,data:.`)

func TestRefuses(t *testing.T) {
	mine, theirs := ageKey(t), ageKey(t)
	someone := pgpKey(t, "someone")
	forMe, forThem := sealtest.ForAge(t, mine.Recipient().String()), sealtest.ForAge(t, theirs.Recipient().String())
	manifest := func(s sealtest.Sealing) []byte {
		s.Only = sealtest.ManifestFields
		return sealtest.Seal(t, secretManifest, s)
	}
	entries := map[string]string{"id.agekey": mine.String()}
	tests := []struct {
		name, reason string
		entries      map[string]string
		manifest     []byte
		want         []string
	}{
		{"for someone else", "it names whom it is for, and whose keys are here", entries, manifest(sealtest.Sealing{Groups: forThem}),
			[]string{"Secret/apps/db", "encrypted for age " + theirs.Recipient().String(), "the keys at hand are age " + mine.Recipient().String(), "spec.decryption.secretRef"}},
		{"OpenPGP for someone else", "it names the fingerprint", entries, manifest(sealtest.Sealing{Groups: sealtest.ForOpenPGP(t, someone)}),
			[]string{fmt.Sprintf("OpenPGP %X", someone.PrimaryKey.Fingerprint)}},
		{"no usable key", "the Secret has other entries only", map[string]string{"password": "x"}, manifest(sealtest.Sealing{Groups: forMe}),
			[]string{"Secret/flux-system/keys holds no key", "*.agekey"}},
		{"damaged MAC", "it cannot be decrypted", entries, macText.ReplaceAll(manifest(sealtest.Sealing{Groups: forMe}), []byte("mac: ENC[AES256_GCM,data:#")),
			[]string{"its MAC does not match", "encrypt it anew"}},
		{"no MAC", "there is nothing that vouches for it", entries, regexp.MustCompile(`mac: ENC\[.*`).ReplaceAll(manifest(sealtest.Sealing{Groups: forMe}), []byte(`mac: ""`)),
			[]string{"its MAC does not match"}},
		{"moved value", "a value is bound to its field", entries, []byte(strings.Replace(string(manifest(sealtest.Sealing{Groups: forMe})), "password:", "passwd:", 1)),
			[]string{"moved to another field"}},
		{"plain value", "somebody wrote it into the encrypted file", entries,
			regexp.MustCompile(`password: ENC\[.*`).ReplaceAll(manifest(sealtest.Sealing{Groups: forMe}), []byte("password: hunter2-correct-horse")),
			[]string{"not encrypted where its sops section says so", "--encrypted-regex"}},
		{"odd section", "it is not sops'", entries, []byte(secretManifest + "sops:\n  mac: hello\n"), []string{"its sops section cannot be read"}},
		{"no recipients", "nobody could decrypt it", entries, []byte(secretManifest + "sops:\n  mac: ENC[AES256_GCM,data:x,iv:x,tag:x,type:str]\n  lastmodified: \"2026-01-01T00:00:00Z\"\n  version: 3.13.3\n"),
			[]string{"Secret/apps/db"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := decrypterWith(t, newRing(t), tt.entries).Object(t.Context(), parse(t, tt.manifest))
			if !errors.Is(err, failure.Of(failure.Invalid)) {
				t.Fatalf("%s: %v", tt.reason, err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v\nlacks %q", tt.reason, err, want)
				}
			}
			oneLine(t, err)
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "SECRET-KEY") {
				t.Errorf("it quotes a secret: %v", err)
			}
			t.Log(err)
		})
	}
}

func TestRefusesFiles(t *testing.T) {
	key := ageKey(t)
	groups := sealtest.ForAge(t, key.Recipient().String())
	env := string(sealtest.Seal(t, "A=secret-value-a\nB=secret-value-b\n", sealtest.Sealing{Format: "dotenv", Groups: groups}))
	tests := []struct{ name, reason, data, want string }{
		{"a line taken out", "the MAC covers the whole file", regexp.MustCompile(`(?m)^A=.*\n`).ReplaceAllString(env, ""), "its MAC does not match"},
		{"a line added", "it is not encrypted", "C=secret-value-c\n" + env, "not encrypted where"},
		{"too large", "the toolkit's bound", env + strings.Repeat("#", maxFile), "at most"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := decrypterWith(t, newRing(t), map[string]string{"id.agekey": key.String()})
			_, err := d.File(t.Context(), build.EncryptedFile{Name: "apps/a.env", As: "a.env", Env: true, Data: []byte(tt.data)})
			if !errors.Is(err, failure.Of(failure.Invalid)) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "apps/a.env") {
				t.Errorf("%s: %v", tt.reason, err)
			}
			if err != nil && strings.Contains(err.Error(), "secret-value") {
				t.Errorf("it quotes a secret: %v", err)
			}
		})
	}
}

func TestLeavesAlone(t *testing.T) {
	tests := []struct{ name, reason, manifest string }{
		{"sealed secret", "another controller unseals it", "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata:\n  name: x\nspec:\n  encryptedData:\n    password: AgBy3i4OJSWK+PiTySYZZA9rO43cGDEq\n"},
		{"plain Secret", "nothing is encrypted", secretManifest},
		{"values in no base64", "the API server refuses it", "apiVersion: v1\nkind: Secret\nmetadata:\n  name: x\ndata:\n  a: \"%%%\"\n"},
		{"a field called sops", "it has no MAC", "apiVersion: example.com/v1\nkind: Tool\nmetadata:\n  name: x\nsops:\n  enabled: true\n"},
		{"words that look like INI", "there is no MAC", "apiVersion: v1\nkind: Secret\nmetadata:\n  name: x\ndata:\n  notes: W3NvcHNdCmlzIGEgdG9vbAo=\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			u := parse(t, []byte(tt.manifest))
			before := u.DeepCopy()
			changed, err := decrypterWith(t, newRing(t), map[string]string{"id.agekey": ageKey(t).String()}).Object(t.Context(), u)
			if err != nil || changed || fmt.Sprint(before.Object) != fmt.Sprint(u.Object) {
				t.Errorf("%s: changed %t, %v, %v", tt.reason, changed, err, u.Object)
			}
		})
	}
}

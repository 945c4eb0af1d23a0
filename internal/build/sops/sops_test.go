package sops

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	sopslib "github.com/getsops/sops/v3"
	"github.com/getsops/sops/v3/aes"
	sopsage "github.com/getsops/sops/v3/age"
	"github.com/getsops/sops/v3/cmd/sops/common"
	"github.com/getsops/sops/v3/cmd/sops/formats"
	"github.com/getsops/sops/v3/config"
	"github.com/getsops/sops/v3/keys"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/build"
)

// encrypt encrypts as `sops --encrypt` does, for all of the keys.
func encrypt(t *testing.T, format formats.Format, plain string, change func(*sopslib.Metadata), recipients ...keys.MasterKey) []byte {
	t.Helper()
	store := common.StoreForFormat(format, config.NewStoresConfig())
	branches, err := store.LoadPlainFile([]byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	tree := sopslib.Tree{Branches: branches, Metadata: sopslib.Metadata{
		KeyGroups: []sopslib.KeyGroup{recipients}, UnencryptedSuffix: "_unencrypted", Version: "3.13.3",
	}}
	if change != nil {
		change(&tree.Metadata)
	}
	key, errs := tree.GenerateDataKey()
	if len(errs) > 0 {
		t.Fatal(errs)
	}
	return seal(t, store, &tree, key)
}

func seal(t *testing.T, store common.Store, tree *sopslib.Tree, key []byte) []byte {
	t.Helper()
	cipher := aes.NewCipher()
	mac, err := tree.Encrypt(key, cipher)
	if err != nil {
		t.Fatal(err)
	}
	tree.Metadata.LastModified = time.Now().UTC()
	tree.Metadata.MessageAuthenticationCode, err = cipher.Encrypt(mac, key, tree.Metadata.LastModified.Format(time.RFC3339))
	if err != nil {
		t.Fatal(err)
	}
	out, err := store.EmitEncryptedFile(*tree)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// onlyData is how manifests are encrypted.
func onlyData(m *sopslib.Metadata) {
	m.UnencryptedSuffix, m.EncryptedRegex = "", "^(data|stringData)$"
}

func forAge(t *testing.T, recipient string) keys.MasterKey {
	t.Helper()
	k, err := sopsage.MasterKeyFromRecipient(recipient)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func ageKey(t *testing.T) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func hybridKey(t *testing.T) *age.HybridIdentity {
	t.Helper()
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func decrypterWith(t *testing.T, ring *Ring, entries map[string]string) *Decrypter {
	t.Helper()
	data := map[string][]byte{}
	for k, v := range entries {
		data[k] = []byte(v)
	}
	parsed, err := ParseKeys("Secret/flux-system/keys", t.Name(), data, Cloud{})
	if err != nil {
		t.Fatal(err)
	}
	return ring.Decrypter(parsed, nil)
}

func newRing(t *testing.T) *Ring { t.Helper(); return NewRing(t.Context(), Options{}) }

func parse(t *testing.T, manifest []byte) *unstructured.Unstructured {
	t.Helper()
	u := &unstructured.Unstructured{}
	data, err := yaml.YAMLToJSON(manifest)
	if err != nil {
		t.Fatal(err)
	}
	if err := u.UnmarshalJSON(data); err != nil {
		t.Fatal(err)
	}
	return u
}

const secretManifest = `apiVersion: v1
kind: Secret
metadata:
  name: db
  namespace: apps
stringData:
  password: hunter2-correct-horse
  port: "5432"
`

func TestManifest(t *testing.T) {
	classic, hybrid, other := ageKey(t), hybridKey(t), ageKey(t)
	tests := []struct {
		name, reason string
		entries      map[string]string
		recipients   []string
		change       func(*unstructured.Unstructured)
	}{
		{"classic", "an X25519 key", map[string]string{"a.agekey": classic.String()}, []string{classic.Recipient().String()}, nil},
		{"post-quantum", "an ML-KEM-768 X25519 key", map[string]string{"a.agekey": hybrid.String()}, []string{hybrid.Recipient().String()}, nil},
		{"one of many", "any recipient can decrypt", map[string]string{"a.agekey": classic.String()}, []string{other.Recipient().String(), classic.Recipient().String()}, nil},
		{"many keys", "any key at hand may fit", map[string]string{"a.agekey": "# comment\n" + other.String() + "\n" + classic.String() + "\n", "b.agekey": hybrid.String()}, []string{classic.Recipient().String()}, nil},
		{"changed by kustomize", "namespace and labels change before decryption", map[string]string{"a.agekey": classic.String()}, []string{classic.Recipient().String()},
			func(u *unstructured.Unstructured) {
				u.SetNamespace("elsewhere")
				u.SetLabels(map[string]string{"team": "blue"})
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var to []keys.MasterKey
			for _, r := range tt.recipients {
				to = append(to, forAge(t, r))
			}
			u := parse(t, encrypt(t, formats.Yaml, secretManifest, onlyData, to...))
			if tt.change != nil {
				tt.change(u)
			}
			namespace := u.GetNamespace()
			changed, err := decrypterWith(t, newRing(t), tt.entries).Object(t.Context(), u)
			if err != nil || !changed {
				t.Fatalf("%s: changed %t, %v", tt.reason, changed, err)
			}
			got, _, _ := unstructured.NestedStringMap(u.Object, "stringData")
			if got["password"] != "hunter2-correct-horse" || got["port"] != "5432" {
				t.Errorf("%s: stringData %v", tt.reason, got)
			}
			if _, there := u.Object["sops"]; there || u.GetNamespace() != namespace {
				t.Errorf("%s: left %v", tt.reason, u.Object)
			}
		})
	}
}

func TestValues(t *testing.T) {
	key := ageKey(t)
	to := forAge(t, key.Recipient().String())
	tests := []struct {
		name, reason, field, want string
		format                    formats.Format
		plain                     string
	}{
		{"yaml", "the field's ending says the form", "config.yaml", "a: secret-value\n", formats.Yaml, "a: secret-value\n"},
		{"json", "", "config.json", "{\"a\":\"secret-value\"}", formats.Json, `{"a":"secret-value"}`},
		{"dotenv", "", "app.env", "A=secret-value\n", formats.Dotenv, "A=secret-value\n"},
		{"ini", "", "app.ini", "[db]\na = secret-value\n", formats.Ini, "[db]\na = secret-value\n"},
		{"binary", "a field without an ending", "token", "\x00\x01secret-value", formats.Binary, "\x00\x01secret-value"},
		{"pull secret", "its key says JSON", ".dockerconfigjson", "{\"auths\":{}}", formats.Json, `{"auths":{}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := base64.StdEncoding.EncodeToString(encrypt(t, tt.format, tt.plain, nil, to))
			u := parse(t, []byte("apiVersion: v1\nkind: Secret\nmetadata:\n  name: x\ndata:\n  plain: cGxhaW4=\n  "+tt.field+": "+text+"\n"))
			changed, err := decrypterWith(t, newRing(t), map[string]string{"k.agekey": key.String()}).Object(t.Context(), u)
			if err != nil || !changed {
				t.Fatalf("%s: changed %t, %v", tt.reason, changed, err)
			}
			data, _, _ := unstructured.NestedStringMap(u.Object, "data")
			got, err := base64.StdEncoding.DecodeString(data[tt.field])
			if err != nil || strings.Join(strings.Fields(string(got)), "") != strings.Join(strings.Fields(tt.want), "") {
				t.Errorf("%s: %q, want %q (%v)", tt.reason, got, tt.want, err)
			}
			if data["plain"] != "cGxhaW4=" {
				t.Errorf("the plain field is now %q", data["plain"])
			}
		})
	}
}

func TestFile(t *testing.T) {
	key := ageKey(t)
	to := forAge(t, key.Recipient().String())
	tests := []struct {
		name, reason, as string
		env              bool
		format           formats.Format
		plain            string
	}{
		{"env", "the ending says dotenv", "secrets.env", true, formats.Dotenv, "A=secret-value\n"},
		{"env without ending", "it is dotenv where an env file is named", "secrets", true, formats.Dotenv, "A=secret-value\n"},
		{"yaml", "", "values.yaml", false, formats.Yaml, "a: secret-value\n"},
		{"json", "", "values.json", false, formats.Json, "{\"a\":\"secret-value\"}"},
		{"ini", "", "values.ini", false, formats.Ini, "[x]\na = secret-value\n"},
		{"binary", "", "key.pem", false, formats.Binary, "\x7fELF secret-value"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data := encrypt(t, tt.format, tt.plain, nil, to)
			d := decrypterWith(t, newRing(t), map[string]string{"k.agekey": key.String()})
			got, err := d.File(t.Context(), build.EncryptedFile{Name: "apps/" + tt.as, As: tt.as, Env: tt.env, Data: data})
			if err != nil {
				t.Fatalf("%s: %v", tt.reason, err)
			}
			if squeeze(string(got)) != squeeze(tt.plain) {
				t.Errorf("%s: %q, want %q", tt.reason, got, tt.plain)
			}
			again, err := d.File(context.Background(), build.EncryptedFile{Name: tt.as, As: tt.as, Env: tt.env, Data: []byte(tt.plain)})
			if err != nil || string(again) != tt.plain {
				t.Errorf("a plain file became %q (%v)", again, err)
			}
		})
	}
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), "") }

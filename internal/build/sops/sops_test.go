package sops

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"

	"filippo.io/age"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/testkit/sealtest"
)

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
	parsed, err := ring.Open("Secret/flux-system/keys", t.Name(), data, Cloud{})
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
			u := parse(t, sealtest.Seal(t, secretManifest, sealtest.Sealing{Only: sealtest.ManifestFields, Groups: sealtest.ForAge(t, tt.recipients...)}))
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
	to := sealtest.ForAge(t, key.Recipient().String())
	tests := []struct {
		name, reason, field, want string
		format                    string
		plain                     string
	}{
		{"yaml", "the field's ending says the form", "config.yaml", "a: secret-value\n", "yaml", "a: secret-value\n"},
		{"json", "", "config.json", "{\"a\":\"secret-value\"}", "json", `{"a":"secret-value"}`},
		{"dotenv", "", "app.env", "A=secret-value\n", "dotenv", "A=secret-value\n"},
		{"ini", "", "app.ini", "[db]\na = secret-value\n", "ini", "[db]\na = secret-value\n"},
		{"binary", "a field without an ending", "token", "\x00\x01secret-value", "binary", "\x00\x01secret-value"},
		{"pull secret", "its key says JSON", ".dockerconfigjson", "{\"auths\":{}}", "json", `{"auths":{}}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := base64.StdEncoding.EncodeToString(sealtest.Seal(t, tt.plain, sealtest.Sealing{Format: tt.format, Groups: to}))
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
	to := sealtest.ForAge(t, key.Recipient().String())
	tests := []struct {
		name, reason, as string
		env              bool
		format           string
		plain            string
	}{
		{"env", "the ending says dotenv", "secrets.env", true, "dotenv", "A=secret-value\n"},
		{"env without ending", "it is dotenv where an env file is named", "secrets", true, "dotenv", "A=secret-value\n"},
		{"yaml", "", "values.yaml", false, "yaml", "a: secret-value\n"},
		{"json", "", "values.json", false, "json", "{\"a\":\"secret-value\"}"},
		{"ini", "", "values.ini", false, "ini", "[x]\na = secret-value\n"},
		{"binary", "", "key.pem", false, "binary", "\x7fELF secret-value"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data := sealtest.Seal(t, tt.plain, sealtest.Sealing{Format: tt.format, Groups: to})
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

package cli_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/ProtonMail/go-crypto/openpgp"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/getsops/sops/v3/keys"

	"github.com/bowline-dev/bowline/internal/testkit/sealtest"
)

// scene is one use of secrets.
type scene struct {
	name, reason string
	files        map[string]string
	keys         map[string]string // nil: nothing is decrypted
	postBuild    *kustomizev1.PostBuild
	// delivers maps objects, as KIND/NAME, to the plain text that they hold.
	delivers map[string]string
	// fails is what the condition says; empty when the scene goes well.
	fails string
	// later are files of a second commit, after which the condition says thenFails.
	later     map[string]string
	thenFails string
	// next are files of a branch that is compared with what runs.
	next map[string]string
	// plain are the texts that nobody may read.
	plain []string
}

// texts are those of all scenes.
func texts(scenes []scene) []string {
	var all []string
	for _, s := range scenes {
		all = append(all, s.plain...)
	}
	return all
}

// forms are the ways in which a text could have been written.
func forms(text string) []string {
	out := []string{text, hex.EncodeToString([]byte(text)), strings.ToUpper(hex.EncodeToString([]byte(text))), url.QueryEscape(text), url.PathEscape(text)}
	// In base64, what stands before moves the text by up to two bytes; only whole
	// groups of it are the same wherever it stands.
	for shift := range 3 {
		padded := append(make([]byte, shift), text...)
		first := (shift + 2) / 3 * 4
		for _, encoding := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			whole := encoding.EncodeToString(padded[:len(padded)/3*3])
			out = append(out, whole[first:])
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// find returns where one of the texts is, in any form.
func find(places map[string][]byte, texts []string) []string {
	var found []string
	for _, place := range slices.Sorted(maps.Keys(places)) {
		for _, text := range texts {
			for _, form := range forms(text) {
				if i := bytes.Index(places[place], []byte(form)); i >= 0 {
					found = append(found, fmt.Sprintf("%s: %q as %q, in %q", place, text, form, places[place][max(0, i-80):min(len(places[place]), i+len(form)+20)]))
					break
				}
			}
		}
	}
	return found
}

// secrecy makes the secrets of a test.
type secrecy struct {
	*testing.T
	key     *age.X25519Identity
	hybrid  *age.HybridIdentity
	openpgp *openpgp.Entity
}

// token is a text that is nowhere else, with characters that are escaped in URLs.
func token(name string) string {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // never fails
	return "pl@in/" + name + "+" + hex.EncodeToString(b)
}

func (s *secrecy) entries() map[string]string {
	return map[string]string{"id.agekey": s.key.String()}
}

func (s *secrecy) seal(format, only, plain string, groups ...[]keys.MasterKey) string {
	s.Helper()
	if groups == nil {
		groups = sealtest.ForAge(s, s.key.Recipient().String())
	}
	return string(sealtest.Seal(s, plain, sealtest.Sealing{Format: format, Only: only, Groups: groups}))
}

func (s *secrecy) manifest(plain string, groups ...[]keys.MasterKey) string {
	s.Helper()
	return s.seal("yaml", sealtest.ManifestFields, plain, groups...)
}

func secretOf(name, field, password, more string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata:\n  name: %s\n%s:\n  password: %q\n%s", name, field, password, more)
}

func newScenes(t *testing.T) []scene {
	t.Helper()
	s := &secrecy{T: t}
	var err error
	if s.key, err = age.GenerateX25519Identity(); err != nil {
		t.Fatal(err)
	}
	if s.hybrid, err = age.GenerateHybridIdentity(); err != nil {
		t.Fatal(err)
	}
	if s.openpgp, err = openpgp.NewEntity("fleet", "", "fleet@example.com", nil); err != nil {
		t.Fatal(err)
	}
	return slices.Concat(s.wholeScenes(), s.fileScenes(), s.failingScenes(), s.refusedScenes())
}

func (s *secrecy) wholeScenes() []scene {
	whole, next, hybrid, pgp, config, nextConfig, variable := token("whole"), token("next"), token("hybrid"), token("openpgp"), token("config"), token("next-config"), token("variable")
	configMap := func(text string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: config-map\ndata:\n  text: %q\n", text)
	}
	return []scene{
		{name: "whole", reason: "a manifest, for age", keys: s.entries(), plain: []string{whole, next},
			files: map[string]string{"s.yaml": s.manifest(secretOf("whole", "stringData", whole, ""))}, delivers: map[string]string{"Secret/whole": whole},
			next: map[string]string{"s.yaml": s.manifest(secretOf("whole", "stringData", next, ""))}},
		{name: "hybrid", reason: "a manifest, for a post-quantum key", keys: map[string]string{"id.agekey": s.hybrid.String()}, plain: []string{hybrid},
			files:    map[string]string{"s.yaml": s.manifest(secretOf("hybrid", "stringData", hybrid, ""), sealtest.ForAge(s, s.hybrid.Recipient().String())...)},
			delivers: map[string]string{"Secret/hybrid": hybrid}},
		{name: "openpgp", reason: "a manifest, for OpenPGP", keys: map[string]string{"key.asc": sealtest.ArmouredKey(s, s.openpgp)}, plain: []string{pgp},
			files:    map[string]string{"s.yaml": s.manifest(secretOf("openpgp", "stringData", pgp, ""), sealtest.ForOpenPGP(s, s.openpgp)...)},
			delivers: map[string]string{"Secret/openpgp": pgp}},
		{name: "config-map", reason: "an encrypted object that is no Secret", keys: s.entries(), plain: []string{config, nextConfig},
			files: map[string]string{"c.yaml": s.manifest(configMap(config))}, delivers: map[string]string{"ConfigMap/config-map": config},
			next: map[string]string{"c.yaml": s.manifest(configMap(nextConfig))}},
		{name: "values", reason: "a variable of a decrypted Secret in another", keys: s.entries(), plain: []string{variable},
			files: map[string]string{"s.yaml": s.manifest(secretOf("values", "stringData", variable, ""))}, delivers: map[string]string{"Secret/values": variable}},
		{name: "values-used", reason: "it waits for the Secret that another delivers", delivers: map[string]string{"Secret/values-used": variable},
			files:     map[string]string{"s.yaml": secretOf("values-used", "stringData", "${password}", "")},
			postBuild: &kustomizev1.PostBuild{SubstituteFrom: []kustomizev1.SubstituteReference{{Kind: "Secret", Name: "values"}}}},
	}
}

const generator = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
generatorOptions: {disableNameSuffixHash: true}
resources: [base.yaml]
secretGenerator:
- name: generated
  envs: [a.env]
  files: [b.json, c.yaml, d.ini, renamed=e.bin]
patches:
- path: patch.yaml
`

func (s *secrecy) fileScenes() []scene {
	env, js, yml, ini, bin, patch, field := token("env"), token("json"), token("yaml"), token("ini"), token("binary"), token("patch"), token("field")
	doc := base64.StdEncoding.EncodeToString([]byte(s.seal("binary", "", field)))
	return []scene{
		{name: "files", reason: "files of a generator, and a patch", keys: s.entries(), plain: []string{env, js, yml, ini, bin, patch},
			files: map[string]string{
				"kustomization.yaml": generator, "base.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: patched\ndata: {}\n",
				"a.env": s.seal("dotenv", "", "TOKEN="+env+"\n"), "b.json": s.seal("json", "", fmt.Sprintf(`{"token":%q}`, js)),
				"c.yaml": s.seal("yaml", "", fmt.Sprintf("token: %q\n", yml)), "d.ini": s.seal("ini", "", "[x]\ntoken = "+ini+"\n"),
				"e.bin":      s.seal("binary", "", "\x00\x01"+bin),
				"patch.yaml": s.manifest(fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: patched\ndata:\n  text: %q\n", patch)),
			},
			delivers: map[string]string{"ConfigMap/patched": patch, "Secret/generated": bin}},
		{name: "field", reason: "a value of a Secret that is an encrypted file", keys: s.entries(), plain: []string{field},
			files:    map[string]string{"s.yaml": "apiVersion: v1\nkind: Secret\nmetadata:\n  name: field\ndata:\n  password: " + doc + "\n"},
			delivers: map[string]string{"Secret/field": field}},
	}
}

// failingScenes fail in the build.
func (s *secrecy) failingScenes() []scene {
	theirs, err := age.GenerateX25519Identity()
	if err != nil {
		s.Fatal(err)
	}
	wrong, mac, open, substitute, patch := token("wrong-key"), token("bad-mac"), token("not-decrypted"), token("substitute"), token("bad-patch")
	const generated = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nsecretGenerator:\n- name: x\n  envs: [a.env]\n"
	sealed := s.seal("dotenv", "", "A=first\nTOKEN="+mac+"\n")
	return []scene{
		{name: "wrong-key", reason: "it is for somebody else", keys: map[string]string{"id.agekey": theirs.String()}, plain: []string{wrong, theirs.String()},
			files: map[string]string{"s.yaml": s.manifest(secretOf("x", "stringData", wrong, ""))}, fails: "it is encrypted for age " + s.key.Recipient().String()},
		{name: "bad-mac", reason: "a line was taken out", keys: s.entries(), plain: []string{mac}, fails: "its MAC does not match",
			files: map[string]string{"kustomization.yaml": generated, "a.env": regexp.MustCompile(`(?m)^A=.*\n`).ReplaceAllString(sealed, "")}},
		{name: "not-decrypted", reason: "nobody asked for decryption", plain: []string{open}, fails: "set spec.decryption",
			files: map[string]string{"s.yaml": s.manifest(secretOf("x", "stringData", open, ""))}},
		{name: "substitute", reason: "a secret that is no valid template", keys: s.entries(), plain: []string{substitute}, fails: "Secret/",
			files:     map[string]string{"s.yaml": s.manifest(secretOf("x", "stringData", substitute+"${"+substitute, ""))},
			postBuild: &kustomizev1.PostBuild{Substitute: map[string]string{"a": "b"}}},
		{name: "bad-patch", reason: "a secret patch that kustomize does not understand", keys: s.entries(), plain: []string{patch}, fails: "kustomization.yaml",
			files: map[string]string{
				"kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [base.yaml]\npatches:\n- path: patch.yaml\n  target: {kind: ConfigMap}\n",
				"base.yaml":          "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: x\n",
				"patch.yaml":         s.seal("yaml", "", fmt.Sprintf("%s: %q\n", "nonsense", patch)),
			}},
		{name: "no-key", reason: "the entry is no key", keys: map[string]string{"id.agekey": "AGE-SECRET-KEY-1" + "PLAINTEXTNOKEY"}, plain: []string{"PLAINTEXTNOKEY"},
			files: map[string]string{"s.yaml": s.manifest(secretOf("x", "stringData", "x", ""))}, fails: "(id.agekey)"},
	}
}

// refusedScenes fail at the API server, which quotes.
func (s *secrecy) refusedScenes() []scene {
	encoding, kind, before, after, address := token("encoding"), token("type"), token("immutable"), token("immutable-changed"), token("address")
	service := fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata:\n  name: refused\nspec:\n  clusterIP: %q\n  ports:\n  - port: 80\n", address)
	return []scene{
		{name: "encoding", reason: "data that is no base64", keys: s.entries(), plain: []string{encoding}, fails: "Secret/",
			files: map[string]string{"s.yaml": s.manifest(secretOf("encoding", "data", encoding, ""))}},
		{name: "tls", reason: "a type that wants other keys", keys: s.entries(), plain: []string{kind}, fails: "tls.crt",
			files: map[string]string{"s.yaml": s.manifest(secretOf("tls", "stringData", kind, "type: kubernetes.io/tls\n"))}},
		{name: "immutable", reason: "a Secret that may not change", keys: s.entries(), plain: []string{before, after},
			files: map[string]string{"s.yaml": s.manifest(secretOf("immutable", "stringData", before, "immutable: true\n"))},
			later: map[string]string{"s.yaml": s.manifest(secretOf("immutable", "stringData", after, "immutable: true\n"))}, thenFails: "immutable",
			delivers: map[string]string{"Secret/immutable": before}},
		{name: "service", reason: "an encrypted object that is no Secret, and invalid", keys: s.entries(), plain: []string{address}, fails: "clusterIP",
			files: map[string]string{"s.yaml": s.seal("yaml", "^clusterIP$", service)}},
	}
}

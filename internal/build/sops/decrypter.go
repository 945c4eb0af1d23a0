package sops

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/getsops/sops/v3/cmd/sops/formats"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/build"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
)

// Decrypter decrypts with one set of keys, for one unit. It is not safe for
// concurrent use.
type Decrypter struct {
	ring *Ring
	keys *Keys
	wake func()
	told concealed
	// manifests are those that were encrypted as a whole.
	manifests map[object.ID]bool
}

var _ build.Decrypter = (*Decrypter)(nil)

// Decrypter returns one with these keys. wake is called, from any goroutine, when a
// key service answered that a build did not wait for; it may be nil.
func (r *Ring) Decrypter(keys *Keys, wake func()) *Decrypter {
	d := &Decrypter{ring: r, keys: keys, wake: wake, manifests: map[object.ID]bool{}}
	for _, s := range keys.secrets {
		d.told.add(s)
	}
	return d
}

// mark is what the toolkit looks for to know an encrypted file of a form.
type mark struct {
	format formats.Format
	texts  [][]byte
}

// marks are those of all forms. That of INI files is weak by itself.
var marks = []mark{
	{formats.Json, [][]byte{[]byte(`"mac": "ENC[`)}},
	{formats.Yaml, [][]byte{[]byte(`mac: ENC[`)}},
	{formats.Dotenv, [][]byte{[]byte(`sops_mac=ENC[`)}},
	{formats.Ini, [][]byte{[]byte(`[sops]`), []byte(`ENC[`)}},
}

func (m mark) in(data []byte) bool {
	return !slices.ContainsFunc(m.texts, func(t []byte) bool { return !bytes.Contains(data, t) })
}

// marked reports whether data looks encrypted in a format.
func marked(data []byte, f formats.Format) bool {
	if f == formats.Binary {
		f = formats.Json // an envelope of JSON
	}
	return slices.ContainsFunc(marks, func(m mark) bool { return m.format == f && m.in(data) })
}

// dockerConfig ends the key under which pull secrets hold JSON.
const dockerConfig = ".dockerconfigjson"

func formatOf(name string) formats.Format {
	if strings.HasSuffix(name, dockerConfig) {
		return formats.Json
	}
	return formats.FormatForPath(name)
}

// File implements build.Decrypter.
func (d *Decrypter) File(ctx context.Context, f build.EncryptedFile) ([]byte, error) {
	format := formatOf(f.As)
	if f.Env && format == formats.Binary {
		format = formats.Dotenv
	}
	if !marked(f.Data, format) {
		return f.Data, nil
	}
	plain, err := d.document(ctx, document{data: f.Data, in: format, out: format, whole: true})
	if err != nil {
		return nil, d.failed(f.Name, err)
	}
	return plain, nil
}

// Object implements build.Decrypter.
func (d *Decrypter) Object(ctx context.Context, u *unstructured.Unstructured) (bool, error) {
	if section, ok := u.Object["sops"].(map[string]any); ok && section["mac"] != nil {
		return true, d.manifest(ctx, u)
	}
	if u.GetKind() == "Secret" {
		return d.values(ctx, u)
	}
	return false, nil
}

// manifest decrypts an object that is encrypted as a whole. kustomize may have
// changed what is not encrypted of it, such as its namespace, and the order of its
// fields; so nothing but the encrypted values, each bound to its place, is vouched for.
func (d *Decrypter) manifest(ctx context.Context, u *unstructured.Unstructured) error {
	name := object.IDOf(u).String()
	data, err := json.Marshal(u.Object)
	if err != nil {
		return d.failed(name, errMalformed)
	}
	plain, err := d.document(ctx, document{data: data, in: formats.Json, out: formats.Json})
	if err != nil {
		return d.failed(name, err)
	}
	var next unstructured.Unstructured
	if err := next.UnmarshalJSON(plain); err != nil {
		return d.failed(name, errNoObject)
	}
	u.Object = next.Object
	d.manifests[object.IDOf(u)] = true
	return nil
}

// values decrypts the values of a Secret that are encrypted files.
func (d *Decrypter) values(ctx context.Context, u *unstructured.Unstructured) (changed bool, err error) {
	data, _ := u.Object["data"].(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(data)) {
		text, _ := data[key].(string)
		value, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			continue // the API server says what is wrong with it
		}
		in := slices.IndexFunc(marks, func(m mark) bool { return m.in(value) })
		if in < 0 {
			continue
		}
		plain, err := d.document(ctx, document{data: value, in: marks[in].format, out: formatOf(key), whole: true})
		if err != nil {
			return changed, d.failed(fmt.Sprintf("%s (data.%s)", object.IDOf(u), key), err)
		}
		data[key] = base64.StdEncoding.EncodeToString(plain)
		changed = true
	}
	return changed, nil
}

// failed gives a failure its place, and the remedy that fits it.
func (d *Decrypter) failed(where string, err error) error {
	f := &failure.Error{Op: "decrypt", Kind: failure.Invalid, Object: where, Err: err}
	var known *reason
	if errors.As(err, &known) {
		f.Kind, f.Remedy = orInvalid(known.kind), known.remedy
	}
	return d.Conceal(f)
}

func orInvalid(k failure.Kind) failure.Kind {
	if k == "" {
		return failure.Invalid
	}
	return k
}

package helm

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/chartutil"
	"github.com/opencontainers/go-digest"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chartv2 "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	release "helm.sh/helm/v4/pkg/release/v1"
	"helm.sh/helm/v4/pkg/strvals"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Values are what is given to a chart. They never change.
type Values struct {
	values map[string]any
	// secrets are the texts in them that come from Secrets.
	secrets []string
}

// Of returns values that are there already. They must not be changed any more.
func Of(values map[string]any) Values { return Values{values: values} }

// Secrets returns the texts among the values that no message may hold.
func (v Values) Secrets() []string { return v.secrets }

// Beyond returns the texts in what a release keeps that these values do not hold: what was kept
// of a release before. Whether that came from a Secret nobody knows any more.
func (v Values) Beyond(config map[string]any) []string {
	own := map[string]bool{}
	for _, text := range textsOf(v.values, nil) {
		own[text] = true
	}
	return slices.DeleteFunc(textsOf(config, nil), func(text string) bool { return own[text] })
}

func (v Values) copied() map[string]any {
	if v.values == nil {
		return map[string]any{}
	}
	return copied(v.values).(map[string]any)
}

// copied returns a value without anything that is shared with the given one.
func copied(value any) any {
	switch value := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(value))
		for k, v := range value {
			out[k] = copied(v)
		}
		return out
	case []any:
		out := make([]any, len(value))
		for i, v := range value {
			out[i] = copied(v)
		}
		return out
	default:
		return value
	}
}

// Digest returns the digest that the toolkit keeps in status.lastAttemptedConfigDigest and as
// configDigest of the history: SHA-256 of the values as YAML with sorted keys. It
// cannot be read back.
func (v Values) Digest() string { return chartutil.DigestValues(digest.SHA256, v.values).String() }

// ReadValues merges values as spec.valuesFrom and spec.values of a HelmRelease in
// namespace do, which must hold what JSON holds: the referenced ones in their order, and over them the
// inline ones. A reference with a targetPath also overrides what is inline, where it sets
// a value inside of a table that is inline. The reader is asked once for each object.
//
// Errors name the field, the object and the key, and no value. They are of kind NotFound
// for a ConfigMap, a Secret or a key that is not there, Invalid for one that holds no
// values, and else what reader failed with.
func ReadValues(ctx context.Context, reader client.Reader, namespace string, inline map[string]any, refs []meta.ValuesReference) (Values, error) {
	m := merging{
		ctx: ctx, reader: reader, namespace: namespace, read: map[string]map[string][]byte{},
		inline: Of(inline).copied(), values: map[string]any{},
	}
	for i, ref := range refs {
		if err := m.add(fmt.Sprintf("spec.valuesFrom[%d]", i), ref); err != nil {
			return Values{}, err
		}
	}
	slices.Sort(m.secrets)
	return Values{values: loader.MergeMaps(m.values, m.inline), secrets: slices.Compact(m.secrets)}, nil
}

// merging is one ReadValues.
type merging struct {
	ctx       context.Context
	reader    client.Reader
	namespace string
	// read holds the data of each object; nil of one that is not there.
	read    map[string]map[string][]byte
	inline  map[string]any
	values  map[string]any
	secrets []string
}

// The kinds that hold values.
const (
	kindConfigMap = "ConfigMap"
	kindSecret    = "Secret"
)

// add merges what one reference holds.
func (m *merging) add(field string, ref meta.ValuesReference) error {
	what := ref.Kind + "/" + m.namespace + "/" + ref.Name
	fail := func(kind failure.Kind, err error, remedy string) error {
		return &failure.Error{Op: "read the values of", Kind: kind, Object: field, Err: err, Remedy: remedy}
	}
	data, err := m.dataOf(what, ref)
	if err != nil {
		return fmt.Errorf("%s: %w", field, err)
	}
	key := ref.GetValuesKey()
	text, found := data[key]
	if !found {
		switch {
		case ref.Optional:
			return nil
		case data == nil:
			return fail(failure.NotFound, fmt.Errorf("%s does not exist", what), "create it, correct "+field+", or set its optional: true")
		default:
			return fail(failure.NotFound, fmt.Errorf("%s has no key %q", what, key), "add the key, correct "+field+".valuesKey, or set its optional: true")
		}
	}
	if ref.TargetPath != "" {
		if ref.Kind == kindSecret {
			alone := map[string]any{}
			_ = setAt(alone, ref.TargetPath, string(text), ref.Literal) // told below
			m.secrets = textsOf(alone, append(m.secrets, string(text))) // without its quotes, and in its parts
		}
		// The tables that the merge takes over from the inline values stay theirs, so that
		// what is set in them is set in both and wins in the end; what is set elsewhere
		// loses against an inline value. That is the toolkit's way, and its digest.
		m.values = loader.MergeMaps(m.values, m.inline)
		if err := setAt(m.values, ref.TargetPath, string(text), ref.Literal); err != nil {
			// What the parser says quotes the value.
			return fail(failure.Invalid, fmt.Errorf("%s, key %q, cannot be set at %q", what, key, ref.TargetPath),
				"correct "+field+".targetPath, or set its literal: true")
		}
		return nil
	}
	var values map[string]any
	if err := yaml.Unmarshal(text, &values); err != nil {
		return fail(failure.Invalid, fmt.Errorf("%s, key %q, is not a YAML document of values%s", what, key, lineOf(err)), "correct it")
	}
	if ref.Kind == kindSecret {
		m.secrets = textsOf(values, m.secrets)
	}
	m.values = loader.MergeMaps(m.values, values)
	return nil
}

// dataOf returns what the object holds, and nil where it is not there.
func (m *merging) dataOf(what string, ref meta.ValuesReference) (map[string][]byte, error) {
	if data, known := m.read[what]; known {
		return data, nil
	}
	key := types.NamespacedName{Namespace: m.namespace, Name: ref.Name}
	data := map[string][]byte{}
	var err error
	switch ref.Kind {
	case kindSecret:
		var s corev1.Secret
		err = m.reader.Get(m.ctx, key, &s)
		for k, v := range s.Data {
			data[k] = v
		}
	case kindConfigMap:
		var c corev1.ConfigMap
		err = m.reader.Get(m.ctx, key, &c)
		for k, v := range c.Data {
			data[k] = []byte(v)
		}
	default:
		return nil, &failure.Error{Op: "read values from", Kind: failure.Invalid, Object: what,
			Err: errors.New("values are in objects of kind ConfigMap or Secret"), Remedy: "correct its kind"}
	}
	if apierrors.IsNotFound(err) || errors.Is(err, failure.Of(failure.NotFound)) {
		data, err = nil, nil
	}
	if err != nil {
		if failure.KindOf(err) == "" {
			err = &failure.Error{Op: "read", Kind: kindOf(err), Object: what, Err: err}
		}
		return nil, err
	}
	m.read[what] = data
	return data, nil
}

// setAt sets a value at a path of the form that "helm --set" has: quoted it is a
// string, and otherwise what Helm makes of it, unless it is to be taken to the letter.
func setAt(values map[string]any, path, value string, literal bool) error {
	if literal {
		// The parser that takes a value to the letter knows no escapes in paths.
		value = strings.NewReplacer(`\`, `\\`, `,`, `\,`, `[`, `\[`, `]`, `\]`, `{`, `\{`, `}`, `\}`).Replace(value)
		return strvals.ParseIntoString(path+"="+value, values)
	}
	for _, quote := range []string{"'", `"`} {
		if strings.HasPrefix(value, quote) && strings.HasSuffix(value, quote) {
			return strvals.ParseIntoString(path+"="+strings.Trim(value, `'"`), values)
		}
	}
	return strvals.ParseInto(path+"="+value, values)
}

// textsOf appends every text and number in value that may be a secret.
func textsOf(value any, texts []string) []string {
	switch value := value.(type) {
	case map[string]any:
		for _, v := range value {
			texts = textsOf(v, texts)
		}
	case []any:
		for _, v := range value {
			texts = textsOf(v, texts)
		}
	case nil, bool:
	default:
		texts = append(texts, fmt.Sprint(value))
	}
	return texts
}

// reuse keeps the values of a release, and those of its chart, below config, as
// "helm upgrade --reuse-values" does.
func reuse(chart *chartv2.Chart, config map[string]any, old *release.Release) error {
	if old.Chart == nil {
		return errors.New("the release whose values are to be kept has no chart")
	}
	defaults, err := util.CoalesceValues(old.Chart, old.Config)
	if err != nil {
		return fmt.Errorf("the values of revision %d: %w", old.Version, err)
	}
	// Merging changes what is merged, and the release is the caller's.
	util.CoalesceTables(config, Of(old.Config).copied())
	chart.Values = defaults
	return nil
}

var yamlLine = regexp.MustCompile(`line \d+`)

// lineOf returns the line that a YAML parser names. The rest of what it says may quote
// the text.
func lineOf(err error) string {
	if line := yamlLine.FindString(err.Error()); line != "" {
		return ": " + line
	}
	return ""
}

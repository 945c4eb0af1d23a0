package object

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// lastApplied holds a whole object, secrets included.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// Redact returns u, or a copy in which no value of a Secret can be read: every
// value becomes "sha256:" and eight hexadecimal digits. The hash is keyed, so
// equal values show as equal under one key and cannot be guessed without it;
// use a random key per run. A value means the same in data and in stringData.
func Redact(u *unstructured.Unstructured, key []byte) *unstructured.Unstructured {
	if gvk := u.GroupVersionKind(); gvk.Kind != "Secret" || gvk.Group != "" {
		return u
	}
	return RedactAll(u, key)
}

// RedactAll does so with an object of any kind, for one that holds secrets all the same.
func RedactAll(u *unstructured.Unstructured, key []byte) *unstructured.Unstructured {
	secret := u.GetKind() == "Secret"
	out := make(map[string]any, len(u.Object))
	for field, value := range u.Object {
		switch field {
		case "apiVersion", "kind", "type", "immutable":
			out[field] = value
		case "metadata":
			out[field] = redactMetadata(value, key)
		case "data":
			out[field] = redactValues(value, key, secret)
		default:
			out[field] = redactValues(value, key, false)
		}
	}
	return &unstructured.Unstructured{Object: out}
}

func redactMetadata(value any, key []byte) any {
	meta, _ := value.(map[string]any)
	annotations, _ := meta["annotations"].(map[string]any)
	if applied, there := annotations[lastApplied]; there {
		return with(meta, "annotations", with(annotations, lastApplied, redactValue(applied, key, false)))
	}
	return value
}

func redactValues(value any, key []byte, encoded bool) any {
	values, ok := value.(map[string]any)
	if !ok {
		return redactValue(value, key, false)
	}
	out := make(map[string]any, len(values))
	for k, v := range values {
		out[k] = redactValue(v, key, encoded)
	}
	return out
}

func redactValue(value any, key []byte, encoded bool) any {
	if value == nil {
		return nil
	}
	text, ok := value.(string)
	if !ok {
		data, err := json.Marshal(value)
		if err != nil {
			return "sha256:?"
		}
		text = string(data)
	} else if encoded {
		if data, err := base64.StdEncoding.DecodeString(text); err == nil {
			text = string(data)
		}
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text))
	return "sha256:" + hex.EncodeToString(mac.Sum(nil)[:4])
}

package object

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// AppliedDigestAnnotation is the annotation in which an applied object carries
// its digest.
const AppliedDigestAnnotation = "fleet.bowline.dev/applied"

// Digest returns a short hash of u that stays the same between runs: of its
// JSON with sorted keys, without AppliedDigestAnnotation. The result has 22
// characters. It is not proof against somebody who seeks two objects of one
// digest on purpose with more than 2^64 attempts.
func Digest(u *unstructured.Unstructured) string {
	// The encoder sorts keys. It fails only for values that no decoder makes;
	// those are printed, so that their digest still tells them apart.
	var buf bytes.Buffer
	if err := json.NewEncoder(&buf).Encode(undigested(u.Object)); err != nil {
		buf.Reset()
		fmt.Fprintf(&buf, "%#v", u.Object)
	}
	sum := sha256.Sum256(buf.Bytes())
	return base64.RawURLEncoding.EncodeToString(sum[:16])
}

// undigested returns obj without AppliedDigestAnnotation; the annotations too
// are left out when it was the only one. What it changes it copies.
func undigested(obj map[string]any) map[string]any {
	meta, _ := obj["metadata"].(map[string]any)
	annotations, _ := meta["annotations"].(map[string]any)
	if _, there := annotations[AppliedDigestAnnotation]; !there {
		return obj
	}
	if len(annotations) == 1 {
		return with(obj, "metadata", without(meta, "annotations"))
	}
	return with(obj, "metadata", with(meta, "annotations", without(annotations, AppliedDigestAnnotation)))
}

func with(m map[string]any, key string, value any) map[string]any {
	out := without(m, key)
	out[key] = value
	return out
}

func without(m map[string]any, key string) map[string]any {
	out := make(map[string]any, len(m))
	for k, v := range m {
		if k != key {
			out[k] = v
		}
	}
	return out
}

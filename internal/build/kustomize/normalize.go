package kustomize

import (
	"encoding/base64"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// normalize takes out of u, in place, what an API server would not keep as it
// is sent, so that what is applied can be compared with what is there. As in the
// toolkit: no status, no creation timestamp, and the stringData of a Secret as
// data.
func normalize(u *unstructured.Unstructured) {
	delete(u.Object, "status")
	if meta, ok := u.Object["metadata"].(map[string]any); ok {
		delete(meta, "creationTimestamp")
	}
	if u.GetKind() == "Secret" && u.GetAPIVersion() == "v1" {
		encodeStringData(u.Object)
	}
}

// encodeStringData does what the API server does with stringData. Values that
// are no strings are left for the API server to refuse.
func encodeStringData(secret map[string]any) {
	plain, ok := secret["stringData"].(map[string]any)
	if !ok {
		return
	}
	data, ok := secret["data"].(map[string]any)
	if !ok && secret["data"] != nil {
		return
	}
	for _, v := range plain {
		if _, ok := v.(string); !ok {
			return
		}
	}
	if data == nil && len(plain) > 0 {
		data = make(map[string]any, len(plain))
		secret["data"] = data
	}
	for k, v := range plain {
		data[k] = base64.StdEncoding.EncodeToString([]byte(v.(string)))
	}
	delete(secret, "stringData")
}

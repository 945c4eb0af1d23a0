package object

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestRedact(t *testing.T) {
	u := parse(t, `
apiVersion: v1
kind: Secret
type: Opaque
immutable: true
metadata:
  name: s
  annotations: {note: shown, kubectl.kubernetes.io/last-applied-configuration: '{"stringData":{"a":"hunter2"}}'}
data: {a: aHVudGVyMg==, b: b3RoZXI=, bad: "hunter2!", none: null}
stringData: {a: hunter2, c: hunter3}
unknown: hunter2
`)
	before := u.DeepCopy()
	got := Redact(u, []byte("key"))
	text, err := json.Marshal(got.Object)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"hunter", "aHVudGVyMg", "b3RoZXI"} {
		if strings.Contains(string(text), secret) {
			t.Errorf("%q can be read in %s", secret, text)
		}
	}
	for _, shown := range []string{`"name":"s"`, `"note":"shown"`, `"type":"Opaque"`, `"immutable":true`, `"none":null`} {
		if !strings.Contains(string(text), shown) {
			t.Errorf("%s is missing in %s", shown, text)
		}
	}
	value := func(field, key string) string {
		s, _, err := unstructured.NestedString(got.Object, field, key)
		if err != nil {
			t.Error(err)
		}
		return s
	}
	if !regexp.MustCompile(`^sha256:[0-9a-f]{8}$`).MatchString(value("data", "a")) {
		t.Errorf("data.a shows as %q", value("data", "a"))
	}
	if value("data", "a") != value("stringData", "a") {
		t.Error("one value shows as two, in data and in stringData")
	}
	if value("data", "a") == value("data", "b") {
		t.Error("two values show as one")
	}
	if other, _, _ := unstructured.NestedString(Redact(u, []byte("another")).Object, "data", "a"); other == value("data", "a") {
		t.Error("the key makes no difference")
	}
	if Digest(u) != Digest(before) {
		t.Error("the object itself was changed")
	}
	cm := parse(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: hunter2}}")
	if Redact(cm, nil) != cm {
		t.Error("an object that is no Secret was copied")
	}
}

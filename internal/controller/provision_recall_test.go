package controller

import (
	"bytes"
	"crypto/rand"
	"maps"
	"testing"
)

// What is packed is unpacked as it was, and is always packed in the same way, because what differs is written.
func TestPack(t *testing.T) {
	files := map[string][]byte{"b.yaml": []byte("b: 1\n"), "a.yaml": []byte("a: ü\n")}
	packed, err := pack(files)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := pack(maps.Clone(files)); err != nil || again != packed {
		t.Errorf("it is packed as %q and then as %q, %v", packed, again, err)
	}
	got, err := unpack(packed)
	if err != nil || !maps.EqualFunc(got, files, bytes.Equal) {
		t.Errorf("unpacked it is %q, %v", got, err)
	}
	big := make([]byte, maxPacked)
	_, _ = rand.Read(big)
	if packed, err := pack(map[string][]byte{"big": big}); err != nil || packed != "" {
		t.Errorf("what is too long for an annotation has %d bytes, %v", len(packed), err)
	}
	for _, wrong := range []string{"?", "aGVsbG8="} {
		if _, err := unpack(wrong); err == nil {
			t.Errorf("%q can be unpacked", wrong)
		}
	}
}

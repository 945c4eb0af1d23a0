package shipped_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// testReadMes shows that the objects that the READMEs of templates have people make are taken, too.
func (h *hub) testReadMes(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(repository, "templates", "*", "README.md"))
	if err != nil || len(files) < 4 {
		t.Fatalf("found %v: %v", files, err)
	}
	seen, unjudged := map[string]bool{}, map[string]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range strings.Split(string(text), "```yaml\n")[1:] {
			block, _, _ = strings.Cut(block, "```")
			u := &unstructured.Unstructured{}
			if err := yaml.UnmarshalStrict([]byte(block), &u.Object); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			seen[u.GetKind()] = true
			if u.GetKind() == "Secret" {
				// It is the one field that an API server is meant to rewrite.
				delete(u.Object, "stringData")
			}
			if u.GetNamespace() != "" {
				u.SetNamespace(h.namespace)
			}
			wrong, why := h.judge(t.Context(), u)
			if why != "" {
				unjudged[why]++
			}
			for _, line := range wrong {
				t.Errorf("%s: %s/%s: %s", file, u.GetKind(), u.GetName(), line)
			}
		}
	}
	for _, kind := range []string{"AWSClusterRoleIdentity", "VSphereClusterIdentity", "Secret"} {
		if !seen[kind] {
			t.Errorf("no README shows %s", kind)
		}
	}
	if len(unjudged) > 0 {
		t.Skipf("SKIPPED: there were not judged %v", unjudged)
	}
}

package kustomize

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/build"
)

// both builds the folder with kustomize and, where that is allowed, without.
func both(t *testing.T, tree mapTree, dir string) (ours, theirs []*unstructured.Unstructured, errOurs, errTheirs error) {
	t.Helper()
	r := newReader(context.Background(), tree)
	rt, err := makeRoot(r, build.Recipe{Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	s := &survey{r: r, plain: true}
	if err := s.kustomization(place{dir: rt.dir, file: rt.file}, rt.kust); err != nil {
		return nil, nil, err, err
	}
	errOurs = errNotDirect
	if s.plain {
		ours, errOurs = direct(s)
	}
	theirs, errTheirs = runKrusty(context.Background(), s, rt)
	return ours, theirs, errOurs, errTheirs
}

func jsonOf(t *testing.T, objects []*unstructured.Unstructured) string {
	t.Helper()
	var b strings.Builder
	for _, u := range objects {
		data, err := json.Marshal(u.Object)
		if err != nil {
			t.Fatal(err)
		}
		b.Write(data)
		b.WriteByte('\n')
	}
	return b.String()
}

const configMap = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n"

func TestDirectIsKustomize(t *testing.T) {
	tests := []struct {
		name, reason string
		manifest     string
		direct       bool
		fails        bool
	}{
		{name: "quoted", reason: "quotes make strings", manifest: configMap + "data: {a: \"1\", b: 'true', c: \"null\", d: '2001-01-01'}\n", direct: true},
		{name: "words", reason: "YAML 1.1 booleans stay strings", manifest: configMap + "data: {a: yes, b: off, c: Y, d: n, y: no}\n", direct: true},
		{name: "numbers", reason: "plain numbers keep their kind", manifest: configMap + "x: {a: 1, b: -5, c: 0, d: 9223372036854775807, e: 0.5, f: 1.0, g: -2.25, h: 100.0}\n", direct: true},
		{name: "odd numbers", reason: "kustomize knows the other forms", manifest: configMap + "x: {a: 0x1F, b: 0o17, c: 017, d: 1_000, e: +5, f: 1e3, g: .5, h: 5., i: 1e400}\n"},
		{name: "octal", reason: "file modes are often octal", manifest: configMap + "x: {a: 0o17, b: 017, c: 1e3}\n"},
		{name: "big number", reason: "it does not fit an int64", manifest: configMap + "x: {a: 18446744073709551615, b: 1e21}\n"},
		{name: "infinity", reason: "JSON has none", manifest: configMap + "x: {a: .inf}\n", fails: true},
		{name: "booleans", reason: "all three spellings are booleans", manifest: configMap + "x: {a: true, b: False, c: TRUE}\n"},
		{name: "nulls", reason: "absent values stay null", manifest: configMap + "x:\n  a: null\n  b: ~\n  c:\n  d: [null, ~]\n", direct: true},
		{name: "empty in flow", reason: "kustomize makes an empty string of it", manifest: configMap + "x: {a: }\n"},
		{name: "blocks", reason: "block scalars keep line ends", manifest: configMap + "data:\n  a: |\n    x\n    y\n\n  b: |-\n    z\n  c: >\n    f\n    g\n  d: |+\n    keep\n\n", direct: true},
		{name: "last line", reason: "no line end at the end of the file", manifest: configMap + "data:\n  a: |\n    x", direct: true},
		{name: "windows", reason: "line ends of Windows are folded", manifest: strings.ReplaceAll(configMap+"data:\n  a: |\n    x\n    y\n", "\n", "\r\n"), direct: true},
		{name: "unicode", reason: "text is text", manifest: configMap + "data: {a: \"é☃\\u00e9\\n\\ttab\", b: 日本}\n", direct: true},
		{name: "html", reason: "JSON escapes do not stay", manifest: configMap + "data: {a: \"<a href='x'>&amp;</a>\"}\n", direct: true},
		{name: "timestamp", reason: "dates without quotes", manifest: configMap + "data: {a: 2001-01-01}\n"},
		{name: "timestamp with time", reason: "dates without quotes", manifest: configMap + "data: {a: 2001-12-14t21:59:43.10-05:00}\n"},
		{name: "tags", reason: "an explicit type", manifest: configMap + "data: {a: !!str 1, b: !!binary aGk=}\n"},
		{name: "anchors", reason: "repeated values", manifest: configMap + "x: &a {k: v}\ny: *a\n"},
		{name: "merge", reason: "merge keys", manifest: configMap + "x: &a {k: v}\ny: {<<: *a, z: 1}\n"},
		{name: "number keys", reason: "keys of JSON are strings", manifest: configMap + "data: {1: a}\n", fails: true},
		{name: "boolean keys", reason: "keys of JSON are strings", manifest: configMap + "data: {true: a}\n", fails: true},
		{name: "word keys", reason: "y and on are strings", manifest: configMap + "data: {y: a, on: b, no: c}\n", direct: true},
		{name: "comments", reason: "comments have no meaning", manifest: "# head\n---\n# more\n" + configMap + "# tail\ndata: # here\n  a: b # there\n", direct: true},
		{name: "documents", reason: "some are empty", manifest: "---\n---\n" + configMap + "---\n# nothing\n---\n\n--- # two\n" + strings.Replace(configMap, "name: c", "name: d", 1) + "...\n", direct: true},
		{name: "adjacent separators", reason: "kustomize splits by pattern", manifest: configMap + "---\n---\n" + strings.Replace(configMap, "name: c", "name: d", 1), direct: true},
		{name: "separator at the end", reason: "there is nothing after it", manifest: configMap + "---", direct: true},
		{name: "separator in a block", reason: "kustomize splits there", manifest: configMap + "data:\n  a: |\n    x\n---\n", direct: true},
		{name: "text after separator", reason: "kustomize refuses it", manifest: configMap + "--- foo\na: b\n", fails: true},
		{name: "empty map", reason: "dropped", manifest: configMap + "---\n{}\n", direct: true},
		{name: "empty labels", reason: "kustomize drops some empty maps", manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: {}, annotations: {}}\n"},
		{name: "null annotations", reason: "kustomize drops some empty maps", manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, annotations: }\n"},
		{name: "number annotation", reason: "kustomize makes strings of them", manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, labels: {b: 1}, annotations: {a: 1, t: true}}\n"},
		{name: "annotations", reason: "others are left alone", manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, annotations: {z/a: '1', b: x, a: \"multi\\nline\"}, labels: {a: b}}\n", direct: true},
		{name: "local", reason: "not for the cluster", manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, annotations: {config.kubernetes.io/local-config: 'true'}}\n---\n" + strings.Replace(configMap, "name: c", "name: d", 1)},
		{name: "origin", reason: "kustomize removes its own annotations", manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, annotations: {config.kubernetes.io/origin: 'path: x', internal.config.kubernetes.io/index: '0', a: b}}\n"},
		{name: "list", reason: "items are what counts", manifest: "apiVersion: v1\nkind: List\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(configMap), "\n", "\n  ") + "\n"},
		{name: "typed list", reason: "items are what counts", manifest: "apiVersion: v1\nkind: ConfigMapList\nmetadata: {}\nitems:\n- " + strings.ReplaceAll(strings.TrimSpace(configMap), "\n", "\n  ") + "\n"},
		{name: "empty namespace", reason: "kept as it is", manifest: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c, namespace: ''}\n"},
		{name: "json", reason: "JSON is YAML", manifest: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"a":"b/c"},"n":[1,2.5,null,true]}`, direct: true},
		{name: "no name", reason: "not an object", manifest: "apiVersion: v1\nkind: ConfigMap\n", fails: true},
		{name: "no kind", reason: "not an object", manifest: "apiVersion: v1\nmetadata: {name: c}\n", fails: true},
		{name: "twice", reason: "one identity", manifest: configMap + "---\n" + configMap, fails: true},
		{name: "twice by default", reason: "no namespace means default", manifest: configMap + "---\n" + strings.Replace(configMap, "name: c", "name: c, namespace: default", 1), fails: true},
		{name: "key twice", reason: "which one is meant?", manifest: configMap + "data: {a: b, a: c}\n", fails: true},
		{name: "tab", reason: "YAML forbids it", manifest: configMap + "data:\n\ta: b\n", fails: true},
		{name: "sequence", reason: "not an object", manifest: "- a\n- b\n", fails: true},
		{name: "scalar", reason: "not an object", manifest: "hello\n", fails: true},
		{name: "role binding", reason: "names of accounts in the build could be rewritten", manifest: `apiVersion: v1
kind: ServiceAccount
metadata: {name: sa, namespace: a}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: rb, namespace: a}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}
subjects:
- {kind: ServiceAccount, name: sa}
- {kind: ServiceAccount, name: sa, namespace: a}
- {kind: ServiceAccount, name: default, namespace: b}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: crb}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: r}
subjects:
- {kind: ServiceAccount, name: sa}
---
apiVersion: v1
kind: Service
metadata: {name: svc, namespace: a}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: w}
webhooks:
- name: a.b.c
  clientConfig: {service: {name: svc, path: /x}}
`, direct: true},
		{name: "references", reason: "names that stay need no rewriting", manifest: configMap + `---
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  template:
    spec:
      volumes: [{name: v, configMap: {name: c}}]
      containers: [{name: x, image: "a:1", envFrom: [{configMapRef: {name: c}}], ports: [{containerPort: 80}]}]
`, direct: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ours, theirs, errOurs, errTheirs := both(t, treeOf(map[string]string{"m.yaml": tt.manifest}), "")
			if (errTheirs != nil) != tt.fails {
				t.Fatalf("%s: kustomize: %v", tt.reason, errTheirs)
			}
			switch {
			case tt.fails:
				if errOurs == nil {
					t.Fatalf("%s: kustomize fails with %v, the direct way does not", tt.reason, errTheirs)
				}
			case errors.Is(errOurs, errNotDirect):
				if tt.direct {
					t.Fatalf("%s: should not need kustomize", tt.reason)
				}
			case errOurs != nil:
				t.Fatalf("%s: %v", tt.reason, errOurs)
			default:
				if !tt.direct {
					t.Errorf("%s: the direct way takes it", tt.reason)
				}
				if got, want := jsonOf(t, ours), jsonOf(t, theirs); got != want {
					t.Errorf("%s:\n got %s\nwant %s", tt.reason, got, want)
				}
			}
		})
	}
}

// TestDirectOnFleets compares the two ways on every folder of the fleets in the
// folder that BOWLINE_FLEETS names.
func TestDirectOnFleets(t *testing.T) {
	root := os.Getenv("BOWLINE_FLEETS")
	if root == "" {
		t.Skip("BOWLINE_FLEETS names no folder")
	}
	fleets, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, f := range fleets {
		if !f.IsDir() {
			continue
		}
		tree := dirTree(t, filepath.Join(root, f.Name()))
		err := fs.WalkDir(tree, ".", func(dir string, e fs.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				return err
			}
			ours, theirs, errOurs, errTheirs := both(t, tree, dir)
			t.Logf("%s/%s: direct %d %v, kustomize %d %v", f.Name(), dir, len(ours), errOurs, len(theirs), errTheirs)
			if errOurs == nil && errTheirs == nil {
				compared++
				if got, want := jsonOf(t, ours), jsonOf(t, theirs); got != want {
					t.Errorf("%s/%s:\n got %s\nwant %s", f.Name(), dir, got, want)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if compared == 0 {
		t.Error("nothing was compared")
	}
}

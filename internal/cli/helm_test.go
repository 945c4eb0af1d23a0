package cli_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/charttest"
)

// TestScriptsOfHelm runs transcripts of Helm's own CLI, as it was published, on
// releases of an engine that the transcripts start. Workloads run on simulated nodes.
func TestScriptsOfHelm(t *testing.T) {
	t.Parallel()
	helm := testkit.Tool(t, "helm")
	bin := programs(t)
	if err := os.Symlink(helm, filepath.Join(bin, "helm")); err != nil {
		t.Fatal(err)
	}
	for _, script := range scriptsIn(t, "testdata/helm") {
		t.Run(filepath.Base(script), func(t *testing.T) {
			repo := testkit.NewGitServer(t).Repo("charts")
			charts := charttest.NewServer(t, []testkit.Chart{shopChart()})
			own := testkit.Start(t, testkit.WithControllers())
			if err := crds.Apply(t.Context(), own.Config); err != nil {
				t.Fatal(err)
			}
			params := scriptParams(t, script, bin, own.Kubeconfig, "apps", "GIT="+repo.URL(), "CHARTS="+charts.URL())
			params.Cmds["commit"] = commitCommand(repo)
			params.Cmds["identities"] = identitiesCommand
			params.Cmds["edit"] = editCommand
			testscript.Run(t, params)
		})
	}
}

// shopChart is a chart that the transcripts take from the Helm repository at $CHARTS.
func shopChart() testkit.Chart {
	return testkit.Chart{Name: "shop", Version: "2.0.0", Files: map[string]string{
		"values.yaml":            "colour: green\n",
		"templates/config.yaml":  "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}}\ndata: {colour: {{ .Values.colour }}}\n",
		"templates/account.yaml": "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: {{ .Release.Name }}}\n",
	}}
}

// identified are the kinds that charts of the transcripts consist of.
var identified = []schema.GroupVersionKind{
	{Version: "v1", Kind: "ConfigMapList"}, {Version: "v1", Kind: "ServiceList"}, {Version: "v1", Kind: "ServiceAccountList"},
	{Group: "apps", Version: "v1", Kind: "DeploymentList"},
}

// identitiesCommand writes down what the objects of a release are, but for their labels and
// annotations, with the identity that the API server gave them:
//
//	identities PREFIX FILE
func identitiesCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: identities PREFIX FILE")
	}
	c, ctx := scriptClient(ts), context.Background()
	var lines []string
	for _, gvk := range identified {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(gvk)
		ts.Check(c.List(ctx, list, client.InNamespace(ts.Getenv("NS"))))
		for _, u := range list.Items {
			if !strings.HasPrefix(u.GetName(), args[0]) {
				continue
			}
			line := fmt.Sprintf("%s/%s uid %s", u.GetKind(), u.GetName(), u.GetUID())
			delete(u.Object, "metadata")
			delete(u.Object, "status")
			raw, err := json.Marshal(u.Object)
			ts.Check(err)
			lines = append(lines, fmt.Sprintf("%s %x", line, sha256.Sum256(raw)))
		}
	}
	if len(lines) == 0 {
		ts.Fatalf("there are no objects whose names begin with %s", args[0])
	}
	slices.Sort(lines)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
}

// editCommand changes the fields that the objects of a file set, and no others:
//
//	edit FILE
func editCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: edit FILE")
	}
	c := scriptClient(ts)
	for _, u := range readObjects(ts, os.Expand(ts.ReadFile(args[0]), ts.Getenv)) {
		u.SetNamespace(ts.Getenv("NS"))
		raw, err := json.Marshal(u.Object)
		ts.Check(err)
		ts.Check(c.Patch(context.Background(), u, client.RawPatch(types.MergePatchType, raw)))
	}
}

package controller

import (
	"encoding/json"
	"testing"

	"github.com/bowline-dev/bowline/internal/release"
	"github.com/bowline-dev/bowline/internal/source/local"
)

// An engine that goes on with a revision installs the definitions of subcharts too, although Helm's
// storage has none of these.
func TestDefinitionsOfSubchartsOutliveTheEngine(t *testing.T) {
	t.Parallel()
	c := chart("1.0.0", map[string]string{
		"charts/sub/Chart.yaml":       "apiVersion: v2\nname: sub\nversion: 1.0.0\n",
		"charts/sub/crds/things.yaml": chartDefinition("sub.test", ""),
		"charts/off/Chart.yaml":       "apiVersion: v2\nname: off\nversion: 1.0.0\n",
		"charts/off/crds/things.yaml": chartDefinition("off.test", ""),
		"Chart.yaml": "apiVersion: v2\nname: web\nversion: 1.0.0\ndependencies:\n" +
			"- {name: sub, version: 1.0.0}\n- {name: off, version: 1.0.0, condition: off.enabled}\n",
	})
	tree, err := local.Open(c.WriteFolder(t, t.TempDir()), local.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tree.Close() }()
	artifact, err := tree.Artifact()
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := newParsedCharts().charts.Load(artifact, "")
	if err != nil {
		t.Fatal(err)
	}
	config := map[string]any{"off": map[string]any{"enabled": false}}
	made, err := loaded.Chosen(config)
	if err != nil {
		t.Fatal(err)
	}
	stored := &release.Record{Release: &release.Release{Config: config}, Marks: release.Marks{Inputs: "same"}}
	data, err := json.Marshal(made) // as Helm's storage does
	if err == nil {
		err = json.Unmarshal(data, &stored.Chart)
	}
	if err != nil {
		t.Fatal(err)
	}
	r := &helmReleaseRun{wanted: &wanted{chart: loaded, digest: "same"}}
	objects, err := r.definitionsOf(stored)
	if err != nil || len(objects) != 1 || objects[0].GetName() != "things.sub.test" {
		t.Errorf("definitions %v, %v", objects, err)
	}
}

package controller

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	localv1 "github.com/bowline-dev/bowline/api/local/v1alpha1"
)

// fieldRow is a row of docs/fields.md.
type fieldRow struct{ is, shownBy string }

// fieldTables reads docs/fields.md: the tables by heading, their rows by the first
// cell; rows that go on with the row above are left out.
func fieldTables(t *testing.T) map[string]map[string]fieldRow {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", "fields.md"))
	if err != nil {
		t.Fatal(err)
	}
	tables := map[string]map[string]fieldRow{}
	heading := ""
	for line := range strings.Lines(string(data)) {
		if h, ok := strings.CutPrefix(line, "## "); ok {
			heading = strings.TrimSpace(h)
			tables[heading] = map[string]fieldRow{}
		}
		cells := strings.Split(strings.TrimSpace(line), " | ")
		if len(cells) < 3 || !strings.HasPrefix(cells[0], "|") || strings.HasPrefix(cells[0], "| field") || strings.HasPrefix(cells[0], "| key") {
			continue
		}
		name := strings.Trim(cells[0], "| `")
		tables[heading][name+"|"+cells[1]] = fieldRow{is: cells[1], shownBy: strings.Trim(cells[len(cells)-1], " |")}
		tables[heading][name] = fieldRow{is: cells[1], shownBy: strings.Trim(cells[len(cells)-1], " |")}
	}
	return tables
}

// undocumented returns the fields of a type for which neither they nor what they
// are part of has a row, and notes the rows that it found.
func undocumented(t reflect.Type, path string, rows map[string]fieldRow, found map[string]bool) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t.NumField() == 0 {
		return []string{path}
	}
	var missing []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		below := path + "." + name
		if name == "" && (f.Anonymous || strings.Contains(options, "inline")) {
			below = path
		}
		if _, ok := rows[below]; ok && below != path {
			found[below] = true
			continue
		}
		missing = append(missing, undocumented(f.Type, below, rows, found)...)
	}
	return missing
}

// The table of fields holds all that the published types have and nothing else.
func TestFieldsAreDocumented(t *testing.T) {
	t.Parallel()
	tables := fieldTables(t)
	for kind, parts := range map[string]map[string]any{
		"Kustomization":     {"spec": kustomizev1.KustomizationSpec{}, "status": kustomizev1.KustomizationStatus{}},
		"GitRepository":     {"spec": sourcev1.GitRepositorySpec{}, "status": sourcev1.GitRepositoryStatus{}},
		"OCIRepository":     {"spec": sourcev1.OCIRepositorySpec{}, "status": sourcev1.OCIRepositoryStatus{}},
		"Bucket":            {"spec": sourcev1.BucketSpec{}, "status": sourcev1.BucketStatus{}},
		"HelmRepository":    {"spec": sourcev1.HelmRepositorySpec{}, "status": sourcev1.HelmRepositoryStatus{}},
		"HelmChart":         {"spec": sourcev1.HelmChartSpec{}, "status": sourcev1.HelmChartStatus{}},
		"HelmRelease":       {"spec": helmv2.HelmReleaseSpec{}, "status": helmv2.HelmReleaseStatus{}},
		"ArtifactGenerator": {"spec": swapi.ArtifactGeneratorSpec{}, "status": swapi.ArtifactGeneratorStatus{}},
		"ExternalArtifact":  {"spec": sourcev1.ExternalArtifactSpec{}, "status": sourcev1.ExternalArtifactStatus{}},
		"ClusterAssignment": {"spec": fleetv1.ClusterAssignmentSpec{}, "status": fleetv1.ClusterAssignmentStatus{}},
		"FleetCluster":      {"spec": fleetv1.FleetClusterSpec{}, "status": fleetv1.FleetClusterStatus{}},
		"ClusterTemplate":   {"spec": fleetv1.ClusterTemplateSpec{}, "status": fleetv1.ClusterTemplateStatus{}},
		"Placement":         {"spec": fleetv1.PlacementSpec{}, "status": fleetv1.PlacementStatus{}},
		"ClusterReport":     {"status": fleetv1.ClusterReportStatus{}},
		"LocalCluster":      {"status": localv1.LocalClusterStatus{}},
		"LocalControlPlane": {"spec": localv1.LocalControlPlaneSpec{}, "status": localv1.LocalControlPlaneStatus{}},
		"LocalConfig":       {"status": localv1.LocalConfigStatus{}},
		"LocalMachine":      {"spec": localv1.LocalMachineSpec{}, "status": localv1.LocalMachineStatus{}},

		"LocalConfigTemplate":  {"spec": localv1.LocalConfigTemplateSpec{}},
		"LocalMachineTemplate": {"spec": localv1.LocalMachineTemplateSpec{}},
	} {
		found := map[string]bool{}
		for part, of := range parts {
			for _, field := range undocumented(reflect.TypeOf(of), part, tables[kind], found) {
				t.Errorf("docs/fields.md has no row for %s of %s: say what is done with it, and by which test that is shown", field, kind)
			}
		}
		for field := range tables[kind] {
			if !strings.Contains(field, "|") && !found[field] {
				t.Errorf("docs/fields.md has a row for %s of %s, which the API does not have", field, kind)
			}
		}
	}
}

// Every test that the table names exists.
func TestFieldsAreShown(t *testing.T) {
	t.Parallel()
	tests := testsHere(t)
	tables := fieldTables(t)
	for heading, rows := range tables {
		for field, row := range rows {
			if !tests[row.shownBy] {
				t.Errorf("docs/fields.md, %s, %s: there is no test %q", heading, field, row.shownBy)
			}
		}
	}
}

// testsHere returns the names of the tests of this package, and, with the name of their room before them, of those
// of the fleet.
func testsHere(t *testing.T) map[string]bool {
	t.Helper()
	files, err := filepath.Glob("*_test.go")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	rooms, err := filepath.Glob(filepath.Join("..", "fleet", "*", "*_test.go"))
	if err != nil || len(rooms) == 0 {
		t.Fatalf("no test files of the fleet: %v", err)
	}
	names := map[string]bool{}
	for _, file := range append(files, rooms...) {
		room := ""
		if dir := filepath.Dir(file); dir != "." {
			room = filepath.Base(dir) + "."
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil {
				names[room+f.Name.Name] = true
			}
		}
	}
	return names
}

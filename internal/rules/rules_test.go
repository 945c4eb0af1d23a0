package rules

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/bowline-dev/bowline"

// floors lists the rooms from the ground up. A room may import rooms of lower
// floors and nothing of its own floor or above. Packages below a room belong to
// it and may import each other, except where isolated says otherwise.
var floors = [][]string{
	{"internal/object", "internal/failure"},
	{"api", "internal/expr", "internal/feed", "internal/ignore"},
	{"internal/source", "internal/crds", "internal/gitserve", "internal/localkube", "internal/background", "internal/rules", "examples"},
	{"internal/build", "internal/artifactserve"},
	{"internal/kube"},
	{"internal/plan"},
	{"internal/apply"},
	{"internal/observe"},
	{"internal/report", "internal/release"},
	{"internal/pipeline", "internal/fleet", "internal/rollout"},
	{"internal/controller", "internal/server"},
	{"internal/cli"},
	{"cmd"},
	// Nothing imports these, except that tests may import testkit.
	{"internal/testkit", "bench"},
}

// wiringOnly lists imports that the floors would allow and that are refused all the
// same: packages below the left one may be imported only from the right ones.
var wiringOnly = map[string][]string{
	// Which backend serves a source is chosen by the wiring, so that the stages
	// know the contract and not the backends.
	"internal/source": {"internal/source", "internal/controller", "internal/cli", "bench"},
	// The steps of a build are put in a row by who builds; plan and later
	// stages know only the result.
	"internal/build": {"internal/build", "internal/pipeline", "internal/controller", "internal/cli", "bench"},
}

// testOnly lists rooms that only tests may import.
var testOnly = []string{"internal/testkit"}

// isolated lists rooms whose sub-packages may not import each other: each is
// one backend.
var isolated = []string{"internal/source"}

// commons lists packages of isolated rooms that all backends there may use.
var commons = []string{
	"internal/source/archive", "internal/source/blob", "internal/source/chart", "internal/source/disk", "internal/source/reach",
	"internal/source/registry", "internal/source/snapshot",
}

// pkg is what the check needs of one package.
type pkg struct {
	ImportPath string
	Imports    []string
}

// room returns the room that holds path, which is relative to the module, and
// its floor; ok is false where no room does.
func room(path string) (name string, floor int, ok bool) {
	for i, rooms := range floors {
		for _, r := range rooms {
			if path == r || strings.HasPrefix(path, r+"/") {
				return r, i, true
			}
		}
	}
	return "", 0, false
}

// check returns one line per broken rule, sorted.
func check(pkgs []pkg) []string {
	var broken []string
	for _, p := range pkgs {
		from, ok := strings.CutPrefix(p.ImportPath, module+"/")
		if !ok {
			continue
		}
		if _, _, ok := room(from); !ok {
			broken = append(broken, from+": no room in the floor plan; add it to floors")
			continue
		}
		for _, imp := range p.Imports {
			if to, ok := strings.CutPrefix(imp, module+"/"); ok {
				if why := refuse(from, to); why != "" {
					broken = append(broken, fmt.Sprintf("%s imports %s: %s", from, to, why))
				}
			}
		}
	}
	slices.Sort(broken)
	return broken
}

// refuse says why from may not import to, and "" where it may.
func refuse(from, to string) string {
	fromRoom, fromFloor, _ := room(from)
	toRoom, toFloor, ok := room(to)
	switch {
	case !ok:
		return "no room in the floor plan; add it to floors"
	case fromRoom == toRoom:
		if slices.Contains(isolated, toRoom) && !slices.Contains(commons, to) && from != to && to != toRoom && from != toRoom && !strings.HasPrefix(from, to+"/") && !strings.HasPrefix(to, from+"/") {
			return "backends do not know each other"
		}
		return ""
	case slices.Contains(testOnly, toRoom):
		return "only tests may"
	case toFloor >= fromFloor:
		return "imports point one way, from upper rooms to lower ones"
	}
	if allowed, ok := wiringOnly[toRoom]; ok && to != toRoom && !slices.Contains(allowed, fromRoom) {
		return "only " + strings.Join(allowed, ", ") + " may"
	}
	return ""
}

// list returns the packages of the module in dir with what their files import,
// on any platform. Only what is compiled into a program counts: tests may look
// anywhere. It reads the files itself, so that a cached result of this test is
// known to be stale when one of them changes.
func list(t *testing.T, dir string) []pkg {
	t.Helper()
	imports := map[string]map[string]bool{}
	err := filepath.WalkDir(dir, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			return enter(dir, name)
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, filepath.Dir(name))
		if err != nil {
			return err
		}
		path := module + "/" + filepath.ToSlash(rel)
		if imports[path] == nil {
			imports[path] = map[string]bool{}
		}
		for _, i := range file.Imports {
			imports[path][strings.Trim(i.Path.Value, `"`)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var pkgs []pkg
	for path, set := range imports {
		pkgs = append(pkgs, pkg{ImportPath: path, Imports: slices.Sorted(maps.Keys(set))})
	}
	return pkgs
}

// enter says fs.SkipDir for the folders that the go command passes over, and
// for those that are modules of their own.
func enter(root, dir string) error {
	base := filepath.Base(dir)
	if dir == root {
		return nil
	}
	if base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
		return fs.SkipDir
	}
	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
		return fs.SkipDir
	}
	return nil
}

func TestImports(t *testing.T) {
	pkgs := list(t, filepath.Join("..", ".."))
	if len(pkgs) < 5 {
		t.Fatalf("found %d packages; looked in the wrong place", len(pkgs))
	}
	for _, line := range check(pkgs) {
		t.Error(line)
	}
}

// TestViolatingModule runs the whole check on a module that breaks a rule, so
// that a check that finds nothing because it sees nothing is noticed.
func TestViolatingModule(t *testing.T) {
	got := check(list(t, filepath.Join("testdata", "violating")))
	want := []string{"internal/object imports internal/plan: imports point one way, from upper rooms to lower ones"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestRefuse(t *testing.T) {
	tests := []struct {
		name, reason string
		from, to     string
		refused      bool
	}{
		{"down", "upper rooms use lower ones", "internal/apply", "internal/plan", false},
		{"down many floors", "the leaves serve everybody", "cmd/bowline", "internal/failure", false},
		{"up", "a stage knows nothing of those after it", "internal/plan", "internal/apply", true},
		{"main loop from a stage", "stages do not know who calls them", "internal/observe", "internal/pipeline", true},
		{"leaf to leaf", "leaves import no sibling", "internal/object", "internal/failure", true},
		{"same floor", "controller and server do not know each other", "internal/server", "internal/controller", true},
		{"own room", "a room may have inner doors", "internal/build/kustomize", "internal/build", false},
		{"clients in build", "building is hermetic: it reaches no cluster", "internal/build/kustomize", "internal/kube", true},
		{"clients in plan", "from plan upwards clusters are read", "internal/plan", "internal/kube", false},
		{"backend from the wiring", "the wiring chooses backends", "internal/controller", "internal/source/git", false},
		{"backend from the main loop", "the main loop knows the contract only", "internal/pipeline", "internal/source/git", true},
		{"contract from the main loop", "the contract is for everybody", "internal/pipeline", "internal/source", false},
		{"backend to backend", "one backend each", "internal/source/git", "internal/source/oci", true},
		{"common ground of backends", "how a tree behaves is the same for all", "internal/source/git", "internal/source/snapshot", false},
		{"inside a backend", "a backend may have packages of its own", "internal/source/git", "internal/source/git/pack", false},
		{"build step from plan", "plan knows the result, not the steps", "internal/plan", "internal/build/kustomize", true},
		{"testkit from a program", "test code stays out of the product", "internal/cli", "internal/testkit", true},
		{"testkit from bench", "the benchmark is a program too", "bench/engine", "internal/testkit", true},
		{"command as a library", "nothing imports a command", "internal/cli", "cmd/bowline", true},
		{"unknown room", "a room without a floor is not in the plan", "internal/cli", "internal/helpers", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if why := refuse(tt.from, tt.to); (why != "") != tt.refused {
				t.Errorf("refuse(%s, %s) = %q, want refused %v: %s", tt.from, tt.to, why, tt.refused, tt.reason)
			}
		})
	}
}

func TestRoomWithoutFloor(t *testing.T) {
	got := check([]pkg{{ImportPath: module + "/internal/helpers"}})
	want := []string{"internal/helpers: no room in the floor plan; add it to floors"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

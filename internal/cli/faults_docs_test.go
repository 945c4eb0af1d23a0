package cli_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that docs/design/fleet-faults.md names exists, and no fault that is tested here is missing there.
func TestFaultsAreDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "design", "fleet-faults.md"))
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`([a-z]+)\\.(Test[A-Za-z]+)(?:/([^`]+))?`").FindAllStringSubmatch(string(page), -1)
	if len(named) < 30 {
		t.Fatalf("the page names %d tests only", len(named))
	}
	for _, n := range named {
		code := testsOf(t, n[1])
		if !strings.Contains(code, "\nfunc "+n[2]+"(t *testing.T)") {
			t.Errorf("the page names %s, and there is no test %s in %s", n[0], n[2], n[1])
		}
		if n[3] != "" && !strings.Contains(code, `"`+n[3]+`"`) {
			t.Errorf("the page names %s, and nothing there is called %q", n[0], n[3])
		}
	}
	here, _ := os.ReadFile("faults_test.go")
	_, table, found := strings.Cut(string(here), "run  func(f *fleet, a, b, c *site)\n\t}{")
	table, _, _ = strings.Cut(table, "\t} {")
	if !found {
		t.Fatal("the list of tests is gone")
	}
	for _, m := range regexp.MustCompile(`\{"([^"]+)", `).FindAllStringSubmatch(table, -1) {
		if !strings.Contains(string(page), "`cli.TestFaults/"+m[1]+"`") {
			t.Errorf("the page does not name %q", m[1])
		}
	}
}

// testsOf is the text of the tests of a room.
func testsOf(t *testing.T, room string) string {
	t.Helper()
	dir := filepath.Join("..", "fleet", room)
	switch room {
	case "cli":
		dir = "."
	case "controller":
		dir = filepath.Join("..", room)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests in %s: %v", dir, err)
	}
	var all strings.Builder
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	return all.String()
}

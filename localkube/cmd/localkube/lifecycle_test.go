package main

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/localkube/internal/cluster"
)

func TestLifecycle(t *testing.T) {
	p := newProgram(t)
	if out := p.must("start", "one", "--components", "apiserver"); !strings.Contains(out, p.root) {
		t.Errorf("start does not print the path of the kubeconfig: %s", out)
	}
	p.write("one", "first")

	before := p.status("one")
	if before.Phase != cluster.Running || before.PID == 0 {
		t.Fatalf("after the start: %+v", before)
	}
	if out := p.must("start", "one"); !strings.Contains(out, "already running") || !strings.Contains(out, before.Kubeconfig) {
		t.Errorf("a second start must say so and print the kubeconfig: %s", out)
	}
	if out := p.must("start", "one", "--components", "all"); !strings.Contains(out, "stop it first") {
		t.Errorf("a second start that wants something else must say how: %s", out)
	}
	if again := p.status("one"); again.PID != before.PID {
		t.Errorf("a second start has replaced process %d by %d", before.PID, again.PID)
	}
	if _, complaint := p.run("delete", "one"); !strings.Contains(complaint, "running") || !strings.Contains(complaint, "--force") {
		t.Errorf("a running cluster must not be deleted just so: %s", complaint)
	}

	p.must("stop", "one")
	if status := p.status("one"); status.Phase != cluster.Stopped {
		t.Errorf("after the stop: %+v", status)
	}
	p.must("start", "one")
	p.expectWritten("one", "first")
	after := p.status("one")
	if after.Server != before.Server {
		t.Errorf("the address has changed from %s to %s", before.Server, after.Server)
	}
	if strings.Join(after.Components, ",") != "apiserver" {
		t.Errorf("the choice of components is forgotten: %v", after.Components)
	}

	p.must("delete", "one", "--force")
	if _, err := os.Stat(before.Dir); !os.IsNotExist(err) {
		t.Errorf("deleted, but its folder: %v", err)
	}
	if out := p.must("list"); out != "" {
		t.Errorf("deleted, but listed: %s", out)
	}
}

func TestKillLosesNothing(t *testing.T) {
	p := newProgram(t)
	p.must("start", "one", "--components", "apiserver")
	for round := range 3 {
		name := fmt.Sprintf("round-%d", round)
		p.write("one", name)
		if err := syscall.Kill(p.status("one").PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() string {
			if phase := p.status("one").Phase; phase != cluster.Stopped {
				return "a killed cluster is " + string(phase)
			}
			return ""
		})
		p.must("start", "one")
		p.expectWritten("one", name)
	}
}

func TestClustersBesideEachOther(t *testing.T) {
	p := newProgram(t)
	p.must("start", "one", "--components", "apiserver")
	p.must("start", "two", "--components", "apiserver")
	if p.status("one").Server == p.status("two").Server {
		t.Error("two clusters share an address")
	}
	p.write("one", "only-here")
	_, err := p.client("two").CoreV1().ConfigMaps("default").Get(t.Context(), "only-here", metav1.GetOptions{})
	if err == nil {
		t.Error("two clusters share their data")
	}
	if out := p.must("list"); out != "one\ntwo\n" {
		t.Errorf("list prints %q", out)
	}
	for _, name := range []string{"one", "two"} {
		expectOneLoopbackPort(t, p.status(name))
		expectNoInotify(t, p.status(name))
	}
}

func TestPortInUse(t *testing.T) {
	p := newProgram(t)
	other, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	port := fmt.Sprint(other.Addr().(*net.TCPAddr).Port)
	_, complaint := p.run("start", "one", "--components", "apiserver", "--port", port)
	for _, part := range []string{port, `"one"`, "in use", "--port 0"} {
		if !strings.Contains(complaint, part) {
			t.Errorf("the complaint does not name %s: %s", part, complaint)
		}
	}
	if strings.Count(complaint, "\n") != 1 {
		t.Errorf("the complaint is not one line: %s", complaint)
	}
	p.must("start", "one", "--components", "apiserver", "--port", "0")
	if server := p.status("one").Server; strings.HasSuffix(server, ":"+port) {
		t.Errorf("serves at %s, which is taken", server)
	}
}

func TestForegroundEndsWithStandardInput(t *testing.T) {
	p := newProgram(t)
	command := p.command("start", "one", "--components", "apiserver", "--foreground", "--until-stdin-closes")
	stdin, err := command.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	if want := "ready kubeconfig=" + filepath.Join(p.root, "one", "kubeconfig") + "\n"; line != want {
		t.Errorf("prints %q, want %q", line, want)
	}
	if out := p.must("start", "one", "--foreground"); !strings.Contains(out, "already running") {
		t.Errorf("a second start in the foreground says %q", out)
	}
	if err := stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := command.Wait(); err != nil {
		t.Errorf("ends with %v", err)
	}
	if phase := p.status("one").Phase; phase != cluster.Stopped {
		t.Errorf("the process is gone, the cluster is %s", phase)
	}
}

func TestUnknownCluster(t *testing.T) {
	p := newProgram(t)
	for _, arguments := range [][]string{{"stop", "none"}, {"status", "none"}, {"delete", "none"}, {"kubeconfig", "none"}} {
		if _, complaint := p.run(arguments...); !strings.Contains(complaint, `"none"`) || !strings.Contains(complaint, "localkube start none") {
			t.Errorf("%v: %s", arguments, complaint)
		}
	}
}

func (p *program) write(name, object string) {
	p.t.Helper()
	_, err := p.client(name).CoreV1().ConfigMaps("default").Create(p.t.Context(),
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: object}}, metav1.CreateOptions{})
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) expectWritten(name, object string) {
	p.t.Helper()
	if _, err := p.client(name).CoreV1().ConfigMaps("default").Get(p.t.Context(), object, metav1.GetOptions{}); err != nil {
		p.t.Errorf("what was written before: %v", err)
	}
}

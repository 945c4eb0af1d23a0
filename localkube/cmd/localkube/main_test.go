package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/bowline-dev/bowline/localkube/internal/cluster"
)

// asProgram makes this test executable be the program, so that the tests run what people run:
// processes that start processes of their own.
const asProgram = "LOCALKUBE_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// program runs one command of the program over clusters of its own.
type program struct {
	t    *testing.T
	root string
}

// newProgram returns a program whose clusters are stopped and gone when the test ends.
func newProgram(t *testing.T) *program {
	t.Helper()
	p := &program{t: t, root: t.TempDir()}
	t.Cleanup(func() {
		clusters, err := cluster.List(p.root)
		if err != nil {
			t.Error(err)
		}
		for _, c := range clusters {
			if err := c.Delete(context.Background(), true); err != nil {
				t.Error(err)
			}
		}
	})
	return p
}

func (p *program) command(arguments ...string) *exec.Cmd {
	command := exec.Command(os.Args[0], append(arguments, "--root", p.root)...)
	command.Env = append(os.Environ(), asProgram+"=1")
	return command
}

// run returns what the command printed, and what it complained about when it failed.
func (p *program) run(arguments ...string) (stdout, complaint string) {
	p.t.Helper()
	command := p.command(arguments...)
	var out, complaints bytes.Buffer
	command.Stdout, command.Stderr = &out, &complaints
	if err := command.Run(); err != nil {
		if complaints.Len() == 0 {
			p.t.Fatalf("%v fails without a word: %v", arguments, err)
		}
		return out.String(), complaints.String()
	}
	if complaints.Len() > 0 {
		p.t.Errorf("%v succeeds and complains: %s", arguments, complaints.String())
	}
	return out.String(), ""
}

// must is run for a command that has to succeed.
func (p *program) must(arguments ...string) string {
	p.t.Helper()
	stdout, complaint := p.run(arguments...)
	if complaint != "" {
		p.t.Fatalf("%v: %s", arguments, complaint)
	}
	return stdout
}

func (p *program) status(name string) cluster.Status {
	p.t.Helper()
	var status cluster.Status
	if err := json.Unmarshal([]byte(p.must("status", name, "-o", "json")), &status); err != nil {
		p.t.Fatal(err)
	}
	return status
}

func (p *program) client(name string) *kubernetes.Clientset {
	p.t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", strings.TrimSpace(p.must("kubeconfig", name)))
	if err != nil {
		p.t.Fatal(err)
	}
	config.QPS, config.Burst = -1, -1
	return kubernetes.NewForConfigOrDie(config)
}

// patience is how long a condition may take to come true on a busy machine.
const patience = 30 * time.Second

// eventually waits until check returns nothing, which otherwise says what is still wrong.
func eventually(t *testing.T, check func() string) {
	t.Helper()
	var wrong string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) { //nolint:forbidigo // the one place where tests look again
		if wrong = check(); wrong == "" {
			return
		}
	}
	t.Fatalf("after %s: %s", patience, wrong)
}

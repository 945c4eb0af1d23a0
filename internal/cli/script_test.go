package cli_test

import (
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/rogpeppe/go-internal/testscript"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/cli"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/testkit"
)

var update = flag.Bool("update", false, "rewrite the expected output in testdata/script")

// TestMain makes the test executable be the program itself when it is called by
// the program's name, so that transcripts run it as people do.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "plain":
		os.Exit(printPlain(os.Stdin, os.Stdout))
	case "bowline", "kubectl-bowline":
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		code := cli.Main(ctx, os.Args, testVersion, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
		stop()
		os.Exit(code) // here the test executable is the program
	}
	ctrllog.SetLogger(logr.Discard())
	testkit.Main(m, testkit.AtEnd(built.remove))
}

// TestScripts runs the transcripts in testdata/script, each in a namespace of
// its own, $NS, of a cluster that serves the APIs, and with the Git server $GIT.
func TestScripts(t *testing.T) {
	installAPIs(t)
	srv := testkit.NewGitServer(t)
	srv.Repo("fleet").Commit(map[string]string{"web/web.yaml": strings.Replace(configMap, "delivered", "web", 1) + "data: {greeting: committed}\n"})
	srv.Repo("policies").Commit(map[string]string{"deploy/policy.yaml": strings.Replace(configMap, "delivered", "policy", 1) + "data: {policy: strict}\n"})
	kubeconfig, err := os.ReadFile(testkit.Kubeconfig(t))
	if err != nil {
		t.Fatal(err)
	}
	runScripts(t, programs(t), "testdata/script", func(t *testing.T) (string, string) {
		return testkit.Kubeconfig(t), testkit.Namespace(t)
	}, "GIT="+srv.URL(), "KUBECONFIG_BASE64="+base64.StdEncoding.EncodeToString(kubeconfig))
}

// TestScriptsOfPlanes runs transcripts that bring planes up themselves. Planes are many processes, and do not run beside each other.
func TestScriptsOfPlanes(t *testing.T) {
	runScripts(t, processes(t), "testdata/plane", func(*testing.T) (string, string) { return "", "bowline-system" },
		"BOWLINE_CAPI_MANAGER="+testkit.Tool(t, "capi-manager"))
}

// TestScriptsOfHierarchies runs transcripts of management clusters that make management clusters: seven control planes on
// one machine.
func TestScriptsOfHierarchies(t *testing.T) {
	runScripts(t, processes(t), "testdata/hierarchy", func(*testing.T) (string, string) { return "", "bowline-system" },
		"BOWLINE_CAPI_MANAGER="+testkit.Tool(t, "capi-manager"))
}

// TestScriptsOfExistingClusters runs transcripts of planes on a cluster that
// is not their own, fed from the repository at $GIT.
func TestScriptsOfExistingClusters(t *testing.T) {
	t.Parallel()
	repo := testkit.NewGitServer(t).Repo("fleet")
	repo.Commit(map[string]string{"good/delivered.yaml": configMap})
	own := testkit.Start(t)
	runScripts(t, programs(t), "testdata/existing", func(*testing.T) (string, string) { return own.Kubeconfig, "default" }, "GIT="+repo.URL())
}

const configMap = `apiVersion: v1
kind: ConfigMap
metadata:
  name: delivered
  namespace: default
`

// TestScriptsWithoutAPIs runs transcripts on a cluster that lacks the APIs.
func TestScriptsWithoutAPIs(t *testing.T) {
	t.Parallel()
	bare := testkit.Start(t)
	runScripts(t, programs(t), "testdata/bare", func(*testing.T) (string, string) { return bare.Kubeconfig, "default" })
}

// TestScriptsOfJoining runs transcripts on a hub, with two other clusters whose kubeconfigs are $MEMBER and $OTHER.
func TestScriptsOfJoining(t *testing.T) {
	installAPIs(t)
	member, other := testkit.Start(t), testkit.Start(t)
	runScripts(t, programs(t), "testdata/join", func(t *testing.T) (string, string) {
		return testkit.Kubeconfig(t), testkit.Namespace(t)
	}, "MEMBER="+member.Kubeconfig, "OTHER="+other.Kubeconfig)
}

// TestScriptsOfMembers runs transcripts of a hub and its members, as processes. The kubeconfig of a member is $MEMBER, and
// its text $MEMBER_BASE64.
func TestScriptsOfMembers(t *testing.T) {
	t.Parallel()
	hub, member := testkit.Start(t, testkit.WithControllers()), testkit.Start(t)
	fleet, err := crds.Fleet()
	if err == nil {
		err = errors.Join(crds.Apply(t.Context(), hub.Config), crds.Install(t.Context(), hub.Config, fleet))
	}
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := os.ReadFile(member.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	runScripts(t, programs(t), "testdata/members", func(*testing.T) (string, string) { return hub.Kubeconfig, "default" },
		"MEMBER="+member.Kubeconfig, "MEMBER_BASE64="+base64.StdEncoding.EncodeToString(kubeconfig))
}

func installAPIs(t *testing.T) {
	t.Helper()
	fleet, err := crds.Fleet()
	if err != nil {
		t.Fatal(err)
	}
	for _, install := range []func() error{
		func() error { return crds.Apply(t.Context(), testkit.Cluster(t)) },
		func() error { return crds.Install(t.Context(), testkit.Cluster(t), fleet) },
	} {
		if err := install(); err != nil {
			t.Fatal(err)
		}
	}
}

func runScripts(t *testing.T, bin, dir string, target func(*testing.T) (kubeconfig, namespace string), vars ...string) {
	t.Helper()
	for _, script := range scriptsIn(t, dir) {
		t.Run(filepath.Base(script), func(t *testing.T) {
			kubeconfig, namespace := target(t)
			testscript.Run(t, scriptParams(t, script, bin, kubeconfig, namespace, vars...))
		})
	}
}

func scriptsIn(t *testing.T, dir string) []string {
	t.Helper()
	scripts, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts in %s: %v", dir, err)
	}
	return scripts
}

// scriptParams is how one transcript is run. The commands are the caller's to add to.
func scriptParams(t *testing.T, script, bin, kubeconfig, namespace string, vars ...string) testscript.Params {
	return testscript.Params{
		Files:               []string{script},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *update,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"apply": applyCommand, "await": awaitCommand, "subst": substCommand, "unapply": unapplyCommand},
		Setup: func(env *testscript.Env) error {
			env.Vars = append(env.Vars, vars...)
			env.Setenv("PATH", bin+string(filepath.ListSeparator)+env.Getenv("PATH"))
			env.Setenv("KUBECONFIG", kubeconfig)
			env.Setenv("NS", namespace)
			// The race detector would keep each of the many processes for a second.
			env.Setenv("GORACE", "atexit_sleep_ms=0")
			env.Setenv("CLOSED", closedAddress(t))
			env.Setenv("TAKEN", takenPort(t))
			env.Setenv("BOWLINE_HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("BOWLINE_LOCALKUBE", testkit.Localkube(t))
			env.Defer(func() { takeDown(t, filepath.Join(bin, "bowline"), env) })
			return nil
		},
	}
}

// closedAddress is an address at which nobody listens.
func closedAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// takenPort is a port on loopback that is in use until the test ends.
func takenPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// applyCommand creates the objects of a file, status included:
//
//	apply FILE
func applyCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: apply FILE")
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", ts.Getenv("KUBECONFIG"))
	ts.Check(err)
	for _, u := range readObjects(ts, os.Expand(ts.ReadFile(args[0]), ts.Getenv)) {
		if u.GetNamespace() == "" && u.GetKind() != "Namespace" {
			u.SetNamespace(ts.Getenv("NS"))
		}
		ts.Check(applyWithStatus(context.Background(), cfg, u))
	}
}

// awaitPatience is how long a busy machine may take until the output of a command is what is waited for.
const awaitPatience = 2 * time.Minute

// awaitPause leaves the processor to what is waited for: a program takes a good part of a second of it.
const awaitPause = 200 * time.Millisecond

// awaitCommand runs a command until its output matches:
//
//	await REGEXP PROGRAM [ARG...]
func awaitCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await REGEXP PROGRAM [ARG...]")
	}
	want := regexp.MustCompile(args[0])
	for deadline := time.Now().Add(awaitPatience); ; <-time.After(awaitPause) {
		_ = ts.Exec(args[1], args[2:]...) // what it prints is what counts
		if want.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("no match for %q in %s:\n%s", args[0], awaitPatience, ts.ReadFile("stdout"))
		}
	}
}

// takeDown stops what a transcript that failed left running.
func takeDown(t *testing.T, program string, env *testscript.Env) {
	planes, err := filepath.Glob(filepath.Join(env.Getenv("BOWLINE_HOME"), "planes", "*"))
	if err != nil {
		t.Error(err)
	}
	for _, dir := range planes {
		down := exec.Command(program, "down", "--name", filepath.Base(dir))
		down.Env = env.Vars
		if out, err := down.CombinedOutput(); err != nil {
			t.Errorf("take plane %s down: %v\n%s", dir, err, out)
		}
	}
}

// unapplyCommand deletes the objects of a file:
//
//	unapply FILE
func unapplyCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: unapply FILE")
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", ts.Getenv("KUBECONFIG"))
	ts.Check(err)
	c, err := client.New(cfg, client.Options{})
	ts.Check(err)
	for _, u := range readObjects(ts, ts.ReadFile(args[0])) {
		ts.Check(c.Delete(context.Background(), u))
	}
}

// substCommand replaces variables in files in place:
//
//	subst FILE...
func substCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg {
		ts.Fatalf("subst cannot be negated")
	}
	for _, name := range args {
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(os.Expand(ts.ReadFile(name), ts.Getenv)), 0o600))
	}
}

func readObjects(ts *testscript.TestScript, text string) []*unstructured.Unstructured {
	var list []map[string]any
	ts.Check(yaml.Unmarshal([]byte(text), &list))
	out := make([]*unstructured.Unstructured, 0, len(list))
	for _, o := range list {
		out = append(out, &unstructured.Unstructured{Object: o})
	}
	return out
}

func readObject(ts *testscript.TestScript, text string) *unstructured.Unstructured {
	u := &unstructured.Unstructured{}
	ts.Check(yaml.Unmarshal([]byte(text), &u.Object))
	return u
}

func applyWithStatus(ctx context.Context, cfg *rest.Config, u *unstructured.Unstructured) error {
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		return err
	}
	status, hasStatus := u.Object["status"]
	if err := c.Create(ctx, u); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	if !hasStatus {
		return nil
	}
	u.Object["status"] = status
	if u.GetResourceVersion() == "" {
		return errors.New("status of an object that was there already")
	}
	return c.Status().Update(ctx, u)
}

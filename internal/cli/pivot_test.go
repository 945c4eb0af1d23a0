package cli_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/testkit"
)

const pivotFleet = `apiVersion: fleet.bowline.dev/v1alpha1
kind: FleetCluster
metadata: {name: hub, namespace: bowline-system}
spec: {template: {name: local, parameters: {nodeGroups: [{name: work}]}}}
---
apiVersion: fleet.bowline.dev/v1alpha1
kind: FleetCluster
metadata: {name: pull, namespace: bowline-system}
spec: {template: {name: local, parameters: {nodeGroups: []}}}
---
apiVersion: fleet.bowline.dev/v1alpha1
kind: FleetCluster
metadata: {name: push, namespace: bowline-system}
spec: {template: {name: local, parameters: {nodeGroups: []}}, agent: {mode: Push}}
---
apiVersion: fleet.bowline.dev/v1alpha1
kind: Placement
metadata: {name: app, namespace: bowline-system}
spec:
  clusters: {}
  units:
  - name: app
    kustomization: {sourceRef: {kind: GitRepository, name: fleet}, path: ./app, interval: 10m, prune: true, wait: true}
`

const pivotApp = `apiVersion: v1
kind: ConfigMap
metadata: {name: app, namespace: default}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: app, namespace: default}
spec:
  replicas: 0
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec: {containers: [{name: app, image: example.org/app}]}
`

// TestScriptsOfPivots runs transcripts of a plane that moves into a cluster that it built, fed from the repository at $GIT.
func TestScriptsOfPivots(t *testing.T) {
	local, err := os.ReadFile("../../templates/local/template.yaml")
	if err != nil {
		t.Fatal(err)
	}
	repo := testkit.NewGitServer(t).Repo("fleet")
	files := map[string]string{
		"hub/template.yaml": strings.Replace(string(local), "name: local\n", "name: local\n  namespace: bowline-system\n", 1),
		"hub/fleet.yaml":    pivotFleet, "app/app.yaml": pivotApp,
	}
	repo.Commit(files)
	commit := func(ts *testscript.TestScript, _ bool, args []string) {
		files[args[0]] = ts.ReadFile(args[1])
		repo.Commit(files)
	}
	bin := programs(t)
	for _, script := range scriptsIn(t, "testdata/pivot") {
		p := scriptParams(t, script, bin, "", "bowline-system", "GIT="+repo.URL(), "BOWLINE_CAPI_MANAGER="+testkit.Tool(t, "capi-manager"))
		var vars []string
		setup := p.Setup
		p.Setup = func(env *testscript.Env) error {
			err := setup(env)
			vars = env.Vars
			return err
		}
		killed := func(ts *testscript.TestScript, _ bool, args []string) {
			cmd := exec.Command(filepath.Join(bin, args[1]), args[2:]...)
			cmd.Dir, cmd.Env = ts.MkAbs("."), append(slices.Clone(vars), "KUBECONFIG="+ts.Getenv("KUBECONFIG"))
			killAt(ts, args[0], cmd)
		}
		p.Cmds["commit"], p.Cmds["identities"], p.Cmds["killed"], p.Cmds["remove"] = commit, whoRunsCommand, killed, removeObjectCommand
		testscript.Run(t, p)
	}
}

// TestScriptsOfPivotsToJoined runs transcripts of a hub that moves into the cluster at $MEMBER, with processes as engines.
func TestScriptsOfPivotsToJoined(t *testing.T) {
	t.Parallel()
	hub, member := testkit.Start(t, testkit.WithControllers()), testkit.Start(t, testkit.WithControllers())
	fleet, err := crds.Fleet()
	if err == nil {
		err = errors.Join(crds.Apply(t.Context(), hub.Config), crds.Install(t.Context(), hub.Config, fleet))
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(hub.Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	to := func(name string) rbacv1.RoleRef {
		return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}
	}
	bound := []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: "deployer"}, {APIGroup: rbacv1.GroupName, Kind: "Group", Name: "system:serviceaccounts:default"}}
	for _, o := range []client.Object{
		&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "deploys"}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "deployers"}, RoleRef: to("view"), Subjects: bound},
		&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "from-git", Labels: map[string]string{"kustomize.toolkit.fluxcd.io/name": "fleet"}}, RoleRef: to("edit"), Subjects: bound},
	} {
		if err := c.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	runScripts(t, programs(t), "testdata/pivotjoined", func(*testing.T) (string, string) { return hub.Kubeconfig, "default" }, "MEMBER="+member.Kubeconfig)
}

func clientAt(ts *testscript.TestScript, kubeconfig string) client.Client {
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	ts.Check(err)
	c, err := client.New(cfg, client.Options{})
	ts.Check(err)
	return c
}

// whoRunsCommand writes who everything is that runs on clusters:
//
//	identities FILE KUBECONFIG...
func whoRunsCommand(ts *testscript.TestScript, _ bool, args []string) {
	var lines []string
	for _, file := range args[1:] {
		c := clientAt(ts, ts.MkAbs(file))
		for _, of := range []struct{ version, kind string }{{"v1", "Node"}, {"v1", "Namespace"}, {"v1", "ConfigMap"}, {"apps/v1", "Deployment"}} {
			all := &unstructured.UnstructuredList{}
			all.SetAPIVersion(of.version)
			all.SetKind(of.kind)
			ts.Check(c.List(context.Background(), all))
			for i := range all.Items {
				u := &all.Items[i]
				if of.kind == "ConfigMap" && u.GetName() != "app" || of.kind == "Deployment" && u.GetNamespace() == fleetv1.MemberNamespace {
					continue
				}
				line := fmt.Sprintf("%s %s %s/%s %s %d", file, of.kind, u.GetNamespace(), u.GetName(), u.GetUID(), u.GetGeneration())
				if of.kind == "ConfigMap" {
					line += " " + u.GetResourceVersion()
				}
				lines = append(lines, line)
			}
		}
	}
	slices.Sort(lines)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Join(lines, "\n")+"\n"), 0o600))
}

// killAt starts a program and kills it as soon as the pivot of the cluster at $KUBECONFIG has come to a stage, or has begun to delete there
// what has moved:
//
//	killed standing|moving|deleting|moved PROGRAM [ARG...]
func killAt(ts *testscript.TestScript, stage string, cmd *exec.Cmd) {
	c := clientAt(ts, ts.Getenv("KUBECONFIG"))
	machines := func() int {
		all := &unstructured.UnstructuredList{}
		all.SetAPIVersion("cluster.x-k8s.io/v1beta2")
		all.SetKind("Machine")
		ts.Check(c.List(context.Background(), all))
		return len(all.Items)
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	ts.Check(cmd.Start())
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			ts.Fatalf("it ended before it came to %s: %v\n%s", stage, err, out.String())
		case <-time.After(2 * time.Millisecond):
		}
		mark := &corev1.ConfigMap{}
		err := c.Get(context.Background(), client.ObjectKey{Namespace: fleetv1.MemberNamespace, Name: fleetv1.PivotMark}, mark)
		if client.IgnoreNotFound(err) != nil {
			ts.Fatalf("%v\n%s", err, out.String())
		}
		if mark.Data[fleetv1.PivotStage] == stage || stage == "deleting" && mark.Data[fleetv1.PivotStage] == "moving" && machines() == 0 {
			break
		}
	}
	ts.Check(cmd.Process.Kill())
	if err := <-ended; err == nil {
		ts.Fatalf("it was done before it could be killed at %s", stage)
	}
}

// removeObjectCommand deletes an object of the core group:
//
//	remove KIND NAMESPACE/NAME KUBECONFIG
func removeObjectCommand(ts *testscript.TestScript, _ bool, args []string) {
	namespace, name, _ := strings.Cut(args[1], "/")
	u := &unstructured.Unstructured{}
	u.SetAPIVersion("v1")
	u.SetKind(args[0])
	u.SetNamespace(namespace)
	u.SetName(name)
	ts.Check(clientAt(ts, ts.MkAbs(args[2])).Delete(context.Background(), u))
}

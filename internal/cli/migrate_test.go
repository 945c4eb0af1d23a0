package cli_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/rogpeppe/go-internal/testscript"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// TestScriptsOfMigration runs transcripts of clusters that change engine. Each has a
// cluster of its own, with controllers and simulated nodes.
func TestScriptsOfMigration(t *testing.T) {
	bin := programs(t)
	for _, script := range scriptsIn(t, "testdata/migrate") {
		t.Run(filepath.Base(script), func(t *testing.T) {
			t.Parallel()
			repo := testkit.NewGitServer(t).Repo("fleet")
			own := testkit.Start(t, testkit.WithControllers())
			if err := crds.Apply(t.Context(), own.Config); err != nil {
				t.Fatal(err)
			}
			params := scriptParams(t, script, bin, own.Kubeconfig, "flux-system", "GIT="+repo.URL(), "NOBODY="+nobody(t, own.Kubeconfig))
			params.Cmds["commit"] = commitCommand(repo)
			params.Cmds["left"] = leftCommand
			params.Cmds["define"] = defineCommand
			params.Cmds["note"] = noteCommand
			params.Cmds["replicas"] = replicasCommand
			params.Cmds["running"] = runningCommand
			testscript.Run(t, params)
		})
	}
}

// nobody is the kubeconfig of somebody who may do nothing.
func nobody(t *testing.T, kubeconfig string) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range config.AuthInfos {
		user.Impersonate = "nobody"
	}
	path := filepath.Join(t.TempDir(), "nobody")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func scriptClient(ts *testscript.TestScript) client.Client {
	cfg, err := clientcmd.BuildConfigFromFlags("", ts.Getenv("KUBECONFIG"))
	ts.Check(err)
	scheme, err := controller.NewScheme()
	ts.Check(err)
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	ts.Check(err)
	return c
}

// leftCommand delivers the objects of files as the toolkit's engine does, and leaves
// the Kustomization as that engine leaves it:
//
//	left NAMESPACE/KUSTOMIZATION FILE...
func leftCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: left NAMESPACE/KUSTOMIZATION FILE...")
	}
	c, ctx := scriptClient(ts), context.Background()
	k := &kustomizev1.Kustomization{}
	namespace, name, _ := strings.Cut(args[0], "/")
	ts.Check(c.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, k))
	k.Status.Inventory = &kustomizev1.ResourceInventory{}
	for _, file := range args[1:] {
		for u := range objectsOf(ts, file) {
			labels := map[string]string{"kustomize.toolkit.fluxcd.io/name": name, "kustomize.toolkit.fluxcd.io/namespace": namespace}
			maps.Copy(labels, u.GetLabels())
			u.SetLabels(labels)
			ts.Check(c.Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(controller.FieldManager), client.ForceOwnership))
			k.Status.Inventory.Entries = append(k.Status.Inventory.Entries,
				kustomizev1.ResourceRef{ID: object.IDOf(u).Inventory(), Version: u.GroupVersionKind().Version})
		}
	}
	k.Status.ObservedGeneration, k.Status.LastAppliedRevision = k.Generation, "main@sha1:0"
	report.Ready(k, "ReconciliationSucceeded", "Applied revision: main@sha1:0")
	ts.Check(c.Status().Update(ctx, k))
}

func objectsOf(ts *testscript.TestScript, file string) func(func(*unstructured.Unstructured) bool) {
	return func(yield func(*unstructured.Unstructured) bool) {
		for _, text := range strings.Split(ts.ReadFile(file), "\n---\n") {
			if !yield(readObject(ts, text)) {
				return
			}
		}
	}
}

// runningCommand waits until all replicas of deployments are ready:
//
//	running NAMESPACE/NAME...
func runningCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: running NAMESPACE/NAME...")
	}
	ctx := context.Background()
	for _, arg := range args {
		d := deploymentOf(ctx, ts, arg)
		err := wait.PollUntilContextTimeout(context.Background(), 20*time.Millisecond, awaitPatience, true, func(ctx context.Context) (bool, error) {
			d = deploymentOf(ctx, ts, arg)
			return d.Status.ObservedGeneration == d.Generation && *d.Spec.Replicas > 0 && d.Status.ReadyReplicas == *d.Spec.Replicas, nil
		})
		if err != nil {
			ts.Fatalf("%s does not run: %d of %d replicas are ready", arg, d.Status.ReadyReplicas, *d.Spec.Replicas)
		}
	}
}

// replicasCommand checks how many replicas a deployment is to have:
//
//	replicas NAMESPACE/NAME COUNT
func replicasCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: replicas NAMESPACE/NAME COUNT")
	}
	if got := fmt.Sprint(*deploymentOf(context.Background(), ts, args[0]).Spec.Replicas); got != args[1] {
		ts.Fatalf("%s is to have %s replicas, want %s", args[0], got, args[1])
	}
}

func deploymentOf(ctx context.Context, ts *testscript.TestScript, key string) *appsv1.Deployment {
	namespace, name, _ := strings.Cut(key, "/")
	d := &appsv1.Deployment{}
	ts.Check(scriptClient(ts).Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, d))
	return d
}

// defineCommand installs definitions of kinds, and waits until they are served:
//
//	define FILE
func defineCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: define FILE")
	}
	cfg, err := clientcmd.BuildConfigFromFlags("", ts.Getenv("KUBECONFIG"))
	ts.Check(err)
	all, err := crds.Read(strings.NewReader(ts.ReadFile(args[0])))
	ts.Check(err)
	ts.Check(crds.Install(context.Background(), cfg, all))
	for _, u := range all {
		group, _, _ := unstructured.NestedString(u.Object, "spec", "group")
		kind, _, _ := unstructured.NestedString(u.Object, "spec", "names", "kind")
		err := wait.PollUntilContextTimeout(context.Background(), 20*time.Millisecond, awaitPatience, true, func(context.Context) (bool, error) {
			_, err := scriptClient(ts).RESTMapper().RESTMapping(schema.GroupKind{Group: group, Kind: kind})
			return err == nil, nil
		})
		if err != nil {
			ts.Fatalf("kind %s is not served", kind)
		}
	}
}

// noteCommand writes down which objects there are in namespace apps, and who owns
// fields of them:
//
//	note FILE
func noteCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: note FILE")
	}
	c := scriptClient(ts)
	var lines []string
	for _, gvk := range []schema.GroupVersionKind{{Version: "v1", Kind: "ConfigMap"}, {Version: "v1", Kind: "Pod"}, {Group: "apps", Version: "v1", Kind: "Deployment"}} {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(gvk)
		ts.Check(c.List(context.Background(), list, client.InNamespace("apps")))
		for _, u := range list.Items {
			var managers []string
			for _, f := range u.GetManagedFields() {
				managers = append(managers, fmt.Sprintf("%s(%s)", f.Manager, f.Operation))
			}
			slices.Sort(managers)
			lines = append(lines, fmt.Sprintln(gvk.Kind, u.GetName(), u.GetUID(), strings.Join(managers, ",")))
		}
	}
	slices.Sort(lines)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(strings.Join(lines, "")), 0o600))
}

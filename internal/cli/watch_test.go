package cli_test

import (
	"bufio"
	"context"
	"io"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/cli"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestGetWatchPrintsEachChangeOnce(t *testing.T) {
	installAPIs(t)
	scheme := runtime.NewScheme()
	if err := kustomizev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(testkit.Cluster(t), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	k := &kustomizev1.Kustomization{}
	k.Name, k.Namespace = "apps", testkit.Namespace(t)
	k.Spec.SourceRef = kustomizev1.CrossNamespaceSourceReference{Kind: "GitRepository", Name: "shop"}
	if err := c.Create(t.Context(), k); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), awaitPatience)
	defer cancel()
	out, in := io.Pipe()
	code := make(chan int, 1)
	var stderr strings.Builder
	go func() {
		code <- cli.Main(ctx, []string{"bowline", "get", "ks", "-w", "-n", k.Namespace, "--kubeconfig", testkit.Kubeconfig(t)}, "",
			cli.Streams{In: strings.NewReader(""), Out: in, Err: &stderr})
		_ = in.Close()
	}()
	lines := bufio.NewScanner(out)
	next := func() string {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the output ended: %v %s", lines.Err(), stderr.String())
		}
		return strings.Join(strings.Fields(lines.Text()), " ")
	}
	if got := next(); got != "NAME REVISION SUSPENDED READY MESSAGE" {
		t.Errorf("header = %q", got)
	}
	if got := next(); got != "apps False Unknown not reconciled yet" {
		t.Errorf("first = %q", got)
	}
	k.Spec.Suspend = true
	if err := c.Update(t.Context(), k); err != nil {
		t.Fatal(err)
	}
	if got := next(); got != "apps True Unknown not reconciled yet" {
		t.Errorf("after the change = %q", got)
	}
	cancel()
	if lines.Scan() {
		t.Errorf("printed after the end: %q", lines.Text())
	}
	if got := <-code; got != 130 || stderr.String() != "" {
		t.Errorf("exit code %d, stderr %q; want 130 and nothing", got, stderr.String())
	}
}

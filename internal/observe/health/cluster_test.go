package health

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m, testkit.WithControllers()) }

// settle bounds how long a cluster may take to show what the test set up.
const settle = 60 * time.Second

func connect(t *testing.T, edit func(*rest.Config)) client.Client {
	t.Helper()
	config := testkit.Cluster(t)
	if edit != nil {
		edit(config)
	}
	c, err := client.New(config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func create(t *testing.T, c client.Client, namespace, doc string) *unstructured.Unstructured {
	t.Helper()
	u := parse(t, doc)
	u.SetNamespace(namespace)
	if err := c.Create(t.Context(), u); err != nil {
		t.Fatalf("create %s: %v", u.GetKind(), err)
	}
	return u
}

// template is the rest of a workload's spec: selector and a pod template with
// these annotations, pod fields and container fields.
func template(annotations, podSpec, containerSpec string) string {
	return "selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}, annotations: {" + annotations +
		"}}, spec: {" + podSpec + "containers: [{name: web, image: 'registry.example.com/web:1'" + containerSpec + "}]}}"
}

// waitFor reads u until its verdict has this status and its cause this kind.
func waitFor(t *testing.T, c client.Client, u *unstructured.Unstructured, status Status, kind Kind) (Verdict, Cause) {
	t.Helper()
	var verdict Verdict
	var cause Cause
	err := wait.PollUntilContextTimeout(t.Context(), 100*time.Millisecond, settle, true, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(u), u); err != nil {
			return false, err
		}
		verdict = Of(u)
		var err error
		cause, err = Explain(ctx, c, u)
		return verdict.Status == status && cause.Kind == kind, err
	})
	if err != nil {
		t.Fatalf("waited for %v because of %q: %v; at the end it was %+v because of %+v", status, kind, err, verdict, cause)
	}
	return verdict, cause
}

const (
	noPods   = "{apiVersion: v1, kind: ResourceQuota, metadata: {name: none}, spec: {hard: {pods: '0'}}}"
	smallCPU = "{apiVersion: v1, kind: LimitRange, metadata: {name: small}, spec: {limits: [{type: Container, max: {cpu: 100m}}]}}"
	probe    = ", readinessProbe: {httpGet: {port: 80}}"
)

// failing is one way to fail.
type failing struct {
	name, reason string
	before       string // created first, in the namespace
	template     string
	kind         Kind
	stuck        bool
	container    string
	exitCode     int32
	words        []string // parts of the message
}

func waysToFail() []failing {
	return []failing{
		{name: "quota", reason: "no pod fits a quota of none", before: noPods, template: template("", "", ""),
			kind: QuotaExceeded, stuck: true, words: []string{"quota leaves no room", "exceeded quota: none, requested: pods=1, used: pods=0, limited: pods=0"}},
		{name: "limit range", reason: "the container wants more than any may", before: smallCPU,
			template: template("", "", ", resources: {limits: {cpu: '2'}}"),
			kind:     LimitRange, stuck: true, words: []string{"limit range refuses", "maximum cpu usage per Container is 100m, but limit is 2"}},
		{name: "missing permission", reason: "there is no such service account", template: template("", "serviceAccountName: nobody, ", ""),
			kind: MissingPermission, stuck: true, words: []string{"missing permission", `serviceaccount "nobody" not found`}},
		{name: "image pull", reason: "the image cannot be had", template: template("localkube.bowline.dev/fail: image-pull", "", ""),
			kind: ImagePull, stuck: true, container: "web", words: []string{"image cannot be pulled: registry.example.com/web:1 (container web of Pod/"}},
		{name: "crash", reason: "the application ends with an error",
			template: template(`localkube.bowline.dev/fail: crash, localkube.bowline.dev/exit-code: "7", localkube.bowline.dev/termination-message: "starting\npanic: no database"`, "", ""),
			kind:     Crash, container: "web", exitCode: 7, words: []string{"application crashes with exit code 7 (container web of Pod/", ": panic: no database"}},
		{name: "readiness", reason: "the application runs and never gets ready", template: template("localkube.bowline.dev/fail: readiness", "", probe),
			kind: ReadinessProbe, container: "web", words: []string{"readiness probe ", "(container web of Pod/"}},
	}
}

func (f failing) check(t *testing.T, got Cause, namespace string) {
	t.Helper()
	// A crash is stuck once it has restarted often enough, which is a matter of
	// when one looks.
	if got.Kind != Crash && got.Stuck != f.stuck {
		t.Errorf("stuck is %v, want %v: %s", got.Stuck, f.stuck, f.reason)
	}
	if got.Container != f.container || got.ExitCode != f.exitCode || got.Object.Namespace != namespace {
		t.Errorf("about container %q of %v with exit code %d, want %q in %s with %d: %s", got.Container, got.Object, got.ExitCode, f.container, namespace, f.exitCode, f.reason)
	}
	for _, word := range f.words {
		if !strings.Contains(got.Message, word) {
			t.Errorf("message %q lacks %q: %s", got.Message, word, f.reason)
		}
	}
}

// TestFailingDeployments lets six Deployments run into their progress deadline,
// each in another way.
func TestFailingDeployments(t *testing.T) {
	t.Parallel()
	for _, f := range waysToFail() {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			c, namespace := connect(t, nil), testkit.Namespace(t)
			if f.before != "" {
				create(t, c, namespace, f.before)
			}
			u := create(t, c, namespace, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {progressDeadlineSeconds: 2, "+f.template+"}}")
			verdict, cause := waitFor(t, c, u, Failed, f.kind)
			f.check(t, cause, namespace)
			if !strings.Contains(verdict.Message, "progress deadline of 2 s") {
				t.Errorf("verdict %q does not say that the deadline passed", verdict.Message)
			}
			t.Log(verdict.With(cause).Message)
		})
	}
}

// TestFailingSets checks that the kinds whose controllers tell by events only
// are explained as well. They have no deadline, so they stay in progress.
func TestFailingSets(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"StatefulSet", "DaemonSet"} {
		for _, f := range waysToFail() {
			t.Run(kind+" "+f.name, func(t *testing.T) {
				t.Parallel()
				c, namespace := connect(t, nil), testkit.Namespace(t)
				if f.before != "" {
					create(t, c, namespace, f.before)
				}
				u := create(t, c, namespace, "{apiVersion: apps/v1, kind: "+kind+", metadata: {name: web}, spec: {"+f.template+"}}")
				_, cause := waitFor(t, c, u, InProgress, f.kind)
				f.check(t, cause, namespace)
			})
		}
	}
}

// TestHealthyWorkloads checks that what is well is said to be, without a cause.
func TestHealthyWorkloads(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			c, namespace := connect(t, nil), testkit.Namespace(t)
			u := create(t, c, namespace, "{apiVersion: apps/v1, kind: "+kind+", metadata: {name: web}, spec: {"+template("", "", probe)+"}}")
			verdict, _ := waitFor(t, c, u, Current, None)
			if verdict != (Verdict{Status: Current}) {
				t.Errorf("got %+v, want Current without a message", verdict)
			}
		})
	}
}

// TestRecovery checks that a cause goes when its reason does.
func TestRecovery(t *testing.T) {
	t.Parallel()
	c, namespace := connect(t, nil), testkit.Namespace(t)
	quota := create(t, c, namespace, noPods)
	u := create(t, c, namespace, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {"+template("", "", "")+"}}")
	waitFor(t, c, u, InProgress, QuotaExceeded)
	if err := c.Delete(t.Context(), quota); err != nil {
		t.Fatal(err)
	}
	// The controller backs off; a change of the Deployment makes it try at once.
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"spec":{"template":{"metadata":{"annotations":{"try":"again"}}}}}`))
	if err := c.Patch(t.Context(), u, patch); err != nil {
		t.Fatal(err)
	}
	waitFor(t, c, u, Current, None)
}

// TestNoRightToLook checks that a reader without rights gets an error to tell
// apart, not a wrong cause.
func TestNoRightToLook(t *testing.T) {
	t.Parallel()
	namespace := testkit.Namespace(t)
	u := create(t, connect(t, nil), namespace, "{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {"+template("", "", "")+"}}")
	nobody := connect(t, func(config *rest.Config) { config.Impersonate.UserName = "nobody" })
	cause, err := Explain(t.Context(), nobody, u)
	if !errors.Is(err, failure.Of(failure.Denied)) || cause != (Cause{}) {
		t.Errorf("got %+v, %v; want no cause and a denial", cause, err)
	}
}

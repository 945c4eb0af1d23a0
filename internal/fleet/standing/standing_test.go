package standing_test

import (
	"context"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/standing"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// patience is for what takes the API server.
const patience = time.Minute

func heard(t *testing.T, what string, c <-chan string) {
	t.Helper()
	select {
	case got := <-c:
		if got != what {
			t.Fatalf("%s, want %s", got, what)
		}
	case <-time.After(patience):
		t.Fatalf("not in time: %s", what)
	}
}

// TestEngineStandsStill has an engine end when the mark appears, say so on it, stay so when it is started anew, and go on when the mark goes.
func TestEngineStandsStill(t *testing.T) {
	cluster := testkit.Start(t)
	c := kubernetes.NewForConfigOrDie(cluster.Config)
	marks := c.CoreV1().ConfigMaps(v1alpha1.MemberNamespace)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.MemberNamespace}}
	if _, err := c.CoreV1().Namespaces().Create(t.Context(), ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	said := make(chan string, 10)
	start := func() (stop func()) {
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- standing.Runner{Config: cluster.Config, Log: logr.Discard(),
				Run: func(ctx context.Context) error {
					said <- "runs"
					<-ctx.Done()
					said <- "ended"
					return nil
				},
				Idle: func(ctx context.Context) {
					said <- "stands"
					<-ctx.Done()
				},
			}.Start(ctx)
		}()
		return func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Start: %v", err)
			}
		}
	}
	stop := start()
	heard(t, "runs", said)

	mark := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.PivotMark}}
	if _, err := marks.Create(t.Context(), mark, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	heard(t, "ended", said)
	heard(t, "stands", said)
	got, err := marks.Get(t.Context(), v1alpha1.PivotMark, metav1.GetOptions{})
	if err != nil || got.Annotations[v1alpha1.PivotStanding] == "" {
		t.Errorf("the engine does not say that it stands: %v, %v", got.Annotations, err)
	}
	stop()

	stop = start()
	heard(t, "stands", said)
	got.Data = map[string]string{v1alpha1.PivotStage: "moving"}
	if _, err := marks.Update(t.Context(), got, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := marks.Delete(t.Context(), v1alpha1.PivotMark, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	heard(t, "runs", said)
	stop()
	heard(t, "ended", said)
}

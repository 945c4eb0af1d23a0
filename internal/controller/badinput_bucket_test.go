package controller

import (
	"strings"
	"testing"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/buckettest"
)

// A bucket that fails leaves what runs as it is, says why, and recovers.
func TestBadBucket(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, why     string
		breaks, fixes func(s *stage, s3 *buckettest.S3Server, g *gate)
		reason        string
		words         []string
	}{
		{
			name: "unreachable", why: "nobody listens at the address",
			breaks: func(_ *stage, _ *buckettest.S3Server, g *gate) { g.close() }, fixes: func(_ *stage, _ *buckettest.S3Server, g *gate) { g.open() },
			reason: sourcev1.BucketOperationFailedReason, words: []string{"connection refused", "check that the server is up"},
		},
		{
			name: "refused", why: "the server is broken",
			breaks: func(_ *stage, s3 *buckettest.S3Server, _ *gate) { s3.Refuse(500) }, fixes: func(_ *stage, s3 *buckettest.S3Server, _ *gate) { s3.Refuse(0) },
			reason: sourcev1.BucketOperationFailedReason, words: []string{"500", "see the server's log"},
		},
		{
			name: "timing out", why: "the server takes the request and never answers",
			breaks: func(_ *stage, s3 *buckettest.S3Server, _ *gate) { s3.Hang(true) }, fixes: func(_ *stage, s3 *buckettest.S3Server, _ *gate) { s3.Hang(false) },
			reason: sourcev1.BucketOperationFailedReason, words: []string{"has not answered in full within 1s", "spec.timeout"},
		},
		{
			name: "no such bucket", why: "its name was changed",
			breaks: func(s *stage, _ *buckettest.S3Server, _ *gate) {
				edit(s, s.objects(), func(b *sourcev1.Bucket) { b.Spec.BucketName += "-gone" })
			},
			fixes: func(s *stage, s3 *buckettest.S3Server, _ *gate) {
				edit(s, s.objects(), func(b *sourcev1.Bucket) { b.Spec.BucketName = s3.Bucket })
			},
			reason: sourcev1.BucketOperationFailedReason, words: []string{"-gone: there is no such bucket", "spec.bucketName"},
		},
		{
			name: "missing Secret", why: "somebody deleted it",
			breaks: func(s *stage, _ *buckettest.S3Server, _ *gate) {
				if err := s.client.Delete(s.Context(), s.s3Keys("")); err != nil {
					s.Fatal(err)
				}
			},
			fixes:  func(s *stage, _ *buckettest.S3Server, _ *gate) { s.create(s.s3Keys(buckettest.S3SecretKey)) },
			reason: sourcev1.AuthenticationFailedReason, words: []string{"/keys", "create it, or correct spec.secretRef"},
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			s, s3 := newStage(t), buckettest.NewS3(t)
			g := newGate(t, s3.Endpoint())
			s.create(s.s3Keys(buckettest.S3SecretKey))
			s3.Put(map[string]string{"app/a.yaml": configMap("a", "1")})
			s.bucket(s3.Server, func(b *sourcev1.Bucket) {
				b.Spec.Endpoint, b.Spec.Timeout = g.addr, &metav1.Duration{Duration: time.Second}
			})
			s.unit("app", fromBucket)
			first := s.awaitFetched("").Status.Artifact.Revision
			s.awaitLive("app", first)
			before := s.deliveredConfigs()

			s3.Put(map[string]string{"app/a.yaml": configMap("a", "2")})
			row.breaks(s, s3, g)
			request := s.ask(s.objects())
			failed := s.awaitBucket("failed as asked", func(b *sourcev1.Bucket) bool {
				return b.Status.LastHandledReconcileAt == request && says(b, metav1.ConditionFalse, row.reason, row.words...)
			})
			if failed.Status.Artifact == nil || failed.Status.Artifact.Revision != first {
				t.Errorf("the artifact is %v after a failed fetch, want that of %s: %s", failed.Status.Artifact, first, row.why)
			}
			if c := report.Condition(failed, sourcev1.FetchFailedCondition); c == nil || c.Status != metav1.ConditionTrue {
				t.Errorf("FetchFailed is %v: %s", c, row.why)
			}
			if strings.Contains(standingOf(failed), buckettest.S3SecretKey) {
				t.Errorf("a secret is shown: %s", standingOf(failed))
			}
			s.awaitLive("app", first)
			s.untouched(before)

			row.fixes(s, s3, g)
			healed := s.awaitBucket("ready at the next state", func(b *sourcev1.Bucket) bool {
				return report.IsReady(b, b.Status.ObservedGeneration) && b.Status.Artifact.Revision != first
			})
			s.awaitLive("app", healed.Status.Artifact.Revision)
			if c := report.Condition(healed, sourcev1.FetchFailedCondition); c != nil {
				t.Errorf("it still says FetchFailed: %s", c.Message)
			}
		})
	}
}

// After a restart a bucket that cannot be reached, or is suspended, goes on to serve what it had.
func TestBucketAfterRestart(t *testing.T) {
	t.Parallel()
	config := testkit.Start(t, testkit.WithControllers()).Config
	dir := t.TempDir()
	e, err := startEngine(config, dir)
	if err != nil {
		t.Fatal(err)
	}
	s, s3 := stageOn(t, config), buckettest.NewS3(t)
	s.create(s.s3Keys(buckettest.S3SecretKey))
	s3.Put(map[string]string{"app/a.yaml": configMap("a", "1")})
	s.bucket(s3.Server)
	s.unit("app", fromBucket)
	revision := s.awaitFetched("").Status.Artifact.Revision
	s.awaitLive("app", revision)
	if err := e.stop(); err != nil {
		t.Fatal(err)
	}
	s3.Refuse(503)
	if err := s.client.Delete(t.Context(), s.config("a")); err != nil {
		t.Fatal(err)
	}
	again := runEngine(config, dir)
	t.Cleanup(func() {
		if err := again.stop(); err != nil {
			t.Errorf("the engine ended with: %v", err)
		}
	})
	await(s, &corev1.ConfigMapList{}, "a", "made anew", func(*corev1.ConfigMap) bool { return true })
	s.awaitBucketFailure(sourcev1.BucketOperationFailedReason, "503")
}

// A tenant's bucket is served like all others; what a tenant may not show as his own.
func TestBucketTenant(t *testing.T) {
	t.Parallel()
	config := testkit.Start(t).Config
	engineFor(t, config, func(o *Options) {
		o.Tenancy, o.StorageAddr = Tenancy{PlatformNamespaces: []string{"platform"}}, "127.0.0.1:0"
	})
	s, s3 := stageOn(t, config), buckettest.NewS3(t)
	good := s.s3Keys(buckettest.S3SecretKey)
	good.Name = "good"
	s.create(good)
	s3.Put(map[string]string{"app/a.yaml": "1"})
	s.bucket(s3.Server, func(b *sourcev1.Bucket) { b.Name, b.Spec.SecretRef.Name = "good", "good" })
	b := await(s, &sourcev1.BucketList{}, "good", "fetched", func(b *sourcev1.Bucket) bool { return report.IsReady(b, b.Status.ObservedGeneration) })
	if data, err := s.fetched(b.Status.Artifact).Tree.ReadFile("app/a.yaml"); err != nil || string(data) != "1" || b.Status.URL != b.Status.Artifact.URL {
		t.Errorf("served %q under %s: %v", data, b.Status.URL, err)
	}
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "keys", Namespace: s.namespace}, Data: map[string][]byte{"clientId": []byte("11111111-2222-3333-4444-555555555555")}})
	s.bucket(&buckettest.Server{Bucket: "x"}, func(b *sourcev1.Bucket) {
		b.Spec.Provider, b.Spec.Endpoint = sourcev1.BucketProviderAzure, "http://127.0.0.1:1/account"
	})
	s.awaitBucketFailure(sourcev1.AuthenticationFailedReason, "managed identity", "confined", "spec.serviceAccountName")
	s.bucket(&buckettest.Server{Bucket: "x"}, func(b *sourcev1.Bucket) {
		b.Name, b.Spec.SecretRef = "nobody", nil
		b.Spec.Provider, b.Spec.Endpoint, b.Spec.Region = sourcev1.BucketProviderAmazon, "127.0.0.1:1", "eu-west-1"
	})
	await(s, &sourcev1.BucketList{}, "nobody", "refused", func(b *sourcev1.Bucket) bool {
		return says(b, metav1.ConditionFalse, sourcev1.AuthenticationFailedReason, "ServiceAccount/"+s.namespace+"/"+confinedAccount)
	})
}

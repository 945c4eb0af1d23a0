package controller

import (
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// podinfo is a chart that can be told from others of its name by its values.
func podinfo(version string) testkit.Chart {
	return testkit.Chart{Name: "podinfo", Version: version, Files: map[string]string{
		"values.yaml": "replicas: 1\nui:\n  color: blue\n", "values-prod.yaml": "replicas: 3\n", "values-red.yaml": "ui:\n  color: red\n",
		"templates/config.yaml": "kind: ConfigMap\n",
	}}
}

// stageServing is a stage on a cluster of its own, whose engine serves artifacts.
func stageServing(t *testing.T, change ...func(*Options)) *stage {
	t.Helper()
	one := testkit.Start(t)
	e := engineFor(t, one.Config, append(change, func(o *Options) { o.StorageAddr = "127.0.0.1:0" })...)
	s := stageOn(t, one.Config)
	s.engine = e
	return s
}

// helmRepository makes a HelmRepository "charts" that never comes back by itself.
func (s *stage) helmRepository(url string, change ...func(*sourcev1.HelmRepository)) *sourcev1.HelmRepository {
	s.Helper()
	r := &sourcev1.HelmRepository{
		ObjectMeta: metav1.ObjectMeta{Name: "charts", Namespace: s.namespace},
		Spec:       sourcev1.HelmRepositorySpec{URL: url, Interval: metav1.Duration{Duration: never}, Timeout: &metav1.Duration{Duration: 20 * time.Second}},
	}
	for _, c := range change {
		c(r)
	}
	s.create(r)
	return r
}

// helmChart makes a HelmChart of podinfo in the HelmRepository "charts" that never comes back by itself.
func (s *stage) helmChart(name string, change ...func(*sourcev1.HelmChartSpec)) *sourcev1.HelmChart {
	s.Helper()
	hc := &sourcev1.HelmChart{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace},
		Spec: sourcev1.HelmChartSpec{
			Chart: "podinfo", Interval: metav1.Duration{Duration: never},
			SourceRef: sourcev1.LocalHelmChartSourceReference{Kind: sourcev1.HelmRepositoryKind, Name: "charts"},
		},
	}
	for _, c := range change {
		c(&hc.Spec)
	}
	s.create(hc)
	return hc
}

// fromGit makes a HelmChart one of the stage's repository.
func fromGit(at string) func(*sourcev1.HelmChartSpec) {
	return func(c *sourcev1.HelmChartSpec) {
		c.Chart, c.SourceRef = at, sourcev1.LocalHelmChartSourceReference{Kind: sourcev1.GitRepositoryKind, Name: "fleet"}
	}
}

func (s *stage) awaitHelmRepository(what string, ok func(*sourcev1.HelmRepository) bool) *sourcev1.HelmRepository {
	s.Helper()
	return await(s, &sourcev1.HelmRepositoryList{}, "charts", what, ok)
}

func (s *stage) awaitHelmChart(name, what string, ok func(*sourcev1.HelmChart) bool) *sourcev1.HelmChart {
	s.Helper()
	return await(s, &sourcev1.HelmChartList{}, name, what, ok)
}

// awaitChartAt waits until a HelmChart is ready at a revision.
func (s *stage) awaitChartAt(name, revision string) *sourcev1.HelmChart {
	s.Helper()
	return s.awaitHelmChart(name, "ready at "+revision, func(hc *sourcev1.HelmChart) bool {
		return report.IsReady(hc, hc.Status.ObservedGeneration) && hc.Status.Artifact != nil && hc.Status.Artifact.Revision == revision
	})
}

func (s *stage) awaitChartFailure(name, reason string, words ...string) *sourcev1.HelmChart {
	s.Helper()
	return s.awaitHelmChart(name, reason, func(hc *sourcev1.HelmChart) bool { return says(hc, metav1.ConditionFalse, reason, words...) })
}

func (s *stage) awaitIndexed() *sourcev1.HelmRepository {
	s.Helper()
	return s.awaitHelmRepository("fetched", func(r *sourcev1.HelmRepository) bool { return says(r, metav1.ConditionTrue, meta.SucceededReason) })
}

// opaque makes a Secret.
func (s *stage) opaque(name string, data map[string][]byte) *corev1.Secret {
	s.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace}, Data: data}
	s.create(secret)
	return secret
}

// download gets what a status says where it is.
func download(t *testing.T, url string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	data, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %v %d %s", url, err, answer.StatusCode, data)
	}
	return data
}

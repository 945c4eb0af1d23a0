package controller

import (
	"testing"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// Nobody is asked to create the HelmChart that was made of a template a moment ago.
func TestChartThatTheCacheLacks(t *testing.T) {
	t.Parallel()
	if err := crds.Apply(t.Context(), testkit.Cluster(t)); err != nil {
		t.Fatal(err)
	}
	scheme, err := NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(testkit.Cluster(t), client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	r := &helmReleaseRun{helmReleases: &helmReleases{units: &units[*helmv2.HelmRelease]{client: c}, charts: newChartTemplates()}}
	key := sourceKey{sourcev1.HelmChartKind, types.NamespacedName{Namespace: "default", Name: "made-a-moment-ago"}}
	for _, row := range []struct {
		name, reason string
		before       func()
		want         bool
	}{
		{"never made", "somebody has to create it", func() {}, false},
		{"made", "it is about to be seen", func() {
			r.charts.note(&sourcev1.HelmChart{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}})
		}, true},
		{"deleted", "nobody made it since", func() { r.charts.gone(key.NamespacedName) }, false},
	} {
		if row.before(); r.chartUnseen(t.Context(), key) != row.want {
			t.Errorf("%s: %v, because %s", row.name, !row.want, row.reason)
		}
	}
}

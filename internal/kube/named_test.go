package kube

import (
	"errors"
	"net/http"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/bowline-dev/bowline/internal/failure"
)

// asked notes where requests go, and answers none.
type asked struct{ paths []string }

func (a *asked) RoundTrip(r *http.Request) (*http.Response, error) {
	a.paths = append(a.paths, r.URL.Path)
	return nil, errors.New("no answer")
}

// No name of an object leads a request to another one.
func TestNames(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, reason, namespace, object string
		sent                            bool
	}{
		{"plain", "it is a name", "ns", "db", true},
		{"with a colon", "roles have such names", "", "system:db", true},
		{"path", "it leads to another object", "ns", "../../victim/secrets/db", false},
		{"parent", "it leads to another object", "ns", "..", false},
		{"escaped", "some would undo it", "ns", "%2e%2e", false},
		{"namespace", "it leads elsewhere", "../victim", "db", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sent := &asked{}
			cluster, err := Over("https://example.com", sent, nil)
			if err != nil {
				t.Fatal(err)
			}
			things := cluster.Metadata.Resource(schema.GroupVersionResource{Version: "v1", Resource: "things"}).Namespace(c.namespace)
			_, got := things.Get(t.Context(), c.object, metav1.GetOptions{})
			_, patched := things.Patch(t.Context(), c.object, types.MergePatchType, []byte("{}"), metav1.PatchOptions{})
			deleted := things.Delete(t.Context(), c.object, metav1.DeleteOptions{})
			for verb, err := range map[string]error{"get": got, "patch": patched, "delete": deleted} {
				if err == nil || errors.Is(err, failure.Of(failure.Invalid)) == c.sent {
					t.Errorf("%s: %v; %s", verb, err, c.reason)
				}
			}
			if (len(sent.paths) > 0) != c.sent {
				t.Errorf("requests %q; %s", sent.paths, c.reason)
			}
		})
	}
}

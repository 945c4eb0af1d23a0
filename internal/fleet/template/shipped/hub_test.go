package shipped_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/fleet/template"
	"github.com/bowline-dev/bowline/internal/fleet/template/shipped"
	"github.com/bowline-dev/bowline/internal/testkit"
)

var repository = filepath.Join("..", "..", "..", "..")

// hub is an API server with the definitions of all providers, and with the managers of those
// whose webhooks can be had: Cluster API itself and its provider for AWS.
type hub struct {
	client.Client
	namespace string
	missing   map[string]string // what to do, by how the kinds of a provider begin whose definitions are not here
	warnings  warnings
	compiler  *template.Compiler
}

func newHub(t *testing.T) *hub {
	t.Helper()
	h := &hub{compiler: template.NewCompiler(), missing: map[string]string{}}
	cfg := testkit.Cluster(t)
	// The managers bring their own. These are first, because the API server holds up the first objects of new ones.
	if err := crds.Install(t.Context(), cfg, h.definitions(t)); err != nil {
		t.Fatal(err)
	}
	testkit.NewClusterAPI(t, testkit.Kubeconfig(t))
	testkit.NewClusterAPIProviderAWS(t, testkit.Kubeconfig(t))
	cfg.WarningHandlerWithContext = &h.warnings
	c, err := client.New(cfg, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h.Client, h.namespace = c, testkit.Namespace(t)
	return h
}

// beginnings are those of the kinds of the providers that have no manager here.
var beginnings = map[string]string{"kubeadm": "Kubeadm", "azure": "Azure", "vsphere": "VSphere"}

// definitions are those that no manager brings.
func (h *hub) definitions(t *testing.T) []*unstructured.Unstructured {
	t.Helper()
	all, err := crds.Local()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range shipped.Find(t.Context(), repository) {
		beginning, ok := beginnings[d.Provider]
		if !ok {
			continue
		}
		if d.Missing != "" {
			h.missing[beginning] = d.Provider + ": " + d.Missing
		}
		for _, folder := range d.Folders {
			all = append(all, read(t, folder)...)
		}
	}
	return all
}

func read(t *testing.T, folder string) (all []*unstructured.Unstructured) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s: found %d definitions: %v", folder, len(files), err)
	}
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		found, err := crds.Read(file)
		_ = file.Close()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, found...)
	}
	return all
}

// render returns the objects of an example as they would be in the namespace of the test.
func (h *hub) render(t *testing.T, e shipped.Example) []*unstructured.Unstructured {
	t.Helper()
	objects, err := h.compiler.Render(t.Context(), e.Template, e.Cluster)
	if err != nil {
		t.Fatalf("%s: %v", e.File, err)
	}
	for _, u := range objects {
		u.SetNamespace(h.namespace)
	}
	return objects
}

// judge has the API server take u, with all that it asks, and forget it again. It returns
// what is wrong with it, or else why nothing can be said: the definitions of its provider are not here.
func (h *hub) judge(ctx context.Context, u *unstructured.Unstructured) (wrong []string, unjudged string) {
	if unjudged = h.unjudged(u); unjudged != "" {
		return nil, unjudged
	}
	answer := u.DeepCopy()
	h.warnings.take()
	err := h.Create(ctx, answer, client.DryRunAll, client.FieldValidation(metav1.FieldValidationStrict))
	if err != nil {
		return []string{err.Error()}, ""
	}
	for _, text := range h.warnings.take() {
		wrong = append(wrong, "warning: "+text)
	}
	return append(wrong, rewritten("", u.Object, answer.Object)...), ""
}

// unjudged says why the definition of the kind of u is not here, and "" where it is.
func (h *hub) unjudged(u *unstructured.Unstructured) string {
	for beginning, why := range h.missing {
		if strings.HasPrefix(u.GetKind(), beginning) {
			return why
		}
	}
	return ""
}

// rewritten returns the fields of what was sent that the answer has differently. A webhook that puts one right
// differs from what Git says ever after.
func rewritten(path string, sent, answer any) (wrong []string) {
	switch s := sent.(type) {
	case map[string]any:
		a, _ := answer.(map[string]any)
		for key, value := range s {
			wrong = append(wrong, rewritten(path+"."+key, value, a[key])...)
		}
	case []any:
		a, _ := answer.([]any)
		if len(a) != len(s) {
			return []string{fmt.Sprintf("%s: %d elements became %d", path, len(s), len(a))}
		}
		for i, value := range s {
			wrong = append(wrong, rewritten(fmt.Sprintf("%s[%d]", path, i), value, a[i])...)
		}
	default:
		if sent != answer {
			return []string{fmt.Sprintf("%s: %v became %v", path, sent, answer)}
		}
	}
	slices.Sort(wrong)
	return wrong
}

// warnings are what the API server and its webhooks said besides accepting an object.
type warnings struct {
	sync.Mutex
	texts []string
}

// HandleWarningHeaderWithContext implements rest.WarningHandlerWithContext.
func (w *warnings) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	w.Lock()
	defer w.Unlock()
	w.texts = append(w.texts, text)
}

func (w *warnings) take() []string {
	w.Lock()
	defer w.Unlock()
	texts := w.texts
	w.texts = nil
	return texts
}

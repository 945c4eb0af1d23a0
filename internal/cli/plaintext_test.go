package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/controller"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/testkit"
)

const secretsNamespace = "secrets"

// TestPlainText takes secrets in all their forms, and all ways to fail with them,
// through the program as people run it, and then looks for their plain text in
// everything that it wrote: its output, its folders, the whole cluster apart from the
// data of what it delivered, its metrics, and what its command line shows.
func TestPlainText(t *testing.T) {
	t.Parallel()
	own := testkit.Start(t)
	if err := crds.Apply(t.Context(), own.Config); err != nil {
		t.Fatal(err)
	}
	p := &plainText{T: t, bowline: filepath.Join(processes(t), "bowline"), kubeconfig: own.Kubeconfig, dir: t.TempDir(),
		repo: testkit.NewGitServer(t).Repo("fleet")}
	scheme, err := controller.NewScheme()
	if err != nil {
		t.Fatal(err)
	}
	if p.client, err = client.New(own.Config, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	if p.discovery, err = discovery.NewDiscoveryClientForConfig(own.Config); err != nil {
		t.Fatal(err)
	}
	scenes := newScenes(t)
	p.prepare(scenes)
	p.startEngine()
	for _, s := range scenes {
		p.await(s)
	}
	p.change(scenes)
	p.delivered(scenes)
	places := p.everything(scenes)
	p.Logf("%d places, %d scenes, %d texts", len(places), len(scenes), len(texts(scenes)))
	for _, found := range find(places, texts(scenes)) {
		t.Errorf("plain text is in %s", found)
	}
	p.canFail(scenes)
}

// plainText is the stage of TestPlainText.
type plainText struct {
	*testing.T
	bowline, kubeconfig, dir string
	metrics                  string
	repo                     *testkit.Repo
	client                   client.Client
	discovery                *discovery.DiscoveryClient
}

func (p *plainText) create(o client.Object) {
	p.Helper()
	if err := p.client.Create(p.Context(), o); err != nil {
		p.Fatalf("create %s: %v", o.GetName(), err)
	}
}

// prepare commits the files of all scenes, and makes their units.
func (p *plainText) prepare(scenes []scene) {
	p.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: secretsNamespace}})
	files := map[string]string{}
	for _, s := range scenes {
		for name, text := range s.files {
			files[s.name+"/"+name] = text
		}
	}
	p.repo.Commit(files)
	p.create(&sourcev1.GitRepository{ObjectMeta: metav1.ObjectMeta{Name: "fleet", Namespace: secretsNamespace}, Spec: sourcev1.GitRepositorySpec{
		URL: p.repo.URL(), Interval: metav1.Duration{Duration: time.Hour}, Reference: &sourcev1.GitRepositoryRef{Branch: "main"}}})
	for _, s := range scenes {
		if s.keys != nil {
			p.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: s.name + "-keys", Namespace: secretsNamespace}, StringData: s.keys})
		}
		k := &kustomizev1.Kustomization{ObjectMeta: metav1.ObjectMeta{Name: s.name, Namespace: secretsNamespace}, Spec: kustomizev1.KustomizationSpec{
			Path: "./" + s.name, Prune: true, TargetNamespace: secretsNamespace, Interval: metav1.Duration{Duration: time.Hour},
			SourceRef: kustomizev1.CrossNamespaceSourceReference{Kind: sourcev1.GitRepositoryKind, Name: "fleet"}, PostBuild: s.postBuild,
		}}
		if s.keys != nil {
			k.Spec.Decryption = &kustomizev1.Decryption{Provider: "sops", SecretRef: &meta.LocalObjectReference{Name: s.name + "-keys"}}
		}
		p.create(k)
	}
}

func (p *plainText) environment() []string {
	env := append(os.Environ(), "HOME="+filepath.Join(p.dir, "home"), "TMPDIR="+filepath.Join(p.dir, "tmp"), "KUBECONFIG="+p.kubeconfig)
	return append(env, "BOWLINE_HOME="+filepath.Join(p.dir, "home", "bowline"))
}

// startEngine runs the program, with all that it may write in one folder.
func (p *plainText) startEngine() {
	p.Helper()
	for _, d := range []string{"home", "tmp", "data"} {
		if err := os.MkdirAll(filepath.Join(p.dir, d), 0o755); err != nil {
			p.Fatal(err)
		}
	}
	log, err := os.Create(filepath.Join(p.dir, "engine.log"))
	if err != nil {
		p.Fatal(err)
	}
	p.metrics = closedAddress(p.T)
	engine := exec.Command(p.bowline, "controller", "--data-dir", filepath.Join(p.dir, "data"), "--metrics-addr", p.metrics,
		"--health-addr", "0", "--storage-addr", "127.0.0.1:0", "--tenancy", "open", "--log-level", "debug", "--kubeconfig", p.kubeconfig)
	engine.Env, engine.Stdout, engine.Stderr = p.environment(), log, log
	if err := engine.Start(); err != nil {
		p.Fatal(err)
	}
	p.Cleanup(func() {
		_ = engine.Process.Signal(syscall.SIGTERM)
		_ = engine.Wait()
		_ = log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && p.Failed() {
			p.Logf("the engine's log:\n%s", text)
		}
	})
}

// await waits until the unit of a scene has come to its end.
func (p *plainText) await(s scene) {
	p.Helper()
	k := &kustomizev1.Kustomization{}
	last := ""
	err := wait.PollUntilContextTimeout(p.Context(), 50*time.Millisecond, awaitPatience, true, func(ctx context.Context) (bool, error) {
		if err := p.client.Get(ctx, client.ObjectKey{Namespace: secretsNamespace, Name: s.name}, k); err != nil {
			return false, err
		}
		for _, c := range k.Status.Conditions {
			if c.Type == meta.ReadyCondition {
				last = fmt.Sprintf("%s %s: %s", c.Status, c.Reason, c.Message)
				return s.fails == "" && c.Status == metav1.ConditionTrue || s.fails != "" && c.Status == metav1.ConditionFalse && strings.Contains(c.Message, s.fails), nil
			}
		}
		return false, nil
	})
	if err != nil {
		p.Errorf("%s (%s): %v; it says %s", s.name, s.reason, err, last)
	} else {
		p.Logf("%s: %s", s.name, last)
	}
}

// change commits the later files of the scenes that have any.
func (p *plainText) change(scenes []scene) {
	p.Helper()
	files := map[string]string{}
	for _, s := range scenes {
		for name, text := range s.later {
			files[s.name+"/"+name] = text
		}
	}
	p.repo.Commit(files)
	p.run(0, "reconcile", "gitrepository", "fleet", "-n", secretsNamespace)
	for _, s := range scenes {
		if s.later != nil {
			s.fails = s.thenFails
			p.await(s)
		}
	}
}

// delivered proves that the plain text did get to where it belongs.
func (p *plainText) delivered(scenes []scene) {
	p.Helper()
	for _, s := range scenes {
		for object, text := range s.delivers {
			kind, name, _ := strings.Cut(object, "/")
			u := &unstructured.Unstructured{}
			u.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: kind})
			if err := p.client.Get(p.Context(), client.ObjectKey{Namespace: secretsNamespace, Name: name}, u); err != nil {
				p.Errorf("%s: %v", s.name, err)
				continue
			}
			data, err := json.Marshal(u.Object)
			if err != nil || len(find(map[string][]byte{object: data}, []string{text})) == 0 {
				p.Errorf("%s: %s does not hold what it should (%v)", s.name, object, err)
			}
		}
	}
}

// run runs the program and returns what it printed; codes above the given are errors.
func (p *plainText) run(worst int, args ...string) []byte {
	p.Helper()
	cmd := exec.CommandContext(p.Context(), p.bowline, args...)
	cmd.Env = p.environment()
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState.ExitCode() > worst {
		p.Errorf("bowline %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// everything is all that the engine wrote, by where it is.
func (p *plainText) everything(scenes []scene) map[string][]byte {
	p.Helper()
	places := p.cluster()
	for _, s := range scenes {
		places["bowline diff "+s.name] = p.run(2, "diff", "kustomization", s.name, "-n", secretsNamespace, "--revision", p.next(s))
		places["bowline tree "+s.name] = p.run(0, "tree", "kustomization", s.name, "-n", secretsNamespace)
	}
	if shown := places["bowline diff whole"]; !bytes.Contains(shown, []byte("sha256:")) {
		p.Errorf("the diff shows no change of a Secret:\n%s", shown)
	}
	if shown := places["bowline diff config-map"]; !bytes.Contains(shown, []byte("sha256:")) {
		p.Errorf("the diff shows no change of a ConfigMap:\n%s", shown)
	}
	for _, format := range []string{"yaml", "json", "wide"} {
		places["bowline get -o "+format] = p.run(0, "get", "kustomizations", "-n", secretsNamespace, "-o", format)
	}
	places["bowline events"] = p.run(0, "events", "-n", secretsNamespace)
	places["/metrics"] = p.scrape()
	p.folder(places)
	return places
}

// next is a branch on which the scene's Secret is another.
func (p *plainText) next(s scene) string {
	if s.next == nil {
		return "main"
	}
	files := map[string]string{}
	for name, text := range s.next {
		files[s.name+"/"+name] = text
	}
	p.repo.Branch("next-"+s.name, "main")
	p.repo.On("next-" + s.name).Commit(files)
	return "next-" + s.name
}

func (p *plainText) scrape() []byte {
	p.Helper()
	req, err := http.NewRequestWithContext(p.Context(), http.MethodGet, "http://"+p.metrics+"/metrics", nil)
	if err != nil {
		p.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || len(body) == 0 {
		p.Fatalf("the metrics: %d bytes, %v", len(body), err)
	}
	return body
}

// folder adds every file that the engine and the commands wrote, and its name.
func (p *plainText) folder(places map[string][]byte) {
	p.Helper()
	err := filepath.WalkDir(p.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		places[path] = append(data, path...)
		return err
	})
	if err != nil {
		p.Fatal(err)
	}
	if len(places[filepath.Join(p.dir, "engine.log")]) < 100 {
		p.Error("the engine logged nothing")
	}
}

// cluster adds every object on the cluster, without what may hold the plain text: the
// data of Secrets, and of the objects that scenes deliver.
func (p *plainText) cluster() map[string][]byte {
	p.Helper()
	places := map[string][]byte{}
	lists, err := p.discovery.ServerPreferredResources()
	if err != nil {
		p.Fatal(err)
	}
	for _, l := range lists {
		gv, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			p.Fatal(err)
		}
		for _, r := range l.APIResources {
			if strings.Contains(r.Name, "/") || !strings.Contains(strings.Join(r.Verbs, " "), "list") {
				continue
			}
			list := &unstructured.UnstructuredList{}
			list.SetGroupVersionKind(gv.WithKind(r.Kind + "List"))
			if err := p.client.List(p.Context(), list); err != nil {
				p.Fatalf("list %s: %v", r.Name, err)
			}
			for _, u := range list.Items {
				if owner := u.GetLabels()["kustomize.toolkit.fluxcd.io/name"]; owner != "" || r.Kind == "Secret" {
					for _, field := range []string{"data", "stringData", "spec"} {
						delete(u.Object, field)
					}
				}
				data, err := json.Marshal(u.Object)
				if err != nil {
					p.Fatal(err)
				}
				places[r.Kind+" "+u.GetNamespace()+"/"+u.GetName()] = data
			}
		}
	}
	events := 0
	for place := range places {
		if strings.HasPrefix(place, "Event secrets/") {
			events++
		}
	}
	if events < 5 {
		p.Errorf("only %d events", events)
	}
	return places
}

// canFail proves that the search finds: plain text in every form, where it is planted.
func (p *plainText) canFail(scenes []scene) {
	p.Helper()
	all := texts(scenes)
	for _, form := range forms(all[0]) {
		path := filepath.Join(p.dir, "data", "planted")
		if err := os.WriteFile(path, []byte("before "+form+" after"), 0o600); err != nil {
			p.Fatal(err)
		}
		places := map[string][]byte{}
		p.folder(places)
		if found := find(places, all); len(found) != 1 || !strings.HasPrefix(found[0], path) {
			p.Errorf("planted %q, found %q", form, found)
		}
	}
}

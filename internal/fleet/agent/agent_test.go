package agent_test

import (
	"os"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/fleet/agent"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

func manifests(t *testing.T, o agent.Options) []*unstructured.Unstructured {
	t.Helper()
	all, err := agent.Manifests(o)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var whole = agent.Options{Image: "registry.example.com/bowline:v1", Invitation: []byte("kind: Config\n"), Args: []string{"--log-level=debug"}}

// The definitions are named only; they have tests of their own.
func TestManifests(t *testing.T) {
	var out strings.Builder
	for _, u := range manifests(t, whole) {
		if u.GetKind() == "CustomResourceDefinition" {
			out.WriteString("# " + u.GetName() + "\n")
			continue
		}
		data, err := yaml.Marshal(u.Object)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString("---\n" + string(data))
	}
	const golden = "testdata/manifests.yaml"
	if os.Getenv("BOWLINE_UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(golden, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("the manifests are not those of %s (BOWLINE_UPDATE_GOLDEN=1 writes it):\n%s", golden, out.String())
	}
}

func TestDigest(t *testing.T) {
	of := func(o agent.Options) string {
		digest, err := agent.Digest(manifests(t, o))
		if err != nil {
			t.Fatal(err)
		}
		return digest
	}
	other, joined := whole, whole
	other.Image, joined.Invitation = "registry.example.com/bowline:v2", nil
	tests := []struct {
		name, reason string
		o            agent.Options
		same         bool
	}{
		{"again", "the same is the same", whole, true},
		{"without an invitation", "it is used once, and the agent stays", joined, true},
		{"another image", "the agent is to be upgraded", other, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if same := of(tt.o) == of(whole); same != tt.same {
				t.Errorf("the same: %t, want %t: %s", same, tt.same, tt.reason)
			}
		})
	}
}

func TestDefaultImage(t *testing.T) {
	tests := []struct{ name, reason, version, want string }{
		{"release", "its own image", "v1.2.3", "v1.2.3"},
		{"build metadata", "a plus is in no tag", "v1.2.4-0.2026+dirty", "v1.2.4-0.2026-dirty"},
		{"development", "there is no image of it", "(devel)", "latest"},
		{"none", "the build set none", "", "latest"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := agent.DefaultImage(tt.version); got != agent.Repository+":"+tt.want {
				t.Errorf("got %s, want the tag %s: %s", got, tt.want, tt.reason)
			}
		})
	}
}

func connect(t *testing.T, config *rest.Config) client.Client {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := agent.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(config, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// installed are the objects that come and go with the agent.
func installed() []client.Object {
	named := metav1.ObjectMeta{Namespace: "bowline-system", Name: agent.Name}
	return []client.Object{&appsv1.Deployment{ObjectMeta: named}, &corev1.ServiceAccount{ObjectMeta: named}, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: agent.Name}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "bowline-system", Name: agent.InvitationName}}}
}

// An agent is installed twice and removed twice: whatever was done already is no error.
func TestInstallAndRemove(t *testing.T) {
	config := testkit.Cluster(t)
	c := connect(t, config)
	all := manifests(t, whole)
	for served := false; !served; {
		var err error
		if served, err = agent.Prepare(t.Context(), c, all); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := agent.Install(t.Context(), c, all); err != nil {
			t.Fatal(err)
		}
	}
	for _, o := range installed() {
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(o), o); err != nil {
			t.Errorf("not installed: %v", err)
		}
	}
	own := rest.AnonymousClientConfig(config)
	own.Impersonate.UserName = "system:serviceaccount:bowline-system:" + agent.Name
	own.CertData, own.KeyData = config.CertData, config.KeyData
	for range 2 {
		// By its own account, as an agent does it that leaves.
		if err := agent.Remove(t.Context(), connect(t, own)); err != nil && !apierrors.IsForbidden(err) {
			t.Fatal(err)
		}
	}
	for _, o := range installed() {
		err := c.Get(t.Context(), client.ObjectKeyFromObject(o), o)
		if account, ok := o.(*corev1.ServiceAccount); ok && err == nil {
			// There is no garbage collector here.
			if len(account.OwnerReferences) != 1 || account.OwnerReferences[0].Name != agent.Name {
				t.Errorf("the account would stay: %+v", account.OwnerReferences)
			}
			continue
		}
		if !apierrors.IsNotFound(err) {
			t.Errorf("%T is still there: %v", o, err)
		}
	}
	if err := agent.Remove(t.Context(), c); err != nil {
		t.Error(err)
	}
}

package access_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/fluxcd/pkg/apis/meta"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/access"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }

const secretToken = "a-token-that-nobody-may-see"

// kubeconfig is one that passes, with more in the user.
func kubeconfig(server, user string) string {
	return `{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],
"clusters":[{"name":"c","cluster":{"server":"` + server + `"}}],"users":[{"name":"u","user":{` + user + `}}]}`
}

var good = kubeconfig("https://127.0.0.1:6443", `"token":"`+secretToken+`"`)

func named(name string, spec v1alpha1.FleetClusterSpec) *v1alpha1.FleetCluster {
	return &v1alpha1.FleetCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}
}

func byTemplate(name string) *v1alpha1.FleetCluster {
	return named(name, v1alpha1.FleetClusterSpec{Template: &v1alpha1.TemplateReference{Name: "local"}})
}

func byKubeconfig(secret, key string) *v1alpha1.FleetCluster {
	return named("edge", v1alpha1.FleetClusterSpec{KubeConfig: &v1alpha1.KubeConfigReference{SecretRef: meta.SecretKeyReference{Name: secret, Key: key}}})
}

func TestConfig(t *testing.T) {
	tests := []struct {
		name, reason string
		cluster      *v1alpha1.FleetCluster
		data         map[string]string // of the Secret that the cluster names; nil for no Secret
		kind         failure.Kind
		says         string
	}{
		{"made from a template", "the contract of Cluster API names Secret and key", byTemplate("shop"), map[string]string{"value": good}, "", ""},
		{"other key of a template", "a provider writes that key and no other", byTemplate("shop"), map[string]string{"value.yaml": good}, failure.Invalid, "there is no key value;"},
		{"not made yet", "the provider writes it when there is a control plane", byTemplate("shop"), nil, failure.NotFound, "shop-kubeconfig: it is not there; the control plane's provider writes it"},
		{"first key", "that of Cluster API goes first", byKubeconfig("edge", ""), map[string]string{"value": good, "value.yaml": "x"}, "", ""},
		{"second key", "the toolkit's is known too", byKubeconfig("edge", ""), map[string]string{"value.yaml": good}, "", ""},
		{"named key", "whoever names one means it", byKubeconfig("edge", "config"), map[string]string{"config": good, "value": "x"}, "", ""},
		{"named key missing", "nothing else is tried", byKubeconfig("edge", "config"), map[string]string{"value": good}, failure.Invalid, "there is no key config; put the kubeconfig there, or correct spec.kubeConfig.secretRef.key"},
		{"Secret missing", "the field is named", byKubeconfig("edge", ""), nil, failure.NotFound, "it is not there; create it, or correct spec.kubeConfig.secretRef"},
		{"no kubeconfig", "its text is not shown", byKubeconfig("edge", ""), map[string]string{"value": secretToken + ": ["}, failure.Invalid, "key value: it cannot be read as a kubeconfig"},
		{"program", "nobody runs programs by a Secret", byKubeconfig("edge", ""),
			map[string]string{"value": kubeconfig("https://127.0.0.1", `"exec":{"apiVersion":"client.authentication.k8s.io/v1","command":"`+secretToken+`","interactiveMode":"Never"}`)}, failure.Refused, "exec: it names a program"},
		{"joins by itself", "there is no way from the hub", named("field", v1alpha1.FleetClusterSpec{Join: &v1alpha1.JoinSpec{}}), nil, failure.Invalid, "it joins by itself"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newClient(t, testkit.Cluster(t))
			tt.cluster.Namespace = testkit.Namespace(t)
			put(t, tt.cluster, tt.data)
			config, err := access.Config(t.Context(), c, tt.cluster, kube.KubeconfigOptions{})
			if failure.KindOf(err) != tt.kind || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("got %v (%s), want %q of kind %q: %s", err, failure.KindOf(err), tt.says, tt.kind, tt.reason)
			}
			if err != nil && strings.Contains(err.Error(), secretToken) {
				t.Errorf("%q tells a value of the Secret", err)
			}
			if err == nil && config.BearerToken != secretToken {
				t.Errorf("got a way with token %q: %s", config.BearerToken, tt.reason)
			}
		})
	}
}

// TestRotated: nothing is kept from one call to the next.
func TestRotated(t *testing.T) {
	c := newClient(t, testkit.Cluster(t))
	cluster := byTemplate("shop")
	cluster.Namespace = testkit.Namespace(t)
	put(t, cluster, map[string]string{"value": "first"})
	for _, want := range []string{"first", "second"} {
		text, err := access.Kubeconfig(t.Context(), c, cluster)
		if err != nil || string(text) != want {
			t.Fatalf("got %q, %v; want %q", text, err, want)
		}
		name, _ := access.SecretOf(cluster)
		s := &corev1.Secret{}
		if err := c.Get(t.Context(), name, s); err != nil {
			t.Fatal(err)
		}
		s.Data["value"] = []byte("second")
		if err := c.Update(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnreadable(t *testing.T) {
	config := testkit.Cluster(t)
	cluster := byTemplate("shop")
	cluster.Namespace = testkit.Namespace(t)

	powerless := rest.CopyConfig(config)
	powerless.Impersonate.UserName = "nobody"
	if _, err := access.Kubeconfig(t.Context(), newClient(t, powerless), cluster); failure.KindOf(err) != failure.Denied {
		t.Errorf("without rights: got %v, want kind %s", err, failure.Denied)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := access.Kubeconfig(ctx, newClient(t, config), cluster); failure.KindOf(err) != failure.Unavailable || !errors.Is(err, context.Canceled) {
		t.Errorf("without an answer: got %v, want kind %s", err, failure.Unavailable)
	}
}

func TestSecretOf(t *testing.T) {
	cluster := byKubeconfig("edge", "")
	cluster.Namespace = "fleet"
	if name, keys := access.SecretOf(cluster); name.String() != "fleet/edge" || !slices.Equal(keys, []string{"value", "value.yaml"}) {
		t.Errorf("got %s, %v", name, keys)
	}
	if name, keys := access.SecretOf(named("field", v1alpha1.FleetClusterSpec{Join: &v1alpha1.JoinSpec{}})); name.Name != "" || keys != nil {
		t.Errorf("got %s, %v for a cluster that the hub does not reach", name, keys)
	}
}

func newClient(t *testing.T, config *rest.Config) client.Client {
	t.Helper()
	c, err := client.New(config, client.Options{Scheme: scheme.Scheme})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// put writes the Secret of a cluster, unless there is to be none.
func put(t *testing.T, cluster *v1alpha1.FleetCluster, data map[string]string) {
	t.Helper()
	if data == nil {
		return
	}
	name, _ := access.SecretOf(cluster)
	secrets := kubernetes.NewForConfigOrDie(testkit.Cluster(t)).CoreV1().Secrets(name.Namespace)
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name.Name}, StringData: data}
	if _, err := secrets.Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

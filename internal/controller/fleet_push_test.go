package controller

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	fleetlink "github.com/bowline-dev/bowline/internal/fleet/link"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// pushing is a hub that pushes to two members, each a cluster of its own.
type pushing struct {
	testing.TB
	client.Client
	config  *rest.Config
	dir     string
	server  *testkit.GitServer
	repo    *testkit.Repo
	engine  *liveEngine
	members map[string]*pushedMember
}

// pushedMember is one of the members.
type pushedMember struct {
	client.Client
	*testkit.Instance
}

func newPushing(t *testing.T) *pushing {
	t.Helper()
	p := &pushing{TB: t, config: testkit.Start(t).Config, dir: t.TempDir(), server: testkit.NewGitServer(t), members: map[string]*pushedMember{}}
	p.repo = p.server.Repo("fleet")
	p.repo.Commit(map[string]string{"apps/kustomization.yaml": "resources: [config.yaml]", "apps/config.yaml": configOf("1")})
	fleet, err := crds.Fleet()
	p.must(err)
	p.must(crds.Apply(t.Context(), p.config))
	p.must(crds.Install(t.Context(), p.config, fleet))
	p.Client = p.connect(p.config)
	p.start()
	t.Cleanup(func() { p.must(p.engine.stop()) })
	p.must(p.Create(t.Context(), &sourcev1.GitRepository{ObjectMeta: inDefault("fleet"), Spec: sourcev1.GitRepositorySpec{
		URL: p.repo.URL(), Reference: &sourcev1.GitRepositoryRef{Branch: "main"}, Interval: metav1.Duration{Duration: time.Second}}}))
	p.must(p.Create(t.Context(), &fleetv1.Placement{ObjectMeta: inDefault("apps"), Spec: fleetv1.PlacementSpec{Units: []fleetv1.PlacementUnit{{
		Name: "apps", Kustomization: &apiextensionsv1.JSON{Raw: []byte(`{"interval":"1h","prune":true,"path":"./apps","targetNamespace":"default","sourceRef":{"kind":"GitRepository","name":"fleet"}}`)}}}}}))
	return p
}

func configOf(value string) string {
	return "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\ndata: {value: \"" + value + "\"}\n"
}

func inDefault(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Namespace: metav1.NamespaceDefault}
}

// start starts the hub's engine.
func (p *pushing) start() {
	p.engine = runEngine(p.config, p.dir, func(o *Options) {
		o.Tenancy = Tenancy{}
		o.fleet = fleetTiming{lease: 5 * time.Second, pause: time.Second, link: fleetlink.Timing{Renew: time.Second, Report: 200 * time.Millisecond, Retry: time.Second}}
	})
}

func (p *pushing) connect(cfg *rest.Config) client.Client {
	p.Helper()
	scheme, err := NewScheme()
	if err == nil {
		err = rbacv1.AddToScheme(scheme)
	}
	if err == nil {
		err = coordinationv1.AddToScheme(scheme)
	}
	p.must(err)
	c, err := client.New(cfg, client.Options{Scheme: scheme})
	p.must(err)
	return c
}

func (p *pushing) must(err error) {
	p.Helper()
	if err != nil {
		p.Fatal(err)
	}
}

func (p *pushing) eventually(what string, is func(context.Context) (bool, string)) {
	p.Helper()
	var got string
	err := wait.PollUntilContextTimeout(p.Context(), 50*time.Millisecond, 2*time.Minute, true, func(ctx context.Context) (ok bool, _ error) {
		ok, got = is(ctx)
		return ok, nil
	})
	if err != nil {
		p.Fatalf("not so: %s: %v; it is %s\n%s", what, err, got, p.engine.log.about(""))
	}
}

// member makes a cluster and has the hub push to it.
func (p *pushing) member(t *testing.T, name string) *pushedMember {
	t.Helper()
	m := &pushedMember{Instance: testkit.Start(t)}
	m.Client = p.connect(m.Config)
	p.members[name] = m
	p.kubeconfig(name, m.Config)
	c := &fleetv1.FleetCluster{ObjectMeta: inDefault(name), Spec: fleetv1.FleetClusterSpec{
		KubeConfig: &fleetv1.KubeConfigReference{SecretRef: meta.SecretKeyReference{Name: name}}, Agent: fleetv1.AgentSpec{Mode: fleetv1.AgentPush},
	}}
	p.must(p.Create(t.Context(), c))
	return m
}

// kubeconfig writes how a member is reached.
func (p *pushing) kubeconfig(name string, cfg *rest.Config) {
	p.Helper()
	text, err := clientcmd.Write(api.Config{
		CurrentContext: "m", Contexts: map[string]*api.Context{"m": {Cluster: "m", AuthInfo: "m"}},
		Clusters:  map[string]*api.Cluster{"m": {Server: cfg.Host, CertificateAuthorityData: cfg.CAData}},
		AuthInfos: map[string]*api.AuthInfo{"m": {Token: cfg.BearerToken, ClientCertificateData: cfg.CertData, ClientKeyData: cfg.KeyData}},
	})
	p.must(err)
	secret := &corev1.Secret{ObjectMeta: inDefault(name), Data: map[string][]byte{"value": text}}
	err = p.Create(p.Context(), secret)
	if apierrors.IsAlreadyExists(err) {
		err = p.Update(p.Context(), secret)
	}
	p.must(err)
}

// delivered waits until the member has what the repository says.
func (p *pushing) delivered(name, value string) {
	p.Helper()
	p.eventually(name+" has "+value, func(ctx context.Context) (bool, string) {
		var got corev1.ConfigMap
		err := p.members[name].Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: "app"}, &got)
		return err == nil && got.Data["value"] == value, fmt.Sprint(got.Data, err, p.told(ctx, name))
	})
}

// told is what the hub says of a cluster.
func (p *pushing) told(ctx context.Context, name string) string {
	var c fleetv1.FleetCluster
	if err := p.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: name}, &c); err != nil {
		return err.Error()
	}
	var all []string
	for _, is := range c.Status.Conditions {
		all = append(all, fmt.Sprintf("%s=%s %s %q", is.Type, is.Status, is.Reason, is.Message))
	}
	return strings.Join(all, "; ")
}

// says waits for a condition of a cluster.
func (p *pushing) says(name, condition string, status metav1.ConditionStatus, reason string) {
	p.Helper()
	p.eventually(fmt.Sprintf("%s is %s=%s %s", name, condition, status, reason), func(ctx context.Context) (bool, string) {
		told := p.told(ctx, name)
		return strings.Contains(told, fmt.Sprintf("%s=%s %s ", condition, status, reason)), told
	})
}

// drift changes on a member what was delivered.
func (p *pushing) drift(name string) {
	p.Helper()
	patch := client.RawPatch("application/merge-patch+json", []byte(`{"data":{"value":"by hand"}}`))
	p.must(p.members[name].Patch(p.Context(), &corev1.ConfigMap{ObjectMeta: inDefault("app")}, patch))
}

// A hub pushes to members that have nothing of their own: what is placed on them is delivered, healed and taken away as by agents.
func TestPush(t *testing.T) {
	t.Parallel()
	p := newPushing(t)
	a, b := p.member(t, "a"), p.member(t, "b")
	p.delivered("a", "1")
	p.delivered("b", "1")
	for _, name := range []string{"a", "b"} {
		p.says(name, fleetv1.JoinedCondition, metav1.ConditionTrue, fleetv1.JoinedReason)
		p.says(name, fleetv1.ReachableCondition, metav1.ConditionTrue, fleetv1.LeaseRenewedReason)
		p.says(name, fleetv1.UnitsReadyCondition, metav1.ConditionTrue, fleetv1.UnitsReadyReason)
	}
	if n := p.server.Fetches(); n != 1 {
		t.Errorf("one commit was fetched %d times for three engines", n)
	}
	p.drift("a")
	p.delivered("a", "1")

	// The hub's engine restarts. What was changed while it was away is healed.
	p.must(p.engine.stop())
	p.drift("b")
	stale := filepath.Join(p.dir, guestsDir, "0123456789abcdef0123456789abcdef") // of a FleetCluster that went meanwhile
	p.must(os.MkdirAll(stale, 0o700))
	p.start()
	p.delivered("b", "1")
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("what was kept for a cluster that is no member any more is still there: %v", err)
	}

	t.Log("a kubeconfig that is rotated, and one that is taken back")
	p.kubeconfig("a", p.administrator(a))
	p.repo.Commit(map[string]string{"apps/config.yaml": configOf("2")})
	p.delivered("a", "2")
	p.delivered("b", "2")
	p.must(a.Delete(t.Context(), &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "hub"}}))
	p.says("a", fleetv1.JoinedCondition, metav1.ConditionFalse, fleetv1.InstallFailedReason)
	p.kubeconfig("a", a.Config)
	p.says("a", fleetv1.JoinedCondition, metav1.ConditionTrue, fleetv1.JoinedReason)

	t.Log("a member that says nothing, and then is down")
	b.Signal(syscall.SIGSTOP)
	p.repo.Commit(map[string]string{"apps/config.yaml": configOf("3")})
	p.delivered("a", "3")
	p.says("b", fleetv1.ReachableCondition, metav1.ConditionFalse, fleetv1.LeaseExpiredReason)
	p.says("b", fleetv1.JoinedCondition, metav1.ConditionTrue, fleetv1.JoinedReason)
	b.Kill()
	b.Start()
	p.delivered("b", "3")
	p.says("b", fleetv1.ReachableCondition, metav1.ConditionTrue, fleetv1.LeaseRenewedReason)

	p.leaves("b", b)
	p.drift("a") // and the other goes on
	p.delivered("a", "3")
}

// leaves deletes a FleetCluster, and waits until nothing of it is left on either side.
func (p *pushing) leaves(name string, m *pushedMember) {
	p.Helper()
	var c fleetv1.FleetCluster
	p.must(p.Get(p.Context(), client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: name}, &c))
	hold := func(finalizers string) {
		p.must(m.Patch(p.Context(), &corev1.ConfigMap{ObjectMeta: inDefault("app")}, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"finalizers":`+finalizers+`}}`))))
	}
	hold(`["example.com/held"]`)
	p.must(p.Delete(p.Context(), &c))
	p.eventually("the member lets go", func(ctx context.Context) (bool, string) {
		var app corev1.ConfigMap
		err := m.Get(ctx, client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: "app"}, &app)
		return err == nil && !app.DeletionTimestamp.IsZero(), fmt.Sprint(err, app.ObjectMeta)
	})
	p.must(p.engine.stop()) // the hub is restarted in the midst of it
	p.start()
	hold(`null`)
	p.eventually("the FleetCluster is gone", func(ctx context.Context) (bool, string) {
		return apierrors.IsNotFound(p.Get(ctx, client.ObjectKeyFromObject(&c), &fleetv1.FleetCluster{})), p.told(ctx, name)
	})
	if err := m.Get(p.Context(), client.ObjectKey{Namespace: metav1.NamespaceDefault, Name: "app"}, &corev1.ConfigMap{}); !apierrors.IsNotFound(err) {
		p.Errorf("a member that has left still has what was placed on it: %v", err)
	}
	var units kustomizev1.KustomizationList
	if err := m.List(p.Context(), &units); err != nil || len(units.Items) > 0 {
		p.Errorf("a member that has left still has %d units, %v", len(units.Items), err)
	}
	p.eventually("the engine has given its turn back", func(ctx context.Context) (bool, string) {
		var lease coordinationv1.Lease
		err := m.Get(ctx, client.ObjectKey{Namespace: fleetv1.MemberNamespace, Name: LeaseName}, &lease)
		return err == nil && (lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity == ""), fmt.Sprint(lease.Spec.HolderIdentity, err)
	})
	p.eventually("its data folder is gone", func(context.Context) (bool, string) {
		_, err := os.Stat(filepath.Join(p.dir, guestsDir, c.Status.Incarnation))
		return os.IsNotExist(err) && c.Status.Incarnation != "", fmt.Sprint(err)
	})
}

// administrator is another way to a member, which ends with ClusterRoleBinding hub.
func (p *pushing) administrator(m *pushedMember) *rest.Config {
	p.Helper()
	p.must(m.Create(p.Context(), &corev1.ServiceAccount{ObjectMeta: inDefault("hub")}))
	p.must(m.Create(p.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "hub"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "cluster-admin"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: metav1.NamespaceDefault, Name: "hub"}},
	}))
	token := p.token(m)
	return &rest.Config{Host: m.Config.Host, BearerToken: token, TLSClientConfig: rest.TLSClientConfig{CAData: m.Config.CAData}}
}

func (p *pushing) token(m *pushedMember) string {
	p.Helper()
	request := &authenticationv1.TokenRequest{}
	got, err := kubernetes.NewForConfigOrDie(m.Config).CoreV1().ServiceAccounts(metav1.NamespaceDefault).CreateToken(p.Context(), "hub", request, metav1.CreateOptions{})
	p.must(err)
	return got.Status.Token
}

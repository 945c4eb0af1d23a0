package controller

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	swapi "github.com/fluxcd/source-watcher/api/v2/v1beta1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/bowline-dev/bowline/internal/report"
	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
	"github.com/bowline-dev/bowline/internal/testkit/signtest"
)

// ociSource makes an OCIRepository that is looked at when asked only.
func (s *stage) ociSource(name, url string, change ...func(*sourcev1.OCIRepositorySpec)) *sourcev1.OCIRepository {
	s.Helper()
	o := &sourcev1.OCIRepository{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace},
		Spec:       sourcev1.OCIRepositorySpec{URL: url, Interval: metav1.Duration{Duration: never}, Timeout: &metav1.Duration{Duration: 20 * time.Second}},
	}
	for _, c := range change {
		c(&o.Spec)
	}
	s.create(o)
	return o
}

func (s *stage) awaitOCI(name, what string, ok func(*sourcev1.OCIRepository) bool) *sourcev1.OCIRepository {
	s.Helper()
	return await(s, &sourcev1.OCIRepositoryList{}, name, what, ok)
}

// awaitPulled waits until an OCIRepository is ready at a revision.
func (s *stage) awaitPulled(name, revision string) *sourcev1.OCIRepository {
	s.Helper()
	return s.awaitOCI(name, "ready at "+revision, func(o *sourcev1.OCIRepository) bool {
		return says(o, metav1.ConditionTrue, meta.SucceededReason, revision) && o.Status.Artifact != nil && o.Status.Artifact.Revision == revision
	})
}

// fromOCI makes a unit take its files from an OCIRepository.
func fromOCI(name string) func(*kustomizev1.Kustomization) {
	return func(k *kustomizev1.Kustomization) {
		k.Spec.SourceRef = kustomizev1.CrossNamespaceSourceReference{Kind: sourcev1.OCIRepositoryKind, Name: name}
	}
}

// Every way to say which artifact of a repository is wanted.
func TestOCIReferences(t *testing.T) {
	t.Parallel()
	s, reg := newStage(t), ocitest.NewRegistry(t)
	one := reg.PushFiles("app", map[string]string{"app/a.yaml": configMap("a", "1")}, nil, "1.0.0")
	dev := reg.PushFiles("app", map[string]string{"app/a.yaml": configMap("a", "2")}, nil, "1.1.0-dev")
	two := reg.PushFiles("app", map[string]string{"app/a.yaml": configMap("a", "3")}, map[string]string{"org.opencontainers.image.revision": "main@sha1:abc", "own": "word"}, "1.2.0", "latest")
	rows := []struct {
		name, reason string
		ref          *sourcev1.OCIRepositoryRef
		want         string
	}{
		{name: "none", reason: "the tag latest", want: "latest@" + two},
		{name: "tag", reason: "it is named", ref: &sourcev1.OCIRepositoryRef{Tag: "1.0.0"}, want: "1.0.0@" + one},
		{name: "semver", reason: "the highest in the range, before a tag", ref: &sourcev1.OCIRepositoryRef{SemVer: "1.x", Tag: "1.0.0"}, want: "1.2.0@" + two},
		{name: "filter", reason: "among those that match", ref: &sourcev1.OCIRepositoryRef{SemVer: ">=1.0.0-0", SemverFilter: ".*-dev"}, want: "1.1.0-dev@" + dev},
		{name: "digest", reason: "before all else", ref: &sourcev1.OCIRepositoryRef{Digest: one, SemVer: "1.x"}, want: one},
	}
	for _, row := range rows {
		s.ociSource(row.name, reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) { o.Reference = row.ref })
	}
	for _, row := range rows {
		o := s.awaitOCI(row.name, "pulled", func(o *sourcev1.OCIRepository) bool { return says(o, "True", meta.SucceededReason) })
		if got := o.Status.Artifact.Revision; got != row.want {
			t.Errorf("%s: %s: revision %s, want %s", row.name, row.reason, got, row.want)
		}
		if c := report.Condition(o, sourcev1.ArtifactInStorageCondition); c == nil || c.Status != metav1.ConditionTrue || c.Message != "stored artifact for digest '"+row.want+"'" {
			t.Errorf("%s: conditions %s", row.name, standingOf(o))
		}
		if a := o.Status.Artifact; a.Digest == "" || a.LastUpdateTime.IsZero() || a.Path == "" || o.Status.ObservedGeneration != o.Generation {
			t.Errorf("%s: status %+v", row.name, o.Status)
		}
		if got := o.Status.Artifact.Metadata["own"]; (got == "word") != strings.HasSuffix(row.want, two) {
			t.Errorf("%s: metadata %v", row.name, o.Status.Artifact.Metadata)
		}
	}
}

// What is pulled is delivered; a new digest of the tag is delivered when it is looked at again: at the
// interval, or at once when asked. Suspended it stays.
func TestOCIInterval(t *testing.T) {
	t.Parallel()
	s, reg := newStage(t), ocitest.NewRegistry(t)
	push := func(value string) string {
		return "latest@" + reg.PushFiles("app", map[string]string{"app/a.yaml": configMap("a", value)}, map[string]string{"org.opencontainers.image.revision": "main@sha1:abc"}, "latest")
	}
	s.unit("app", fromOCI("app"))
	s.awaitUnit("app", "waiting", func(k *kustomizev1.Kustomization) bool {
		c := report.Condition(k, meta.ReadyCondition)
		return c != nil && strings.Contains(c.Message, "OCIRepository '"+s.namespace+"/app' not found")
	})
	first := push("1")
	s.ociSource("app", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) { o.Interval.Duration = time.Second })
	k := s.awaitLive("app", first)
	if k.Status.LastAppliedOriginRevision != "main@sha1:abc" {
		t.Errorf("origin %q", k.Status.LastAppliedOriginRevision)
	}
	second := push("2")
	s.awaitLive("app", second)

	o := &sourcev1.OCIRepository{ObjectMeta: metav1.ObjectMeta{Name: "app", Namespace: s.namespace}}
	edit(s, o, func(o *sourcev1.OCIRepository) { o.Spec.Suspend = true })
	third := push("3")
	s.ask(o)
	s.ociSource("other", reg.URL("app"))
	s.awaitPulled("other", third)
	s.read(o)
	if o.Status.Artifact.Revision != second {
		t.Errorf("suspended, it is at %s", o.Status.Artifact.Revision)
	}
	edit(s, o, func(o *sourcev1.OCIRepository) { o.Spec.Suspend, o.Spec.Interval.Duration = false, never })
	s.awaitLive("app", third)
	request := s.ask(o)
	s.awaitOCI("app", "asked", func(o *sourcev1.OCIRepository) bool { return o.Status.LastHandledReconcileAt == request })
	blobs := reg.Asked(http.MethodGet, "/blobs/")
	if blobs != 3 {
		t.Errorf("downloaded %d layers, want 3: one for each digest", blobs)
	}
}

// Files that are ignored are not there for those who use the source; an ArtifactGenerator takes from it, too.
func TestOCIIgnore(t *testing.T) {
	t.Parallel()
	s, reg := newStage(t), ocitest.NewRegistry(t)
	reg.PushFiles("app", map[string]string{
		"app/a.yaml": configMap("a", "1"), "app/b.yaml": configMap("b", "1"), "app/c.yaml": configMap("c", "1"), ".sourceignore": "app/c.yaml\n",
	}, nil, "latest")
	pattern := "app/b.yaml\n"
	o := s.ociSource("app", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) { o.Ignore = &pattern })
	s.generator("parts", func(g *swapi.ArtifactGeneratorSpec) {
		g.Sources = []swapi.SourceReference{{Alias: "repo", Kind: sourcev1.OCIRepositoryKind, Name: "app"}}
		g.OutputArtifacts = []swapi.OutputArtifact{part("app", "app")}
	})
	s.unit("app", fromArtifact("app"))
	got := s.awaitOCI("app", "pulled", func(o *sourcev1.OCIRepository) bool { return says(o, "True", meta.SucceededReason) })
	s.awaitUnit("app", "ready", func(k *kustomizev1.Kustomization) bool { return report.IsReady(k, k.Generation) })
	if got := s.names(""); got != "a" {
		t.Errorf("delivered %q, want a: b and c are ignored", got)
	}
	if got.Status.ObservedIgnore == nil || *got.Status.ObservedIgnore != pattern {
		t.Errorf("observed %v", got.Status.ObservedIgnore)
	}
	edit(s, o, func(o *sourcev1.OCIRepository) { o.Spec.Ignore = nil })
	await(s, &corev1.ConfigMapList{}, "b", "delivered once it is ignored no longer", func(*corev1.ConfigMap) bool { return true })
}

// A layer is chosen by its media type, and is handed on as it is where that is asked for.
func TestOCILayers(t *testing.T) {
	t.Parallel()
	one, reg := testkit.Start(t), ocitest.NewRegistry(t)
	s := stageOn(t, one.Config)
	s.engine = engineFor(t, one.Config, func(o *Options) { o.StorageAddr = "127.0.0.1:0" })
	packed := testkit.TarGz(t, map[string]string{"app/b.yaml": configMap("b", "1")})
	digest := reg.Push("app", ocitest.OCIArtifact{ConfigMediaType: ocitest.FluxConfigMediaType, Layers: []ocitest.OCILayer{
		{MediaType: ocitest.FluxContentMediaType, Data: testkit.TarGz(t, map[string]string{"app/a.yaml": configMap("a", "1")})},
		{MediaType: "application/vnd.test", Data: packed},
	}}, "latest")
	for _, name := range []string{"first", "second", "copy"} {
		s.ociSource(name, reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) {
			switch name {
			case "second":
				o.LayerSelector = &sourcev1.OCILayerSelector{MediaType: "application/vnd.test", Operation: sourcev1.OCILayerExtract}
			case "copy":
				o.LayerSelector = &sourcev1.OCILayerSelector{MediaType: "application/vnd.test", Operation: sourcev1.OCILayerCopy}
			}
		})
		o := s.awaitPulled(name, "latest@"+digest)
		if want := o.Spec.LayerSelector; (o.Status.ObservedLayerSelector == nil) != (want == nil) || want != nil && *o.Status.ObservedLayerSelector != *want {
			t.Errorf("%s: observed %v", name, o.Status.ObservedLayerSelector)
		}
		file := map[string]string{"first": "app/a.yaml", "second": "app/b.yaml", "copy": "app/b.yaml"}[name]
		if _, err := s.fetched(o.Status.Artifact).Tree.Stat(file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if o.Status.URL != o.Status.Artifact.URL || !strings.HasSuffix(o.Status.URL, "/ocirepository/"+s.namespace+"/"+name+"/"+strings.TrimPrefix(digest, "sha256:")+".tar.gz") {
			t.Errorf("%s: URL %s", name, o.Status.URL)
		}
		if name == "copy" && !bytes.Equal(download(t, o.Status.URL), packed) {
			t.Error("what is copied is not what was pushed")
		}
	}
	s.unit("app", fromOCI("copy"))
	s.awaitLive("app", "latest@"+digest)
	if got := s.names(""); got != "b" {
		t.Errorf("delivered %q", got)
	}
}

// Logins come from a Secret or from the pull secrets of a service account, and corrected ones take effect at once.
func TestOCISecrets(t *testing.T) {
	t.Parallel()
	s, reg := newStage(t), ocitest.NewRegistry(t, ocitest.BasicAuth("ann", "right"))
	digest := reg.PushFiles("app", map[string]string{"a": "1"}, nil, "latest")
	secret := s.keys("login", map[string]string{".dockerconfigjson": reg.DockerConfig("ann", "top-secret")})
	s.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "puller", Namespace: s.namespace}, ImagePullSecrets: []corev1.LocalObjectReference{{Name: "login"}}})
	s.ociSource("app", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) { o.SecretRef = &meta.LocalObjectReference{Name: "login"} })
	s.ociSource("account", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) { o.ServiceAccountName = "puller" })
	for _, name := range []string{"app", "account"} {
		o := s.awaitOCI(name, "refused", func(o *sourcev1.OCIRepository) bool { return says(o, "False", sourcev1.OCIPullFailedReason, "401") })
		if strings.Contains(standingOf(o), "top-secret") {
			t.Errorf("the message shows the password: %s", standingOf(o))
		}
	}
	edit(s, secret, func(m *corev1.Secret) { m.Data[".dockerconfigjson"] = []byte(reg.DockerConfig("ann", "right")) })
	s.awaitPulled("app", "latest@"+digest)
	s.awaitPulled("account", "latest@"+digest)

	for _, row := range []struct {
		name, reason, want string
		change             func(*sourcev1.OCIRepositorySpec)
	}{
		{"no-secret", "it is not there", "Secret/" + s.namespace + "/none", func(o *sourcev1.OCIRepositorySpec) { o.SecretRef = &meta.LocalObjectReference{Name: "none"} }},
		{"no-account", "it is not there", "ServiceAccount/" + s.namespace + "/none", func(o *sourcev1.OCIRepositorySpec) { o.ServiceAccountName = "none" }},
		{"no-name", "it cannot be one", "spec.serviceAccountName", func(o *sourcev1.OCIRepositorySpec) { o.ServiceAccountName = "../x" }},
		{"no-login", "it is of another type", ".dockerconfigjson", func(o *sourcev1.OCIRepositorySpec) { o.SecretRef = &meta.LocalObjectReference{Name: "other"} }},
		{"no-proxy", "it is of another type", "address", func(o *sourcev1.OCIRepositorySpec) { o.ProxySecretRef = &meta.LocalObjectReference{Name: "other"} }},
		{"no-certificate", "it is of another type", "ca.crt", func(o *sourcev1.OCIRepositorySpec) { o.CertSecretRef = &meta.LocalObjectReference{Name: "other"} }},
	} {
		if row.name == "no-login" {
			s.keys("other", map[string]string{"x": "y"})
		}
		s.ociSource(row.name, reg.URL("app"), row.change)
		s.awaitOCI(row.name, row.reason, func(o *sourcev1.OCIRepository) bool {
			return says(o, "False", sourcev1.AuthenticationFailedReason, row.want) && report.Condition(o, sourcev1.FetchFailedCondition) != nil
		})
	}
}

// Certificates are checked with the authority that a Secret holds, and shown to a registry that wants one;
// spec.insecure does without.
func TestOCICertificates(t *testing.T) {
	t.Parallel()
	s, reg := newStage(t), ocitest.NewRegistry(t, ocitest.ClientCert())
	digest := reg.PushFiles("app", map[string]string{"a": "1"}, nil, "latest")
	cert, key := reg.ClientCert()
	secret := s.keys("tls", map[string]string{"ca.crt": string(reg.CA())})
	s.ociSource("app", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) { o.CertSecretRef = &meta.LocalObjectReference{Name: "tls"} })
	s.awaitOCI("app", "refused", func(o *sourcev1.OCIRepository) bool {
		return says(o, "False", sourcev1.OCIPullFailedReason, "client certificate")
	})
	edit(s, secret, func(m *corev1.Secret) { m.Data["tls.crt"], m.Data["tls.key"] = cert, key })
	s.awaitPulled("app", "latest@"+digest)

	open := ocitest.NewRegistry(t, ocitest.TLS())
	digest = open.PushFiles("app", map[string]string{"a": "1"}, nil, "latest")
	unknown := s.ociSource("insecure", open.URL("app"))
	s.awaitOCI("insecure", "refused", func(o *sourcev1.OCIRepository) bool {
		return says(o, "False", sourcev1.OCIPullFailedReason, "spec.certSecretRef")
	})
	edit(s, unknown, func(o *sourcev1.OCIRepository) { o.Spec.Insecure = true })
	s.awaitPulled("insecure", "latest@"+digest)
}

// A proxy is named by a Secret, and all requests go through it.
func TestOCIProxy(t *testing.T) {
	t.Parallel()
	s, reg := newStage(t), ocitest.NewRegistry(t)
	var passed atomic.Int64
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) { passed.Add(1) }, ErrorLog: log.New(io.Discard, "", 0)})
	t.Cleanup(proxy.Close)
	digest := reg.PushFiles("app", map[string]string{"a": "1"}, nil, "latest")
	s.keys("proxy", map[string]string{"address": proxy.URL})
	s.ociSource("app", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) {
		o.ProxySecretRef, o.Insecure = &meta.LocalObjectReference{Name: "proxy"}, true
	})
	s.awaitPulled("app", "latest@"+digest)
	if n := int(passed.Load()); n < len(reg.Requests()) || len(reg.Requests()) == 0 {
		t.Errorf("%d requests went through the proxy, and the registry got %d", n, len(reg.Requests()))
	}
}

// A registry that hangs is given up at the timeout, and what was pulled before stays.
func TestOCITimeout(t *testing.T) {
	t.Parallel()
	s, reg := newStage(t), ocitest.NewRegistry(t)
	first := "latest@" + reg.PushFiles("app", map[string]string{"app/a.yaml": configMap("a", "1")}, nil, "latest")
	o := s.ociSource("app", reg.URL("app"))
	s.unit("app", fromOCI("app"))
	s.awaitLive("app", first)
	reg.Hang(true)
	edit(s, o, func(o *sourcev1.OCIRepository) { o.Spec.Timeout = &metav1.Duration{Duration: time.Second} })
	got := s.awaitOCI("app", "given up", func(o *sourcev1.OCIRepository) bool {
		return says(o, "False", sourcev1.OCIPullFailedReason, "within 1s")
	})
	if got.Status.Artifact == nil || got.Status.Artifact.Revision != first {
		t.Errorf("artifact %+v", got.Status.Artifact)
	}
	reg.Hang(false)
	s.ask(o)
	s.awaitPulled("app", first)
}

// Only what is signed by a trusted key is pulled; the last one that was stays where it is.
func TestOCIVerify(t *testing.T) {
	t.Parallel()
	s, reg := newStage(t), ocitest.NewRegistry(t)
	key := signtest.NewCosignKey(t, 0)
	push := func(value string) ocitest.Artifact {
		digest := reg.PushFiles("app", map[string]string{"app/a.yaml": configMap("a", value)}, nil, "latest")
		return reg.Signable("app", digest)
	}
	first := push("1")
	s.keys("keys", map[string]string{"cosign.pub": string(key.Public)})
	o := s.ociSource("app", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) {
		o.Verify = &sourcev1.OCIRepositoryVerification{Provider: "cosign", SecretRef: &meta.LocalObjectReference{Name: "keys"}}
	})
	got := s.awaitOCI("app", "unsigned", func(o *sourcev1.OCIRepository) bool {
		c := report.Condition(o, sourcev1.SourceVerifiedCondition)
		return says(o, "False", sourcev1.VerificationError) && c != nil && c.Status == metav1.ConditionFalse
	})
	if got.Status.Artifact != nil || reg.Asked(http.MethodGet, "/blobs/") != 0 {
		t.Errorf("pulled %+v, although nobody signed it", got.Status.Artifact)
	}
	key.Sign(t, first, signtest.CosignTag)
	s.ask(o)
	got = s.awaitPulled("app", "latest@"+first.Digest.String())
	if c := report.Condition(got, sourcev1.SourceVerifiedCondition); c == nil || c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, "cosign.pub") {
		t.Errorf("conditions %s", standingOf(got))
	}
	push("2")
	s.ask(o)
	got = s.awaitOCI("app", "unsigned", func(o *sourcev1.OCIRepository) bool { return says(o, "False", sourcev1.VerificationError) })
	if got.Status.Artifact.Revision != "latest@"+first.Digest.String() {
		t.Errorf("it is at %s", got.Status.Artifact.Revision)
	}
	edit(s, o, func(o *sourcev1.OCIRepository) { o.Spec.Verify = nil })
	got = s.awaitOCI("app", "pulled", func(o *sourcev1.OCIRepository) bool { return says(o, "True", meta.SucceededReason) })
	if report.Condition(got, sourcev1.SourceVerifiedCondition) != nil {
		t.Errorf("conditions %s", standingOf(got))
	}
}

// Without a key it is the identity in the certificate that counts, under a trusted root of one's own.
func TestOCIVerifyIdentity(t *testing.T) {
	t.Parallel()
	s, reg, sigstore := newStage(t), ocitest.NewRegistry(t), signtest.NewSigstore(t)
	digest := reg.PushFiles("app", map[string]string{"a": "1"}, nil, "latest")
	sigstore.Sign(t, reg.Signable("app", digest), signtest.CosignBundle, signtest.Signature{Subject: "ann@example.com", Issuer: "https://issuer.example.com"})
	s.keys("root", map[string]string{"trusted_root.json": string(sigstore.Root(t, signtest.RootParts{}))})
	o := s.ociSource("app", reg.URL("app"), func(o *sourcev1.OCIRepositorySpec) {
		o.Verify = &sourcev1.OCIRepositoryVerification{
			Provider: "cosign", TrustedRootSecretRef: &meta.LocalObjectReference{Name: "root"},
			MatchOIDCIdentity: []sourcev1.OIDCIdentityMatch{{Issuer: "^https://issuer.example.com$", Subject: "^bob@example.com$"}},
		}
	})
	s.awaitOCI("app", "signed by another", func(o *sourcev1.OCIRepository) bool {
		return says(o, "False", sourcev1.VerificationError, "ann@example.com")
	})
	edit(s, o, func(o *sourcev1.OCIRepository) { o.Spec.Verify.MatchOIDCIdentity[0].Subject = "^ann@example.com$" })
	got := s.awaitPulled("app", "latest@"+digest)
	if c := report.Condition(got, sourcev1.SourceVerifiedCondition); c == nil || c.Status != metav1.ConditionTrue || !strings.Contains(c.Message, "ann@example.com") {
		t.Errorf("conditions %s", standingOf(got))
	}
}

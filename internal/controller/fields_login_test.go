package controller

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	bigint "math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/source/reach"
	"github.com/bowline-dev/bowline/internal/source/registry"
	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/ocitest"
)

// childLogin is the environment variable that makes the test executable log in at a registry instead of running the
// tests. Whom a process trusts and which proxy it goes through is its own, so that it has to be another one.
const childLogin = "BOWLINE_TEST_LOGIN"

// loginTask is what the child does.
type loginTask struct {
	// Kind is that of the source, URL is where it is, and Mirror where it really is.
	Kind, Provider, URL, Mirror string
	// Account is the service account in whose name it is asked, "" for the process itself.
	Kubeconfig, Namespace, Account string
}

// runLogin asks for the digest of a tag with the login that a provider gives, and prints it.
func runLogin(text string) int {
	var task loginTask
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := json.Unmarshal([]byte(text), &task)
	if err == nil {
		err = task.run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (t loginTask) run(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", t.Kubeconfig)
	if err != nil {
		return err
	}
	c, err := client.New(config, client.Options{})
	if err != nil {
		return err
	}
	identity := newSourceIdentity(c, Tenancy{Open: true})
	source := sourceKey{t.Kind, types.NamespacedName{Namespace: t.Namespace, Name: "app"}}
	keychain, err := identity.registryLogin(ctx, source, t.Account, t.Provider, t.URL, nil)
	if err != nil {
		return err
	}
	registries := registry.New(registry.Options{Mirrors: []reach.Mirror{{From: t.URL, To: t.Mirror}}})
	repository, err := registries.Repository(t.URL, registry.Access{Keychain: keychain})
	if err != nil {
		return err
	}
	digest, err := repository.Resolve(ctx, "latest")
	fmt.Print(digest)
	return err
}

// clouds answers for the hosts of three clouds, over TLS and through a proxy, as their SDKs speak with them.
type clouds struct {
	proxy *httptest.Server
	// plain is what is asked without TLS: the identities of machines.
	plain *httptest.Server
	// ca is the file with the certificate of the authority that vouches for all the hosts.
	ca string
}

// acrToken is a token that is valid for long and that says nothing else.
const acrToken = "eyJhbGciOiJub25lIn0.eyJleHAiOjQxMDI0NDQ4MDB9."

func newClouds(t *testing.T) *clouds {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: bigint.NewInt(1), Subject: pkix.Name{CommonName: "clouds"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: []string{
			"api.ecr.eu-west-1.amazonaws.com", "sts.eu-west-1.amazonaws.com", "registry.azurecr.io", "login.microsoftonline.com", "sts.googleapis.com",
		},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c := &clouds{ca: filepath.Join(t.TempDir(), "ca.pem")}
	if err := os.WriteFile(c.ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	hosts := httptest.NewUnstartedServer(http.HandlerFunc(answerForClouds))
	hosts.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}
	hosts.StartTLS()
	t.Cleanup(hosts.Close)
	c.proxy = httptest.NewServer(tunnelTo(hosts.Listener.Addr().String()))
	t.Cleanup(c.proxy.Close)
	c.plain = httptest.NewServer(http.HandlerFunc(answerForMachines))
	t.Cleanup(c.plain.Close)
	return c
}

// tunnelTo is a proxy that leads everybody to one address.
func tunnelTo(address string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		there, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", address)
		if err != nil || r.Method != http.MethodConnect {
			http.Error(w, "no tunnel", http.StatusBadGateway)
			return
		}
		w.WriteHeader(http.StatusOK)
		here, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		go func() { _, _ = io.Copy(there, here); _ = there.Close() }()
		_, _ = io.Copy(here, there)
		_ = here.Close()
	}
}

// answerForMachines tells a process who the machine is that it runs on.
func answerForMachines(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.Header.Get("X-Identity-Header") == "header":
		_ = json.NewEncoder(w).Encode(map[string]any{
			"access_token": "azure-token", "expires_on": fmt.Sprint(time.Now().Add(time.Hour).Unix()), "resource": r.URL.Query().Get("resource"), "token_type": "Bearer",
		})
	case r.Header.Get("Metadata-Flavor") == "Google" && strings.HasSuffix(r.URL.Path, "/token"):
		_, _ = io.WriteString(w, `{"access_token":"google-token","expires_in":3600,"token_type":"Bearer"}`)
	default:
		http.Error(w, r.URL.String(), http.StatusNotFound)
	}
}

// answerForClouds does what the clouds do, for those whom they know.
func answerForClouds(w http.ResponseWriter, r *http.Request) {
	_ = r.ParseForm()
	w.Header().Set("Content-Type", "application/json")
	answer, ok := "", false
	switch r.Host + r.URL.Path {
	case "api.ecr.eu-west-1.amazonaws.com/":
		by := r.Header.Get("Authorization")
		ok = strings.HasSuffix(r.Header.Get("X-Amz-Target"), ".GetAuthorizationToken") && strings.Contains(by, "/eu-west-1/ecr/aws4_request") &&
			(strings.Contains(by, "Credential=AKIDEXAMPLE/") || strings.Contains(by, "Credential=ASIAROLE/"))
		answer = fmt.Sprintf(`{"authorizationData":[{"authorizationToken":%q,"expiresAt":%d}]}`, base64.StdEncoding.EncodeToString([]byte("AWS:ecr-password")), time.Now().Add(time.Hour).Unix())
	case "sts.eu-west-1.amazonaws.com/":
		w.Header().Set("Content-Type", "text/xml")
		ok = r.Form.Get("Action") == "AssumeRoleWithWebIdentity" && r.Form.Get("RoleArn") == "arn:aws:iam::123456789012:role/puller" && isToken(r.Form.Get("WebIdentityToken"))
		answer = `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>` +
			`<AccessKeyId>ASIAROLE</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>` +
			`</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`
	case "registry.azurecr.io/oauth2/exchange":
		ok = r.Form.Get("access_token") == "azure-token" && r.Form.Get("service") == "registry.azurecr.io"
		answer = fmt.Sprintf(`{"refresh_token":%q}`, acrToken)
	case "login.microsoftonline.com/tenant/v2.0/.well-known/openid-configuration":
		ok, answer = true, `{"issuer":"https://login.microsoftonline.com/tenant/v2.0","authorization_endpoint":"https://login.microsoftonline.com/tenant/oauth2/v2.0/authorize","token_endpoint":"https://login.microsoftonline.com/tenant/oauth2/v2.0/token"}`
	case "login.microsoftonline.com/tenant/oauth2/v2.0/token":
		ok = r.Form.Get("client_id") == "client" && isToken(r.Form.Get("client_assertion"))
		answer = `{"access_token":"azure-token","expires_in":3600,"token_type":"Bearer"}`
	case "sts.googleapis.com/v1/token":
		ok = strings.HasSuffix(r.Form.Get("audience"), "/providers/cluster") && isToken(r.Form.Get("subject_token"))
		answer = `{"access_token":"google-token","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":3600}`
	}
	if !ok {
		http.Error(w, `{"error":"refused"}`, http.StatusBadRequest)
		return
	}
	_, _ = io.WriteString(w, answer)
}

// isToken reports whether a text is what the API server issues to service accounts.
func isToken(text string) bool { return strings.Count(text, ".") == 2 && len(text) > 200 }

// Each cloud gives a login at its registry: to the process, as what it runs on, and in the name of a service account, by the
// token that the cluster issues to it. All is as it is on the wire, up to the clouds themselves.
func TestRegistryLogins(t *testing.T) {
	t.Parallel()
	s, cloud := newStage(t), newClouds(t)
	for name, annotations := range map[string]map[string]string{
		"aws":    {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/puller"},
		"azure":  {"azure.workload.identity/client-id": "client", "azure.workload.identity/tenant-id": "tenant"},
		"google": {"gcp.auth.fluxcd.io/workload-identity-provider": "projects/1/locations/global/workloadIdentityPools/pool/providers/cluster"},
	} {
		s.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: s.namespace, Annotations: annotations}})
	}
	own := map[string][]string{
		"aws":    {"AWS_ACCESS_KEY_ID=AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY=top-secret"},
		"azure":  {"IDENTITY_ENDPOINT=" + cloud.plain.URL, "IDENTITY_HEADER=header"},
		"google": {"GCE_METADATA_HOST=" + strings.TrimPrefix(cloud.plain.URL, "http://")},
	}
	for _, row := range []struct{ provider, url, user, password string }{
		{sourcev1.AmazonOCIProvider, "oci://123456789012.dkr.ecr.eu-west-1.amazonaws.com/app", "AWS", "ecr-password"},
		{sourcev1.AzureOCIProvider, "oci://registry.azurecr.io/app", "00000000-0000-0000-0000-000000000000", acrToken},
		{sourcev1.GoogleOCIProvider, "oci://europe-docker.pkg.dev/project/app", "oauth2accesstoken", "google-token"},
	} {
		account := map[string]string{sourcev1.AmazonOCIProvider: "aws", sourcev1.AzureOCIProvider: "azure", sourcev1.GoogleOCIProvider: "google"}[row.provider]
		reg := ocitest.NewRegistry(t, ocitest.BasicAuth(row.user, row.password))
		want := reg.PushFiles("app", map[string]string{"a": row.provider}, nil, "latest")
		task := loginTask{Kind: sourcev1.OCIRepositoryKind, Provider: row.provider, URL: row.url, Mirror: reg.URL("app"), Kubeconfig: testkit.Kubeconfig(t), Namespace: s.namespace}
		for _, way := range []struct {
			name   string
			change func(*loginTask)
			env    []string
			fails  bool
		}{
			{"by itself", func(*loginTask) {}, own[account], false},
			{"by itself, for charts", func(l *loginTask) { l.Kind = sourcev1.HelmRepositoryKind }, own[account], false},
			{"as an account", func(l *loginTask) { l.Account = account }, nil, false},
			{"as an account without annotations", func(l *loginTask) { l.Account = "default" }, append([]string{"GCE_METADATA_HOST=127.0.0.1:1"}, own["aws"]...), true},
		} {
			t.Run(row.provider+" "+way.name, func(t *testing.T) {
				l := task
				way.change(&l)
				got, err := cloud.login(t, l, way.env)
				if (err != nil) != way.fails || err == nil && got != want {
					t.Errorf("got %q and %v, want %s", got, err, want)
				}
				if err != nil && strings.Contains(err.Error(), "top-secret") {
					t.Errorf("%v shows a key", err)
				}
			})
		}
	}
}

// login runs the child, whose environment is the given one and nothing else.
func (c *clouds) login(t *testing.T, l loginTask, env []string) (string, error) {
	t.Helper()
	text, err := json.Marshal(l)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self)
	cmd.Env = append([]string{childLogin + "=" + string(text), "HOME=" + t.TempDir(), "SSL_CERT_FILE=" + c.ca, "HTTPS_PROXY=" + c.proxy.URL}, env...)
	var problem strings.Builder
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, problem.String())
	}
	return string(out), err
}

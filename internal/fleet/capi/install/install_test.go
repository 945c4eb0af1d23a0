package install_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/capi/install"
)

func TestCoreHoldsOneVersionOfEachKind(t *testing.T) {
	core, err := install.Core()
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, u := range core.Definitions {
		kind, _, _ := unstructured.NestedString(u.Object, "spec", "names", "kind")
		kinds = append(kinds, kind)
		versions, _, _ := unstructured.NestedSlice(u.Object, "spec", "versions")
		if len(versions) != 1 || versions[0].(map[string]any)["name"] != "v1beta2" {
			t.Errorf("%s has %d versions, want v1beta2 alone", kind, len(versions))
		}
	}
	for _, kind := range []string{"Cluster", "ClusterClass", "Machine", "MachineDeployment", "MachineSet", "MachinePool", "MachineHealthCheck"} {
		if !slices.Contains(kinds, kind) {
			t.Errorf("no definition of %s", kind)
		}
	}
	if len(core.Webhooks) != 2 {
		t.Errorf("%d webhook configurations, want a mutating and a validating one", len(core.Webhooks))
	}
}

func TestReadRefusesWhatIsNoYAML(t *testing.T) {
	if _, err := install.Read(strings.NewReader("kind: [")); !errors.Is(err, failure.Of(failure.Invalid)) {
		t.Errorf("Read: %v", err)
	}
}

func TestInstallRefusesWebhooksOfElsewhere(t *testing.T) {
	components, err := install.Read(strings.NewReader(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: foreign}
webhooks: [{name: a.example.com, clientConfig: {url: "https://example.com/check"}}]
`))
	if err != nil {
		t.Fatal(err)
	}
	server, err := install.NewServer(t.TempDir(), "127.0.0.1:1", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	err = components.Install(t.Context(), &rest.Config{}, server)
	if !errors.Is(err, failure.Of(failure.Invalid)) || !strings.Contains(err.Error(), "a.example.com") {
		t.Errorf("Install: %v", err)
	}
}

func TestNewServerMakesACertificateOfItsOwn(t *testing.T) {
	dir, now := filepath.Join(t.TempDir(), "new", "folder"), time.Now()
	if _, err := install.NewServer(dir, "127.0.0.1:9443", now); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "tls.crt"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	for _, tc := range []struct {
		name, reason, host string
		at                 time.Time
		valid              bool
	}{
		{"its address", "that is where the API server calls it", "127.0.0.1", now, true},
		{"another address", "it is for one server", "127.0.0.2", now, false},
		{"a clock that is behind", "the hub may be another machine", "127.0.0.1", now.Add(-5 * time.Minute), true},
		{"years later", "a manager may run for long", "127.0.0.1", now.AddDate(5, 0, 0), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := certificate.Verify(x509.VerifyOptions{Roots: roots, DNSName: tc.host, CurrentTime: tc.at})
			if (err == nil) != tc.valid {
				t.Errorf("%s: %v", tc.reason, err)
			}
		})
	}
	info, err := os.Stat(filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %o, want 600", info.Mode().Perm())
	}
}

func TestNewServerRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, reason, dir, addr string
		kind                    failure.Kind
	}{
		{"no port", "the manager is told a port", t.TempDir(), "127.0.0.1", failure.Invalid},
		{"a name", "the certificate is for an address", t.TempDir(), "localhost:9443", failure.Invalid},
		{"a file for a folder", "there is nowhere to write", file, "127.0.0.1:9443", failure.Denied},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := install.NewServer(tc.dir, tc.addr, time.Now()); !errors.Is(err, failure.Of(tc.kind)) {
				t.Errorf("%s: %v", tc.reason, err)
			}
		})
	}
}

func TestReady(t *testing.T) {
	answers := make(chan int, 2)
	answers <- http.StatusInternalServerError
	answers <- http.StatusOK
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/readyz" {
			t.Errorf("asked for %s", r.URL.Path)
		}
		select {
		case status := <-answers:
			w.WriteHeader(status)
		default:
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	health, manager := server.Listener.Addr().String(), install.Manager{Name: "some-manager"}

	if err := manager.Ready(t.Context(), health, nil); err != nil {
		t.Errorf("it was not ready and is now: %v", err)
	}
	ended := make(chan struct{})
	close(ended)
	if err := manager.Ready(t.Context(), health, ended); !errors.Is(err, failure.Of(failure.Unavailable)) {
		t.Errorf("its process ended: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := manager.Ready(ctx, health, nil); !errors.Is(err, failure.Of(failure.Timeout)) {
		t.Errorf("it never is: %v", err)
	}
}

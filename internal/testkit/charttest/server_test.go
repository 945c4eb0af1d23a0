package charttest_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"path/filepath"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/loader"
	repo "helm.sh/helm/v4/pkg/repo/v1"

	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/charttest"
)

var podinfo = testkit.Chart{
	Name: "podinfo", Version: "1.2.3", AppVersion: "9",
	Files:     map[string]string{"values.yaml": "a: 1\n", "templates/config.yaml": "kind: ConfigMap\n"},
	Subcharts: []testkit.Chart{{Name: "base", Version: "0.1.0"}},
}

func get(t *testing.T, c *http.Client, url, user, password string) (int, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body
}

// TestChartServer has the Helm SDK read what the server gives out.
func TestChartServer(t *testing.T) {
	s := charttest.NewServer(t, []testkit.Chart{podinfo}, charttest.BasicAuth("ann", "secret"))
	if status, _ := get(t, http.DefaultClient, s.URL()+"/index.yaml", "ann", "wrong"); status != http.StatusUnauthorized {
		t.Errorf("let in with a wrong password: %d", status)
	}
	next := podinfo
	next.Version = "1.3.0"
	s.Add(next)
	index, err := repo.LoadIndexFile(filepath.Join(s.Root(), "index.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if got := index.Entries["podinfo"]; len(got) != 2 || got[0].Version != "1.3.0" || got[0].URLs[0] != "podinfo-1.3.0.tgz" {
		t.Errorf("index: %+v", got)
	}
	_, data := get(t, http.DefaultClient, s.URL()+"/podinfo-1.2.3.tgz", "ann", "secret")
	loaded, err := loader.LoadArchive(bytes.NewReader(data))
	if err != nil || loaded.Validate() != nil || len(loaded.Dependencies()) != 1 || loaded.Values["a"] == nil {
		t.Errorf("the chart does not load: %v %+v", err, loaded)
	}
	folder, err := loader.LoadDir(podinfo.WriteFolder(t, t.TempDir()))
	if err != nil || len(folder.Templates) != 1 {
		t.Errorf("the folder does not load: %v %+v", err, folder)
	}
	s.Refuse("/podinfo-1.2.3.tgz", http.StatusBadGateway)
	if status, _ := get(t, http.DefaultClient, s.URL()+"/podinfo-1.2.3.tgz", "ann", "secret"); status != http.StatusBadGateway || s.Asked(".tgz") != 2 {
		t.Errorf("status %d after %d requests: %+v", status, s.Asked(".tgz"), s.Requests())
	}
}

func TestChartServerOverTLS(t *testing.T) {
	s := charttest.NewServer(t, []testkit.Chart{podinfo}, charttest.ClientCert())
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.CA())
	cert, err := tls.X509KeyPair(s.ClientCert())
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}}}
	if status, _ := get(t, c, s.URL()+"/index.yaml", "", ""); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
}

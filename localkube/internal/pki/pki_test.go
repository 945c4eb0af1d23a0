package pki

import (
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

func clockAt(t time.Time) func() time.Time { return func() time.Time { return t } }

func TestEnsureMakesWhatTheClusterNeeds(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	folder, err := Ensure(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range leaves() {
		cert, _, err := folder.load(l.name)
		if err != nil {
			t.Fatalf("%s: %v", l.name, err)
		}
		authority, _, err := folder.load(l.authority)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(authority)
		if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{l.usage}}); err != nil {
			t.Errorf("%s: %v", l.name, err)
		}
	}
	server, _, err := folder.load(APIServer)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"127.0.0.1", "localhost", "kubernetes.default.svc", ServiceIP} {
		if err := server.VerifyHostname(host); err != nil {
			t.Errorf("the API server cannot be called %s: %v", host, err)
		}
	}
	if ip := net.ParseIP(ServiceIP); ip == nil {
		t.Errorf("service address %q is no address", ServiceIP)
	}
}

func TestEnsureKeepsSecretsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	if _, err := Ensure(dir, time.Now); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		info, err := entry.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o, want 600", entry.Name(), info.Mode().Perm())
		}
	}
	if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
		t.Errorf("the folder has mode %o, want 700", info.Mode().Perm())
	}
}

func TestEnsureAgain(t *testing.T) {
	start := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	cases := []struct {
		name, reason string
		later        time.Duration
		spoil        func(Folder) error
		renewed      []string
	}{
		{"at once", "kubeconfigs and tokens stay valid over a restart", time.Minute, nil, nil},
		{"long before the end", "nothing expires soon", leafLife - renewBefore - time.Hour, nil, nil},
		{"shortly before the end", "leaves are renewed while they still work", leafLife - time.Hour, nil,
			[]string{APIServer, Admin, ControllerManager, Scheduler, Nodes, FrontProxy}},
		{"a certificate is gone", "a process that died between key and certificate leaves this", time.Minute,
			func(f Folder) error { return os.Remove(f.Cert(Admin)) }, []string{Admin}},
		{"a key without its certificate", "a process that died while renewing leaves this", time.Minute,
			func(f Folder) error { _, err := f.newKey(Scheduler, newLeafKey); return err }, []string{Scheduler}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			folder, err := Ensure(dir, clockAt(start))
			if err != nil {
				t.Fatal(err)
			}
			before := read(t, folder)
			if c.spoil != nil {
				if err := c.spoil(folder); err != nil {
					t.Fatal(err)
				}
			}
			if folder, err = Ensure(dir, clockAt(start.Add(c.later))); err != nil {
				t.Fatal(err)
			}
			after := read(t, folder)
			renewed := map[string]bool{}
			for _, name := range c.renewed {
				renewed[name] = true
			}
			for name := range before {
				if changed := before[name] != after[name]; changed != renewed[name] {
					t.Errorf("%s renewed: %v, want %v (%s)", name, changed, renewed[name], c.reason)
				}
			}
		})
	}
}

// read returns all certificates and the key of service accounts by name.
func read(t *testing.T, folder Folder) map[string]string {
	t.Helper()
	all := map[string]string{}
	names := []string{CA, FrontProxyCA}
	for _, l := range leaves() {
		names = append(names, l.name)
	}
	for _, name := range names {
		data, err := os.ReadFile(folder.Cert(name))
		if err != nil {
			t.Fatal(err)
		}
		all[name] = string(data)
	}
	key, err := os.ReadFile(folder.Key(ServiceAccountKey))
	if err != nil {
		t.Fatal(err)
	}
	all[ServiceAccountKey] = string(key)
	return all
}

func TestWriteKubeconfig(t *testing.T) {
	dir := t.TempDir()
	folder, err := Ensure(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "kubeconfig")
	if err := folder.WriteKubeconfig(path, "here", "https://127.0.0.1:1", Admin); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	if config.Host != "https://127.0.0.1:1" || len(config.CertData) == 0 || len(config.CAData) == 0 {
		t.Errorf("kubeconfig leads to %+v", config)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("kubeconfig has mode %o, want 600", info.Mode().Perm())
	}
}

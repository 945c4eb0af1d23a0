package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

// The chart that all releases are made of.
const (
	chartName         = "app"
	chartVersion      = "1.0.0"
	chartArchive      = "/" + chartName + "-" + chartVersion + ".tgz"
	objectsPerRelease = 8
	settings          = "some settings of an application\\n"
)

// releaseKinds are the resources that a release consists of, by how many of each it has.
var releaseKinds = map[string]int{
	"/api/v1/serviceaccounts": 1, "/api/v1/services": 1, "/apis/apps/v1/deployments": 1, "/api/v1/configmaps": 2, "/api/v1/secrets": 1,
	"/apis/rbac.authorization.k8s.io/v1/roles": 1, "/apis/rbac.authorization.k8s.io/v1/rolebindings": 1,
}

// chartFiles are the files of the chart: eight objects, of which the first ConfigMap
// holds the value that an edit changes.
func chartFiles() [][2]string {
	const name = "{{ .Release.Name }}"
	const meta = "metadata:\n  name: " + name + "\n  labels: {{- include \"app.labels\" . | nindent 4 }}\n"
	config := func(n string, data string) string {
		return "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "-config-" + n +
			"\n  labels: {{- include \"app.labels\" . | nindent 4 }}\ndata:\n" + data + "  text: {{ repeat 8 .Values.text | quote }}\n"
	}
	return [][2]string{
		{"Chart.yaml", "apiVersion: v2\nname: " + chartName + "\nversion: " + chartVersion + "\nappVersion: 1.0.0\n"},
		{"values.yaml", "value: first\ntext: \"" + settings + "\"\nimage: registry.example/app\nreplicas: 0\n"},
		{"templates/_helpers.tpl", "{{- define \"app.labels\" -}}\napp.kubernetes.io/name: {{ .Chart.Name }}\n" +
			"app.kubernetes.io/instance: {{ .Release.Name }}\napp.kubernetes.io/version: {{ .Chart.AppVersion | quote }}\n{{- end }}\n"},
		{"templates/serviceaccount.yaml", "apiVersion: v1\nkind: ServiceAccount\n" + meta},
		{"templates/config.yaml", config("1", "  value: {{ .Values.value | quote }}\n") + "---\n" + config("2", "")},
		{"templates/secret.yaml", "apiVersion: v1\nkind: Secret\n" + meta + "stringData:\n  token: {{ .Values.text | sha256sum }}\n"},
		{"templates/rbac.yaml", "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\n" + meta +
			"rules:\n- apiGroups: [\"\"]\n  resources: [configmaps]\n  verbs: [get]\n---\n" +
			"apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\n" + meta +
			"roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: " + name + "}\n" +
			"subjects:\n- {kind: ServiceAccount, name: " + name + ", namespace: {{ .Release.Namespace }}}\n"},
		{"templates/service.yaml", "apiVersion: v1\nkind: Service\n" + meta +
			"spec:\n  selector: {app.kubernetes.io/instance: " + name + "}\n  ports:\n  - {name: http, port: 80, targetPort: http, protocol: TCP}\n"},
		{"templates/deployment.yaml", "apiVersion: apps/v1\nkind: Deployment\n" + meta +
			"spec:\n  replicas: {{ .Values.replicas }}\n  selector:\n    matchLabels: {app.kubernetes.io/instance: " + name + "}\n" +
			"  template:\n    metadata:\n      labels: {app.kubernetes.io/instance: " + name + "}\n    spec:\n      serviceAccountName: " + name + "\n" +
			"      containers:\n      - name: app\n        image: {{ .Values.image }}:{{ .Chart.AppVersion }}\n" +
			"        ports:\n        - {name: http, containerPort: 8080, protocol: TCP}\n" +
			"        resources:\n          requests: {cpu: 10m, memory: 16Mi}\n"},
	}
}

// packChart returns the chart as Helm packs it.
func packChart() ([]byte, error) {
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	w := tar.NewWriter(zipped)
	for _, f := range chartFiles() {
		h := &tar.Header{Name: chartName + "/" + f[0], Mode: 0o644, Typeflag: tar.TypeReg, Size: int64(len(f[1]))}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("pack the chart: %w", err)
		}
		if _, err := w.Write([]byte(f[1])); err != nil {
			return nil, fmt.Errorf("pack the chart: %w", err)
		}
	}
	err := errors.Join(w.Close(), zipped.Close())
	return out.Bytes(), err
}

// chartRepository is the Helm repository over HTTP.
type chartRepository struct {
	server *http.Server
	url    string
}

// serveChart serves a repository with the one chart on loopback.
func serveChart(ctx context.Context) (*chartRepository, error) {
	archive, err := packChart()
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(archive)
	index := fmt.Sprintf("apiVersion: v1\nentries:\n  %s:\n  - apiVersion: v2\n    name: %s\n    version: %s\n    appVersion: 1.0.0\n"+
		"    digest: %s\n    created: 2026-01-01T00:00:00Z\n    urls: [%s]\n", chartName, chartName, chartVersion, hex.EncodeToString(digest[:]), chartArchive[1:])
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("serve the chart: %w", err)
	}
	mux := http.NewServeMux()
	serve := func(path string, data []byte) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
		})
	}
	serve("/index.yaml", []byte(index))
	serve(chartArchive, archive)
	r := &chartRepository{server: &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}, url: "http://" + listener.Addr().String()}
	go func() { _ = r.server.Serve(listener) }()
	return r, nil
}

func (r *chartRepository) close() { _ = r.server.Close() }

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/bowline-dev/bowline/internal/gitserve"
)

const (
	branch         = "main"
	repoName       = "fleet.git"
	chainLength    = 5
	objectsPerUnit = 10
	configsPerUnit = 6
)

// unitName names unit n, its namespace and its folder.
func unitName(n int) string { return fmt.Sprintf("unit-%03d", n) }

// chainName names link n of the dependency chain.
func chainName(n int) string { return fmt.Sprintf("chain-%d", n) }

// body is an object as JSON.
type body = map[string]any

// unitObjects returns the ten objects of one unit. value goes into the first
// ConfigMap; a commit changes it.
func unitObjects(name, value string) []body {
	meta := func(n string) body {
		return body{"name": n, "namespace": name, "labels": body{"app.kubernetes.io/name": name}}
	}
	objects := []body{
		{"apiVersion": "v1", "kind": "Namespace", "metadata": body{"name": name}},
		{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("app")},
		{"apiVersion": "v1", "kind": "Service", "metadata": meta("app"), "spec": body{
			"selector": body{"app.kubernetes.io/name": name},
			"ports":    []body{{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}},
		}},
		{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta("app"), "spec": body{
			"replicas": 0,
			"selector": body{"matchLabels": body{"app.kubernetes.io/name": name}},
			"template": body{
				"metadata": body{"labels": body{"app.kubernetes.io/name": name}},
				"spec": body{"serviceAccountName": "app", "containers": []body{{
					"name": "app", "image": "registry.example/app:1.0.0",
					"ports":     []body{{"name": "http", "containerPort": 8080, "protocol": "TCP"}},
					"resources": body{"requests": body{"cpu": "10m", "memory": "16Mi"}},
				}}},
			},
		}},
	}
	for i := range configsPerUnit {
		data := body{"index": fmt.Sprint(i), "text": strings.Repeat("some settings of an application\n", 8)}
		if i == 0 {
			data["value"] = value
		}
		objects = append(objects, body{"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(configName(i)), "data": data})
	}
	return objects
}

// configName names ConfigMap i of a unit.
func configName(i int) string { return fmt.Sprintf("config-%d", i) }

// unitFiles returns the files of one unit's folder by path. JSON is YAML, and
// spares the benchmark a second encoder.
func unitFiles(folder, name, value string) (map[string]gitserve.File, error) {
	objects := unitObjects(name, value)
	groups := []struct {
		file    string
		objects []body
	}{
		{"namespace.yaml", objects[:1]},
		{"workload.yaml", objects[1:4]},
		{"config.yaml", objects[4:]},
	}
	files := map[string]gitserve.File{}
	kustomization := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n"
	for _, g := range groups {
		var text strings.Builder
		for _, o := range g.objects {
			data, err := json.MarshalIndent(o, "", "  ")
			if err != nil {
				return nil, err
			}
			text.WriteString("---\n")
			text.Write(data)
			text.WriteByte('\n')
		}
		files[folder+"/"+g.file] = gitserve.File{Data: []byte(text.String())}
		kustomization += "  - " + g.file + "\n"
	}
	files[folder+"/kustomization.yaml"] = gitserve.File{Data: []byte(kustomization)}
	return files, nil
}

// origin is the Git server with the fleet's repository.
type origin struct {
	repo   *gitserve.Repo
	server *http.Server
	url    string
}

// serveFleet makes the repository below root and serves it on loopback.
func serveFleet(ctx context.Context, root string, units int) (*origin, string, error) {
	repo, err := gitserve.Init(ctx, root, repoName, branch)
	if err != nil {
		return nil, "", err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", fmt.Errorf("serve the repository: %w", err)
	}
	o := &origin{
		repo:   repo,
		server: &http.Server{Handler: gitserve.Handler(root, gitserve.Options{}), ReadHeaderTimeout: time.Minute},
		url:    "http://" + listener.Addr().String() + "/" + repoName,
	}
	go func() { _ = o.server.Serve(listener) }()

	files := map[string]gitserve.File{}
	add := func(folder, name string) error {
		unit, err := unitFiles(folder, name, "first")
		for path, f := range unit {
			files[path] = f
		}
		return err
	}
	for n := range units {
		if err := add("units/"+unitName(n), unitName(n)); err != nil {
			return nil, "", err
		}
	}
	for n := range chainLength {
		if err := add("chain/"+chainName(n), chainName(n)); err != nil {
			return nil, "", err
		}
	}
	revision, err := o.commit(ctx, "the fleet", files)
	return o, revision, err
}

// commit writes files and returns the revision as the toolkit names it.
func (o *origin) commit(ctx context.Context, message string, files map[string]gitserve.File) (string, error) {
	sha, err := o.repo.Commit(ctx, gitserve.Commit{Branch: branch, Message: message, When: time.Now(), Files: files})
	if err != nil {
		return "", err
	}
	return branch + "@sha1:" + sha, nil
}

// change commits another value for one ConfigMap of a unit.
func (o *origin) change(ctx context.Context, unit, value string) (string, error) {
	files, err := unitFiles("units/"+unit, unit, value)
	if err != nil {
		return "", err
	}
	only := "units/" + unit + "/config.yaml"
	return o.commit(ctx, "change one object", map[string]gitserve.File{only: files[only]})
}

func (o *origin) close() { _ = o.server.Close() }

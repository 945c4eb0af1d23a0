package kustomize

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/bowline-dev/bowline/internal/build"
)

// unitFiles are the ten manifests of one unit of the benchmark fleet.
func unitFiles(unit string) map[string]string {
	files := map[string]string{
		"namespace.yaml":      "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: " + unit + "\n",
		"serviceaccount.yaml": "apiVersion: v1\nkind: ServiceAccount\nmetadata:\n  name: app\n  namespace: " + unit + "\n",
		"service.yaml": "apiVersion: v1\nkind: Service\nmetadata:\n  name: app\n  namespace: " + unit +
			"\nspec:\n  selector:\n    app: app\n  ports:\n    - name: http\n      port: 80\n      targetPort: 8080\n      protocol: TCP\n",
		"deployment.yaml": "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: app\n  namespace: " + unit +
			"\n  labels:\n    app: app\nspec:\n  replicas: 0\n  selector:\n    matchLabels:\n      app: app\n  template:\n    metadata:\n      labels:\n        app: app\n" +
			"    spec:\n      serviceAccountName: app\n      containers:\n        - name: app\n          image: registry.example/app:1.0.0\n          ports:\n            - name: http\n              containerPort: 8080\n              protocol: TCP\n" +
			"          resources:\n            requests:\n              cpu: 10m\n              memory: 16Mi\n",
	}
	for i := range 6 {
		files[fmt.Sprintf("configmap-%d.yaml", i)] = fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: config-%d\n  namespace: %s\ndata:\n  key: value-%d\n  file.conf: |\n    a = 1\n    b = 2\n", i, unit, i)
	}
	return files
}

func fleet(units int, shape string) mapTree {
	all := map[string]string{}
	for i := range units {
		unit := fmt.Sprintf("unit-%03d", i)
		var names []string
		for name, content := range unitFiles(unit) {
			all[unit+"/"+name] = content
			names = append(names, name)
		}
		switch shape {
		case "listed":
			all[unit+"/kustomization.yaml"] = "resources:\n- " + strings.Join(names, "\n- ") + "\n"
		case "labels":
			all[unit+"/kustomization.yaml"] = "commonAnnotations: {team: a}\nresources:\n- " + strings.Join(names, "\n- ") + "\n"
		case "patched":
			all[unit+"/kustomization.yaml"] = "patches:\n- patch: |\n    apiVersion: apps/v1\n    kind: Deployment\n    metadata: {name: app}\n    spec: {template: {spec: {containers: [{name: app, env: [{name: A, value: b}]}]}}}\n  target: {kind: Deployment}\nresources:\n- " + strings.Join(names, "\n- ") + "\n"
		}
	}
	return treeOf(all)
}

// BenchmarkBuild builds units of ten objects, one unit an operation.
func BenchmarkBuild(b *testing.B) {
	for _, shape := range []string{"plain", "listed", "labels", "patched"} {
		b.Run(shape, func(b *testing.B) {
			const units = 20
			tree := fleet(units, shape)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := Build(context.Background(), tree, build.Recipe{Path: fmt.Sprintf("unit-%03d", i%units)}); err != nil {
					b.Fatal(err)
				}
			}
			b.StopTimer()
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			b.ReportMetric(float64(m.HeapAlloc)/1e6, "MB-live")
		})
	}
}

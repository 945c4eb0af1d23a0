package helm

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
)

// many is a chart of n ConfigMaps and as many Deployments.
func many(n int) string {
	return strings.Replace(simple, "-- web/templates/service.yaml --", fmt.Sprintf(`-- web/templates/many.yaml --
{{- range $i := until %d }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $.Release.Name }}-{{ $i }}
  labels:
    {{- include "web.labels" $ | nindent 4 }}
data:
  key: value
  text: |
    of two
    lines
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $.Release.Name }}-{{ $i }}
spec:
  replicas: {{ $.Values.replicas }}
  selector:
    matchLabels: {app: "web"}
  template:
    metadata:
      labels: {app: "web"}
    spec:
      containers:
        - name: web
          image: {{ $.Values.image | quote }}
          ports: [{containerPort: 80}]
          resources:
            requests: {cpu: 100m, memory: "64Mi"}
{{- end }}
-- web/templates/service.yaml --`, n), 1)
}

func BenchmarkRender(b *testing.B) {
	for _, pairs := range []int{0, 4, 500, 5000} {
		for _, origin := range []string{"", "hr"} {
			b.Run(fmt.Sprintf("objects=%d/labels=%t", 3+2*pairs, origin != ""), func(b *testing.B) {
				req := request(b, many(pairs))
				req.PostRender.Origin = types.NamespacedName{Namespace: "ns", Name: origin}
				b.ReportAllocs()
				for b.Loop() {
					r, err := Render(context.Background(), req)
					if err != nil {
						b.Fatal(err)
					}
					if _, err := Objects(r.Manifest); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

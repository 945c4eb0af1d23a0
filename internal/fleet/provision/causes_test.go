package provision

import (
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// kinds are those of the providers in this test, by group. Their definitions let every field through: what providers
// of the past and of the future say is judged by its form.
var kinds = map[string][]string{
	clusterGroup:                     {"Cluster", "Machine", "MachineDeployment", "MachinePool"},
	"infrastructure." + clusterGroup: {"Network", "Plane", "Host", "Unlabelled"},
	"bootstrap." + clusterGroup:      {"Seed"},
	"cloud.example.com":              {"ManagedCluster"},
}

// define installs the definitions, with the label of the contract v1beta1 where they are to have one.
func define(t *testing.T) {
	t.Helper()
	var all []*unstructured.Unstructured
	for group, names := range kinds {
		for _, kind := range names {
			plural := strings.ToLower(kind) + "s"
			d := &apiextensionsv1.CustomResourceDefinition{
				TypeMeta:   metav1.TypeMeta{APIVersion: "apiextensions.k8s.io/v1", Kind: "CustomResourceDefinition"},
				ObjectMeta: metav1.ObjectMeta{Name: plural + "." + group},
				Spec: apiextensionsv1.CustomResourceDefinitionSpec{
					Group: group, Scope: apiextensionsv1.NamespaceScoped,
					Names: apiextensionsv1.CustomResourceDefinitionNames{Kind: kind, Plural: plural, Singular: strings.ToLower(kind), ListKind: kind + "List"},
					Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true, Schema: &apiextensionsv1.CustomResourceValidation{
						OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: new(true)}}}},
				},
			}
			if kind != "Unlabelled" {
				d.Labels = map[string]string{clusterGroup + "/v1beta1": "v1"}
			}
			content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(d)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, &unstructured.Unstructured{Object: content})
		}
	}
	if err := crds.Install(t.Context(), testkit.Cluster(t), all); err != nil {
		t.Fatal(err)
	}
}

const (
	// oldCluster refers as in the contract v1beta1, and newCluster as in v1beta2.
	oldCluster = `{apiVersion: cluster.x-k8s.io/v1, kind: Cluster, metadata: {name: c}, spec: {
		infrastructureRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1, kind: Network, name: c, namespace: elsewhere},
		controlPlaneRef: {apiVersion: infrastructure.cluster.x-k8s.io/v1, kind: Plane, name: c}}}`
	newCluster = `{apiVersion: cluster.x-k8s.io/v1, kind: Cluster, metadata: {name: c}, spec: {
		infrastructureRef: {apiGroup: infrastructure.cluster.x-k8s.io, kind: Network, name: c},
		controlPlaneRef: {apiGroup: infrastructure.cluster.x-k8s.io, kind: Plane, name: c}},
		status: {conditions: [{type: RemoteConnectionProbe, status: "False"}, {type: Deleting, status: "False"}, {type: Available, status: "False", reason: NotAvailable, message: the whole is not}]}}`
	network      = `{apiVersion: infrastructure.cluster.x-k8s.io/v1, kind: Network, metadata: {name: c}, `
	plane        = `{apiVersion: infrastructure.cluster.x-k8s.io/v1, kind: Plane, metadata: {name: c}, `
	readyNetwork = network + `status: {ready: true}}`
	waitingPlane = plane + `status: {ready: false, conditions: [{type: Ready, status: "False", severity: Info, reason: WaitingForInfrastructure, message: later}]}}`
	machine      = `{apiVersion: cluster.x-k8s.io/v1, kind: Machine, metadata: {name: m, labels: {cluster.x-k8s.io/cluster-name: c}}, spec: {
		bootstrap: {configRef: {apiGroup: bootstrap.cluster.x-k8s.io, kind: Seed, name: m}}, infrastructureRef: {apiGroup: infrastructure.cluster.x-k8s.io, kind: Host, name: m}},
		status: {conditions: [{type: Ready, status: "False", reason: NotReady, message: the host is not}]}}`
	seed = `{apiVersion: bootstrap.cluster.x-k8s.io/v1, kind: Seed, metadata: {name: m}, status: {initialization: {dataSecretCreated: true}}}`
)

func TestCause(t *testing.T) {
	define(t)
	tests := []struct {
		name, reason string
		objects      []string // the first one is the Cluster
		rank         rank
		says         string
	}{
		{"failed, v1beta1", "severity says that it will not go on by itself", []string{oldCluster, network + `status: {ready: false}}`,
			plane + `status: {conditions: [{type: Ready, status: "False", severity: Error, reason: Denied, message: "no right\n to make it"}, {type: RoleReady, status: "True"}]}}`},
			broken, "Plane c: Ready is False (Denied): no right to make it"},
		{"failure message", "a provider that gives up says so in a field of its own", []string{oldCluster, network + `status: {failureReason: x, failureMessage: the quota is used up}}`, waitingPlane},
			broken, "Network c: the quota is used up"},
		{"infrastructure", "what others wait for is told, and not that they do", []string{newCluster, network + `status: {conditions: [{type: SubnetsReady, status: "False", reason: Creating, message: 2 of 3}]}}`, waitingPlane},
			unready, "Network c: SubnetsReady is False (Creating): 2 of 3"},
		{"control plane", "infrastructure may wait for the control plane, too", []string{newCluster,
			network + `status: {conditions: [{type: Ready, status: "False", reason: AwaitingControlPlane}]}}`, plane + `status: {conditions: [{type: Available, status: "False", reason: Starting, message: slowly}]}}`},
			unready, "Plane c: Available is False (Starting): slowly"},
		{"beside each other", "conditions of v1beta2 count where a provider keeps both", []string{newCluster,
			network + `status: {v1beta2: {conditions: [{type: Ready, status: "False", reason: New, message: new}]}, conditions: [{type: Ready, status: "False", reason: Old, message: old}]}}`, waitingPlane},
			unready, "Network c: Ready is False (New): new"},
		{"silence", "a provider that does not run says nothing", []string{newCluster, network + `spec: {}}`, waitingPlane}, silent, "Network c: nobody has said anything about it yet; is the provider's controller running?"},
		{"missing object", "a wrong name", []string{newCluster, waitingPlane}, unready, "Network c: it does not exist"},
		{"machine", "deeper than the machine", []string{newCluster, readyNetwork, waitingPlane, machine, seed,
			`{apiVersion: infrastructure.cluster.x-k8s.io/v1, kind: Host, metadata: {name: m}, status: {conditions: [{type: VMProvisioned, status: "False", reason: Cloning, message: no room on the datastore}]}}`},
			unready, "Host m: VMProvisioned is False (Cloning): no room on the datastore"},
		{"listed resources", "a provider's provider", []string{newCluster, readyNetwork,
			plane + `status: {ready: false, resources: [{ready: true, resource: {group: cloud.example.com, version: v1, kind: ManagedCluster, name: other}}, {ready: false, resource: {group: cloud.example.com, version: v1, kind: ManagedCluster, name: c}}]}}`,
			`{apiVersion: cloud.example.com/v1, kind: ManagedCluster, metadata: {name: c}, status: {conditions: [{type: Ready, status: "False", severity: Error, reason: Quota, message: not enough cores}]}}`},
			broken, "ManagedCluster c: Ready is False (Quota): not enough cores"},
		{"kind not served", "Cluster API calls it an internal error", []string{strings.Replace(newCluster, "kind: Network", "kind: Acme", 1), waitingPlane},
			broken, "Acme c: the hub does not serve the kind Acme of infrastructure.cluster.x-k8s.io; install the provider that defines it"},
		{"kind without a contract", "so does it here", []string{strings.Replace(newCluster, "kind: Network", "kind: Unlabelled", 1), strings.Replace(network, "Network", "Unlabelled", 1) + "}", waitingPlane},
			broken, "CustomResourceDefinition unlabelleds.infrastructure.cluster.x-k8s.io: it has no label"},
		{"pool", "nodes that a cloud makes", []string{newCluster, readyNetwork, plane + `status: {ready: true}}`,
			`{apiVersion: cluster.x-k8s.io/v1, kind: MachinePool, metadata: {name: p, labels: {cluster.x-k8s.io/cluster-name: c}}, spec: {template: {spec: {infrastructureRef: {apiGroup: infrastructure.cluster.x-k8s.io, kind: Host, name: p}}}}}`,
			`{apiVersion: infrastructure.cluster.x-k8s.io/v1, kind: Host, metadata: {name: p}, status: {conditions: [{type: Ready, status: "False", reason: RoleMissing, message: no role}]}}`},
			unready, "Host p: Ready is False (RoleMissing): no role"},
		{"nothing below", "then the Cluster speaks", []string{newCluster, readyNetwork, plane + `status: {ready: true}}`}, waits, "Cluster c: Available is False (NotAvailable): the whole is not"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := client.New(testkit.Cluster(t), client.Options{})
			if err != nil {
				t.Fatal(err)
			}
			namespace := testkit.Namespace(t)
			var of *unstructured.Unstructured
			for _, text := range tt.objects {
				o := read(t, text)
				o.SetNamespace(namespace)
				if err := c.Create(t.Context(), o); err != nil {
					t.Fatal(err)
				}
				if of == nil {
					of = o
				}
			}
			got, err := (tree{reader: c, mapper: c.RESTMapper()}).cause(t.Context(), of)
			if err != nil || got.rank != tt.rank || !strings.HasPrefix(got.String(), tt.says) {
				t.Errorf("got %d %q, %v; want %d %q: %s", got.rank, got, err, tt.rank, tt.says, tt.reason)
			}
		})
	}
}

func read(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	o := &unstructured.Unstructured{}
	raw, err := yaml.YAMLToJSON([]byte(strings.ReplaceAll(text, "\t", " ")))
	if err == nil {
		err = utiljson.Unmarshal(raw, &o.Object) // whole numbers as such, as the API server's answers
	}
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return o
}

func TestInitialized(t *testing.T) {
	tests := []struct {
		name, reason, status string
		want                 bool
	}{
		{"v1beta2", "the contract's field", `{initialization: {controlPlaneInitialized: true}}`, true},
		{"v1beta2, not yet", "it goes before what older fields say", `{initialization: {controlPlaneInitialized: false}, controlPlaneReady: true}`, false},
		{"v1beta1, condition", "older versions tell it by a condition", `{conditions: [{type: ControlPlaneInitialized, status: "True"}]}`, true},
		{"v1beta1, condition false", "they do", `{controlPlaneReady: true, conditions: [{type: ControlPlaneInitialized, status: "False"}]}`, false},
		{"v1beta1", "or by a field", `{controlPlaneReady: true}`, true},
		{"nothing", "nobody has looked at it", `{}`, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := initialized(read(t, "{status: "+tt.status+"}")); got != tt.want {
				t.Errorf("got %t: %s", got, tt.reason)
			}
		})
	}
}

func TestNames(t *testing.T) {
	if got := UnitName("blue"); got != "cluster-blue" {
		t.Errorf("got %q", got)
	}
	long := strings.Repeat("a", 62)
	if a, b := UnitName(long+"a"), UnitName(long+"b"); a == b || len(a) > maxLabel || !strings.HasPrefix(a, "cluster-aaa") {
		t.Errorf("got %q and %q", a, b)
	}
	if by := MadeBy(long); len(by) > maxLabel {
		t.Errorf("the label %q is too long", by)
	}
}

func TestEndpoint(t *testing.T) {
	tests := []struct{ name, reason, spec, want string }{
		{"name", "as a cloud gives it", `{controlPlaneEndpoint: {host: a.example.com, port: 443}}`, "https://a.example.com:443"},
		{"IPv6", "needs brackets", `{controlPlaneEndpoint: {host: "::1", port: 6443}}`, "https://[::1]:6443"},
		{"not yet", "nobody knows", `{controlPlaneEndpoint: {host: "", port: 0}}`, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := endpointOf(read(t, "{spec: "+tt.spec+"}")); got != tt.want {
				t.Errorf("got %q, want %q: %s", got, tt.want, tt.reason)
			}
		})
	}
}

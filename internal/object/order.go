package object

import (
	"strings"
)

// Stages of apply. Every object of one stage is there before the next begins;
// definitions are also waited for until they are established.
const (
	// StageDefinitions holds what others need to exist at all: custom resource
	// definitions, namespaces, cluster roles.
	StageDefinitions = iota
	// StageClasses holds the classes that others name: StorageClass,
	// IngressClass, PriorityClass, ClusterClass and all other kinds so named.
	StageClasses
	// StageRest holds everything else.
	StageRest
	// Stages is the number of stages.
	Stages
)

// Stage returns the stage in which the object is applied.
func Stage(id ID) int {
	switch {
	case id.Kind == "CustomResourceDefinition" && id.Group == "apiextensions.k8s.io",
		id.Kind == "Namespace" && id.Group == "",
		id.Kind == "ClusterRole" && id.Group == "rbac.authorization.k8s.io":
		return StageDefinitions
	case strings.HasSuffix(id.Kind, "Class"):
		return StageClasses
	}
	return StageRest
}

// rank places kinds that others depend on before all others, which are 0, and
// webhooks, which could block others, after them. The order is the toolkit's.
func rank(kind string) int {
	switch kind {
	case "CustomResourceDefinition":
		return -23
	case "Namespace":
		return -22
	case "ClusterRole":
		return -21
	case "ClusterClass":
		return -20
	case "RuntimeClass":
		return -19
	case "PriorityClass":
		return -18
	case "StorageClass":
		return -17
	case "VolumeSnapshotClass":
		return -16
	case "IngressClass":
		return -15
	case "GatewayClass":
		return -14
	case "ClusterRoleBinding":
		return -13
	case "ResourceQuota":
		return -12
	case "ServiceAccount":
		return -11
	case "Role":
		return -10
	case "RoleBinding":
		return -9
	case "ConfigMap":
		return -8
	case "Secret":
		return -7
	case "Service":
		return -6
	case "LimitRange":
		return -5
	case "Deployment":
		return -4
	case "StatefulSet":
		return -3
	case "CronJob":
		return -2
	case "PodDisruptionBudget":
		return -1
	case "MutatingWebhookConfiguration":
		return 1
	case "ValidatingWebhookConfiguration":
		return 2
	}
	return 0
}

// Compare orders identities for apply: by stage, then by kind, namespace and
// name. It is a total order, negative when a comes before b. Pruning goes
// through it backwards.
func Compare(a, b ID) int {
	if d := Stage(a) - Stage(b); d != 0 {
		return d
	}
	if d := rank(a.Kind) - rank(b.Kind); d != 0 {
		return d
	}
	if d := strings.Compare(a.Group, b.Group); d != 0 {
		return d
	}
	if d := strings.Compare(a.Kind, b.Kind); d != 0 {
		return d
	}
	if d := strings.Compare(a.Namespace, b.Namespace); d != 0 {
		return d
	}
	return strings.Compare(a.Name, b.Name)
}

// Less reports whether a is applied before b.
func Less(a, b ID) bool { return Compare(a, b) < 0 }

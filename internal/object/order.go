package object

import (
	"cmp"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Stages of apply. Every object of one stage is there before the next begins;
// definitions are also waited for until they are established.
const (
	// StageDefinitions holds what others need to exist at all: custom resource
	// definitions, namespaces, cluster roles.
	StageDefinitions = iota
	// StageClasses holds the classes that others name: StorageClass,
	// IngressClass, PriorityClass, ClusterClass and all other kinds so named, and the
	// ClusterTemplates that FleetClusters are held against.
	StageClasses
	// StageChosen holds the kinds that the settings of an engine choose to come before the rest.
	StageChosen
	// StageRest holds everything else.
	StageRest
	// StageClusters holds the kinds of Cluster API itself: they name objects of its providers, and one that is looked at
	// before those exist is looked at again only after half a minute.
	StageClusters
	// Stages is the number of stages.
	Stages
)

// Kinds is a set of kinds.
type Kinds map[schema.GroupKind]bool

// Stage returns the stage in which the object is applied. chosen are the kinds that
// make up StageChosen, unless they belong to a stage before it; it may be nil.
func Stage(id ID, chosen Kinds) int {
	switch {
	case id.Kind == "CustomResourceDefinition" && id.Group == "apiextensions.k8s.io",
		id.Kind == "Namespace" && id.Group == "",
		id.Kind == "ClusterRole" && id.Group == "rbac.authorization.k8s.io":
		return StageDefinitions
	case strings.HasSuffix(id.Kind, "Class"), id.Kind == "ClusterTemplate" && id.Group == "fleet.bowline.dev":
		return StageClasses
	case chosen[id.GroupKind()]:
		return StageChosen
	case id.Group == "cluster.x-k8s.io":
		return StageClusters
	}
	return StageRest
}

// first lists kinds that others depend on, and last those that could block
// others, in order. Both are the toolkit's.
var (
	first = [...]string{
		"CustomResourceDefinition", "Namespace", "ClusterRole",
		"ClusterClass", "RuntimeClass", "PriorityClass", "StorageClass", "VolumeSnapshotClass", "IngressClass", "GatewayClass",
		"ClusterRoleBinding", "ResourceQuota", "ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Secret",
		"Service", "LimitRange", "Deployment", "StatefulSet", "CronJob", "PodDisruptionBudget",
	}
	last = [...]string{"MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"}
)

// rank is negative for kinds that come before others, positive for those that
// come after, and 0 for all others.
func rank(kind string) int {
	if i := slices.Index(first[:], kind); i >= 0 {
		return i - len(first)
	}
	return slices.Index(last[:], kind) + 1
}

// Compare orders identities for apply: by stage, then by kind, namespace and
// name. It is a total order, negative when a comes before b. Pruning goes
// through it backwards.
func Compare(a, b ID) int { return Kinds(nil).Compare(a, b) }

// Compare is the order where these kinds are chosen to come before the rest.
func (k Kinds) Compare(a, b ID) int {
	if d := Stage(a, k) - Stage(b, k); d != 0 {
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

// Alphabetical orders identities by namespace, name, group and kind, for what people read.
func Alphabetical(a, b ID) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name),
		strings.Compare(a.Group, b.Group), strings.Compare(a.Kind, b.Kind))
}

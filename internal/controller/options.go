// Package controller is the room where everything meets: one thin reconciler per
// kind, and the wiring that hands each its stages.
package controller

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/bowline-dev/bowline/internal/build/kustomize"
	"github.com/bowline-dev/bowline/internal/build/sops"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/admission"
	fleetlink "github.com/bowline-dev/bowline/internal/fleet/link"
	"github.com/bowline-dev/bowline/internal/kube"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/pipeline"
)

// Options says how the engine runs. The zero value of every field but
// RestConfig and DataDir is a sound default.
type Options struct {
	// RestConfig reaches the cluster that the engine serves.
	RestConfig *rest.Config
	// DataDir holds the copies of source repositories. It may be lost: it is
	// then fetched again.
	DataDir string
	// MetricsAddr, HealthAddr and PProfAddr are where metrics, health and
	// profiles are served; empty or "0" means not at all.
	MetricsAddr, HealthAddr, PProfAddr string
	// StorageAddr is where the artifacts of sources are served to other controllers;
	// empty or "0" means not at all. StorageAdvAddr is the address that they are told,
	// if it is another one.
	StorageAddr, StorageAdvAddr string
	// Webhooks says where a hub judges the fleet's kinds before they are stored; without
	// an address, or with "0", it does not.
	Webhooks admission.Address
	// LeaderElect makes engines on one cluster take turns.
	LeaderElect          bool
	LeaderElectNamespace string
	// Concurrency is how many units are worked on at one time; 0 means 20: most of
	// what a unit does is waiting for the API server.
	Concurrency int
	// Requests is how many requests that change objects are under way at one
	// time; 0 means 16.
	Requests int
	// Mirrors are source URL prefixes to replace, each "FROM=TO".
	Mirrors []string
	// AllowRemoteBases lets kustomize files name bases by URL.
	AllowRemoteBases bool
	// Tenancy says what namespaces may do to each other; the zero value locks them.
	Tenancy Tenancy
	// StageKinds are kinds that are applied before the rest, after definitions and
	// classes.
	StageKinds object.Kinds
	// AdditiveReadyExpr makes a readyExpr an additional demand on a dependency; else it
	// replaces the usual one, which is that the dependency is ready.
	AdditiveReadyExpr bool
	// LenientSubstitution replaces a variable that has neither a value nor a default
	// with nothing, instead of failing.
	LenientSubstitution bool
	// DefaultDecryptionAccount is the service account, of the namespace of each unit,
	// that asks key services where spec.decryption names none; see Decryption.
	DefaultDecryptionAccount string
	// AgeSecret holds age keys for all units that are not confined and whose
	// spec.decryption names no Secret; empty means none.
	AgeSecret types.NamespacedName
	// VaultConfig lists the Vault servers at which service accounts may log in; see
	// Decryption.
	VaultConfig types.NamespacedName
	// DeletionBudget is how much a commit may delete without approval: a share
	// such as "50%", or "off"; empty means "50%".
	DeletionBudget string
	// AuditInterval is how often a sample of the ledger is compared with dry
	// runs; 0 means every hour, negative never.
	AuditInterval time.Duration
	// MaxFileSize is the size in bytes above which a file of a repository is
	// not read; 0 means the source's default.
	MaxFileSize int64
	// Logger receives structured logs.
	Logger logr.Logger
	// Registry takes the engine's own meters; nil means the one that MetricsAddr
	// serves, which has room for one engine per process.
	Registry prometheus.Registerer
	// Membership says whose member the cluster is; nil means nobody's.
	Membership *fleetlink.Membership

	// keyServices says how key services are reached.
	keyServices sops.Options
	// Kubeconfigs says what kubeconfigs of other clusters may hold; by default neither
	// programs to run nor connections that nobody checks.
	Kubeconfigs kube.KubeconfigOptions

	// Hub is what the engine tells the members of its fleet; see HubOptions.
	Hub HubOptions

	// Version is what the engine says of itself to hubs whose members it serves.
	Version string

	// fleet says how fast the fleet's rooms do what they do by themselves; the zero value is what hubs do.
	fleet fleetTiming
	// fetchers is how many sources of a kind are fetched at one time; 0 means 64: one that waits for a
	// server costs next to nothing, and servers that hang must not hold up the others.
	fetchers int
	// guest is set on the engine of another cluster than that of the process.
	guest *guest
	// patience is how long another cluster may take to answer; 0 means 10 s.
	patience time.Duration
	// probeInterval is how often kubeconfigs of FleetClusters are tried again; 0 means the defaults of provision.
	probeInterval time.Duration
	// builder is the build stage; nil means kustomize.
	builder pipeline.Builder
}

// HubOptions says what a hub tells its members. The zero value is right where members reach the hub as the engine does.
type HubOptions struct {
	// URL is where members find the hub's API server; empty means where the engine finds it.
	URL string
	// CAFile has the certificates by which members know the hub, in PEM; empty means those by which the engine does.
	CAFile string
	// AgentImage is what agents run; empty means the image of the newest release.
	AgentImage string
	// Lease is how long the hub waits for a change of a member's Lease until it takes the member for lost; 0 means a minute.
	Lease time.Duration
}

func (o Options) withDefaults() Options {
	if o.Concurrency == 0 {
		o.Concurrency = 20
	}
	if o.Requests == 0 {
		o.Requests = 16
	}
	if o.fetchers == 0 {
		o.fetchers = 64
	}
	if o.DeletionBudget == "" {
		o.DeletionBudget = "50%"
	}
	if o.AuditInterval == 0 {
		o.AuditInterval = time.Hour
	}
	if o.Registry == nil {
		o.Registry = metrics.Registry
	}
	if o.patience == 0 {
		o.patience = 10 * time.Second
	}
	if o.builder == nil {
		o.builder = kustomize.Build
	}
	return o
}

// ParseStageKinds reads kinds as "group/Kind", or "Kind" for the core group.
func ParseStageKinds(names []string) (object.Kinds, error) {
	kinds := object.Kinds{}
	for _, name := range names {
		group, kind, grouped := strings.Cut(strings.TrimSpace(name), "/")
		if !grouped {
			group, kind = "", group
		}
		if !isKind.MatchString(kind) || grouped && len(validation.IsDNS1123Subdomain(group)) > 0 {
			return nil, &failure.Error{Op: "read", Object: "custom-apply-stage-kinds", Kind: failure.Invalid,
				Err: fmt.Errorf("%q is no kind", name), Remedy: "write it as rbac.authorization.k8s.io/Role, or as ConfigMap for the core group"}
		}
		kinds[schema.GroupKind{Group: group, Kind: kind}] = true
	}
	return kinds, nil
}

var isKind = regexp.MustCompile(`^[A-Z][A-Za-z0-9]*$`)

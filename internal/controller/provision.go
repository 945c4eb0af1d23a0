package controller

import (
	"context"
	"fmt"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/feed"
	"github.com/bowline-dev/bowline/internal/fleet/provision"
)

// registerProvision has FleetClusters made, by the engine's own units.
func (e *engine) registerProvision(ctx context.Context) error {
	if e.composition == nil {
		return nil // which was told
	}
	if there, err := e.serves(ctx, fleetv1.ClusterTemplateKind, &fleetv1.ClusterTemplateList{}); err != nil || !there {
		return err
	}
	woken := &feed.Feed{}
	h := e.composition.handouts
	units := clusterUnits{client: e.mgr.GetClient(), deliveries: &deliveries{client: e.mgr.GetClient(), clock: clock.RealClock{}, handouts: h}}
	h.kinds[fleetv1.FleetClusterKind] = makerKind{apiVersion: fleetv1.GroupVersion.String(), self: woken, exists: units.exists}
	return provision.Register(e.mgr, provision.Options{
		Deliverer: units, Woken: woken, Changed: e.kubeconfigs, Secrets: clusterSecrets{e.references},
		Kubeconfigs: e.options.Kubeconfigs, Patience: e.options.patience, Interval: e.options.probeInterval, Retry: e.options.probeInterval,
	})
}

// clusterUnits deliver what FleetClusters are made of. They implement provision.Deliverer.
type clusterUnits struct {
	client     client.Client
	deliveries *deliveries
}

func (u clusterUnits) sender(cluster *fleetv1.FleetCluster) sender {
	return sender{
		maker: maker{fleetv1.FleetClusterKind, client.ObjectKeyFromObject(cluster)}, label: provision.MadeBy(cluster.Name),
		owner: &metav1.OwnerReference{
			APIVersion: fleetv1.GroupVersion.String(), Kind: fleetv1.FleetClusterKind, Name: cluster.Name, UID: cluster.UID, Controller: ptr.To(true),
		},
	}
}

// Send implements provision.Deliverer.
func (u clusterUnits) Send(ctx context.Context, cluster *fleetv1.FleetCluster, files map[string][]byte, spec kustomizev1.KustomizationSpec) error {
	p, err := newParcel(provision.UnitName(cluster.Name), files, spec)
	if err != nil {
		return err
	}
	packed, err := pack(files)
	if err != nil {
		return fmt.Errorf("pack %s: %w", p.name, err)
	}
	if packed != "" {
		p.annotations = map[string]string{packedAnnotation: packed}
	}
	return u.deliveries.sendOne(ctx, u.sender(cluster), &p, types.NamespacedName{Namespace: cluster.Namespace, Name: p.name})
}

// Hold implements provision.Deliverer. The artifact is taken away as well: what is deleted while it is held is
// not delivered anew when the Kustomization goes.
func (u clusterUnits) Hold(ctx context.Context, cluster *fleetv1.FleetCluster) error {
	from, name := u.sender(cluster), types.NamespacedName{Namespace: cluster.Namespace, Name: provision.UnitName(cluster.Name)}
	k := &kustomizev1.Kustomization{}
	if err := u.client.Get(ctx, name, k); err != nil {
		return client.IgnoreNotFound(err)
	}
	if !from.sent(k) {
		return nil
	}
	before := k.DeepCopy()
	k.Spec.Suspend = true
	if !equality.Semantic.DeepEqual(before.Spec, k.Spec) {
		if err := client.IgnoreNotFound(u.client.Patch(ctx, k, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), owner)); err != nil {
			return err
		}
	}
	if by, ok := u.deliveries.handouts.of(name); ok && by == from.maker {
		u.deliveries.handouts.drop(ctx, name)
	}
	return nil
}

// Withdraw implements provision.Deliverer.
func (u clusterUnits) Withdraw(ctx context.Context, cluster *fleetv1.FleetCluster, policy fleetv1.DeletionPolicy) (gone bool, err error) {
	left, err := u.deliveries.withdraw(ctx, u.sender(cluster), nil, policy)
	return len(left) == 0, err
}

func (u clusterUnits) exists(ctx context.Context, name types.NamespacedName) bool {
	c := &fleetv1.FleetCluster{}
	return u.client.Get(ctx, name, c) == nil && c.DeletionTimestamp.IsZero() && c.Spec.Template != nil
}

// clusterSecrets implement provision.Secrets.
type clusterSecrets struct{ references *references }

func userOfCluster(name types.NamespacedName) user {
	return user{Kind: fleetv1.FleetClusterKind, NamespacedName: name}
}

// Reading implements provision.Secrets.
func (s clusterSecrets) Reading(cluster types.NamespacedName, read func(client.Reader) error) error {
	u := userOfCluster(cluster)
	s.references.begin(u)
	defer s.references.end(u)
	return read(s.references.reader(u))
}

// Forget implements provision.Secrets.
func (s clusterSecrets) Forget(cluster types.NamespacedName) {
	s.references.forget(userOfCluster(cluster))
}

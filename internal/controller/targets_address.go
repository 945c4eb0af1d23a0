package controller

import (
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	"github.com/fluxcd/pkg/apis/meta"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/report"
)

// address is what a unit of any kind says of where it is delivered to, and in whose
// name.
type address struct {
	unit types.NamespacedName
	// object is the unit itself, for events.
	object client.Object
	// account is the service account that the unit names; may be empty.
	account string
	// kubeConfig is nil for the engine's own cluster.
	kubeConfig *meta.KubeConfigReference
	// inventory reads what the unit's status says it has delivered.
	inventory func() []object.ID
}

// addressOf returns the address of a Kustomization.
func addressOf(k *kustomizev1.Kustomization) address {
	return address{
		unit: client.ObjectKeyFromObject(k), object: k, account: k.Spec.ServiceAccountName, kubeConfig: k.Spec.KubeConfig,
		inventory: func() []object.ID { return inventoryOf(k) },
	}
}

// inventoryOf returns the objects that the status of a Kustomization names.
func inventoryOf(k *kustomizev1.Kustomization) []object.ID {
	entries, _ := report.Entries(k.Status.Inventory)
	return idsOf(entries)
}

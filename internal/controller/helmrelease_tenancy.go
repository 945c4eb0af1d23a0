package controller

import (
	"fmt"
	"maps"
	"slices"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	"k8s.io/apimachinery/pkg/api/validate/content"
	"k8s.io/apimachinery/pkg/api/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/object"
	"github.com/bowline-dev/bowline/internal/plan"
)

// AdmitRelease says why a HelmRelease may not refer to what it refers to. It looks at
// names only: whether another tenant's object exists must make no difference.
func (t Tenancy) AdmitRelease(h *helmv2.HelmRelease) error {
	if err := checkReleaseNames(h); err != nil {
		return err
	}
	if (h.Spec.Chart == nil) == (h.Spec.ChartRef == nil) {
		return &failure.Error{Op: "read", Object: "spec", Kind: failure.Invalid,
			Err: fmt.Errorf("one of spec.chart and spec.chartRef must be set, and not both"), Remedy: "remove one, or set one"}
	}
	chart, field := chartOf(h)
	if h.Spec.ChartRef != nil && !slices.Contains(chartKinds, chart.Kind) {
		return unsupported([]string{"spec.chartRef.kind " + chart.Kind})
	}
	if h.Spec.Chart != nil {
		field = "spec.chart.spec.sourceRef"
	}
	if err := t.MayRefer(h.Namespace, field, chart.Kind+" "+chart.NamespacedName.String(), chart.Namespace); err != nil {
		return err
	}
	if err := t.admitDependencies(helmv2.HelmReleaseKind, h); err != nil {
		return err
	}
	return t.admitStorage(h)
}

// admitStorage keeps a tenant with the engine's own connection from having the storage of
// its releases read in another namespace: with which rights, its account decides, but the
// watch of the storage is the engine's.
func (t Tenancy) admitStorage(h *helmv2.HelmRelease) error {
	if ns := h.GetStorageNamespace(); ns != h.Namespace && t.Confined(h.Namespace) && h.Spec.KubeConfig == nil {
		return t.refused("spec.storageNamespace", "Namespace "+ns, h.Namespace)
	}
	return nil
}

// checkReleaseNames says which of the names that a HelmRelease refers to by is none: it
// would become part of the address of a request, and lead that to another object.
func checkReleaseNames(h *helmv2.HelmRelease) error {
	if name := h.Spec.ServiceAccountName; name != "" {
		if err := accountName("spec.serviceAccountName", name); err != nil {
			return err
		}
	}
	names := map[string]string{}
	if c := h.Spec.KubeConfig; c != nil && c.SecretRef != nil {
		names["spec.kubeConfig.secretRef.name"] = c.SecretRef.Name
	} else if c != nil && c.ConfigMapRef != nil {
		names["spec.kubeConfig.configMapRef.name"] = c.ConfigMapRef.Name
	}
	for i, v := range h.Spec.ValuesFrom {
		names[fmt.Sprintf("spec.valuesFrom[%d].name", i)] = v.Name
	}
	for _, field := range slices.Sorted(maps.Keys(names)) {
		if problems := content.IsPathSegmentName(names[field]); len(problems) > 0 {
			return &failure.Error{Op: "read", Object: field, Kind: failure.Invalid,
				Err: fmt.Errorf("%q is no name of an object: it %s", names[field], problems[0]), Remedy: "correct it"}
		}
	}
	for field, ns := range map[string]string{"spec.targetNamespace": h.Spec.TargetNamespace, "spec.storageNamespace": h.Spec.StorageNamespace} {
		if problems := validation.ValidateNamespaceName(ns, false); ns != "" && len(problems) > 0 {
			return &failure.Error{Op: "read", Object: field, Kind: failure.Invalid,
				Err: fmt.Errorf("%q is no name of a namespace: %s", ns, problems[0]), Remedy: "correct it"}
		}
	}
	return nil
}

// addressOfRelease returns the address of a HelmRelease.
func addressOfRelease(h *helmv2.HelmRelease) address {
	return address{
		unit: client.ObjectKeyFromObject(h), object: h, account: h.Spec.ServiceAccountName, kubeConfig: h.Spec.KubeConfig,
		inventory: func() []object.ID { return idsOf(releaseEntries(h)) },
	}
}

// releaseEntries reads the inventory of a HelmRelease. What cannot be read is left out:
// the release storage says the same.
func releaseEntries(h *helmv2.HelmRelease) []plan.Entry {
	if h.Status.Inventory == nil {
		return nil
	}
	entries := make([]plan.Entry, 0, len(h.Status.Inventory.Entries))
	for _, ref := range h.Status.Inventory.Entries {
		if id, err := object.ParseInventory(ref.ID); err == nil {
			entries = append(entries, plan.Entry{ID: id, Version: ref.Version})
		}
	}
	return entries
}

// releaseInventory writes an inventory in the toolkit's form.
func releaseInventory(entries []plan.Entry) *helmv2.ResourceInventory {
	out := &helmv2.ResourceInventory{Entries: make([]helmv2.ResourceRef, 0, len(entries))}
	for _, e := range entries {
		out.Entries = append(out.Entries, helmv2.ResourceRef{ID: e.ID.Inventory(), Version: e.Version})
	}
	return out
}

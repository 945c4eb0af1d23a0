package controller

import (
	"encoding/json"
	"fmt"
	"time"

	helmv2 "github.com/fluxcd/helm-controller/api/v2"
	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/object"
)

// How a member delivers what it was assigned. What has to happen soon comes by an event.
const (
	assignedInterval = time.Hour
	assignedRetry    = 30 * time.Second
	assignedTimeout  = 5 * time.Minute
)

// parcelsOf makes of an assignment what delivers it. What has nothing in it is none: a build of nothing
// would delete nothing, and a Kustomization that is deleted prunes.
func parcelsOf(spec *fleetv1.ClusterAssignmentSpec) ([]parcel, error) {
	var all []parcel
	add := func(name string, o objects, spec kustomizev1.KustomizationSpec, err error) error {
		if err != nil || len(o) == 0 {
			return err
		}
		p, err := newParcel(name, o, spec)
		all = append(all, p)
		return err
	}
	o, err := sourceObjects(spec)
	if err := add(fleetv1.SourcesUnit, o, assignedSpec(), err); err != nil {
		return nil, err
	}
	o, err = unitObjects(spec.Sync)
	if err := add(fleetv1.SyncUnit, o, assignedSpec(), err); err != nil {
		return nil, err
	}
	for i := range spec.Placements {
		p := &spec.Placements[i]
		o, err := unitObjects(p.Units)
		if err := add(fleetv1.PlacementUnitPrefix+p.Name, o, placementSpec(p), err); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// ownersOf says which Kustomization delivers which unit of an assignment.
func ownersOf(spec *fleetv1.ClusterAssignmentSpec) map[object.ID]types.NamespacedName {
	all := map[object.ID]types.NamespacedName{}
	note := func(by string, units []fleetv1.AssignedUnit) {
		for i := range units {
			u := &units[i]
			group := kustomizev1.GroupVersion.Group
			if u.Kind == helmv2.HelmReleaseKind {
				group = helmv2.GroupVersion.Group
			}
			all[object.ID{Group: group, Kind: u.Kind, Namespace: u.Namespace, Name: u.Name}] = types.NamespacedName{Namespace: fleetv1.MemberNamespace, Name: by}
		}
	}
	note(fleetv1.SyncUnit, spec.Sync)
	for i := range spec.Placements {
		note(fleetv1.PlacementUnitPrefix+spec.Placements[i].Name, spec.Placements[i].Units)
	}
	return all
}

// assignedSpec waits, when it is deleted, for what it delivered: as long as that goes, the cluster has
// not let go of it.
func assignedSpec() kustomizev1.KustomizationSpec {
	return kustomizev1.KustomizationSpec{
		Interval:      metav1.Duration{Duration: assignedInterval},
		RetryInterval: &metav1.Duration{Duration: assignedRetry},
		Timeout:       &metav1.Duration{Duration: assignedTimeout},
		Prune:         true, DeletionPolicy: kustomizev1.DeletionPolicyWaitForTermination,
	}
}

// placementSpec is ready when the units are, so that others can wait for it.
func placementSpec(p *fleetv1.AssignedPlacement) kustomizev1.KustomizationSpec {
	spec := assignedSpec()
	spec.Wait = true
	for _, name := range p.DependsOn {
		spec.DependsOn = append(spec.DependsOn, kustomizev1.DependencyReference{Name: fleetv1.PlacementUnitPrefix + name})
	}
	return spec
}

// objects are files of one object each, by name.
type objects map[string][]byte

// assigned is an object as it is written into a file.
type assigned struct {
	APIVersion string                `json:"apiVersion"`
	Kind       string                `json:"kind"`
	Metadata   assignedMeta          `json:"metadata"`
	Spec       *apiextensionsv1.JSON `json:"spec,omitempty"`
}

type assignedMeta struct {
	Name        string            `json:"name"`
	Namespace   string            `json:"namespace,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// add writes an object into a file, whose name no other has and kustomize gives no meaning.
func (o objects) add(a assigned) error {
	raw, err := json.Marshal(a)
	if err == nil {
		raw, err = yaml.JSONToYAML(raw)
	}
	if err != nil {
		return fmt.Errorf("write %s %s/%s: %w", a.Kind, a.Metadata.Namespace, a.Metadata.Name, err)
	}
	o[a.Kind+"_"+a.Metadata.Namespace+"_"+a.Metadata.Name+".yaml"] = raw
	return nil
}

// sourceObjects are the sources, and the namespaces of all that is assigned. A namespace holds what others
// made as well, so it never goes, and one that is there is left as it is.
func sourceObjects(spec *fleetv1.ClusterAssignmentSpec) (objects, error) {
	o := objects{}
	for i := range spec.Sources {
		s := &spec.Sources[i]
		if err := o.add(assigned{
			APIVersion: sourcev1.GroupVersion.String(), Kind: s.Kind,
			Metadata: assignedMeta{Name: s.Name, Namespace: s.Namespace}, Spec: &s.Spec,
		}); err != nil {
			return nil, err
		}
	}
	for namespace := range namespacesOf(spec) {
		if err := o.add(assigned{APIVersion: "v1", Kind: "Namespace", Metadata: assignedMeta{Name: namespace, Annotations: map[string]string{
			kustomizev1.GroupVersion.Group + "/prune": "disabled",
			kustomizev1.GroupVersion.Group + "/ssa":   "IfNotPresent",
		}}}); err != nil {
			return nil, err
		}
	}
	return o, nil
}

// namespacesOf returns the namespaces of sources and units but the one that is there anyway.
func namespacesOf(spec *fleetv1.ClusterAssignmentSpec) map[string]bool {
	all := map[string]bool{}
	for i := range spec.Sources {
		all[spec.Sources[i].Namespace] = true
	}
	units := spec.Sync
	for i := range spec.Placements {
		units = append(units[:len(units):len(units)], spec.Placements[i].Units...)
	}
	for i := range units {
		all[units[i].Namespace] = true
	}
	delete(all, fleetv1.MemberNamespace)
	return all
}

func unitObjects(units []fleetv1.AssignedUnit) (objects, error) {
	o := objects{}
	for i := range units {
		u := &units[i]
		version := kustomizev1.GroupVersion
		if u.Kind == helmv2.HelmReleaseKind {
			version = helmv2.GroupVersion
		}
		if err := o.add(assigned{
			APIVersion: version.String(), Kind: u.Kind, Metadata: assignedMeta{Name: u.Name, Namespace: u.Namespace}, Spec: &u.Spec,
		}); err != nil {
			return nil, err
		}
	}
	return o, nil
}

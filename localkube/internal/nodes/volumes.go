package nodes

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kwok "sigs.k8s.io/kwok/pkg/apis/internalversion"
)

const (
	// storageClass is the default storage class, named as kind and minikube name theirs.
	storageClass = "standard"
	// provisioner is who provides its volumes.
	provisioner = "localkube.bowline.dev/simulated"
)

// volumeTemplate is the volume for a claim. It names the claim, and the controller manager binds the two.
const volumeTemplate = `apiVersion: v1
kind: PersistentVolume
metadata:
  name: pvc-{{ .metadata.uid }}
  annotations:
    pv.kubernetes.io/provisioned-by: ` + provisioner + `
spec:
  accessModes: {{ .spec.accessModes | toJson }}
  capacity: {{ .spec.resources.requests | toJson }}
  persistentVolumeReclaimPolicy: Delete
  storageClassName: ` + storageClass + `
  volumeMode: {{ .spec.volumeMode | default "Filesystem" }}
  claimRef:
    apiVersion: v1
    kind: PersistentVolumeClaim
    namespace: {{ .metadata.namespace }}
    name: {{ .metadata.name }}
    uid: {{ .metadata.uid }}
  hostPath:
    path: /nonexistent/pvc-{{ .metadata.uid }}
`

// volumeStages provide a volume to each pending claim of the storage class, and remove it when
// its claim is gone.
func volumeStages() map[kwok.StageResourceRef][]*kwok.Stage {
	claims := kwok.StageResourceRef{APIGroup: "v1", Kind: "PersistentVolumeClaim"}
	volumes := kwok.StageResourceRef{APIGroup: "v1", Kind: "PersistentVolume"}
	is := func(key, value string) kwok.MatchExpression {
		return kwok.MatchExpression{JQ: &kwok.SelectorJQ{Key: key, Operator: kwok.SelectorOpIn, Values: []string{value}}}
	}
	missing := func(key string) kwok.MatchExpression {
		return kwok.MatchExpression{JQ: &kwok.SelectorJQ{Key: key, Operator: kwok.SelectorOpDoesNotExist}}
	}
	provide := &kwok.Stage{
		ObjectMeta: metav1.ObjectMeta{Name: "volume-provide"},
		Spec: kwok.StageSpec{
			ResourceRef: claims,
			Selector: &kwok.StageSelector{MatchExpressions: []kwok.MatchExpression{
				is(".spec.storageClassName", storageClass), is(".status.phase", "Pending"),
				missing(".spec.volumeName"), missing(".metadata.deletionTimestamp"),
			}},
			Steps: []kwok.StageStep{{Apply: &kwok.StageApply{Template: volumeTemplate}}},
		},
	}
	remove := &kwok.Stage{
		ObjectMeta: metav1.ObjectMeta{Name: "volume-remove"},
		Spec: kwok.StageSpec{
			ResourceRef: volumes,
			Selector: &kwok.StageSelector{MatchExpressions: []kwok.MatchExpression{
				is(".spec.storageClassName", storageClass), is(".status.phase", "Released"),
				is(".spec.persistentVolumeReclaimPolicy", "Delete"), missing(".metadata.deletionTimestamp"),
			}},
			Steps: []kwok.StageStep{{Delete: true}},
		},
	}
	return map[kwok.StageResourceRef][]*kwok.Stage{claims: {provide}, volumes: {remove}}
}

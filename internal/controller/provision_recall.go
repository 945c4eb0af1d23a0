package controller

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	fleetv1 "github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/fleet/provision"
)

const (
	// packedAnnotation holds, on the ExternalArtifact of a cluster, what its template became last. A hub that is started while
	// the template cannot be rendered goes on with that.
	packedAnnotation = "fleet.bowline.dev/packed"
	// maxPacked is how long it may be, in bytes: all annotations of an object together may have 256 KiB. What
	// is longer is not kept.
	maxPacked = 128 << 10
	// maxUnpacked is how many bytes it may become.
	maxUnpacked = 8 << 20
)

// pack makes one short line of files, always the same of the same; "" where it would be too long.
func pack(files map[string][]byte) (string, error) {
	text, err := json.Marshal(files)
	if err != nil {
		return "", err
	}
	var short bytes.Buffer
	w := gzip.NewWriter(&short)
	if _, err = w.Write(text); err == nil {
		err = w.Close()
	}
	packed := base64.StdEncoding.EncodeToString(short.Bytes())
	if len(packed) > maxPacked {
		return "", err
	}
	return packed, err
}

// unpack returns the files that were packed.
func unpack(packed string) (files map[string][]byte, err error) {
	short, err := base64.StdEncoding.DecodeString(packed)
	if err != nil {
		return nil, err
	}
	r, err := gzip.NewReader(bytes.NewReader(short))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(r, maxUnpacked))
	if err != nil {
		return nil, err
	}
	err = json.Unmarshal(text, &files)
	return files, err
}

// Recall implements provision.Deliverer. What anybody may have written into an annotation counts only if it is, byte for byte,
// what the engine says on the Kustomization that it worked on last.
func (u clusterUnits) Recall(ctx context.Context, cluster *fleetv1.FleetCluster) error {
	from, name := u.sender(cluster), types.NamespacedName{Namespace: cluster.Namespace, Name: provision.UnitName(cluster.Name)}
	if _, handed := u.deliveries.handouts.of(name); handed {
		return nil
	}
	k, ea := &kustomizev1.Kustomization{}, &sourcev1.ExternalArtifact{}
	for _, o := range []client.Object{k, ea} {
		if err := u.client.Get(ctx, name, o); err != nil {
			return client.IgnoreNotFound(err)
		}
	}
	if !from.sent(k) || !from.owns(ea) || ea.Annotations[packedAnnotation] == "" {
		return nil
	}
	files, err := unpack(ea.Annotations[packedAnnotation])
	if err != nil {
		return nil //nolint:nilerr // somebody changed it: there is nothing to go on with
	}
	p, err := newParcel(name.Name, files, k.Spec)
	if err != nil {
		return fmt.Errorf("go on with what ClusterTemplate %s became last: %w", cluster.Spec.Template.Name, err)
	}
	if r := p.artifact.Revision; r == k.Status.LastAppliedRevision || r == k.Status.LastAttemptedRevision {
		u.deliveries.handouts.hand(ctx, from.maker, name, p.artifact)
	}
	return nil
}

package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// Identity asks which cluster answers: the uid of the namespace kube-system, which
// is made with the cluster and lives as long. Where that may not be read, config,
// with which the cluster is reached, identifies it.
func Identity(ctx context.Context, c *Cluster, config *rest.Config) (string, error) {
	namespaces := c.Metadata.Resource(corev1.SchemeGroupVersion.WithResource("namespaces"))
	ns, err := namespaces.Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	switch {
	case err == nil && ns.UID != "":
		return "uid:" + string(ns.UID), nil
	case err == nil || apierrors.IsForbidden(err) || apierrors.IsNotFound(err):
		return Address(config), nil
	default:
		return "", fmt.Errorf("ask which cluster it is: %w", err)
	}
}

// Address identifies a cluster by where it is and by whose certificates it is
// recognised.
func Address(config *rest.Config) string {
	ca := sha256.Sum256(config.CAData)
	return "address:" + strings.ToLower(strings.TrimSuffix(config.Host, "/")) + " " + hex.EncodeToString(ca[:])
}

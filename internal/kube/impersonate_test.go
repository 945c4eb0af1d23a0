package kube

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
)

// Requests in the name of an account have its rights, over both clients, and the
// cluster that they come from keeps its own.
func TestAsAccount(t *testing.T) {
	cluster := connect(t)
	account := types.NamespacedName{Namespace: "default", Name: "nobody"}
	as, err := cluster.AsAccount(account)
	if err != nil {
		t.Fatal(err)
	}
	if as.Resources != cluster.Resources {
		t.Error("the kinds are read once more for every account")
	}
	secrets := schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	_, viaMetadata := as.Metadata.Resource(secrets).Namespace("default").List(t.Context(), metav1.ListOptions{})
	_, viaDynamic := as.Dynamic.Resource(secrets).Namespace("default").List(t.Context(), metav1.ListOptions{})
	for client, err := range map[string]error{"metadata": viaMetadata, "dynamic": viaDynamic} {
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), AccountUser(account)) {
			t.Errorf("the %s client: %v, want that %s may not do this", client, err, AccountUser(account))
		}
	}
	if _, err := cluster.Metadata.Resource(secrets).Namespace("default").List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Errorf("the cluster itself: %v", err)
	}
}

package join

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
)

// annotationGiven is on the Secret of an invitation that was handed over: to whom.
const annotationGiven = "fleet.bowline.dev/given-to"

// ToWhoever is whom an invitation is given to that people hand over themselves.
const ToWhoever = "*"

// Pending is an invitation that there is.
type Pending struct {
	// Since is when it was made, by the hub's clock. It is good for InvitationLife from then on.
	Since time.Time
	// GivenTo is whom it was handed over to; empty where nobody said so. An invitation that was made and not handed over
	// is of no use, because its token cannot be read again.
	GivenTo string
	// Used says that a request was made with it.
	Used bool
}

// Left is for how long an invitation is still good.
func (p Pending) Left(now time.Time) time.Duration { return p.Since.Add(InvitationLife).Sub(now) }

// PendingOf returns the newest invitation of a FleetCluster, whether it is still good or not, and nil where there is
// none. The reader must not read from a cache.
func PendingOf(ctx context.Context, c client.Reader, cluster *v1alpha1.FleetCluster) (*Pending, error) {
	key := client.ObjectKeyFromObject(cluster)
	var all corev1.SecretList
	if err := c.List(ctx, &all, client.InNamespace(key.Namespace), client.MatchingLabels(labels(key, identityInvitation))); err != nil {
		return nil, fmt.Errorf("look for the invitations of %s: %w", object(key), err)
	}
	var newest *Pending
	for i := range all.Items {
		s := &all.Items[i]
		if s.Annotations[annotationUID] != string(cluster.UID) || newest != nil && s.CreationTimestamp.Time.Before(newest.Since) {
			continue
		}
		newest = &Pending{Since: s.CreationTimestamp.Time, GivenTo: s.Annotations[annotationGiven], Used: s.Annotations[annotationUsedBy] != ""}
	}
	return newest, nil
}

// Given notes to whom an invitation was handed over. One that is over by then was used.
func Given(ctx context.Context, c client.Client, i Invitation, to string) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: i.Namespace, Name: i.RequestName}}
	before := secret.DeepCopy()
	secret.Annotations = map[string]string{annotationGiven: to}
	if err := client.IgnoreNotFound(c.Patch(ctx, secret, client.MergeFrom(before), owner)); err != nil {
		return fmt.Errorf("note that %s was handed over: %w", i, err)
	}
	return nil
}

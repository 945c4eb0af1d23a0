package push

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/crds"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// AddToScheme registers the kinds that this room reads and writes, on the hub and on members.
func AddToScheme(s *runtime.Scheme) error {
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(s); err != nil {
			return fmt.Errorf("register API types: %w", err)
		}
	}
	return nil
}

// prepare finds out who the member is, and installs what an engine there needs. Nothing is changed on a cluster that
// is somebody else's.
func (p *Pusher) prepare(ctx context.Context, m *member) (join.Identity, error) {
	who := join.Identity{Namespace: m.key.Namespace, Name: m.key.Name, UID: m.uid}
	scheme := runtime.NewScheme()
	if err := AddToScheme(scheme); err != nil {
		return who, err
	}
	c, err := client.New(m.config, client.Options{Scheme: scheme})
	if err != nil {
		return who, p.unreached(m, err)
	}
	if who.Member, err = join.Member(ctx, c); err != nil {
		return who, p.unreached(m, err)
	}
	if err := p.claim(ctx, m, who); err != nil {
		return who, err
	}
	if err := vacant(ctx, c, who); err != nil {
		return who, err
	}
	return who, p.install(ctx, c, m)
}

func (p *Pusher) unreached(m *member, err error) error {
	f := &failure.Error{Op: "reach the cluster of", Object: object(m.key), Kind: failure.Unavailable, Err: err}
	if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
		f.Kind, f.Remedy = failure.Denied, "give the user of its kubeconfig the rights of an administrator"
	}
	return f
}

// claim sees to it that nobody else of this process serves the cluster.
func (p *Pusher) claim(ctx context.Context, m *member, who join.Identity) error {
	hub, err := p.hubOf(ctx)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	holder, held := p.holders[who.Member]
	switch {
	case who.Member == hub:
		return &failure.Error{Op: "push to", Object: object(m.key), Kind: failure.Conflict,
			Err:    fmt.Errorf("its kubeconfig leads to the hub itself (%s), where an engine runs already", hub),
			Remedy: "deliver to the hub with Kustomizations of its own, or correct the kubeconfig"}
	case held && holder != m:
		return &failure.Error{Op: "push to", Object: object(m.key), Kind: failure.Conflict,
			Err: fmt.Errorf("its kubeconfig leads to the cluster of %s", object(holder.key)), Remedy: "delete one of the two, or correct the kubeconfig"}
	case m.expected != "" && m.expected != who.Incarnation():
		return &failure.Error{Op: "push to", Object: object(m.key), Kind: failure.Conflict,
			Err:    fmt.Errorf("its kubeconfig leads to another cluster (%s) than the one that was filled", who.Member),
			Remedy: fmt.Sprintf("correct the kubeconfig, or let go of that one: bowline join %s -n %s --replace", m.key.Name, m.key.Namespace)}
	}
	p.holders[who.Member] = m
	return nil
}

// hubOf returns the identity of the hub, which does not change.
func (p *Pusher) hubOf(ctx context.Context) (types.UID, error) {
	p.mu.Lock()
	known := p.hubID
	p.mu.Unlock()
	if known != "" {
		return known, nil
	}
	id, err := join.Member(ctx, p.direct)
	if err != nil {
		return "", fmt.Errorf("find out who the hub is: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hubID = id
	return id, nil
}

// vacant is an error where the cluster is the member of another hub, or of another FleetCluster.
func vacant(ctx context.Context, c client.Client, who join.Identity) error {
	copies := &v1alpha1.ClusterAssignmentList{}
	err := c.List(ctx, copies, client.InNamespace(v1alpha1.MemberNamespace), client.MatchingLabels{v1alpha1.LabelSelf: "true"})
	if apimeta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look whose member the cluster is: %w", err)
	}
	for i := range copies.Items {
		if of := copies.Items[i].Spec.Incarnation; of != "" && of != who.Incarnation() && !copies.Items[i].HasLeft() {
			name := client.ObjectKeyFromObject(&copies.Items[i])
			return &failure.Error{Op: "push to", Object: object(types.NamespacedName{Namespace: who.Namespace, Name: who.Name}), Kind: failure.Conflict,
				Err:    fmt.Errorf("the cluster carries out ClusterAssignment %s, which another FleetCluster gave it", name),
				Remedy: "delete that FleetCluster first, or where there is none any more, that ClusterAssignment on the cluster"}
		}
	}
	return nil
}

// install brings the namespace of members and the definitions.
func (p *Pusher) install(ctx context.Context, c client.Client, m *member) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: v1alpha1.MemberNamespace}}
	if err := c.Create(ctx, ns, owner); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("install Namespace/%s: %w", ns.Name, err)
	}
	all, err := Definitions()
	if err != nil {
		return err
	}
	return crds.Install(ctx, m.config, all)
}

// Definitions returns those that the engine of a member needs. Those that make a cluster a hub are not among them.
func Definitions() ([]*unstructured.Unstructured, error) {
	all, err := crds.All()
	if err != nil {
		return nil, err
	}
	fleet, err := crds.Fleet()
	if err != nil {
		return nil, err
	}
	for _, u := range fleet {
		if kind, _, _ := unstructured.NestedString(u.Object, "spec", "names", "kind"); kind == v1alpha1.ClusterAssignmentKind {
			all = append(all, u)
		}
	}
	return all, nil
}

// Package pivot is the room in which a management plane moves from one cluster into another that it manages: Cluster API's objects by
// Cluster API's own code, and ours beside them. Each step can be repeated, so a pivot that was interrupted is called again and goes on.
//
// Both engines stand still meanwhile (package standing), so that what is copied is inert, and what is left behind does nothing any more. Nothing
// that runs is touched: control planes, workloads and what delivered them are told by nobody to change.
package pivot

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	clusterv1 "sigs.k8s.io/cluster-api/api/core/v1beta2"
	clusterctlv1 "sigs.k8s.io/cluster-api/cmd/clusterctl/api/v1alpha3"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// owner is the field manager of what a pivot writes.
const owner = client.FieldOwner("bowline-pivot")

// Side is one of the two clusters.
type Side struct {
	// Client asks its API server, without a cache.
	Client client.WithWatch
	Config *rest.Config
	// ID is the uid of its namespace kube-system.
	ID types.UID
}

// Connect reaches a cluster.
func Connect(ctx context.Context, config *rest.Config) (Side, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, appsv1.AddToScheme, authenticationv1.AddToScheme, rbacv1.AddToScheme, apiextensionsv1.AddToScheme, clusterv1.AddToScheme,
		clusterctlv1.AddToScheme, v1alpha1.AddToScheme, join.AddToScheme} {
		if err := add(scheme); err != nil {
			return Side{}, fmt.Errorf("register API types: %w", err)
		}
	}
	config = rest.CopyConfig(config)
	config.QPS, config.WarningHandler = -1, rest.NoWarnings{}
	c, err := client.NewWithWatch(config, client.Options{Scheme: scheme})
	if err != nil {
		return Side{}, &failure.Error{Op: "reach", Object: config.Host, Kind: failure.Unavailable, Err: err}
	}
	id, err := join.Member(ctx, c)
	return Side{Client: c, Config: config, ID: id}, err
}

// Options is a pivot. All fields but the functions are needed.
type Options struct {
	From, To Side
	// Cluster is the FleetCluster that becomes the hub.
	Cluster types.NamespacedName
	// Way is the kubeconfig of the target, where it is the hub's: it is kept on the cluster that is left, because what it was read from moves. Nil keeps none.
	Way []byte
	// Tell is called with a line for each step that was done.
	Tell func(step, line string)
	// Stopped reports whether no engine can run on the cluster that is left, so that none is waited for.
	Stopped func() bool
	// Ready has the target serve Cluster API, before anything moves. Nil where that is people's business.
	Ready func(context.Context) error
	// Switch is called when all has moved and before the target's engine goes on: what serves the hub is to serve the target from then on.
	Switch func(context.Context) error
	// Local says that clusters of this machine can move.
	Local bool
}

// Run moves the plane, or goes on with a pivot that was interrupted. It returns when the target's engine may act; see Wait.
func Run(ctx context.Context, o Options) error {
	stage, err := o.begun(ctx)
	if err != nil {
		return err
	}
	if stage == "" || stage == StageStanding {
		if err := o.begin(ctx, stage); err != nil {
			return err
		}
		stage = StageMoving
	}
	if stage == StageMoving {
		if o.Ready != nil {
			if err := o.Ready(ctx); err != nil {
				return err
			}
		}
		if err := o.move(ctx); err != nil {
			return err
		}
		if err := o.settle(ctx); err != nil {
			return err
		}
		if err := o.reach(ctx, StageMoved); err != nil {
			return err
		}
	}
	if o.Switch != nil {
		if err := o.Switch(ctx); err != nil {
			return err
		}
	}
	if err := unmark(ctx, o.To); err != nil {
		return err
	}
	o.Tell("hub", "is "+o.Cluster.String())
	return o.invite(ctx)
}

// begin does all that can be given up: it looks what is in the way, has both engines stand still, and copies.
func (o Options) begin(ctx context.Context, stage Stage) error {
	if stage == "" {
		if err := o.check(ctx); err != nil {
			return err
		}
	}
	if err := o.stand(ctx); err != nil {
		return err
	}
	// What changed until nobody acted any more counts as well.
	plan, err := o.checked(ctx)
	if err == nil {
		err = o.carry(ctx, plan)
	}
	if err == nil && o.Ready != nil {
		err = o.Ready(ctx)
	}
	if err == nil {
		return o.reach(ctx, StageMoving)
	}
	if ctx.Err() != nil {
		return err // it goes on, or is given up, when people say so
	}
	if undone := GiveUp(context.WithoutCancel(ctx), o); undone != nil {
		return errors.Join(err, undone)
	}
	return err
}

// check looks what is in the way before anything is changed, and says what people should know before it is.
func (o Options) check(ctx context.Context) error {
	plan, err := o.checked(ctx)
	if err != nil {
		return err
	}
	o.Tell("checked", fmt.Sprintf("nothing is in the way; %d objects of Cluster API and %d others move", len(plan.Moves), len(plan.Carry)))
	for _, right := range plan.Stays {
		o.Tell("stays", right)
	}
	if o.Way == nil {
		return nil
	}
	return remember(ctx, o.From, o.Way)
}

// checked surveys both sides; what is in the way is one error.
func (o Options) checked(ctx context.Context) (*Plan, error) {
	plan, err := o.Survey(ctx)
	if err != nil {
		return nil, err
	}
	if len(plan.Obstacles) > 0 {
		return nil, &ObstructedError{Cluster: o.Cluster, All: plan.Obstacles}
	}
	return plan, nil
}

// ObstructedError is the error of a pivot that cannot begin.
type ObstructedError struct {
	Cluster types.NamespacedName
	All     []Obstacle
}

// Error says how much is in the way, and what it is where that is one thing.
func (e *ObstructedError) Error() string {
	what := fmt.Sprintf("%d things are in the way", len(e.All))
	if len(e.All) == 1 {
		what = e.All[0].String()
	}
	return fmt.Sprintf("pivot to FleetCluster/%s: nothing was moved: %s", e.Cluster, what)
}

// poll is how often is looked for what nobody can be told of.
const poll = 200 * time.Millisecond

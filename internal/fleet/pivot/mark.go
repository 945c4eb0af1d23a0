package pivot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/api/fleet/v1alpha1"
	"github.com/bowline-dev/bowline/internal/failure"
)

// Stage is how far a pivot is. It is written on the mark of the cluster that is left.
type Stage string

// The stages. Until StageMoving it can be given up.
const (
	StageStanding Stage = "standing"
	StageMoving   Stage = "moving"
	StageMoved    Stage = "moved"
)

// standPatience is how long an engine may take to end what it is at.
const standPatience = 45 * time.Second

var markKey = client.ObjectKey{Namespace: v1alpha1.MemberNamespace, Name: v1alpha1.PivotMark}

// Begun says which FleetCluster a plane moves into, or has moved into, and how far that is; the stage is empty where nobody began.
func Begun(ctx context.Context, from Side) (cluster types.NamespacedName, stage Stage, err error) {
	mark := &corev1.ConfigMap{}
	if err := from.Client.Get(ctx, markKey, mark); err != nil {
		return cluster, "", client.IgnoreNotFound(err)
	}
	if mark.Data[v1alpha1.PivotFrom] != string(from.ID) {
		return cluster, "", nil // it is the target of another
	}
	cluster.Namespace, cluster.Name, _ = strings.Cut(mark.Data[v1alpha1.PivotCluster], "/")
	return cluster, Stage(mark.Data[v1alpha1.PivotStage]), nil
}

// begun is Begun for this pivot.
func (o Options) begun(ctx context.Context) (Stage, error) {
	cluster, stage, err := Begun(ctx, o.From)
	if err != nil || stage == "" || cluster == o.Cluster {
		return stage, err
	}
	remedy := "finish that one: bowline pivot " + cluster.Name + " -n " + cluster.Namespace
	if stage == StageStanding {
		remedy += ", or give it up with --abort"
	}
	return stage, &failure.Error{Op: "pivot to", Object: "FleetCluster/" + o.Cluster.String(), Kind: failure.Conflict,
		Err: fmt.Errorf("the plane is on its way to FleetCluster/%s", cluster), Remedy: remedy}
}

// stand has both engines stand still.
func (o Options) stand(ctx context.Context) error {
	for _, s := range []struct {
		Side
		name string
		free func() bool
	}{{o.From, "the hub", o.Stopped}, {o.To, "the cluster", nil}} {
		if err := o.mark(ctx, s.Side); err != nil {
			return err
		}
		if err := awaitStanding(ctx, s.Side, s.name, s.free); err != nil {
			return err
		}
	}
	o.Tell("engines", "stand still on both sides")
	return nil
}

func (o Options) mark(ctx context.Context, s Side) error {
	if err := makeNamespace(ctx, s); err != nil {
		return err
	}
	mark := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: markKey.Namespace, Name: markKey.Name}, Data: map[string]string{
		v1alpha1.PivotFrom: string(o.From.ID), v1alpha1.PivotTo: string(o.To.ID), v1alpha1.PivotCluster: o.Cluster.String(), v1alpha1.PivotStage: string(StageStanding)}}
	err := s.Client.Create(ctx, mark, owner)
	if !apierrors.IsAlreadyExists(err) {
		return wrap(err, "mark %s", s.Config.Host)
	}
	there := &corev1.ConfigMap{}
	if err := s.Client.Get(ctx, markKey, there); err != nil {
		return wrap(err, "mark %s", s.Config.Host)
	}
	if there.Data[v1alpha1.PivotFrom] != string(o.From.ID) || there.Data[v1alpha1.PivotTo] != string(o.To.ID) {
		return &failure.Error{Op: "mark", Object: s.Config.Host, Kind: failure.Conflict, Err: errors.New("ConfigMap/" + markKey.String() + " is of another pivot"),
			Remedy: "finish that one, or give it up"}
	}
	return nil
}

// makeNamespace makes the namespace of the mark, which an engine that is a process has no need of.
func makeNamespace(ctx context.Context, s Side) error {
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: markKey.Namespace}}
	return wrap(client.IgnoreAlreadyExists(s.Client.Create(ctx, namespace, owner)), "make Namespace/%s at %s", markKey.Namespace, s.Config.Host)
}

// awaitStanding waits until the engine of a cluster says that it stands still.
func awaitStanding(ctx context.Context, s Side, name string, free func() bool) error {
	err := wait.PollUntilContextTimeout(ctx, poll, standPatience, true, func(ctx context.Context) (bool, error) {
		mark := &corev1.ConfigMap{}
		if err := s.Client.Get(ctx, markKey, mark); err != nil {
			return false, fmt.Errorf("read ConfigMap/%s: %w", markKey, err)
		}
		return mark.Annotations[v1alpha1.PivotStanding] != "" || free != nil && free(), nil
	})
	if wait.Interrupted(err) && ctx.Err() == nil {
		return &failure.Error{Op: "wait for the engine of", Object: name, Kind: failure.Timeout, Err: fmt.Errorf("it does not say within %s that it stands still", standPatience),
			Remedy: "see that it runs, and is of this version, at " + s.Config.Host + "; then call it again"}
	}
	return err
}

// reach notes on the cluster that is left how far it is.
func (o Options) reach(ctx context.Context, stage Stage) error {
	mark := &corev1.ConfigMap{}
	if err := o.From.Client.Get(ctx, markKey, mark); err != nil {
		return wrap(err, "note how far the pivot is")
	}
	before := mark.DeepCopy()
	mark.Data[v1alpha1.PivotStage] = string(stage)
	return wrap(o.From.Client.Patch(ctx, mark, client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{}), owner), "note how far the pivot is")
}

func unmark(ctx context.Context, s Side) error {
	mark := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: markKey.Namespace, Name: markKey.Name}}
	return wrap(client.IgnoreNotFound(s.Client.Delete(ctx, mark)), "let the engine go on at %s", s.Config.Host)
}

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}

// wayKey has the kubeconfig of the target in a Secret that is beside the mark.
const wayKey = "value"

// remember keeps the way to the target on the cluster that is left: what it is read from moves.
func remember(ctx context.Context, from Side, kubeconfig []byte) error {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: markKey.Namespace, Name: markKey.Name}, Data: map[string][]byte{wayKey: kubeconfig}}
	if err := makeNamespace(ctx, from); err != nil {
		return err
	}
	err := from.Client.Create(ctx, s, owner)
	if apierrors.IsAlreadyExists(err) {
		err = from.Client.Update(ctx, s, owner)
	}
	return wrap(err, "keep the way to the target in Secret/%s", markKey)
}

// Recall returns what was kept of the way to the target; nil where that is nothing.
func Recall(ctx context.Context, from Side) ([]byte, error) {
	s := &corev1.Secret{}
	err := from.Client.Get(ctx, markKey, s)
	return s.Data[wayKey], wrap(client.IgnoreNotFound(err), "read the way to the target from Secret/%s", markKey)
}

package cli

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/yaml"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/fleet/agent"
	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// print prints what the owners of the cluster apply.
func (j *joining) print(ctx context.Context) error {
	switch {
	case j.cluster.Spec.Join == nil && j.options.replace:
		printf(j.Err, "the hub reaches the cluster, and lets it in by itself\n")
		return nil
	case j.cluster.Status.Incarnation != "":
		return j.refused(fmt.Sprintf("the cluster %s has joined", j.cluster.Status.ClusterID),
			"let go of it with --replace, or name it with --member-context to bring its agent up to date")
	}
	invitation, all, err := j.invite(ctx)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	for _, u := range all {
		data, err := yaml.Marshal(u.Object)
		if err != nil {
			return fmt.Errorf("print %s: %w", u.GetName(), err)
		}
		out.WriteString("---\n")
		out.Write(data)
	}
	if _, err := j.Out.Write(out.Bytes()); err != nil {
		return err
	}
	if err := join.Given(ctx, j.hub, invitation, join.ToWhoever); err != nil {
		return err
	}
	printf(j.Err, "to be applied on the cluster that joins: kubectl apply --server-side -f -\n")
	printf(j.Err, "it holds an invitation for one cluster, which is good for one hour; whoever has it can join as %s\n", j.object())
	return nil
}

// install installs the agent on the cluster that is there to join, and invites it unless it has joined.
func (j *joining) install(ctx context.Context) error {
	member, err := j.options.member.connect()
	if err != nil {
		return err
	}
	id, err := join.Member(ctx, member)
	if err != nil {
		return err
	}
	who := join.Identity{Namespace: j.cluster.Namespace, Name: j.cluster.Name, UID: j.cluster.UID, Member: id}
	joined := j.cluster.Status.Incarnation == who.Incarnation()
	if j.cluster.Status.Incarnation != "" && !joined {
		return &failure.Error{Op: "join", Object: j.object(), Kind: failure.Conflict, Err: fmt.Errorf("the cluster %s has joined, and %s is the cluster %s", j.cluster.Status.ClusterID, member.host(), id),
			Remedy: "if this one is to take its place, pass --replace"}
	}
	all, err := agent.Manifests(j.manifests(nil))
	if err != nil {
		return err
	}
	if err := prepare(ctx, member, all); err != nil {
		return err
	}
	if joined {
		known, err := holds(ctx, member, who)
		if err != nil {
			return err
		}
		if known {
			if err := agent.Install(ctx, member, all); err != nil {
				return err
			}
			printf(j.Out, "fleetcluster/%s the agent of %s is up to date\n", j.cluster.Name, member.host())
			return nil
		}
	}
	return j.enter(ctx, member, id)
}

// enter invites the member.
func (j *joining) enter(ctx context.Context, member *cluster, id types.UID) error {
	invitation, all, err := j.invite(ctx)
	if err != nil {
		return err
	}
	if err := agent.Install(ctx, member, all); err != nil {
		return err
	}
	if err := join.Given(ctx, j.hub, invitation, string(id)); err != nil {
		return err
	}
	printf(j.Out, "fleetcluster/%s the agent is installed on %s, and joins as soon as it runs: bowline get cluster %s -n %s\n",
		j.cluster.Name, member.host(), j.cluster.Name, j.cluster.Namespace)
	return nil
}

// holds reports whether a member has a certificate as that identity.
func holds(ctx context.Context, member *cluster, who join.Identity) (bool, error) {
	has, err := join.Store{Client: member}.Load(ctx)
	return has != nil && has.Identity == who, err
}

// prepare applies the definitions and waits until they are served.
func prepare(ctx context.Context, member *cluster, all []*unstructured.Unstructured) error {
	return wait.PollUntilContextTimeout(ctx, 200*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
		return agent.Prepare(ctx, member, all)
	})
}

func (j *joining) invite(ctx context.Context) (join.Invitation, []*unstructured.Unstructured, error) {
	invitation, _, err := join.Invite(ctx, j.hub, j.cluster, j.endpoint)
	if err != nil {
		return invitation, nil, err
	}
	data, err := invitation.Kubeconfig()
	if err != nil {
		return invitation, nil, fmt.Errorf("write the invitation as a kubeconfig: %w", err)
	}
	all, err := agent.Manifests(j.manifests(data))
	return invitation, all, err
}

func (j *joining) manifests(invitation []byte) agent.Options {
	return agent.Options{Image: cmp.Or(j.options.image, agent.DefaultImage(buildVersion(j.version).Version)), Args: j.options.agentArgs, Invitation: invitation}
}

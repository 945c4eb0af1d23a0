package join

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/failure"
)

// Identity is who an agent is.
type Identity struct {
	// Namespace, Name and UID are those of the FleetCluster on the hub.
	Namespace, Name string
	UID             types.UID
	// Member is the uid of the member's namespace kube-system.
	Member types.UID
}

// Incarnation is the same for the same FleetCluster and the same member only: one that
// was made anew, of either, has another.
func (i Identity) Incarnation() string {
	sum := sha256.Sum256([]byte("bowline:incarnation\x00" + string(i.UID) + "\x00" + string(i.Member)))
	return hex.EncodeToString(sum[:incarnationBytes])
}

const incarnationBytes = 16

// User is the name of the agent's user on the hub.
func (i Identity) User() string { return user(i.Namespace, i.Name, i.Incarnation()) }

func user(namespace, name, incarnation string) string {
	return agentPrefix + namespace + ":" + name + ":" + incarnation
}

// claim is what the name of a user says.
type claim struct{ namespace, name, incarnation string }

func (c claim) key() types.NamespacedName {
	return types.NamespacedName{Namespace: c.namespace, Name: c.name}
}

var incarnations = regexp.MustCompile(`^[0-9a-f]{32}$`)

// parseUser reads the name of a user; ok is false where it is not that of an agent.
func parseUser(name string) (c claim, ok bool) {
	rest, found := strings.CutPrefix(name, agentPrefix)
	parts := strings.Split(rest, ":")
	if !found || len(parts) != 3 {
		return claim{}, false
	}
	c = claim{parts[0], parts[1], parts[2]}
	valid := len(validation.IsDNS1123Label(c.namespace)) == 0 && len(validation.IsDNS1123Subdomain(c.name)) == 0
	return c, valid && incarnations.MatchString(c.incarnation)
}

// Member reads the identity of a member from its own API.
func Member(ctx context.Context, member client.Reader) (types.UID, error) {
	var system corev1.Namespace
	if err := member.Get(ctx, client.ObjectKey{Name: metav1.NamespaceSystem}, &system); err != nil {
		return "", &failure.Error{Op: "read", Kind: failure.Unavailable, Object: "Namespace/" + metav1.NamespaceSystem, Err: err,
			Remedy: "the cluster is known by its uid: let the agent read it"}
	}
	return system.UID, nil
}

// object names a FleetCluster in errors.
func object(key types.NamespacedName) string {
	return fmt.Sprintf("FleetCluster/%s/%s", key.Namespace, key.Name)
}

// joinAgain is the command that invites a cluster in the place of this one.
func (i Identity) joinAgain() string { return "bowline join " + i.Name + " -n " + i.Namespace }

package join_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/keyutil"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/bowline-dev/bowline/internal/fleet/join"
	"github.com/bowline-dev/bowline/internal/testkit"
)

// signed returns a token like another one, with changed claims, signed with a key.
func signed(t testing.TB, token string, k *ecdsa.PrivateKey, change func(claims map[string]any)) string {
	t.Helper()
	parts := strings.Split(token, ".")
	data, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{}
	if err := json.Unmarshal(data, &claims); err != nil {
		t.Fatal(err)
	}
	change(claims)
	if data, err = json.Marshal(claims); err != nil {
		t.Fatal(err)
	}
	text := parts[0] + "." + base64.RawURLEncoding.EncodeToString(data)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, k, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(append(padded(r), padded(s)...))
}

func padded(n *big.Int) []byte { return n.FillBytes(make([]byte, 32)) }

// TestTokens has the API server judge tokens that are not what an invitation has. The key of the cluster
// of the test is used for those that are to be right but for one thing.
func TestTokens(t *testing.T) {
	h := newHub(t, join.Options{})
	data, err := os.ReadFile(serviceAccountKey(t))
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := keyutil.ParsePrivateKeyPEM(data)
	if err != nil {
		t.Fatal(err)
	}
	signing, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || signing.Curve != elliptic.P256() {
		t.Fatalf("the cluster signs tokens with a %T", parsed)
	}
	past := float64(time.Now().Add(-2 * time.Minute).Unix())
	tests := []struct {
		name, reason string
		key          *ecdsa.PrivateKey
		change       func(map[string]any)
		good         bool
	}{
		{"signed again", "shows that the others are refused for what they change", signing, func(map[string]any) {}, true},
		{"forged", "it is signed by somebody else", key(t), func(map[string]any) {}, false},
		{"after its hour", "the invitation is over", signing, func(c map[string]any) { c["exp"] = past }, false},
		{"of another Secret", "it ends with the Secret that it is bound to", signing, func(c map[string]any) {
			c["kubernetes.io"].(map[string]any)["secret"].(map[string]any)["uid"] = "00000000-0000-0000-0000-000000000000"
		}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			i := h.invite(h.cluster("berlin"))
			data, err := i.Kubeconfig()
			if err != nil {
				t.Fatal(err)
			}
			before := h.as(i).BearerToken
			other := signed(t, before, tt.key, tt.change)
			forged, err := join.ParseInvitation([]byte(strings.ReplaceAll(string(data), before, other)), "the test")
			if err != nil {
				t.Fatal(err)
			}
			_, err = h.join(forged, "member-1")
			switch {
			case tt.good && err != nil:
				t.Errorf("it is refused: %v (%s)", err, tt.reason)
			case !tt.good:
				refused(t, err, "bowline join")
				if !apierrors.IsUnauthorized(err) {
					t.Errorf("the API server lets it in: %v (%s)", err, tt.reason)
				}
				if strings.Contains(err.Error(), other) {
					t.Error("the error holds the token")
				}
			}
		})
	}
}

// serviceAccountKey is what the cluster of the tests signs tokens with.
func serviceAccountKey(t testing.TB) string {
	t.Helper()
	var found string
	_ = filepath.WalkDir(filepath.Dir(testkit.Kubeconfig(t)), func(path string, _ os.DirEntry, _ error) error {
		if filepath.Base(path) == "service-account.key" {
			found = path
		}
		return nil
	})
	if found == "" {
		t.Fatal("the cluster of the test has no service-account.key")
	}
	return found
}

// TestInvitationMayAskOnly uses the token of an invitation for anything else.
func TestInvitationMayAskOnly(t *testing.T) {
	h := newHub(t, join.Options{})
	c := h.cluster("berlin")
	as := connect(t, h.as(h.invite(c)))
	for name, err := range map[string]error{
		"read a Secret":         as.List(t.Context(), &corev1.SecretList{}, client.InNamespace(h.namespace)),
		"read the FleetCluster": as.Get(t.Context(), client.ObjectKeyFromObject(c), c),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("an invitation may %s: %v", name, err)
		}
	}
}

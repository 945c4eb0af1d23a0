package testkit

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"github.com/bowline-dev/bowline/internal/gitserve"
	"github.com/bowline-dev/bowline/internal/testkit/front"
)

// Signer signs Git objects with a key made for the test.
type Signer struct {
	// Public is the public key, as the entry of a Secret holds it.
	Public []byte
	// ID is what the key is known by.
	ID string
	// Sign returns an armored signature.
	Sign func(payload []byte) []byte
}

// NewPGPSigner makes an OpenPGP key at a time, which expires after a lifetime, or never when that is 0.
func NewPGPSigner(t testing.TB, at time.Time, lifetime time.Duration) *Signer {
	t.Helper()
	cfg := &packet.Config{
		Time: func() time.Time { return at }, Algorithm: packet.PubKeyAlgoEdDSA, KeyLifetimeSecs: uint32(lifetime / time.Second),
	}
	key, err := openpgp.NewEntity("Bowline", "", "bowline@localhost", cfg)
	front.Must(t, err)
	var public bytes.Buffer
	w, err := armor.Encode(&public, openpgp.PublicKeyType, nil)
	front.Must(t, err)
	front.Must(t, key.Serialize(w))
	front.Must(t, w.Close())
	return &Signer{Public: append(public.Bytes(), '\n'), ID: key.PrimaryKey.KeyIdString(), Sign: func(payload []byte) []byte {
		var out bytes.Buffer
		front.Must(t, openpgp.ArmoredDetachSign(&out, key, bytes.NewReader(payload), cfg))
		return append(out.Bytes(), '\n')
	}}
}

// NewSSHSigner makes an Ed25519 key that signs for a namespace; git's is "git".
func NewSSHSigner(t testing.TB, namespace string) *Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	front.Must(t, err)
	return SSHSignerOf(t, private, namespace)
}

// SSHSignerOf signs with a key that there is already.
func SSHSignerOf(t testing.TB, private crypto.Signer, namespace string) *Signer {
	t.Helper()
	key, err := ssh.NewSignerFromSigner(private)
	front.Must(t, err)
	return &Signer{Public: ssh.MarshalAuthorizedKey(key.PublicKey()), ID: ssh.FingerprintSHA256(key.PublicKey()), Sign: func(payload []byte) []byte {
		sig, err := sshsig.Sign(bytes.NewReader(payload), key, sshsig.HashSHA512, namespace)
		front.Must(t, err)
		return sshsig.Armor(sig)
	}}
}

// SignCommit replaces the commit at the head of the branch by the same one with a signature
// and returns its hash.
func (r *Repo) SignCommit(by *Signer) string {
	r.s.T.Helper()
	raw := r.Object("refs/heads/" + r.branch)
	head, message, _ := strings.Cut(string(raw), "\n\n")
	header := "gpgsig " + strings.ReplaceAll(strings.TrimSuffix(string(by.Sign(raw)), "\n"), "\n", "\n ")
	sha := r.Write("commit", []byte(head+"\n"+header+"\n\n"+message))
	r.SetRef("refs/heads/"+r.branch, sha)
	return sha
}

// SignTag makes a signed tag and returns the hash of its object.
func (r *Repo) SignTag(name, rev string, by *Signer) string {
	r.s.T.Helper()
	object, err := r.repo.Resolve(r.s.context(), rev)
	r.s.check(err)
	payload := fmt.Sprintf("object %s\ntype commit\ntag %s\ntagger Bowline <bowline@localhost> %d +0000\n\nrelease\n", object, name, r.s.tick().Unix())
	sha := r.Write("tag", append([]byte(payload), by.Sign([]byte(payload))...))
	r.SetRef("refs/tags/"+name, sha)
	return sha
}

// Object returns the bytes of a commit or tag.
func (r *Repo) Object(rev string) []byte {
	r.s.T.Helper()
	kind, err := gitserve.Command(r.s.context(), "-C", r.Dir(), "cat-file", "-t", rev).Output()
	r.s.check(err)
	raw, err := gitserve.Command(r.s.context(), "-C", r.Dir(), "cat-file", strings.TrimSpace(string(kind)), rev).Output()
	r.s.check(err)
	return raw
}

// Write stores any object and returns its hash.
func (r *Repo) Write(kind string, raw []byte) string {
	r.s.T.Helper()
	cmd := gitserve.Command(r.s.context(), "-C", r.Dir(), "hash-object", "-t", kind, "-w", "--stdin")
	cmd.Stdin = bytes.NewReader(raw)
	out, err := cmd.Output()
	r.s.check(err)
	return strings.TrimSpace(string(out))
}

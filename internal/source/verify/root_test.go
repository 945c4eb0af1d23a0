package verify_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/verify"
	"github.com/bowline-dev/bowline/internal/testkit/signtest"
)

// publisher serves a trusted root as Sigstore's public instance does, signed by the rules of the update framework.
type publisher struct {
	*httptest.Server
	anchor []byte

	mu    sync.Mutex
	down  bool
	asked int
}

func newPublisher(t *testing.T, root []byte) *publisher {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	signer, err := signature.LoadSigner(private, crypto.Hash(0))
	must(t, err)
	key, err := metadata.KeyFromPublicKey(private.Public())
	must(t, err)
	soon := time.Now().Add(72 * time.Hour)
	anchor, targets, snapshot, timestamp := metadata.Root(soon), metadata.Targets(soon), metadata.Snapshot(soon), metadata.Timestamp(soon)
	for _, role := range []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP} {
		must(t, anchor.Signed.AddKey(key, role))
	}
	target, err := metadata.TargetFile().FromBytes(verify.RootKey, root, "sha256")
	must(t, err)
	targets.Signed.Targets[verify.RootKey] = target
	for _, m := range []interface {
		Sign(signature.Signer) (*metadata.Signature, error)
	}{anchor, targets, snapshot, timestamp} {
		_, err := m.Sign(signer)
		must(t, err)
	}
	files := map[string][]byte{"/targets/" + target.Hashes["sha256"].String() + "." + verify.RootKey: root}
	for path, m := range map[string]interface{ ToBytes(bool) ([]byte, error) }{
		"/1.root.json": anchor, "/1.targets.json": targets, "/1.snapshot.json": snapshot, "/timestamp.json": timestamp,
	} {
		files[path], err = m.ToBytes(false)
		must(t, err)
	}
	p := &publisher{anchor: files["/1.root.json"]}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.asked++
		data, ok := files[r.URL.Path]
		switch {
		case p.down:
			w.WriteHeader(http.StatusServiceUnavailable)
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		default:
			_, _ = w.Write(data)
		}
	}))
	t.Cleanup(p.Close)
	return p
}

// count returns how often it was asked since the last time, and says whether it answers from now on.
func (p *publisher) count(answer bool) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := p.asked
	p.asked, p.down = 0, !answer
	return n
}

// Without a root of one's own Sigstore's is fetched when it is needed: once a day, and not by everybody while it is not to
// be had. One that cannot be renewed stays in use.
func TestPublicRoot(t *testing.T) {
	sigstore, s := signtest.NewSigstore(t), newShelf(t, true)
	p := newPublisher(t, sigstore.Root(t, signtest.RootParts{}))
	clock := clocktesting.NewFakePassiveClock(time.Now())
	v := verify.New(verify.Options{Clock: clock, RootURL: p.URL, Root: p.anchor})
	trust, err := verify.CosignIdentities([]verify.Identity{{Issuer: issuer, Subject: workflow}}, "", nil)
	must(t, err)
	home := t.TempDir()
	t.Setenv("HOME", home)
	for _, step := range []struct {
		reason  string
		wait    time.Duration
		answers bool
		asks    bool
		cause   verify.Cause
	}{
		{"it is not to be had", 0, false, true, verify.Unreachable},
		{"nobody asks again at once", time.Second, true, false, verify.Unreachable},
		{"later it is", 2 * time.Minute, true, true, ""},
		{"it is kept", time.Hour, true, false, ""},
		{"it is renewed", 24 * time.Hour, true, true, ""},
		{"it cannot be renewed", 25 * time.Hour, false, true, ""},
		{"nobody asks again at once for that either", time.Second, false, false, ""},
	} {
		clock.SetTime(clock.Now().Add(step.wait))
		p.count(step.answers)
		a := s.artifact()
		sigstore.Sign(t, a, signtest.CosignBundle, signtest.Signature{Subject: workflow, Issuer: issuer})
		got, err := v.Verify(t.Context(), "me", request(a, trust))
		expect(t, got, err, step.cause)
		if asked := p.count(true) > 0; asked != step.asks {
			t.Errorf("%s: asked: %t", step.reason, asked)
		}
		if step.cause != "" && failure.KindOf(err) != failure.Unavailable {
			t.Errorf("%s: kind %s", step.reason, failure.KindOf(err))
		}
	}
	if found := entries(t, home); len(found) > 0 {
		t.Errorf("written to the home folder: %v", found)
	}
}

// A root that is not signed by whom the program trusts is none.
func TestForgedPublicRoot(t *testing.T) {
	t.Parallel()
	sigstore, s := signtest.NewSigstore(t), newShelf(t, true)
	root := sigstore.Root(t, signtest.RootParts{})
	p, other := newPublisher(t, root), newPublisher(t, root)
	v := verify.New(verify.Options{Clock: clocktesting.NewFakePassiveClock(time.Now()), RootURL: p.URL, Root: other.anchor})
	trust, err := verify.CosignIdentities(nil, "", nil)
	must(t, err)
	a := s.artifact()
	sigstore.Sign(t, a, signtest.CosignBundle, signtest.Signature{Subject: workflow, Issuer: issuer})
	got, err := v.Verify(t.Context(), "me", request(a, trust))
	expect(t, got, err, verify.Unreachable, "Sigstore's public root")
	if !strings.Contains(err.Error(), a.Digest.String()) {
		t.Errorf("%v does not name the artifact", err)
	}
}

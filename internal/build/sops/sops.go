// Package sops is the build step that undoes the encryption of secrets in a
// repository, with the library of SOPS and in memory only: no key and no plain
// text reaches a disk, and no program is started. It decrypts what the toolkit's
// kustomize controller decrypts, where that does it.
package sops

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"sync"
	"time"

	"github.com/getsops/sops/v3/logging"
	"google.golang.org/api/option"
)

// Provider is the only provider that the API knows.
const Provider = "sops"

// maxFile is the size in bytes above which nothing is decrypted; it is the toolkit's.
const maxFile = 5 << 20

// Options says how a Ring reaches key services. The zero value is sound.
type Options struct {
	// Patience is how long a build waits for a key service before it gives up its
	// place; the answer is then waited for in the background. 0 means two seconds.
	Patience time.Duration
	// Timeout ends a request to a key service; 0 means 30 seconds.
	Timeout time.Duration
	// HTTPClient sends the requests to Vault, AWS and Azure, and those with which static
	// credentials log in; nil means the default of each.
	HTTPClient *http.Client
	// GCP configures the client of Google's service further.
	GCP []option.ClientOption
}

// Ring opens keys, and remembers the data keys that key services have decrypted, so
// that a file that did not change costs no second request. It holds them in memory,
// at most maxDataKeys of them, each for the keys that it was decrypted with. It is
// safe for concurrent use.
type Ring struct {
	options Options
	answers *answers

	mu     sync.Mutex
	opened map[openedKey]*Keys // guarded by mu
}

// openedKey tells opened keys apart: what was opened for one that may use the engine's
// own identity must not serve one that may not.
type openedKey struct {
	identity    string
	ownIdentity bool
}

// maxOpened bounds the keys that are kept opened.
const maxOpened = 512

// NewRing returns an empty ring. What it waits for in the background ends with ctx.
func NewRing(ctx context.Context, o Options) *Ring {
	if o.Patience == 0 {
		o.Patience = 2 * time.Second
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	// The library logs on its own, to standard error, and quotes what it reads.
	logging.SetLevel(0)
	return &Ring{options: o, answers: newAnswers(ctx, o), opened: map[openedKey]*Keys{}}
}

// Identity turns what tells keys apart, such as the uid and version of their Secret
// and the account that stands for them, into a short name of these keys.
func Identity(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		h.Write([]byte(p))
		h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

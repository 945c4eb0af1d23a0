package git

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"

	"github.com/bowline-dev/bowline/internal/source/git/odb"
)

// servedPrefix begins the name of the file that says which commit somebody was given
// last. The object store is shared by all who use the URL; who may read a commit was
// decided by the remote when it was fetched, and this is what is left of its answer.
const servedPrefix = "bowline-served-"

func (r *repo) servedFile(whom string) string {
	sum := sha256.Sum256([]byte(whom))
	return filepath.Join(r.dir, servedPrefix+hex.EncodeToString(sum[:16]))
}

// serve notes that somebody was given the commit. Nobody is told when that fails:
// after a restart it is fetched again.
func (r *repo) serve(whom string, commit odb.Hash) {
	if whom == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.served[whom] == commit {
		return
	}
	if err := replaceFile(r.servedFile(whom), commit.String()+"\n"); err == nil {
		r.served[whom] = commit
	}
}

// mayRecall reports whether the commit is the one that somebody was given last.
func (r *repo) mayRecall(whom string, commit odb.Hash) bool {
	text, err := os.ReadFile(r.servedFile(whom))
	return whom != "" && err == nil && strings.TrimSpace(string(text)) == commit.String()
}

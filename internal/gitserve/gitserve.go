// Package gitserve is the room that serves bare Git repositories over smart
// HTTP, for `bowline up` and for tests. It speaks protocol versions 0 to 2,
// serves shallow and filtered clones and any reachable commit, and accepts
// pushes. Access control is not its business: put a handler that checks
// credentials in front, or listen on loopback only.
package gitserve

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Options change what a handler does.
type Options struct {
	// OnPush, when set, is called after a push has been received and answered,
	// with the repository's path below the root, such as "fleet.git". It runs in the
	// request's goroutine and should return at once. A push that changed
	// nothing may be reported too.
	OnPush func(repo string)
	// ReadOnly refuses every push.
	ReadOnly bool
	// TipsOnly gives out only commits that references point at, and not every
	// commit that can be reached from them.
	TipsOnly bool
}

// Handler serves the bare repositories below root: a request for
// /team/app.git/info/refs is about root/team/app.git. The git executable must
// be on the PATH. Symbolic links that leave root are not followed.
func Handler(root string, opts Options) http.Handler {
	return &handler{root: root, opts: opts}
}

type handler struct {
	root string
	opts Options
}

// The two services of the smart protocol.
const (
	uploadPack  = "git-upload-pack"
	receivePack = "git-receive-pack"
)

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, service, advertise := route(r)
	if service == "" {
		http.Error(w, "not a Git smart HTTP request", http.StatusNotFound)
		return
	}
	if service == receivePack && h.opts.ReadOnly {
		http.Error(w, "this repository is read-only", http.StatusForbidden)
		return
	}
	dir, err := h.find(name)
	if err != nil {
		http.Error(w, "no repository "+name, http.StatusNotFound)
		return
	}
	w.Header().Set("Cache-Control", "no-cache, max-age=0, must-revalidate")
	if advertise {
		h.advertise(w, r, dir, service)
		return
	}
	if h.exchange(w, r, dir, service) && service == receivePack && h.opts.OnPush != nil {
		// The pusher must not wait for what a push sets off.
		_ = http.NewResponseController(w).Flush()
		h.opts.OnPush(name)
	}
}

// route takes a request apart; service is empty when it is none of ours.
func route(r *http.Request) (name, service string, advertise bool) {
	p := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	if repo, ok := strings.CutSuffix(p, "/info/refs"); ok && r.Method == http.MethodGet {
		s := r.URL.Query().Get("service")
		if s != uploadPack && s != receivePack {
			return "", "", false
		}
		return repo, s, true
	}
	for _, s := range []string{uploadPack, receivePack} {
		if repo, ok := strings.CutSuffix(p, "/"+s); ok && r.Method == http.MethodPost {
			return repo, s, false
		}
	}
	return "", "", false
}

// find returns the folder of a repository, which must be below the root.
func (h *handler) find(name string) (string, error) {
	root, err := os.OpenRoot(h.root)
	if err != nil {
		return "", err
	}
	defer func() { _ = root.Close() }()
	if _, err := root.Stat(filepath.FromSlash(path.Join(name, "HEAD"))); err != nil {
		return "", err
	}
	return filepath.Join(h.root, filepath.FromSlash(name)), nil
}

func (h *handler) advertise(w http.ResponseWriter, r *http.Request, dir, service string) {
	w.Header().Set("Content-Type", "application/x-"+service+"-advertisement")
	protocol := r.Header.Get("Git-Protocol")
	if !strings.Contains(protocol, "version=2") || service == receivePack {
		line := "# service=" + service + "\n"
		_, _ = fmt.Fprintf(w, "%04x%s0000", len(line)+4, line) //nolint:gosec // one of two constants, and no HTML
	}
	cmd := h.command(r.Context(), dir, service, protocol, "--advertise-refs")
	cmd.Stdout = w
	if err := cmd.Run(); err != nil {
		abort(r)
	}
}

// exchange answers one request of a service and reports whether it went well.
func (h *handler) exchange(w http.ResponseWriter, r *http.Request, dir, service string) bool {
	var body io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, "the request body is not gzip", http.StatusBadRequest)
			return false
		}
		body = z
	}
	w.Header().Set("Content-Type", "application/x-"+service+"-result")
	cmd := h.command(r.Context(), dir, service, r.Header.Get("Git-Protocol"))
	cmd.Stdin = body
	cmd.Stdout = flushWriter{w, http.NewResponseController(w)}
	return cmd.Run() == nil
}

// abort cuts the connection, so that a client does not take half an answer for a whole one.
func abort(r *http.Request) {
	if r.Context().Err() == nil {
		panic(http.ErrAbortHandler)
	}
}

// flushWriter sends what a service says at once: progress and keep-alives matter.
type flushWriter struct {
	w  io.Writer
	rc *http.ResponseController
}

func (f flushWriter) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		err = f.rc.Flush()
	}
	return n, err
}

func (h *handler) command(ctx context.Context, dir, service, protocol string, extra ...string) *exec.Cmd {
	var args []string
	if h.opts.TipsOnly {
		args = []string{"-c", "uploadpack.allowReachableSHA1InWant=false"}
	}
	args = append(args, strings.TrimPrefix(service, "git-"), "--stateless-rpc")
	args = append(args, extra...)
	cmd := Command(ctx, append(args, dir)...)
	if protocol != "" {
		cmd.Env = append(cmd.Env, "GIT_PROTOCOL="+protocol)
	}
	return cmd
}

// Command returns git with a clean environment: no configuration but the
// repository's own and what serving needs, no prompts, no locale.
func Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_TERMINAL_PROMPT=0",
	}
	settings := [][2]string{
		{"safe.directory", "*"},
		{"uploadpack.allowReachableSHA1InWant", "true"},
		{"uploadpack.allowFilter", "true"},
		{"gc.auto", "0"},
		{"core.hooksPath", os.DevNull},
		// Large files are passed through rather than compared with each other.
		{"core.bigFileThreshold", "1m"},
	}
	cmd.Env = append(cmd.Env, fmt.Sprintf("GIT_CONFIG_COUNT=%d", len(settings)))
	for i, s := range settings {
		cmd.Env = append(cmd.Env, fmt.Sprintf("GIT_CONFIG_KEY_%d=%s", i, s[0]), fmt.Sprintf("GIT_CONFIG_VALUE_%d=%s", i, s[1]))
	}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

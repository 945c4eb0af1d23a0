package wire

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"golang.org/x/crypto/ssh"
)

// SSH is a repository behind SSH.
type SSH struct {
	// Dial opens the connection to Addr.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// URL is the repository's address; its path is what the server is asked for.
	URL *url.URL
	// Config authenticates both sides. Its HostKeyCallback must check.
	Config *ssh.ClientConfig
}

// ErrLogin says that the server has refused every key.
var ErrLogin = errors.New("the server refuses the login")

// Addr is the host and port of an ssh:// URL.
func Addr(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "22"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// Session begins a session, with a connection of its own.
func (s SSH) Session() *Session {
	t := &tap{}
	return &Session{conv: &sshConversation{SSH: s, tap: t}, tap: t, once: true}
}

// sshConversation does over SSH what go-git's session does over HTTP. go-git's own
// transport for SSH has no way to give up while it connects and logs in, none through an HTTP
// proxy, and reads the user's ~/.ssh/config.
type sshConversation struct {
	SSH
	tap    *tap
	client *ssh.Client
	stdin  io.WriteCloser
	stop   func() bool
}

// Close ends the connection; the next listing of references makes another one.
func (c *sshConversation) Close() error {
	if c.client == nil {
		return nil
	}
	c.stop()
	if c.stdin != nil {
		// Without this the server logs that the other side hung up.
		_ = pktline.NewEncoder(c.stdin).Flush()
	}
	err := c.client.Close()
	c.client, c.stdin = nil, nil
	return err
}

// AdvertisedReferencesContext starts upload-pack and reads what it says first.
func (c *sshConversation) AdvertisedReferencesContext(ctx context.Context) (*packp.AdvRefs, error) {
	c.tap.begin(nil)
	if err := c.start(ctx); err != nil {
		c.tap.err = err
		return nil, err
	}
	adv := packp.NewAdvRefs()
	err := adv.Decode(c.tap)
	return adv, err
}

func (c *sshConversation) start(ctx context.Context) error {
	if err := c.connect(ctx); err != nil {
		return err
	}
	session, err := c.client.NewSession()
	if err != nil {
		return err
	}
	if c.stdin, err = session.StdinPipe(); err != nil {
		return err
	}
	stdout, err := session.StdoutPipe()
	if err != nil {
		return err
	}
	out := &stderrReader{r: stdout, wait: sync.OnceValue(session.Wait)}
	session.Stderr = &out.stderr
	c.tap.begin(out)
	path := strings.ReplaceAll(c.URL.Path, "'", `'\''`)
	return session.Start("git-upload-pack '" + path + "'")
}

// UploadPack sends a request with all that is known at once, so that there is no negotiation.
func (c *sshConversation) UploadPack(_ context.Context, req *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
	c.tap.begin(c.tap.r)
	err := req.UploadRequest.Encode(c.stdin)
	if err == nil {
		err = req.UploadHaves.Encode(c.stdin, false)
	}
	if err == nil {
		err = pktline.NewEncoder(c.stdin).EncodeString("done\n")
	}
	if err != nil {
		c.tap.err = err
		return nil, err
	}
	res := packp.NewUploadPackResponse(req)
	err = res.Decode(io.NopCloser(c.tap))
	return res, err
}

// connect logs in. The connection is closed when the context ends, which ends every read.
func (c *sshConversation) connect(ctx context.Context) error {
	conn, err := c.Dial(ctx, "tcp", Addr(c.URL))
	if err != nil {
		return err
	}
	c.stop = context.AfterFunc(ctx, func() { _ = conn.Close() })
	sc, chans, reqs, err := ssh.NewClientConn(conn, Addr(c.URL), c.Config)
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		// The package has no type for this.
		if strings.Contains(err.Error(), "unable to authenticate") {
			return fmt.Errorf("%w: %w", ErrLogin, err)
		}
		return err
	}
	c.client = ssh.NewClient(sc, chans, reqs)
	return nil
}

// stderrReader reads a command's output; when that ends too early, what the
// command said on its standard error is the reason.
type stderrReader struct {
	r      io.Reader
	wait   func() error
	stderr safeBuffer
}

func (s *stderrReader) Read(b []byte) (int, error) {
	n, err := s.r.Read(b)
	if n == 0 && err != nil {
		var exit *ssh.ExitError
		if errors.As(s.wait(), &exit) {
			if msg := s.stderr.text(); msg != "" {
				return 0, &RemoteError{Message: msg}
			}
		}
	}
	return n, err
}

// safeBuffer keeps the beginning of what is written to it.
type safeBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (s *safeBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if room := 4096 - s.buf.Len(); room > 0 {
		s.buf.Write(b[:min(len(b), room)])
	}
	return len(b), nil
}

func (s *safeBuffer) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return oneLine(s.buf.String())
}

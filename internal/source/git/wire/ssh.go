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
func (s SSH) Session() *Session { return &Session{conv: &sshConversation{SSH: s}} }

type sshConversation struct {
	SSH
	client *ssh.Client
	stdin  io.WriteCloser
	out    *stderrReader
	stop   func() bool
}

func (c *sshConversation) stateless() bool { return false }

func (c *sshConversation) close() {
	if c.stop != nil {
		c.stop()
	}
	if c.client != nil {
		if c.stdin != nil {
			// Without this the server logs that the other side hung up.
			_, _ = io.WriteString(c.stdin, "0000")
		}
		_ = c.client.Close()
		c.client = nil
	}
}

func (c *sshConversation) open(ctx context.Context) (io.Reader, error) {
	if err := c.connect(ctx); err != nil {
		return nil, err
	}
	session, err := c.client.NewSession()
	if err != nil {
		return nil, err
	}
	// A server that does not accept the variable answers in version 0.
	_ = session.Setenv("GIT_PROTOCOL", "version=2")
	if c.stdin, err = session.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := session.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = &stderrReader{r: stdout, wait: sync.OnceValue(session.Wait)}
	session.Stderr = &c.out.stderr
	path := strings.ReplaceAll(c.URL.Path, "'", `'\''`)
	if err := session.Start("git-upload-pack '" + path + "'"); err != nil {
		return nil, err
	}
	return c.out, nil
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

func (c *sshConversation) ask(ctx context.Context, request []byte) (io.Reader, error) {
	if _, err := c.stdin.Write(request); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	return c.out, nil
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
	return oneLine(s.buf.Bytes())
}

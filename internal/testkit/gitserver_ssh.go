package testkit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/bowline-dev/bowline/internal/gitserve"
	"github.com/bowline-dev/bowline/internal/testkit/front"
)

// sshServer answers git's two commands over SSH with the real executables.
type sshServer struct {
	s         *GitServer
	addr      string
	hostKey   ssh.Signer
	clientKey ed25519.PrivateKey
	config    *ssh.ServerConfig

	mu     sync.Mutex // guards logins
	logins int
}

func startSSH(t testing.TB, s *GitServer) *sshServer {
	t.Helper()
	_, host, err := ed25519.GenerateKey(rand.Reader)
	front.Must(t, err)
	_, client, err := ed25519.GenerateKey(rand.Reader)
	front.Must(t, err)
	signer, err := ssh.NewSignerFromKey(host)
	front.Must(t, err)
	srv := &sshServer{s: s, hostKey: signer, clientKey: client}
	allowed, err := ssh.NewPublicKey(client.Public())
	front.Must(t, err)
	srv.config = &ssh.ServerConfig{
		PublicKeyCallback: func(c ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if c.User() != "git" || !bytes.Equal(key.Marshal(), allowed.Marshal()) {
				return nil, fmt.Errorf("unknown key")
			}
			return nil, nil
		},
	}
	srv.config.AddHostKey(signer)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	front.Must(t, err)
	srv.addr = l.Addr().String()
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			stop := s.closeWithTest(conn)
			wg.Go(func() { defer stop(); srv.serve(conn) })
		}
	})
	return srv
}

// closeWithTest closes a connection that is still open when the test ends.
func (s *GitServer) closeWithTest(c io.Closer) (stop func()) {
	done := make(chan struct{})
	ctx := s.context()
	go func() {
		select {
		case <-ctx.Done():
		case <-done:
		}
		_ = c.Close()
	}()
	return sync.OnceFunc(func() { close(done) })
}

func (srv *sshServer) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	_, chans, reqs, err := ssh.NewServerConn(conn, srv.config)
	if err != nil {
		return
	}
	srv.mu.Lock()
	srv.logins++
	srv.mu.Unlock()
	go ssh.DiscardRequests(reqs)
	for c := range chans {
		if c.ChannelType() != "session" {
			_ = c.Reject(ssh.UnknownChannelType, "sessions only")
			continue
		}
		ch, reqs, err := c.Accept()
		if err != nil {
			return
		}
		go srv.session(ch, reqs)
	}
}

func (srv *sshServer) session(ch ssh.Channel, reqs <-chan *ssh.Request) {
	protocol := ""
	for req := range reqs {
		switch req.Type {
		case "env":
			var env struct{ Name, Value string }
			ok := ssh.Unmarshal(req.Payload, &env) == nil && env.Name == "GIT_PROTOCOL"
			if ok {
				protocol = env.Value
			}
			_ = req.Reply(ok, nil)
		case "exec":
			_ = req.Reply(true, nil)
			var exec struct{ Command string }
			_ = ssh.Unmarshal(req.Payload, &exec)
			go func() {
				code := srv.exec(ch, exec.Command, protocol)
				_, _ = ch.SendRequest("exit-status", false, binary.BigEndian.AppendUint32(nil, code))
				_ = ch.Close()
			}()
		default:
			_ = req.Reply(false, nil)
		}
	}
}

func (srv *sshServer) exec(ch ssh.Channel, command, protocol string) uint32 {
	service, arg, _ := strings.Cut(command, " ")
	name := strings.Trim(arg, "'/")
	if (service != "git-upload-pack" && service != "git-receive-pack") || strings.Contains(name, "..") {
		_, _ = fmt.Fprintln(ch.Stderr(), "only git is served here")
		return 1
	}
	cmd := gitserve.Command(srv.s.context(), strings.TrimPrefix(service, "git-"), filepath.Join(srv.s.root, name))
	if protocol != "" {
		cmd.Env = append(cmd.Env, "GIT_PROTOCOL="+protocol)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return 1
	}
	// Wait must not wait for a client that leaves its side open.
	go func() { _, _ = io.Copy(stdin, ch); _ = stdin.Close() }()
	cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
	if err := cmd.Run(); err != nil {
		return 128
	}
	return 0
}

// SSHLogins counts the SSH connections that authenticated.
func (s *GitServer) SSHLogins() int {
	s.ssh.mu.Lock()
	defer s.ssh.mu.Unlock()
	return s.ssh.logins
}

// SSHIdentity returns the private key that the server admits, in OpenSSH's
// format; a passphrase encrypts it.
func (s *GitServer) SSHIdentity(passphrase string) []byte {
	s.T.Helper()
	var block *pem.Block
	var err error
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(s.ssh.clientKey, "test")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(s.ssh.clientKey, "test", []byte(passphrase))
	}
	front.Must(s.T, err)
	return pem.EncodeToMemory(block)
}

// SSHKnownHosts returns the known_hosts line of the server.
func (s *GitServer) SSHKnownHosts() []byte {
	return []byte(knownhosts.Line([]string{knownhosts.Normalize(s.ssh.addr)}, s.ssh.hostKey.PublicKey()) + "\n")
}

// SSHFingerprint is the fingerprint of the server's host key.
func (s *GitServer) SSHFingerprint() string { return ssh.FingerprintSHA256(s.ssh.hostKey.PublicKey()) }

// SSHAddr is the host and port of the SSH server.
func (s *GitServer) SSHAddr() string { return s.ssh.addr }

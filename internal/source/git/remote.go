package git

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"

	"github.com/bowline-dev/bowline/internal/source/git/wire"
	"github.com/bowline-dev/bowline/internal/source/reach"
)

// remote is the far side of a lane.
type remote struct {
	http *wire.HTTP
	ssh  *wire.SSH
}

// newRemote prepares to visit a URL; it does not connect. The folder is for
// files that exist only while it runs.
func newRemote(u *url.URL, auth Auth, proxy *url.URL, tmp string) (*remote, error) {
	if u.Scheme == "ssh" {
		s, err := newSSH(u, auth, proxy, tmp)
		return &remote{ssh: s}, err
	}
	cfg, err := auth.TLS.Config(secretField)
	if err != nil {
		return nil, err
	}
	t := reach.Transport(cfg, proxy, 1)
	t.OnProxyConnectResponse = func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
		return tunnelError(resp)
	}
	h := &wire.HTTP{Transport: t, URL: u}
	switch {
	case auth.BearerToken != "":
		h.Authorization = "Bearer " + auth.BearerToken
	case auth.Username != "" || auth.Password != "":
		h.Authorization = "Basic " + base64.StdEncoding.EncodeToString([]byte(auth.Username+":"+auth.Password))
	}
	return &remote{http: h}, nil
}

func (r *remote) close() {
	if r.http != nil {
		(&http.Client{Transport: r.http.Transport}).CloseIdleConnections()
	}
}

func (r *remote) session() (*wire.Session, error) {
	if r.ssh != nil {
		return r.ssh.Session(), nil
	}
	return r.http.Session()
}

// hostKeyError says why a server's host key is not trusted.
type hostKeyError struct {
	host, offered string
	changed       bool
}

func (e *hostKeyError) Error() string {
	if e.changed {
		return fmt.Sprintf("the host key of %s is not the one in known_hosts: it offers %s", e.host, e.offered)
	}
	return fmt.Sprintf("the host key of %s is not in known_hosts: it offers %s", e.host, e.offered)
}

func newSSH(u *url.URL, auth Auth, proxyURL *url.URL, tmp string) (*wire.SSH, error) {
	if len(auth.Identity) == 0 || len(auth.KnownHosts) == 0 {
		if _, err := sshAuth(map[string][]byte{"identity": auth.Identity, "known_hosts": auth.KnownHosts}); err != nil {
			return nil, err
		}
	}
	signer, err := auth.signer()
	if err != nil {
		return nil, err
	}
	db, err := readKnownHosts(auth.KnownHosts, tmp)
	if err != nil {
		return nil, err
	}
	check := db.HostKeyCallback()
	user := u.User.Username()
	if user == "" {
		user = "git"
	}
	cfg := &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, ClientVersion: "SSH-2.0-bowline",
		// Only the kinds of key that are known, or the server may offer another one of its keys.
		HostKeyAlgorithms: db.HostKeyAlgorithms(wire.Addr(u)),
		HostKeyCallback: func(host string, addr net.Addr, key ssh.PublicKey) error {
			err := check(host, addr, key)
			if knownhosts.IsHostUnknown(err) || knownhosts.IsHostKeyChanged(err) {
				return &hostKeyError{host: host, offered: key.Type() + " " + ssh.FingerprintSHA256(key), changed: knownhosts.IsHostKeyChanged(err)}
			}
			return err
		},
	}
	return &wire.SSH{URL: u, Config: cfg, Dial: dialer(proxyURL)}, nil
}

// readKnownHosts parses known_hosts, for which the parser wants a file.
func readKnownHosts(text []byte, tmp string) (*knownhosts.HostKeyDB, error) {
	f, err := os.CreateTemp(tmp, "known_hosts-*")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(text)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return nil, err
	}
	db, err := knownhosts.NewDB(f.Name())
	if err != nil {
		return nil, secretError("known_hosts", errors.New("it has a line that cannot be read"))
	}
	return db, nil
}

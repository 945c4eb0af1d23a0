package git

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"golang.org/x/net/proxy"

	"github.com/bowline-dev/bowline/internal/source/git/wire"
	"github.com/bowline-dev/bowline/internal/source/reach"
)

type dialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// dialer opens connections for SSH, through a proxy when there is one.
func dialer(via *url.URL) dialFunc {
	direct := &net.Dialer{KeepAlive: 30 * time.Second}
	switch {
	case via == nil:
		return direct.DialContext
	case via.Scheme == "http" || via.Scheme == "https":
		return func(ctx context.Context, network, addr string) (net.Conn, error) {
			return connectThrough(ctx, direct, via, network, addr)
		}
	default:
		return func(ctx context.Context, network, addr string) (net.Conn, error) {
			d, err := proxy.FromURL(via, direct)
			if err != nil {
				return nil, fmt.Errorf("%w: %w", reach.ErrProxy, err)
			}
			return d.(proxy.ContextDialer).DialContext(ctx, network, addr)
		}
	}
}

// connectThrough asks an HTTP proxy for a tunnel.
func connectThrough(ctx context.Context, d *net.Dialer, via *url.URL, network, addr string) (net.Conn, error) {
	port := via.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[via.Scheme]
	}
	conn, err := d.DialContext(ctx, network, net.JoinHostPort(via.Hostname(), port))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", reach.ErrProxy, err)
	}
	if via.Scheme == "https" {
		conn = tls.Client(conn, &tls.Config{ServerName: via.Hostname(), MinVersion: tls.VersionTLS12})
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{}}
	if via.User != nil {
		password, _ := via.User.Password()
		basic := &http.Request{Header: http.Header{}}
		basic.SetBasicAuth(via.User.Username(), password)
		req.Header.Set("Proxy-Authorization", basic.Header.Get("Authorization"))
	}
	err = req.Write(conn)
	// The SSH server speaks only after the answer, but it may do so at once.
	br := bufio.NewReader(conn)
	if err == nil {
		var resp *http.Response
		if resp, err = http.ReadResponse(br, req); err == nil {
			_ = resp.Body.Close()
			err = tunnelError(resp)
		}
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%w: %w", reach.ErrProxy, err)
	}
	return &bufferedConn{Conn: conn, r: br}, nil
}

// tunnelError says what is wrong when a proxy refuses a tunnel.
func tunnelError(resp *http.Response) error {
	switch resp.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusProxyAuthRequired:
		return &wire.StatusError{Code: resp.StatusCode}
	default:
		return fmt.Errorf("%w: it answers %s", reach.ErrProxy, resp.Status)
	}
}

// bufferedConn gives out first what has been read already.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *bufferedConn) Read(b []byte) (int, error) { return c.r.Read(b) }

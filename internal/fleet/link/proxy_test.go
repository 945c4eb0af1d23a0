package link_test

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/bowline-dev/bowline/internal/fleet/join"
)

// proxy is a network between an agent and its hub that can be broken.
type proxy struct {
	listener net.Listener
	to       string

	mu     sync.Mutex
	broken string              // guarded by mu: "", "cut" or "silent"
	open   map[net.Conn]func() // guarded by mu
}

// through returns the way to a hub through a proxy.
func through(t testing.TB, e join.Endpoint) (*proxy, join.Endpoint) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, to: strings.TrimPrefix(e.Server, "https://"), open: map[net.Conn]func(){}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.carry(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.set("cut")
		serving.Wait()
	})
	e.Server = "https://" + l.Addr().String()
	return p, e
}

// cut breaks all connections and refuses new ones; silent lets them be and carries nothing; mend ends both.
func (p *proxy) cut()    { p.set("cut") }
func (p *proxy) silent() { p.set("silent") }
func (p *proxy) mend()   { p.set("") }

func (p *proxy) set(to string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.broken = to
	if to != "silent" { // what went silent comes back as new connections
		for _, end := range p.open {
			end()
		}
	}
}

func (p *proxy) state() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken
}

func (p *proxy) carry(from net.Conn) {
	defer from.Close()
	if p.state() == "cut" {
		return
	}
	to, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer to.Close()
	p.mu.Lock()
	p.open[from] = func() { _ = from.Close(); _ = to.Close() }
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.pipe(to, from) })
	both.Go(func() { p.pipe(from, to) })
	both.Wait()
	p.mu.Lock()
	delete(p.open, from)
	p.mu.Unlock()
}

// pipe carries until one end closes. What comes while the network is silent is lost.
func (p *proxy) pipe(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if n > 0 && p.state() == "" {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			if err != io.EOF { //nolint:errorlint // that of the connection itself
				return
			}
			return
		}
	}
}

package testkit

import (
	"net"
	"net/url"
	"sync"
	"testing"
)

// Network is a way to a server on loopback that can be broken. It carries bytes and knows nothing of what they mean.
type Network struct {
	listener net.Listener
	to       string

	mu     sync.Mutex
	broken string              // guarded by mu: "", cut or silent
	open   map[net.Conn]func() // guarded by mu
}

const cut, silent = "cut", "silent"

// NewNetwork returns a way to the server at an https URL, until the test ends.
func NewNetwork(t testing.TB, server string) *Network {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatalf("testkit: read the URL of a server: %v", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("testkit: listen: %v", err)
	}
	n := &Network{listener: l, to: u.Host, open: map[net.Conn]func(){}}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { n.carry(c) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		n.set(cut)
		serving.Wait()
	})
	return n
}

// URL is that of the server by this way.
func (n *Network) URL() string { return "https://" + n.listener.Addr().String() }

// Cut breaks all connections and refuses new ones, until Mend.
func (n *Network) Cut() { n.set(cut) }

// Silence lets connections be and loses what is sent, until Mend.
func (n *Network) Silence() { n.set(silent) }

// Mend has everything carried again. Connections that were silent are broken.
func (n *Network) Mend() { n.set("") }

func (n *Network) set(to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.broken = to
	if to != silent { // what went silent comes back as new connections
		for _, end := range n.open {
			end()
		}
	}
}

func (n *Network) state() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.broken
}

func (n *Network) carry(from net.Conn) {
	defer func() { _ = from.Close() }()
	if n.state() == cut {
		return
	}
	to, err := net.Dial("tcp", n.to)
	if err != nil {
		return
	}
	defer func() { _ = to.Close() }()
	n.mu.Lock()
	n.open[from] = func() { _ = from.Close(); _ = to.Close() }
	if n.broken == cut { // meanwhile
		n.open[from]()
	}
	n.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { n.pipe(to, from) })
	both.Go(func() { n.pipe(from, to) })
	both.Wait()
	n.mu.Lock()
	delete(n.open, from)
	n.mu.Unlock()
}

// pipe carries until one end closes. What comes while the network is silent is lost.
func (n *Network) pipe(to, from net.Conn) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buffer := make([]byte, 32<<10)
	for {
		size, err := from.Read(buffer)
		if size > 0 && n.state() == "" {
			if _, err := to.Write(buffer[:size]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// Package wiretest gives a test a wire to a server that can stop passing bytes while both ends stay open: what a
// stopped process, or a host that vanished, looks like to its peer.
package wiretest

import (
	"context"
	"net"
	"sync"
	"testing"
)

// Wire is a TCP proxy on loopback. Its methods are safe for concurrent use.
type Wire struct {
	listener net.Listener
	target   string
	ended    context.Context
	end      context.CancelFunc
	wg       sync.WaitGroup

	mu     sync.Mutex
	frozen chan struct{} // closed by Thaw; nil while bytes pass
	cuts   int           // so far; a connection from before one is dead
}

// New makes a wire to target (host:port) that ends with the test.
func New(t testing.TB, target string) *Wire {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("wiretest: %v", err)
	}
	w := &Wire{listener: listener, target: target}
	w.ended, w.end = context.WithCancel(context.Background())
	w.wg.Go(w.accept)
	t.Cleanup(w.Close)
	return w
}

// Close ends all connections and takes no new one; a second call does nothing.
func (w *Wire) Close() {
	w.end()
	_ = w.listener.Close() // it may be closed already
	w.wg.Wait()
}

// Addr is what clients dial.
func (w *Wire) Addr() string { return w.listener.Addr().String() }

// Freeze holds whatever is sent from now on, on connections to come too: these are accepted, as a stopped
// process' are by its kernel.
func (w *Wire) Freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frozen == nil {
		w.frozen = make(chan struct{})
	}
}

// Thaw passes on what was held, and all that follows.
func (w *Wire) Thaw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frozen != nil {
		close(w.frozen)
		w.frozen = nil
	}
}

// Cut lets nothing pass any more on the connections there are, which stay open: their host has vanished. New ones
// find another in its place.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cuts++
}

// pass returns once a connection that was made after so many cuts may pass bytes; false when it never may.
func (w *Wire) pass(cuts int) bool {
	w.mu.Lock()
	frozen, dead := w.frozen, w.cuts > cuts
	w.mu.Unlock()
	if dead {
		<-w.ended.Done()
	}
	if frozen != nil {
		select {
		case <-frozen:
		case <-w.ended.Done():
		}
	}
	return w.ended.Err() == nil
}

func (w *Wire) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		w.wg.Go(func() { w.serve(client) })
	}
}

func (w *Wire) serve(client net.Conn) {
	defer func() { _ = client.Close() }()
	w.mu.Lock()
	cuts := w.cuts
	w.mu.Unlock()
	if !w.pass(cuts) {
		return
	}
	server, err := (&net.Dialer{}).DialContext(w.ended, "tcp", w.target)
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	stop := context.AfterFunc(w.ended, func() { _, _ = client.Close(), server.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { w.copy(server, client, cuts) })
	both.Go(func() { w.copy(client, server, cuts) })
	both.Wait()
}

// copy ends both directions when one ends.
func (w *Wire) copy(to, from net.Conn, cuts int) {
	defer func() { _, _ = to.Close(), from.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 && w.pass(cuts) {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// Front is one address for several replicas, as a load balancer without health checks gives it: each
// connection goes to the next replica that accepts it.
type Front struct {
	listener net.Listener
	targets  []string
	wg       sync.WaitGroup

	mu    sync.Mutex
	next  int
	conns map[net.Conn]struct{}
}

// NewFront listens on a free port of loopback.
func NewFront(targets []string) (*Front, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // does not block
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	f := &Front{listener: listener, targets: targets, conns: map[net.Conn]struct{}{}}
	f.wg.Go(f.accept)
	return f, nil
}

// Address is host:port.
func (f *Front) Address() string { return f.listener.Addr().String() }

// Close ends all connections and waits.
func (f *Front) Close() error {
	err := f.listener.Close()
	f.mu.Lock()
	for conn := range f.conns {
		_ = conn.Close() // it may be closed already
	}
	f.conns = nil
	f.mu.Unlock()
	f.wg.Wait()
	return err
}

func (f *Front) accept() {
	for {
		conn, err := f.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			f.wg.Go(func() { f.serve(conn) })
		}
	}
}

func (f *Front) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	target, err := f.dial()
	if err != nil {
		return
	}
	defer func() { _ = target.Close() }()
	if !f.keep(conn, target) {
		return
	}
	defer f.forget(conn, target)
	var both sync.WaitGroup
	both.Go(func() { f.copy(target, conn) })
	both.Go(func() { f.copy(conn, target) })
	both.Wait()
}

// copy ends both directions when one ends: what is proxied dies at once with its peer.
func (f *Front) copy(to, from net.Conn) {
	_, _ = io.Copy(to, from) // how it ended is the peers' affair
	_ = to.Close()
	_ = from.Close()
}

func (f *Front) dial() (conn net.Conn, err error) {
	f.mu.Lock()
	first := f.next
	f.next++
	f.mu.Unlock()
	dialer := net.Dialer{Timeout: time.Second}
	for i := range f.targets {
		if conn, err = dialer.DialContext(context.Background(), "tcp", f.targets[(first+i)%len(f.targets)]); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

func (f *Front) keep(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conns == nil {
		return false
	}
	for _, c := range conns {
		f.conns[c] = struct{}{}
	}
	return true
}

func (f *Front) forget(conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		delete(f.conns, c)
	}
}

const (
	// Ports of replicas lie below those that kernels hand out to connections (Linux: from 32768, others: from 49152): a
	// connection of anybody's could have one while its replica is dead, which then could not come back.
	firstPort, lastPort = 15000, 30000
	portTries           = 1000
)

// FreeAddresses gives n addresses of loopback that were free a moment ago, and that no outgoing connection takes.
func FreeAddresses(n int) (addresses []string, err error) {
	for range portTries {
		if len(addresses) == n {
			return addresses, nil
		}
		l, listenErr := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", firstPort+rand.IntN(lastPort-firstPort))) //nolint:noctx // does not block
		if listenErr != nil {
			continue // taken
		}
		addresses = append(addresses, l.Addr().String())
		defer func() { err = errors.Join(err, l.Close()) }()
	}
	return nil, fmt.Errorf("no %d free ports among %d to %d", n, firstPort, lastPort)
}

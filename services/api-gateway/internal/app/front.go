package app

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"

	"google.golang.org/grpc"

	"github.com/sametick/sametick/pkg/lifecycle"
	"github.com/sametick/sametick/pkg/rpc"
	"github.com/sametick/sametick/services/api-gateway/internal/rest"
)

// front is the REST side's connection to the gRPC side of the process, made when that listens: its
// port may not be known before. It is the handler of the HTTP server, which starts after it.
type front struct {
	lifecycle.Component
	address func() string
	options rest.Options
	client  rpc.ClientOptions

	mu      sync.RWMutex
	closed  bool
	conn    *grpc.ClientConn
	handler http.Handler
}

func newFront(address func() string, o rest.Options, c rpc.ClientOptions) *front {
	f := &front{address: address, options: o, client: c}
	f.Component = lifecycle.Closer(f.close)
	return f
}

// Start connects.
func (f *front) Start(ctx context.Context) error {
	if err := f.Component.Start(ctx); err != nil {
		return err
	}
	target, err := loopback(f.address())
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return nil
	}
	if f.conn, err = rpc.Dial(target, f.client); err != nil {
		return err
	}
	o := f.options
	o.Conn = f.conn
	f.handler, err = rest.New(context.WithoutCancel(ctx), o)
	return err
}

func (f *front) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.conn != nil {
		_ = f.conn.Close()
	}
}

// ServeHTTP serves REST.
func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.RLock()
	handler := f.handler
	f.mu.RUnlock()
	handler.ServeHTTP(w, r)
}

// loopback is where this process reaches an address that it listens on.
func loopback(addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("gRPC address: %w", err)
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port), nil
}

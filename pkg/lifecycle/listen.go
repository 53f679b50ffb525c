package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
)

// Server is a Component that listens: Start fails when the address is taken, so that a process with
// a wrong port ends at once with a sentence, not later with a log line.
type Server struct {
	*Loop
	addr atomic.Pointer[string]
}

// NewServer makes a server on a TCP address. serve owns the listener and keeps RunFunc's contract.
func NewServer(name, addr string, serve func(take, work context.Context, l net.Listener) error) *Server {
	s := &Server{}
	var l net.Listener
	s.Loop = NewLoop(name, func(take, work context.Context) error { return serve(take, work, l) })
	s.setup = func(ctx context.Context) (err error) {
		if l, err = (&net.ListenConfig{}).Listen(ctx, "tcp", addr); err != nil {
			return fmt.Errorf("cannot listen on %q: %w", addr, err)
		}
		a := l.Addr().String()
		s.addr.Store(&a)
		return nil
	}
	return s
}

// Addr is host:port as bound (of use with port 0); empty before Start.
func (s *Server) Addr() string {
	if a := s.addr.Load(); a != nil {
		return *a
	}
	return ""
}

// NewHTTP serves srv. Stop closes idle connections, lets requests in hand finish, and closes what is
// left when the grace time is over. Handlers that never end by themselves (streams) must be ended by
// a component that stops before this one.
func NewHTTP(name, addr string, srv *http.Server) *Server {
	return NewServer(name, addr, func(take, work context.Context, l net.Listener) error {
		served := make(chan error, 1)
		go func() { served <- srv.Serve(l) }()
		select {
		case err := <-served:
			return err
		case <-take.Done():
		}
		// Shutdown polls, so a request that ends in its pause is closed by Close without harm.
		if err := srv.Shutdown(work); err != nil {
			_ = srv.Close() // the grace time is over: Stop reports that
		}
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
}

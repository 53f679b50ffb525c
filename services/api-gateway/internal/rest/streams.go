package rest

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/sametick/sametick/pkg/lifecycle"
)

// Streams ends the requests that do not end by themselves: at random over a while, so that their
// clients do not all come back at once. It is a handler and, for the process, a component that stops
// before the HTTP server.
type Streams struct {
	*lifecycle.Loop
	next     http.Handler
	spread   time.Duration
	stopping chan struct{}

	mu      sync.Mutex
	running sync.WaitGroup
	closed  bool
}

// NewStreams makes one around next.
func NewStreams(next http.Handler, spread time.Duration) *Streams {
	s := &Streams{next: next, spread: spread, stopping: make(chan struct{})}
	s.Loop = lifecycle.NewLoop("streams", func(take, work context.Context) error {
		<-take.Done()
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		close(s.stopping)
		ended := make(chan struct{})
		go func() { defer close(ended); s.running.Wait() }()
		select {
		case <-ended:
		case <-work.Done(): // what is left ends with the server
		}
		return nil
	})
	return s
}

// ServeHTTP serves one stream until it or the process ends.
func (s *Streams) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.enter() {
		w.Header().Set("Connection", "close")
		w.Header().Set("Retry-After", "1")
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
		return
	}
	defer s.running.Done()
	ctx, cancel := context.WithCancel(r.Context())
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel()
		select {
		case <-done:
			return
		case <-s.stopping:
		}
		select {
		case <-done:
		case <-time.After(rand.N(s.spread + 1)): //nolint:gosec // spreads load
		}
	}()
	defer func() { close(done); <-ended }()
	s.next.ServeHTTP(w, r.WithContext(ctx))
}

func (s *Streams) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.running.Add(1)
	}
	return !s.closed
}

package rest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/lifecycle"
)

// Streams ends the requests that do not end by themselves: at random over a while, so that their
// clients do not all come back at once. It is a handler and, for the process, a component that stops
// before the HTTP server.
type Streams struct {
	*lifecycle.Loop
	next     http.Handler
	problems *problems
	spread   time.Duration
	stopping chan struct{}

	mu      sync.Mutex
	running sync.WaitGroup
	closed  bool
}

// NewStreams makes one around next.
func NewStreams(next http.Handler, spread time.Duration, log *slog.Logger) *Streams {
	s := &Streams{next: next, problems: &problems{log: log}, spread: spread, stopping: make(chan struct{})}
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
		s.refuse(w, r)
		return
	}
	defer s.running.Done()
	ctx, cancel := context.WithCancelCause(r.Context())
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel(errEnded)
		select {
		case <-done:
			return
		case <-s.stopping:
		}
		select {
		case <-done:
		case <-time.After(rand.N(s.spread + 1)):
		}
	}()
	defer func() { close(done); <-ended }()
	s.next.ServeHTTP(w, r.WithContext(ctx))
}

// refuse sends the client to another replica. EventSource takes any status but 200 as final, so a
// browser gets an empty stream that says when to come back.
func (s *Streams) refuse(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	if r.Header.Get("Sec-Fetch-Mode") != "" {
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store, no-transform")
		w.WriteHeader(http.StatusOK)
		_, _ = fmt.Fprintf(w, "retry: %d\n\n", (drainRetry + rand.N(drainRetry)).Milliseconds())
		return
	}
	s.problems.write(w, r, errs.New(errs.Unavailable, "SHUTTING_DOWN", "this replica stops; connect again").WithRetryAfter(drainRetry))
}

// drainRetry is after how long a client that met a stopping replica comes back, at least.
const drainRetry = time.Second

// endsCleanly gives the body of a stream that we end as ended, not as broken off: a client in the
// middle of chunked encoding would take the latter for an error.
type endsCleanly struct {
	io.ReadCloser
	ctx context.Context
}

func (b endsCleanly) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && errors.Is(context.Cause(b.ctx), errEnded) {
		err = io.EOF
	}
	return n, err
}

// errEnded is why a stream's context ends when we end it.
var errEnded = errors.New("the process stops")

func (s *Streams) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.running.Add(1)
	}
	return !s.closed
}

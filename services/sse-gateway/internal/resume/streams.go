package resume

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/services/sse-gateway/internal/hub"
)

// Streams serves the streams of all transports: it opens, runs, counts and drains them.
type Streams struct {
	Hub    *hub.Hub
	Reader Reader
	// Heartbeat is the interval of heartbeats.
	Heartbeat time.Duration
	// DrainOver is how long the streams take to end once the process stops.
	DrainOver time.Duration
	// CutAfter is for how long after that a write, or a stream's beginning, is waited for: a client that does not
	// read, or a log that does not answer, must not take the grace time of all.
	CutAfter time.Duration
	// Stats counts; all zero at first.
	Stats Stats

	mu      sync.Mutex
	open    int
	ends    *ends // made at the first need
	drained bool
	empty   chan struct{} // non-nil while draining waits for the last stream
}

// ends are how the process's streams come to theirs.
type ends struct {
	drain  chan struct{}   // closed when draining begins
	cut    context.Context // done when nothing is waited for any more
	cutNow context.CancelFunc
}

// Stats are counters since the start, but for Open.
type Stats struct {
	// Open streams now.
	Open atomic.Int64
	// Delivered events; Slow streams that were cut off; Resets sent.
	Delivered, Slow, Resets atomic.Int64
	// Resumes served from each source; one resume may need several.
	Ring, Redis, Log atomic.Int64
}

// Request is what a client asks for.
type Request struct {
	Org int64
	Who hub.Identity
	// Expires ends the stream.
	Expires time.Time
	Filter  hub.Filter
	// Last is the position to resume after; nil begins with what comes next.
	Last *int64
}

// openTimeout bounds the wait for a stream's beginning: Redis and the log may both be away.
const openTimeout = 10 * time.Second

const retryAfter = 5 * time.Second

// Serve runs one stream. accept is called when it can begin, and gives where to write: a Sink whose writes end with
// ErrDrained at the latest when cut does. Errors before are *errs.Error for the client, accepted tells them from the
// reason of a later end (see Run).
func (s *Streams) Serve(ctx context.Context, r Request, accept func(cut context.Context) Sink) (accepted bool, err error) {
	ends, ok := s.enter()
	if !ok {
		return false, errStopping()
	}
	defer s.leave()
	opening, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	defer context.AfterFunc(ends.cut, cancel)()
	sub, err := s.Hub.Attach(opening, r.Org, r.Who, r.Filter)
	if err != nil {
		return false, ends.reason(err)
	}
	defer sub.Close()
	session, err := Open(opening, sub, s.Reader, r.Last, s.count)
	if err != nil {
		return false, ends.reason(err)
	}
	defer session.Close()
	s.Stats.Open.Add(1)
	defer s.Stats.Open.Add(-1)
	err = Run(ctx, session, counting{accept(ends.cut), &s.Stats}, Terms{Heartbeat: s.Heartbeat, Expires: r.Expires, Drain: ends.drain, DrainOver: s.DrainOver})
	if errors.Is(err, ErrSlow) || errors.Is(err, ErrStalled) {
		s.Stats.Slow.Add(1)
	}
	return true, err
}

// ErrStalled is what a Sink gives when a write took longer than it may.
var ErrStalled = errors.New("resume: the client does not read")

func (s *Streams) count(source string) {
	switch source {
	case SourceRing:
		s.Stats.Ring.Add(1)
	case "redis":
		s.Stats.Redis.Add(1)
	default:
		s.Stats.Log.Add(1)
	}
}

type counting struct {
	Sink
	stats *Stats
}

// Send counts what was written.
func (c counting) Send(frames []hub.Frame) error {
	err := c.Sink.Send(frames)
	if err == nil {
		c.stats.Delivered.Add(int64(len(frames)))
	}
	return err
}

// Reset counts.
func (c counting) Reset(first int64) error {
	c.stats.Resets.Add(1)
	return c.Sink.Reset(first)
}

func errStopping() *errs.Error {
	return errs.New(errs.Unavailable, "SHUTTING_DOWN", "this replica stops; connect again").WithRetryAfter(retryAfter)
}

// reason is why a stream could not begin.
func (e *ends) reason(err error) error {
	if e.cut.Err() != nil {
		return errStopping().WithCause(err)
	}
	return err
}

// both gives the ends; the caller holds mu.
func (s *Streams) both() *ends {
	if s.ends == nil {
		s.ends = &ends{drain: make(chan struct{})}
		s.ends.cut, s.ends.cutNow = context.WithCancel(context.Background())
	}
	return s.ends
}

func (s *Streams) enter() (*ends, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drained {
		return nil, false
	}
	s.open++
	return s.both(), true
}

func (s *Streams) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open--; s.open == 0 && s.empty != nil {
		close(s.empty)
		s.empty = nil
	}
}

// Drain waits until take ends, then refuses new streams, ends the open ones over DrainOver, cuts off after CutAfter
// what then still waits, and waits for them, or for work's end. It is a lifecycle.RunFunc.
func (s *Streams) Drain(take, work context.Context) error {
	<-take.Done()
	s.mu.Lock()
	ends := s.both()
	s.drained = true
	close(ends.drain)
	if s.open == 0 {
		s.mu.Unlock()
		ends.cutNow()
		return nil
	}
	empty := make(chan struct{})
	s.empty = empty
	s.mu.Unlock()
	cut := time.AfterFunc(s.DrainOver+s.CutAfter, ends.cutNow)
	defer cut.Stop()
	select {
	case <-empty:
	case <-work.Done():
		ends.cutNow()
	}
	return nil
}

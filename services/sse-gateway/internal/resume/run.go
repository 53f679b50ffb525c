package resume

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/sametick/sametick/services/sse-gateway/internal/hub"
)

// Sink writes to the client. Each call is one write; an error ends the stream.
type Sink interface {
	// Begin comes first: the position that the stream continues after.
	Begin(position int64) error
	// Reset: events are missing before first.
	Reset(first int64) error
	// Send writes frames; the slice is reused after it.
	Send(frames []hub.Frame) error
	// Heartbeat; moved tells that position is newer than what the client knows.
	Heartbeat(position int64, moved bool) error
}

// Terms are how long a stream may last.
type Terms struct {
	// Heartbeat is the interval.
	Heartbeat time.Duration
	// Expires ends the stream.
	Expires time.Time
	// Drain, when closed, ends the stream within DrainOver, at a random moment: clients that reconnect
	// all at once would fall on the next replica together.
	Drain     <-chan struct{}
	DrainOver time.Duration
}

// The ends of a stream that Run returns, beside the sink's error, ErrSlow, hub.ErrRevoked and the
// reader's error.
var (
	ErrExpired = errors.New("resume: the token expired")
	ErrDrained = errors.New("resume: the process stops")
)

// Run serves a session until it ends, and gives the reason; ctx's error when the client went away.
func Run(ctx context.Context, s *Session, sink Sink, t Terms) error {
	r := runner{s: s, sink: sink, known: s.Position()}
	if err := sink.Begin(r.known); err != nil {
		return err
	}
	expiry := time.NewTimer(time.Until(t.Expires))
	defer expiry.Stop()
	beat := time.NewTicker(t.Heartbeat)
	defer beat.Stop()
	closed := make(chan struct{})
	close(closed)
	drain := t.Drain
	var drained <-chan time.Time
	for {
		wait, err := r.step(ctx)
		if err != nil {
			return err
		}
		if wait == nil { // there is more: look at the rest without waiting
			wait = closed
		}
		// Whichever is ready; traffic must starve neither the heartbeat nor the end.
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-expiry.C:
			return ErrExpired
		case <-drain:
			drain = nil
			timer := time.NewTimer(rand.N(max(t.DrainOver, 1)))
			defer timer.Stop()
			drained = timer.C
		case <-drained:
			return ErrDrained
		case <-beat.C:
			if err := r.heartbeat(); err != nil {
				return err
			}
		case <-wait:
		}
	}
}

type runner struct {
	s      *Session
	sink   Sink
	frames []hub.Frame
	known  int64 // the position the client knows
}

func (r *runner) step(ctx context.Context) (<-chan struct{}, error) {
	step, err := r.s.Next(ctx, r.frames)
	if err != nil {
		return nil, err
	}
	r.frames = step.Frames
	if step.Reset != 0 {
		if err := r.sink.Reset(step.Reset); err != nil {
			return nil, err
		}
		r.known = step.Reset - 1
	}
	if n := len(step.Frames); n > 0 {
		if err := r.sink.Send(step.Frames); err != nil {
			return nil, err
		}
		r.known = step.Frames[n-1].Position
		clear(step.Frames) // the ring's chunks may go
	}
	return step.Wait, nil
}

// heartbeat comes between two steps: all events up to the session's position have been sent.
func (r *runner) heartbeat() error {
	position := r.s.Position()
	err := r.sink.Heartbeat(position, position != r.known)
	r.known = position
	return err
}

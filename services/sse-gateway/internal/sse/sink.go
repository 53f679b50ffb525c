package sse

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/sametick/sametick/services/sse-gateway/internal/hub"
	"github.com/sametick/sametick/services/sse-gateway/internal/resume"
)

// sink writes the event stream format (WHATWG HTML, section 9.2.5).
type sink struct {
	w       http.ResponseWriter
	rc      *http.ResponseController
	timeout time.Duration
	retry   time.Duration
	cut     context.Context // see resume.Streams.Serve
	buf     []byte
}

// watch ends the write in hand when cut does, until stop, which a handler calls before it returns: a response writer
// of HTTP/2 may not be touched after.
func (s *sink) watch() (stop func()) {
	done := make(chan struct{})
	unwatch := context.AfterFunc(s.cut, func() {
		defer close(done)
		_ = s.rc.SetWriteDeadline(time.Unix(0, 0))
	})
	return func() {
		if !unwatch() {
			<-done
		}
	}
}

// retryField tells the client when to reconnect: jittered by half, so that those who lost the same
// server do not return together.
func retryField(b []byte, base time.Duration) []byte {
	ms := base.Milliseconds()
	b = append(b, "retry: "...)
	b = strconv.AppendInt(b, ms+rand.Int64N(ms/2+1), 10)
	return append(b, '\n')
}

func idField(b []byte, position int64) []byte {
	b = append(b, "id: "...)
	b = strconv.AppendInt(b, position, 10)
	return append(b, '\n')
}

// Begin tells the position, so that a client which loses the stream before its first event misses
// nothing either.
func (s *sink) Begin(position int64) error {
	s.buf = append(idField(retryField(s.buf[:0], s.retry), position), '\n')
	return s.write()
}

// Reset is an event of its own name: onmessage does not see it, a listener for "reset" does.
func (s *sink) Reset(first int64) error {
	s.buf = append(idField(s.buf[:0], first-1), fmt.Sprintf("event: reset\ndata: {\"first_position\":%d}\n\n", first)...)
	return s.write()
}

// pieceBytes is the most that one deadline is for: a client that reads steadily is not slow because a
// page or an event is large.
const pieceBytes = 64 << 10

// Send writes the frames in as few pieces as may be.
func (s *sink) Send(frames []hub.Frame) error {
	s.buf = s.buf[:0]
	for _, f := range frames {
		for rest := f.Bytes; len(rest) > 0; {
			n := min(len(rest), pieceBytes-len(s.buf))
			s.buf = append(s.buf, rest[:n]...)
			rest = rest[n:]
			if len(s.buf) < pieceBytes {
				continue
			}
			if err := s.write(); err != nil {
				return err
			}
			s.buf = s.buf[:0]
		}
	}
	var err error
	if len(s.buf) > 0 {
		err = s.write()
	}
	if cap(s.buf) > keepBuffer {
		s.buf = nil
	}
	return err
}

// keepBuffer is how much an idle connection may hold on to.
const keepBuffer = 4 << 10

// Heartbeat is a comment, and where filtered-out events have moved the position, an id.
func (s *sink) Heartbeat(position int64, moved bool) error {
	s.buf = append(s.buf[:0], ": heartbeat\n"...)
	if moved {
		s.buf = idField(s.buf, position)
	}
	s.buf = append(s.buf, '\n')
	return s.write()
}

func (s *sink) write() error {
	// HTTP/2 resets a stream whose deadline passes, also while nothing is written: hence the second call.
	if err := s.rc.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
		return fmt.Errorf("write deadline: %w", err)
	}
	if s.cut.Err() != nil { // asked after the deadline was set: watch came before it, or comes after
		return resume.ErrDrained
	}
	_, err := s.w.Write(s.buf)
	if err == nil {
		err = s.rc.Flush()
	}
	if err != nil && s.cut.Err() != nil {
		return fmt.Errorf("%w: %w", resume.ErrDrained, err)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: %w", resume.ErrStalled, err)
	}
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return s.rc.SetWriteDeadline(time.Time{})
}

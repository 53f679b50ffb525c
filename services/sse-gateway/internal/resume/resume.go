// Package resume carries a stream from any position, of any age, to the live tail without a hole and
// without a repeat: the ring if it is complete from there, else Redis or Postgres page by page until
// it is. It knows no transport.
//
// All three speak of the same positions, which makes the hand-over one rule: a session is a position
// P, everything up to which has been sent; whoever can say what follows P without a hole goes next.
// The ring can when P is not before its base, and it is asked again before each page. It was opened
// before the first page was read, so nothing falls between; and if traffic pushes it past P during
// the replay, another page follows. Only a session that has been live is cut off when it falls
// behind: its client is slow.
package resume

import (
	"context"
	"errors"
	"fmt"

	"github.com/sametick/sametick/services/sse-gateway/internal/hub"
)

// Page is a stretch of a shard: every event of the organisation asked for in (after, Through].
type Page struct {
	Entries []hub.Entry
	Through int64
	// Head is the newest position when the page is empty, else it may be 0.
	Head int64
	// Source is who had it: "redis" or "log".
	Source string
}

// Reader reads what is older than the ring.
type Reader interface {
	// Read gives what follows a position; it errs with *TrimmedError.
	Read(ctx context.Context, org, after int64) (Page, error)
}

// TrimmedError says that retention has dropped what follows the position; First is the oldest kept.
type TrimmedError struct{ First int64 }

// Error says so.
func (e *TrimmedError) Error() string {
	return fmt.Sprintf("resume: the oldest position kept is %d", e.First)
}

// ErrSlow means that the session was live and the ring has moved past it.
var ErrSlow = errors.New("resume: the client is too slow")

// SourceRing names the ring for counting; Page.Source has the other names.
const SourceRing = "ring"

// Session is one stream. For one goroutine.
type Session struct {
	sub    *hub.Sub
	reader Reader
	used   func(source string)
	live   bool
	reset  int64
	page   Page // what has been read and not sent yet
	// reading is the page on its way, nil when none is asked for.
	reading *reading
	last    string
}

// reading is a page that is read beside the stream: it may take as long as Redis and the log are waited for, and
// neither a heartbeat nor the end of the stream waits with it.
type reading struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when the rest is set
	page   Page
	err    error
}

// maxBytes is about how much goes out in one step, between two of which a stream can end: a client that takes
// 4 KiB/s keeps a stopping process for 8 s.
const maxBytes = 32 << 10

// Open begins a session, which the caller closes, on a subscription: with what comes next, or, when last is given, after that
// position. used, if set, is told each source that a resume is served from. Its error is the
// reader's.
//
// A position that nobody can continue is answered by a reset (see Step): one that retention has
// dropped continues with the oldest event kept; one beyond the newest, which belongs to another
// history (a database restored from a backup), continues with what comes next. An error would be
// final for a browser, which sends the same position for ever.
func Open(ctx context.Context, sub *hub.Sub, reader Reader, last *int64, used func(string)) (*Session, error) {
	s := &Session{sub: sub, reader: reader, used: used, live: last == nil}
	if last == nil {
		return s, nil
	}
	newest := sub.Newest()
	sub.MoveTo(*last)
	if sub.Covered() && *last <= newest {
		s.use(SourceRing)
		return s, nil
	}
	page, err := reader.Read(ctx, sub.Org(), *last)
	var trimmed *TrimmedError
	switch {
	case errors.As(err, &trimmed):
		sub.MoveTo(trimmed.First - 1)
		if *last > 0 { // 0 asks for all that is kept, and gets it
			s.reset = trimmed.First
		}
		return s, nil
	case err != nil:
		return nil, err
	case len(page.Entries) == 0 && page.Through <= *last && page.Head < *last:
		// The ring begins at the newest position the hub has; what came since is in it.
		sub.MoveTo(max(page.Head, newest))
		s.reset = sub.Position() + 1
		return s, nil
	}
	s.page = page
	return s, nil
}

// Step is what to send next, in this order.
type Step struct {
	// Reset, if not 0, tells the client that events are missing before this position.
	Reset int64
	// Frames are the next events.
	Frames []hub.Frame
	// Wait, if not nil, is closed when there may be more; else there is more already.
	Wait <-chan struct{}
}

// Close ends what a session has asked for and waits for it.
func (s *Session) Close() {
	if s.reading != nil {
		s.reading.cancel()
		<-s.reading.done
		s.reading = nil
	}
}

// Position is where it is: everything up to it has been given out.
func (s *Session) Position() int64 { return s.sub.Position() }

// Next gives the next step without waiting for events or pages, which are read under ctx; reuse is overwritten. It
// errs with ErrSlow, hub.ErrRevoked and the reader's error.
func (s *Session) Next(ctx context.Context, reuse []hub.Frame) (Step, error) {
	step := Step{Reset: s.reset, Frames: reuse[:0]}
	s.reset = 0
	if s.page.Through > s.Position() {
		s.send(&step, s.page)
		return step, nil
	}
	if s.reading != nil {
		return s.replay(ctx, step)
	}
	changed := s.sub.Changed()
	frames, more, err := s.sub.Take(step.Frames, maxBytes)
	switch {
	case err == nil:
		s.live = true
		step.Frames = frames
		if !more {
			step.Wait = changed
		}
		return step, nil
	case errors.Is(err, hub.ErrRevoked):
		return step, err
	case s.live:
		return step, ErrSlow
	}
	return s.replay(ctx, step)
}

// replay is the step of a session that the ring does not reach back to: the next page, or the wait for it.
func (s *Session) replay(ctx context.Context, step Step) (Step, error) {
	if s.reading == nil {
		s.read(ctx)
	}
	select {
	case <-s.reading.done:
	default:
		step.Wait = s.reading.done
		return step, nil
	}
	page, err := s.reading.page, s.reading.err
	s.Close()
	var trimmed *TrimmedError
	if errors.As(err, &trimmed) { // retention overtook the replay
		s.sub.MoveTo(trimmed.First - 1)
		step.Reset = trimmed.First
		return step, nil
	}
	if err != nil {
		return step, err
	}
	if page.Through <= s.Position() {
		// The hub has gone on to where the log has not: only a reader behind the hub answers so.
		return step, fmt.Errorf("resume: nothing after %d, where the hub is at %d", s.Position(), s.sub.Newest())
	}
	s.send(&step, page)
	return step, nil
}

// read asks for the next page.
func (s *Session) read(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	r := &reading{cancel: cancel, done: make(chan struct{})}
	org, after := s.sub.Org(), s.Position()
	go func() {
		defer close(r.done)
		r.page, r.err = s.reader.Read(ctx, org, after)
	}()
	s.reading = r
}

// send gives out a page, or of a large one the beginning.
func (s *Session) send(step *Step, page Page) {
	s.use(page.Source)
	f := s.sub.Filter()
	bytes := 0
	for i := range page.Entries {
		e := &page.Entries[i]
		if e.OrgID != s.sub.Org() || !f.Match(e.EventType, e.AggregateType, e.AggregateID) {
			continue
		}
		if bytes >= maxBytes {
			s.page = page
			s.page.Entries = page.Entries[i:]
			return
		}
		frame := hub.Frame{Position: e.Position, Bytes: hub.AppendFrame(nil, e.Position, e.Envelope)}
		step.Frames = append(step.Frames, frame)
		s.sub.MoveTo(e.Position)
		bytes += len(frame.Bytes)
	}
	s.sub.MoveTo(page.Through)
	s.page = Page{}
}

func (s *Session) use(source string) {
	if s.used != nil && source != s.last {
		s.used(source)
	}
	s.last = source
}

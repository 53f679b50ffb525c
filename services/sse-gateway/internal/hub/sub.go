package hub

import (
	"errors"
	"sync"
)

// ErrOverrun means that the ring has moved past the subscription's position. What it missed is no longer here.
var ErrOverrun = errors.New("hub: the subscription fell off the ring")

// Sub is one subscription: a position in its organisation's ring and a filter. For one goroutine.
type Sub struct {
	hub      *Hub
	shard    *shard
	ring     *ring
	org      int64
	who      Identity
	filter   Filter
	position int64
	// looked is up to which of the ring's revocations it has looked.
	looked  int64
	closing sync.Once
}

// Org is whose events these are.
func (s *Sub) Org() int64 { return s.org }

// Filter is what passes.
func (s *Sub) Filter() *Filter { return &s.filter }

// Position is where it is: every event up to it that passes has been taken.
func (s *Sub) Position() int64 { return s.position }

// MoveTo moves the subscription to a position: the events after it come next.
func (s *Sub) MoveTo(position int64) { s.position = position }

// Newest is the newest position that the hub has.
func (s *Sub) Newest() int64 { return s.shard.through.Load() }

// Covered tells whether the ring has everything after the subscription's position.
func (s *Sub) Covered() bool { return s.ring.covers(s.position) }

// Changed is closed when frames come that were not there at the call. Call it before Take and wait
// on it after, so that none is missed.
func (s *Sub) Changed() <-chan struct{} { return s.ring.wait() }

// Take appends the frames that are pending, about maxBytes at most, and moves the position past them
// and past what the filter held back. more tells that it stopped at maxBytes. It errs with ErrOverrun,
// and with ErrRevoked when the token has been.
func (s *Sub) Take(dst []Frame, maxBytes int) (_ []Frame, more bool, err error) {
	if n := s.ring.revocations.Load(); n != s.looked {
		s.looked = n
		if s.hub.revoked.has(s.org, s.who) {
			return dst, false, ErrRevoked
		}
	}
	// Before the ring is read: what the ring lacks up to here does not exist.
	newest := s.Newest()
	dst, through, more, ok := s.ring.take(dst, s.position, &s.filter, maxBytes)
	if !ok {
		return dst, false, ErrOverrun
	}
	s.position = through
	if !more {
		s.position = max(through, newest)
	}
	return dst, more, nil
}

// Close ends the subscription; a second call does nothing.
func (s *Sub) Close() {
	s.closing.Do(func() {
		s.shard.release(s.org, s.ring)
		s.hub.limits.give(s.org, s.who.Subject)
	})
}

// Package hub is the live half of the event streams, free of any transport: the events of the shards
// that have clients come in once, are framed once into a ring of their organisation, and every
// connection is a position in that ring with a filter. A connection has no queue: how slow it is
// costs nobody anything, until the ring has moved past it and it must go.
//
// What lies before the ring is internal/resume's; where events come from, internal/feed's.
package hub

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
)

// Options of New.
type Options struct {
	// RingBytes bounds what an organisation's ring holds (it keeps one event at least).
	RingBytes int
	// MaxPerOrg and MaxPerToken bound the open streams of an organisation and of a token's subject.
	MaxPerOrg, MaxPerToken int
}

// Hub spreads events to subscriptions. Safe for concurrent use.
type Hub struct {
	o         Options
	shards    [event.Shards]shard
	wanted    chan struct{}
	ringBytes atomic.Int64
	limits    limits
	revoked   revocations
}

// shard is one shard's clients. through is stored after the rings have everything up to it.
type shard struct {
	through atomic.Int64

	mu      sync.Mutex
	rings   map[int64]*ring
	users   int
	idle    time.Time     // since when there are none
	started bool          // through means something
	ready   chan struct{} // closed when started
}

// New makes a hub without subscriptions.
func New(o Options) *Hub {
	h := &Hub{o: o, wanted: make(chan struct{}, 1), limits: limits{count: map[limitKey]int{}},
		revoked: revocations{known: map[revocationMark]revoked{}}}
	for i := range h.shards {
		h.shards[i].rings, h.shards[i].ready = map[int64]*ring{}, make(chan struct{})
	}
	return h
}

// Wanted signals that Starting may have something.
func (h *Hub) Wanted() <-chan struct{} { return h.wanted }

// Starting gives the shards that have clients and are not followed: Begin is due for each.
func (h *Hub) Starting() []int {
	var out []int
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		if s.users > 0 && !s.started {
			out = append(out, i)
		}
		s.mu.Unlock()
	}
	return out
}

// Begin says that a shard is followed from what comes after a position.
func (h *Hub) Begin(shard int, position int64) {
	s := &h.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		s.through.Store(position)
		s.started = true
		close(s.ready)
	}
}

// Idle gives the shards that had no client for a while, and forgets where they are: they need be
// followed no more.
func (h *Hub) Idle(after time.Duration) []int {
	var out []int
	for i := range h.shards {
		s := &h.shards[i]
		s.mu.Lock()
		if s.started && s.users == 0 && time.Since(s.idle) >= after {
			s.started, s.ready = false, make(chan struct{})
			out = append(out, i)
		}
		s.mu.Unlock()
	}
	return out
}

// Publish takes the stretch (after, through] of a shard. An event that revokes tokens ends their streams, and
// keeps them from coming back. Positions the hub has already are passed
// over; a stretch that begins beyond them is a break (see Break).
func (h *Hub) Publish(shard int, after, through int64, list []Entry) {
	s := &h.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		return
	}
	at := s.through.Load()
	if after > at {
		s.breakAt(after)
		at = after
	}
	byRing := map[*ring][]Entry{}
	for _, e := range list {
		if e.Position <= at {
			continue
		}
		r := s.rings[e.OrgID]
		if taken, ok := revokes(&e); ok {
			h.revoked.add(taken, time.Now())
			if r != nil {
				r.revocations.Add(1) // before the frames wake the subscriptions
			}
		}
		if r != nil {
			byRing[r] = append(byRing[r], e)
		}
	}
	for r, own := range byRing {
		r.add(own)
	}
	s.through.Store(max(at, through))
}

// Break says that events up to a position were lost to the hub, because retention overtook it: every
// subscription of the shard that is behind falls off its ring, and resumes by position.
func (h *Hub) Break(shard int, position int64) {
	s := &h.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started {
		s.breakAt(position)
	}
}

// Rewind says that a shard's history now ends at a position before what was published: an older state was
// restored. Every subscription of the shard falls off, since the positions to come are not those its
// client has seen; a client that resumes beyond the end is told by a reset.
func (h *Hub) Rewind(shard int, position int64) {
	s := &h.shards[shard]
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.started {
		return
	}
	for _, r := range s.rings {
		r.reset(math.MaxInt64)
	}
	clear(s.rings)
	s.through.Store(position)
}

func (s *shard) breakAt(position int64) {
	for _, r := range s.rings {
		r.reset(position)
	}
	s.through.Store(max(s.through.Load(), position))
}

// RingBytes is what all rings hold.
func (h *Hub) RingBytes() int64 { return h.ringBytes.Load() }

// Attach opens a subscription at the newest position known. It waits, while ctx lasts, until the
// shard is followed. It errs with ResourceExhausted when a limit is reached, and with ErrRevoked.
func (h *Hub) Attach(ctx context.Context, org int64, who Identity, f Filter) (*Sub, error) {
	if err := h.limits.take(h.o, org, who.Subject); err != nil {
		return nil, err
	}
	s := &h.shards[event.ShardOf(org)]
	s.mu.Lock()
	s.users++
	ready, started := s.ready, s.started
	s.mu.Unlock()
	sub := &Sub{hub: h, shard: s, org: org, who: who, filter: f}
	if !started {
		select {
		case h.wanted <- struct{}{}:
		default:
		}
		select {
		case <-ready:
		case <-ctx.Done():
			sub.Close()
			return nil, errs.New(errs.Unavailable, "STREAM_UNAVAILABLE", "the event stream is temporarily unavailable").
				WithRetryAfter(retryAfter).WithCause(ctx.Err())
		}
	}
	if !h.enter(sub) {
		sub.Close()
		return nil, ErrRevoked
	}
	return sub, nil
}

// enter puts a subscription on its organisation's ring, unless its token is revoked: under the lock that
// Publish holds, so that a revocation comes before and is seen, or after and finds the ring.
func (h *Hub) enter(sub *Sub) bool {
	s := sub.shard
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.revoked.has(sub.org, sub.who) {
		return false
	}
	sub.ring = s.rings[sub.org]
	if sub.ring == nil {
		sub.ring = newRing(s.through.Load(), h.o.RingBytes, &h.ringBytes)
		s.rings[sub.org] = sub.ring
	}
	sub.ring.users++
	sub.position, sub.looked = s.through.Load(), sub.ring.revocations.Load()
	return true
}

func (s *shard) release(org int64, r *ring) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.users--; s.users == 0 {
		s.idle = time.Now()
	}
	if r == nil {
		return
	}
	if r.users--; r.users == 0 {
		if s.rings[org] == r { // not after a Rewind
			delete(s.rings, org)
		}
		r.reset(0)
	}
}

const retryAfter = 5 * time.Second

// limits counts open streams.
type limits struct {
	mu    sync.Mutex
	count map[limitKey]int
}

// limitKey is an organisation, or (with a subject) a token's subject in it: by subject, because a
// client that takes a new token for each connection must not escape the limit.
type limitKey struct {
	org     int64
	subject string
}

func (l *limits) take(o Options, org int64, subject string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	full := func(reason, text string) error {
		return errs.New(errs.ResourceExhausted, reason, text).WithRetryAfter(retryAfter)
	}
	if l.count[limitKey{org, ""}] >= o.MaxPerOrg {
		return full("TOO_MANY_STREAMS_OF_ORG", "the organisation has too many open streams")
	}
	if l.count[limitKey{org, subject}] >= o.MaxPerToken {
		return full("TOO_MANY_STREAMS_OF_TOKEN", "this token has too many open streams")
	}
	l.count[limitKey{org, ""}]++
	l.count[limitKey{org, subject}]++
	return nil
}

func (l *limits) give(org int64, subject string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, k := range []limitKey{{org, ""}, {org, subject}} {
		if l.count[k]--; l.count[k] <= 0 {
			delete(l.count, k)
		}
	}
}

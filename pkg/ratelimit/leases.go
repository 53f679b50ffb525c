package ratelimit

import (
	"context"
	"math"
	"sync"
	"time"
)

const (
	// LeaseTime is how long tokens are held in memory. They lapse then, to their caller's loss.
	LeaseTime = 100 * time.Millisecond
	// maxHolders bounds the memory of Leases; when it is full it starts again empty.
	maxHolders = 10_000
)

// Leases are a Limiter that asks Redis less often: while all budgets of a call have a quarter left, one trip takes
// tokens for the calls that follow, at most as many as the caller used in the last 100 ms and a hundredth of the
// smallest Burst. Below that every call asks. Safe for concurrent use.
//
// A call passes with a token that was taken at most LeaseTime before. So over any number of replicas no more
// than Burst + Rate·(T + LeaseTime) calls of a budget pass within a time T, and what may pass beyond Burst + Rate·T is
// what they held when it began: a hundredth of Burst for each caller and replica. The latter but for a
// moment when maxHolders is reached, the former always. What lapses unused is no more than that in each LeaseTime.
type Leases struct {
	limiter *Limiter
	now     func() time.Time

	mu      sync.Mutex
	holders map[string]*holder
}

// holder is what is held for calls of the same budgets.
type holder struct {
	tokens int
	until  time.Time
	result Result // of the trip that took the tokens
	// asking is closed when the call that asks for more tokens has an answer; nil when none does.
	asking chan struct{}
	// near: the last that asked for more got one token or none.
	near bool
	// recent calls came since a moment of the last LeaseTime, and before in a LeaseTime before that.
	recent, before int
	since          time.Time
}

// NewLeases holds tokens of a limiter. now is time.Now but in tests.
func NewLeases(l *Limiter, now func() time.Time) *Leases {
	return &Leases{limiter: l, now: now, holders: map[string]*holder{}}
}

// Allow is Limiter.Allow of one token. The last budget that has a limit names the caller. Remaining counts what is
// held here, and RetryAfter is exact; ResetAfter was so at the last trip. A call may wait for another's trip
// before it makes its own.
func (l *Leases) Allow(ctx context.Context, budgets ...Budget) (Result, error) {
	budgets, err := limited(1, budgets)
	if err != nil || len(budgets) == 0 {
		return Result{Allowed: err == nil}, err
	}
	most := math.MaxInt
	for _, b := range budgets {
		most = min(most, b.Burst/100)
	}
	h := l.arrive(budgets[len(budgets)-1].Key)
	next := l.next(h, most)
	if next.wait != nil {
		select {
		case <-next.wait:
		case <-ctx.Done():
			return Result{}, ctx.Err()
		}
		next = l.next(h, most)
	}
	switch {
	case next.got.Allowed:
		return next.got, nil
	case next.leads:
		return l.lead(ctx, h, next.more, budgets)
	default:
		got, _, err := l.limiter.take(ctx, 1, 0, budgets)
		return got, err
	}
}

// arrive counts a call.
func (l *Leases) arrive(key string) *holder {
	l.mu.Lock()
	defer l.mu.Unlock()
	h, ok := l.holders[key]
	if !ok {
		if len(l.holders) >= maxHolders {
			clear(l.holders)
		}
		h = &holder{}
		l.holders[key] = h
	}
	h.count(l.now())
	return h
}

// step is what a call does: it passes with got, asks for more than its own, waits for who does, or asks for itself.
type step struct {
	got   Result
	leads bool
	more  int
	wait  <-chan struct{}
}

func (l *Leases) next(h *holder, most int) (s step) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h.tokens > 0 && l.now().Before(h.until) {
		h.tokens--
		s.got = h.result
		s.got.Remaining += h.tokens
		return s
	}
	if h.asking != nil {
		if !h.near {
			s.wait = h.asking
		}
		return s
	}
	if s.more = min(most, max(h.recent-1, h.before)); s.more > 0 {
		s.leads, h.asking = true, make(chan struct{})
	}
	return s
}

// lead asks for a token and, if there is plenty, for more, which calls that come meanwhile wait for.
func (l *Leases) lead(ctx context.Context, h *holder, more int, budgets []Budget) (got Result, err error) {
	begin, took := l.now(), 0
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		close(h.asking)
		h.asking = nil
		if h.near = err == nil && took <= 1; took > 1 {
			// Counted from before the trip, so that no token lives longer.
			h.tokens, h.until, h.result = took-1, begin.Add(LeaseTime), got
			got.Remaining += h.tokens
		}
	}()
	got, took, err = l.limiter.take(ctx, 1, more, budgets)
	return got, err
}

func (h *holder) count(now time.Time) {
	if age := now.Sub(h.since); age >= LeaseTime {
		h.before = 0
		if age < 2*LeaseTime {
			h.before = h.recent
		}
		h.recent, h.since = 0, now
	}
	h.recent++
}

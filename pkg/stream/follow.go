package stream

import (
	"context"
	"errors"
	"sync"
	"time"
)

// Batch is what a Follower gives: the next stretch of one shard.
type Batch struct {
	Shard int
	// Entries have positions in (After, Through]; there may be none, when positions do not exist.
	Entries []Entry
	// After is where the stretch begins, the Through of the shard's batch before.
	After, Through int64
	// Origin tells where it came from.
	Origin Origin
}

// Follower follows a changing set of shards, with one Redis connection for all of them. Next and
// Close are for one goroutine, Follow and Drop for any.
type Follower struct {
	s       *Source
	changed chan struct{}

	mu      sync.Mutex
	changes []change

	// The rest belongs to the goroutine that calls Next. Reads run beside it, because neither a
	// frozen Redis nor a slow log may hold up what the other one has; they report to results.
	places   map[int]*place
	results  chan result
	running  int
	asking   context.CancelFunc // ends the wait on Redis; nil when none is running
	failures int                // of Redis, in a row
	retryAt  time.Time          // when Redis is tried again
	base     context.Context
	end      context.CancelFunc
}

type change struct {
	shard int
	after int64
	drop  bool
}

// place is where the reader is in one shard.
type place struct {
	position int64
	// hole: Redis has gone past position+1, so only the log can tell what comes.
	hole bool
	// logAt is when the log is asked next; reading while it is being asked.
	logAt   time.Time
	reading bool
	// stuck counts the log's answers in a row that moved nothing, errors too; behind those that knew
	// less than the reader had been given.
	stuck, behind int
}

// result is what a read beside Next came back with: of Redis (shard -1) or of the log.
type result struct {
	shard int
	from  *place // the place that was asked for, which may have been dropped since
	redis map[int][]Entry
	page  Page
	// behind: neither the log nor Redis has got as far as the place was.
	behind bool
	err    error
	// interrupted: its error, if it has one, is our own doing.
	interrupted bool
}

// Follow makes a follower of no shard yet. The caller closes it.
func (s *Source) Follow() *Follower {
	f := &Follower{s: s, changed: make(chan struct{}, 1), places: map[int]*place{}, results: make(chan result)}
	f.base, f.end = context.WithCancel(context.Background())
	return f
}

// Follow adds a shard, from what comes after a position; a shard that is followed already begins
// anew there.
func (f *Follower) Follow(shard int, after int64) { f.change(change{shard: shard, after: after}) }

// Drop takes a shard out.
func (f *Follower) Drop(shard int) { f.change(change{shard: shard, drop: true}) }

func (f *Follower) change(c change) {
	f.mu.Lock()
	f.changes = append(f.changes, c)
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// Close ends the reads and waits for them. Next must not be running, nor be called again.
func (f *Follower) Close() {
	f.end()
	for ; f.running > 0; f.running-- {
		<-f.results
	}
}

// Next waits for the next stretches, one or more, each of another shard. It errs with *TrimmedError
// when retention overtook a shard and with *RewoundError when its history was taken back, either of
// which it then follows no more; and with ctx's error. Redis and the
// log failing is no error: it goes on trying both.
func (f *Follower) Next(ctx context.Context) ([]Batch, error) {
	for {
		f.apply()
		timer := time.NewTimer(f.ask())
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		case <-f.changed:
		case <-timer.C:
		case r := <-f.results:
			f.running--
			out, err := f.take(r)
			if err != nil || len(out) > 0 {
				timer.Stop()
				f.ask() // reads on while the caller works
				return out, err
			}
		}
		timer.Stop()
	}
}

func (f *Follower) apply() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.changes {
		if c.drop {
			delete(f.places, c.shard)
			continue
		}
		f.places[c.shard] = &place{position: c.after, logAt: time.Now().Add(f.silence())}
	}
	if len(f.changes) > 0 {
		f.interrupt()
	}
	f.changes = nil
}

// silence is how long a shard may be silent before the log is asked.
func (f *Follower) silence() time.Duration {
	if f.s.o.Redis == nil || f.failures > 0 {
		return f.s.o.PollEvery
	}
	return f.s.o.Beat
}

// interrupt ends the wait on Redis, which then begins anew with the places as they are.
func (f *Follower) interrupt() {
	if f.asking != nil {
		f.asking()
	}
}

// ask starts the reads that are due and gives the time until the next one is.
func (f *Follower) ask() time.Duration {
	now := time.Now()
	next := f.s.o.Beat
	for shard, p := range f.places {
		switch {
		case p.reading:
		case !p.logAt.After(now):
			f.askLog(shard, p)
		default:
			next = min(next, p.logAt.Sub(now))
		}
	}
	if f.s.o.Redis == nil || f.asking != nil {
		return next
	}
	if f.retryAt.After(now) {
		return min(next, f.retryAt.Sub(now))
	}
	f.askRedis()
	return next
}

func (f *Follower) askLog(shard int, p *place) {
	p.reading = true
	after := p.position
	f.run(func() result {
		ctx, cancel := context.WithTimeout(f.base, f.s.o.Timeout)
		defer cancel()
		page, err := f.s.o.Log.Read(ctx, shard, after, f.s.o.Limit, 0)
		behind := err == nil && page.Head < after && f.s.redisBehind(ctx, shard, after)
		return result{shard: shard, from: p, page: page, behind: behind, err: err}
	})
}

// rewoundAfter is how many times in a row the log and Redis must be behind a reader. One look is at two
// places one after the other, and the relay may be about to jump past what a failover has lost.
const rewoundAfter = 3

func (f *Follower) askRedis() {
	after := make(map[int]int64, len(f.places))
	for shard, p := range f.places {
		if !p.hole {
			after[shard] = p.position
		}
	}
	if len(after) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(f.base, 2*f.s.o.Beat)
	f.asking = cancel
	f.run(func() result {
		got, err := f.s.o.Redis.wait(ctx, after, int64(f.s.o.Limit), f.s.o.Beat)
		return result{shard: -1, redis: got, err: err, interrupted: errors.Is(ctx.Err(), context.Canceled)}
	})
}

func (f *Follower) run(read func() result) {
	f.running++
	go func() { f.results <- read() }()
}

func (f *Follower) take(r result) ([]Batch, error) {
	if r.shard >= 0 {
		return f.takeLog(r)
	}
	f.asking()
	f.asking = nil
	if r.err != nil && r.interrupted {
		return nil, nil
	}
	if r.err != nil {
		f.failures++
		f.retryAt = time.Now().Add(retry.Next(f.failures))
		if f.failures == 1 { // the log takes over at once
			f.hurry()
		}
		return nil, nil
	}
	f.failures = 0
	var out []Batch
	for shard, list := range r.redis {
		if p := f.places[shard]; p != nil {
			out = f.takeRedis(out, shard, p, list)
		}
	}
	return out, nil
}

func (f *Follower) hurry() {
	soon := time.Now().Add(f.s.o.PollEvery)
	for _, p := range f.places {
		if p.logAt.After(soon) {
			p.logAt = soon
		}
	}
}

func (f *Follower) takeRedis(out []Batch, shard int, p *place, list []Entry) []Batch {
	for len(list) > 0 && list[0].Position <= p.position { // the log gave them meanwhile
		list = list[1:]
	}
	n := contiguous(list, p.position)
	if n > 0 {
		b := Batch{Shard: shard, Entries: list[:n], After: p.position, Through: list[n-1].Position, Origin: FromRedis}
		p.position, p.stuck, p.logAt = b.Through, 0, time.Now().Add(f.s.o.Beat)
		out = append(out, b)
	}
	if n < len(list) {
		p.hole, p.logAt = true, time.Now()
		if p.stuck > 0 { // the log did not know better last time
			p.logAt = p.logAt.Add(retry.Next(p.stuck))
		}
	}
	return out
}

func (f *Follower) takeLog(r result) ([]Batch, error) {
	p := r.from
	p.reading = false
	if f.places[r.shard] != p {
		return nil, nil
	}
	now := time.Now()
	if r.err != nil {
		p.stuck++
		p.logAt = now.Add(max(retry.Next(p.stuck), f.s.o.PollEvery))
		return nil, nil
	}
	if err := trimmed(r.shard, p.position, &r.page); err != nil {
		delete(f.places, r.shard)
		return nil, err
	}
	if p.behind++; !r.behind {
		p.behind = 0
	}
	if p.behind == rewoundAfter {
		delete(f.places, r.shard)
		return nil, &RewoundError{Shard: r.shard, Position: p.position, Head: r.page.Head}
	}
	list := r.page.Entries
	for len(list) > 0 && list[0].Position <= p.position { // Redis gave them meanwhile
		list = list[1:]
	}
	wasHole := p.hole
	// Whatever Redis holds now, it is asked again from the new place once the log has no more.
	p.hole = p.hole && r.page.Through < r.page.Head
	if wasHole && !p.hole {
		f.interrupt() // it waits without this shard
	}
	p.logAt = now.Add(f.silence())
	if r.page.Through <= p.position {
		p.stuck++
		if !wasHole {
			p.stuck = 0
		}
		return nil, nil
	}
	if r.page.Through < r.page.Head {
		p.logAt = now
	}
	b := Batch{Shard: r.shard, Entries: list, After: p.position, Through: r.page.Through, Origin: FromLog}
	p.position, p.stuck = b.Through, 0
	return []Batch{b}, nil
}

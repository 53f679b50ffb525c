package stream

import (
	"context"
	"time"

	"github.com/sametick/sametick/pkg/backoff"
)

// Options of New; zero values mean the defaults in brackets.
type Options struct {
	// Log is the position log.
	Log Log
	// Redis has the tail; nil reads everything from the log.
	Redis *Redis
	// Beat is how often a shard that Redis is silent about is asked for in the log (1 s): after Redis
	// was emptied it is silent until the relay has filled it again.
	Beat time.Duration
	// PollEvery is how often the log is asked while Redis does not answer (100 ms).
	PollEvery time.Duration
	// Limit bounds the entries of one page or batch (500).
	Limit int
	// Timeout bounds one read of the log or of Redis (5 s).
	Timeout time.Duration
}

// Source reads shards. Safe for concurrent use.
type Source struct {
	o Options
}

// retry spreads the attempts after failures, of Redis and of the log.
var retry = backoff.Policy{Base: 50 * time.Millisecond, Cap: 2 * time.Second, Floor: 10 * time.Millisecond}

// New makes a source.
func New(o Options) *Source {
	o.Beat = orDefault(o.Beat, time.Second)
	o.PollEvery = orDefault(o.PollEvery, 100*time.Millisecond)
	o.Limit = orDefault(o.Limit, 500)
	o.Timeout = orDefault(o.Timeout, 5*time.Second)
	return &Source{o: o}
}

func orDefault[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// Read gives what follows a position at once, of one organisation or (0) of all: from Redis if the
// stream continues there at exactly after+1, else from the log. It errs with *TrimmedError when
// retention has dropped what follows, and with the log's error when only the log could tell.
func (s *Source) Read(ctx context.Context, shard int, after int64, org int64) (Page, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	if s.o.Redis != nil {
		// A Redis that does not answer must leave time to ask the log.
		short, cancel := context.WithTimeout(ctx, s.o.Timeout/4)
		list, err := s.o.Redis.after(short, shard, after, s.o.Limit)
		cancel()
		if n := contiguous(list, after); err == nil && n > 0 {
			return Page{Entries: only(list[:n], org), Through: list[n-1].Position, Origin: FromRedis}, nil
		}
	}
	p, err := s.o.Log.Read(ctx, shard, after, s.o.Limit, org)
	if err != nil {
		return Page{}, err
	}
	return p, trimmed(shard, after, &p)
}

// Entry gives the event at one position, and false when there is none that is the organisation's: it never was, or
// retention has dropped it. It errs with the log's error when only the log could tell.
func (s *Source) Entry(ctx context.Context, shard int, position, org int64) (Entry, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	var list []Entry
	if s.o.Redis != nil {
		// A Redis that does not answer must leave time to ask the log.
		short, cancel := context.WithTimeout(ctx, s.o.Timeout/4)
		list, _ = s.o.Redis.after(short, shard, position-1, 1) // what it cannot tell, the log can
		cancel()
	}
	if contiguous(list, position-1) == 0 {
		p, err := s.o.Log.Read(ctx, shard, position-1, 1, org)
		if err != nil {
			return Entry{}, false, err
		}
		list = p.Entries
	}
	ok := len(list) > 0 && list[0].Position == position && list[0].OrgID == org
	if !ok {
		return Entry{}, false, nil
	}
	return list[0], true, nil
}

// Head gives the newest position of a shard as far as Redis, or else the log, knows it: where a
// reader begins that wants only what is to come.
func (s *Source) Head(ctx context.Context, shard int) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	if s.o.Redis != nil {
		short, cancel := context.WithTimeout(ctx, s.o.Timeout/4)
		last, err := s.o.Redis.last(short, shard)
		cancel()
		if err == nil && last > 0 {
			return last, nil
		}
	}
	p, err := s.o.Log.Read(ctx, shard, 0, 1, 0)
	return p.Head, err
}

// redisBehind tells whether Redis, where there is one, answers that it does not reach a position.
func (s *Source) redisBehind(ctx context.Context, shard int, position int64) bool {
	if s.o.Redis == nil {
		return true
	}
	last, err := s.o.Redis.last(ctx, shard)
	return err == nil && last < position
}

// contiguous counts the entries that follow a position without a hole.
func contiguous(list []Entry, after int64) int {
	for i := range list {
		if list[i].Position != after+1+int64(i) {
			return i
		}
	}
	return len(list)
}

func only(list []Entry, org int64) []Entry {
	if org == 0 {
		return list
	}
	kept := list[:0]
	for _, e := range list {
		if e.OrgID == org {
			kept = append(kept, e)
		}
	}
	return kept
}

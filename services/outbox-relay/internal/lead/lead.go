// Package lead runs the relay that is active: it waits for the leader's lock, then sequences,
// publishes and keeps house until the lock is lost or the process ends. The lock only saves work;
// two leaders at once are harmless (see internal/sequence and internal/publish).
package lead

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sametick/sametick/pkg/backoff"
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
)

// Lock is a held lock.
type Lock interface {
	Renew(ctx context.Context) error
	Close()
}

// Config of a Lead. All are required.
type Config struct {
	// TryLock takes the leader's lock; nil without an error when another relay has it.
	TryLock func(ctx context.Context) (Lock, error)
	// Heartbeat is the time between two renewals of the lock.
	Heartbeat time.Duration
	// Open starts a session that ctx ends.
	Open func(ctx context.Context) (Session, error)
	// NewPublisher makes one for a term.
	NewPublisher func() Publisher
	// Chores are done beside, each at the start of a term and then every so often.
	Chores []Chore
	// ClaimLost is the reason of a claim's error when another relay was first.
	ClaimLost string
	// BatchEvents is the most events that one claim takes.
	BatchEvents int
	Logger      *slog.Logger
	Stats       *Stats
}

// Chore is something that only the leader does, again and again.
type Chore struct {
	Name  string
	Every time.Duration
	Do    func(ctx context.Context) error
}

// standby is how often a relay that stands by tries the lock.
const standby = 500 * time.Millisecond

var retry = backoff.Policy{Base: 50 * time.Millisecond, Cap: time.Second}

// Stats counts what leading did, for metrics. Safe for concurrent use.
type Stats struct {
	// Batches and Events count what was claimed.
	Batches, Events atomic.Int64
	// ClaimsLost counts claims that another relay won, Jumps those past streams ahead of Postgres, Restarts
	// sessions that ended by an error.
	ClaimsLost, Jumps, Restarts atomic.Int64
	// Claimed sums the newest positions of all shards.
	Claimed atomic.Int64
	// Leading is 1 while this relay has the lock.
	Leading atomic.Int64
	// Poll is told how long each poll took.
	Poll func(time.Duration)
}

func (s *Stats) claimed(b *sequence.Batch) {
	s.Batches.Add(1)
	s.Events.Add(int64(len(b.Events)))
	s.stands(b.Cursor)
}

func (s *Stats) stands(c sequence.Cursor) {
	var sum int64
	for _, p := range c.Positions {
		sum += p
	}
	s.Claimed.Store(sum)
}

// Lead is the relay's main loop.
type Lead struct {
	Config
	wake    chan struct{}
	problem atomic.Pointer[error]
}

// New makes a Lead that is not running yet.
func New(c Config) *Lead { return &Lead{Config: c, wake: make(chan struct{}, 1)} }

// Wake cuts the pause between polls short. Cheap, never blocks, many at once are one.
func (l *Lead) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Active tells whether this relay has the lock.
func (l *Lead) Active() bool { return l.Stats.Leading.Load() == 1 }

// Problem gives why sequencing does not run though this relay leads; nil when it does.
func (l *Lead) Problem() error {
	if p := l.problem.Load(); p != nil {
		return *p
	}
	return nil
}

func (l *Lead) note(err error) {
	if err == nil {
		l.problem.Store(nil)
		return
	}
	l.problem.Store(&err)
}

// Run stands by and leads until take ends; what is in hand then is finished unless work ends.
func (l *Lead) Run(take, work context.Context) error {
	for take.Err() == nil {
		lock, err := l.TryLock(take)
		if err != nil {
			l.Logger.WarnContext(take, "cannot try for the leader's lock", "error", err)
		}
		if lock == nil {
			l.pause(take, standby)
			continue
		}
		l.term(take, work, lock)
	}
	return nil
}

// term leads while the lock is held.
func (l *Lead) term(take, work context.Context, lock Lock) {
	defer lock.Close()
	l.Stats.Leading.Store(1)
	defer l.Stats.Leading.Store(0)
	defer l.note(nil)
	l.Logger.InfoContext(take, "leading")
	defer l.Logger.InfoContext(take, "no longer leading")
	held, lose := context.WithCancel(take)
	defer lose()
	publisher := l.NewPublisher()
	var wg sync.WaitGroup
	wg.Go(func() { defer lose(); l.hold(held, lock) })
	for _, c := range l.Chores {
		wg.Go(func() { l.keep(held, c) })
	}
	wg.Go(func() { publisher.Run(work) })
	(&sequencing{Lead: l, publisher: publisher}).run(held, work)
	publisher.Finish()
	wg.Wait()
}

// hold renews the lock until that fails.
func (l *Lead) hold(ctx context.Context, lock Lock) {
	t := time.NewTicker(l.Heartbeat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if err := lock.Renew(ctx); err != nil {
			if ctx.Err() == nil {
				l.Logger.WarnContext(ctx, "the leader's lock is lost", "error", err)
			}
			return
		}
	}
}

func (l *Lead) keep(ctx context.Context, c Chore) {
	t := time.NewTicker(c.Every)
	defer t.Stop()
	for {
		if err := c.Do(ctx); err != nil && ctx.Err() == nil {
			l.Logger.WarnContext(ctx, "a chore failed, will try again", "chore", c.Name, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

func (l *Lead) pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

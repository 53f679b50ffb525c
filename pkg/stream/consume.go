package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/pg"
)

// Consumer takes each event exactly once, over all replicas of a service: what a batch leads to and
// the cursor past it commit in one transaction. Crash anywhere, lose Redis whole, hold a shard twice:
// the cursor's condition lets one transaction commit for each stretch.
type Consumer struct {
	// Name keys the cursor; it is the service's for ever.
	Name string
	// Holder names this replica, differently from every other one alive.
	Holder string
	// DB is where the cursor and what Handle derives are kept.
	DB pg.Beginner
	// Source is where events come from.
	Source *Source
	// Handle derives from a batch in tx. An error rolls back, and the batch comes again later, maybe cut
	// differently; the shard waits meanwhile, the others do not. It runs for one batch of a shard at a
	// time, for several shards at once.
	Handle func(ctx context.Context, tx pgx.Tx, b Batch) error
	// Passes, if set, tells whether Handle would derive nothing from a batch. Then neither Handle nor Committed is called
	// with it, and the cursor moves past it with a later one or within a second: a commit for each batch of what does not
	// concern a consumer is much of its cost, and of everybody's. A crash has what was passed told again.
	Passes func(b Batch) bool
	// Begun, if set, is told that a shard is followed from its cursor on: first when it is gained, and anew after each
	// failure, when what was committed last is not known for certain. No Handle runs for the shard meanwhile.
	Begun func(ctx context.Context, shard int)
	// Committed, if set, is told of each batch after the commit of what Handle derived from it, before Handle runs
	// for the shard's next one.
	Committed func(b Batch)
	// Held, if set, is told after each renewal which shards are held and until when at the earliest another
	// replica may hold them: of a gained one before its first batch, of a lost one maybe before its last.
	Held func(shards []int, until time.Time)
	// Release, if set, returns when the work in hand that Committed led to is finished for these shards, or ctx
	// ends: they are then another replica's to take.
	Release func(ctx context.Context, shards []int)
	// FromNewest starts a consumer that has no cursor yet at the head; else it begins with the
	// oldest event kept.
	FromNewest bool
	// LeaseTTL is how long a crashed replica's shards stay unserved (10 s).
	LeaseTTL time.Duration
	// Log gets failures; nil discards them.
	Log *slog.Logger
	// Trimmed, if set, counts stretches that retention dropped unread: it should never be called.
	Trimmed func(*TrimmedError)
}

// Run consumes until take ends; the transaction in hand then ends too, by commit unless work ends
// first. It is a lifecycle.RunFunc.
func (c *Consumer) Run(take, work context.Context) error {
	l := leases{db: c.DB, consumer: c.Name, holder: c.Holder, ttl: orDefault(c.LeaseTTL, 10*time.Second)}
	workers := map[int]*shardWorker{}
	renewed := time.Now()
	for failures := 0; take.Err() == nil; {
		now := time.Now()
		held, excess, err := l.renew(take)
		switch {
		case err == nil:
			failures, renewed = 0, now
			c.hold(take, work, workers, held, now.Add(l.ttl))
			c.giveBack(work, l, excess)
		case time.Since(renewed) > l.ttl:
			c.hold(take, work, workers, nil, now) // others have them by now
			fallthrough
		default:
			failures++
			c.warn(take, "lease not renewed", err)
		}
		pause := l.ttl / 3
		if failures > 0 {
			pause = min(pause, retry.Next(failures))
		}
		sleep(take, pause)
	}
	c.leave(work, l, workers)
	return nil
}

func (c *Consumer) hold(take, work context.Context, workers map[int]*shardWorker, held []int, until time.Time) {
	if c.Held != nil {
		c.Held(held, until)
	}
	c.assign(take, work, workers, held)
}

// giveBack lets others take shards that are more than the share; their workers have ended. What is in hand is waited
// for, but no longer than the next renewal allows.
func (c *Consumer) giveBack(work context.Context, l leases, shards []int) {
	if len(shards) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(work, l.ttl/6)
	defer cancel()
	if c.Release != nil {
		c.Release(ctx, shards)
	}
	if err := l.giveBack(work, shards); err != nil { // the next renewal finds them again
		c.warn(work, "leases not given back", err)
	}
}

// leave ends all workers and gives everything back, once what is in hand is finished.
func (c *Consumer) leave(work context.Context, l leases, workers map[int]*shardWorker) {
	shards := slices.Collect(maps.Keys(workers))
	c.assign(work, work, workers, nil)
	if c.Release != nil {
		c.Release(work, shards)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(work), 2*time.Second)
	defer cancel()
	if err := l.leave(ctx); err != nil { // they expire by themselves
		c.warn(work, "leases not given back", err)
	}
}

// shardWorker is the goroutine of one shard.
type shardWorker struct {
	stop context.CancelFunc
	done chan struct{}
}

// assign starts and ends workers so that they are those of the shards held, and waits for the ends.
func (c *Consumer) assign(take, work context.Context, workers map[int]*shardWorker, held []int) {
	keep := map[int]bool{}
	for _, shard := range held {
		keep[shard] = true
		if workers[shard] == nil {
			ctx, stop := context.WithCancel(take)
			w := &shardWorker{stop: stop, done: make(chan struct{})}
			workers[shard] = w
			go func() { defer close(w.done); c.shard(ctx, work, shard) }()
		}
	}
	var wg sync.WaitGroup
	for shard, w := range workers {
		if !keep[shard] {
			w.stop()
			wg.Go(func() { <-w.done })
			delete(workers, shard)
		}
	}
	wg.Wait()
}

// shard works at one shard until take ends, beginning anew from the cursor after each failure: it
// alone knows what is committed.
func (c *Consumer) shard(take, work context.Context, shard int) {
	for failures := 0; take.Err() == nil; {
		progress, err := c.follow(take, work, shard)
		if take.Err() != nil {
			return
		}
		if progress {
			failures = 0
		}
		failures++
		if !errors.Is(err, ErrStaleCursor) {
			c.warn(take, "shard begins anew from its cursor", err, slog.Int("shard", shard))
		}
		sleep(take, retry.Next(failures))
	}
}

// follow goes from the cursor on and ends with an error; progress tells whether anything was committed.
func (c *Consumer) follow(take, work context.Context, shard int) (progress bool, err error) {
	position, err := c.begin(take, shard)
	if err != nil {
		return false, err
	}
	if c.Begun != nil {
		c.Begun(take, shard)
	}
	f := c.Source.Follow()
	defer f.Close()
	f.Follow(shard, position)
	var passed passed
	for {
		batches, err := passed.next(take, f)
		var gone *TrimmedError
		switch {
		case errors.As(err, &gone):
			if err := errors.Join(c.catchUp(work, &passed), c.skip(work, gone)); err != nil {
				return progress, err
			}
			f.Follow(shard, gone.First-1)
		case err != nil:
			return progress, errors.Join(err, c.catchUp(work, &passed))
		}
		for _, b := range batches {
			if err := c.take(work, b, &passed); err != nil {
				return progress, err
			}
			progress = true
			if take.Err() != nil {
				return progress, errors.Join(take.Err(), c.catchUp(work, &passed))
			}
		}
		if passed.due(time.Now()) {
			if err := c.catchUp(work, &passed); err != nil {
				return progress, err
			}
		}
	}
}

// take passes a batch, or commits it with what was passed before.
func (c *Consumer) take(work context.Context, b Batch, p *passed) error {
	if c.Passes != nil && c.Passes(b) {
		p.add(b, time.Now())
		return nil
	}
	from := b.After
	if p.any {
		from = p.after
	}
	if err := c.commit(work, b, from); err != nil {
		return err
	}
	p.any = false
	if c.Committed != nil {
		c.Committed(b)
	}
	return nil
}

// catchUp moves the cursor past what was passed.
func (c *Consumer) catchUp(ctx context.Context, p *passed) error {
	if !p.any {
		return nil
	}
	p.any = false
	return pg.InTx(ctx, c.DB, pg.TxOptions{}, func(tx pgx.Tx) error {
		return Advance(ctx, tx, c.Name, p.shard, p.after, p.through)
	})
}

func (c *Consumer) commit(ctx context.Context, b Batch, from int64) error {
	return pg.InTx(ctx, c.DB, pg.TxOptions{}, func(tx pgx.Tx) error {
		// The cursor first: a second holder waits here for its row, and leaves before it has worked.
		if err := Advance(ctx, tx, c.Name, b.Shard, from, b.Through); err != nil {
			return err
		}
		if len(b.Entries) == 0 {
			return nil
		}
		return c.Handle(ctx, tx, b)
	})
}

func (c *Consumer) begin(ctx context.Context, shard int) (position int64, err error) {
	first := int64(0)
	err = pg.InTx(ctx, c.DB, pg.TxOptions{}, func(tx pgx.Tx) (err error) {
		var ok bool
		if position, ok, err = LoadCursor(ctx, tx, c.Name, shard); ok || err != nil {
			return err
		}
		if c.FromNewest {
			if first, err = c.Source.Head(ctx, shard); err != nil {
				return fmt.Errorf("head of the shard: %w", err)
			}
		}
		if err := BeginCursor(ctx, tx, c.Name, shard, first); err != nil {
			return err
		}
		position, _, err = LoadCursor(ctx, tx, c.Name, shard)
		return err
	})
	return position, err
}

// skip passes what retention dropped. For a consumer that begins with the oldest event that is no
// loss; for any other it must not happen, because retention waits for every cursor.
func (c *Consumer) skip(ctx context.Context, gone *TrimmedError) error {
	if gone.After > 0 {
		c.warn(ctx, "retention dropped events that were not consumed", gone)
		if c.Trimmed != nil {
			c.Trimmed(gone)
		}
	}
	return pg.InTx(ctx, c.DB, pg.TxOptions{}, func(tx pgx.Tx) error {
		return Advance(ctx, tx, c.Name, gone.Shard, gone.After, gone.First-1)
	})
}

func (c *Consumer) warn(ctx context.Context, text string, err error, attrs ...any) {
	if c.Log != nil && ctx.Err() == nil {
		c.Log.WarnContext(ctx, text, append(attrs, "consumer", c.Name, "error", err)...)
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

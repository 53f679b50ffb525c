package publish

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sametick/sametick/pkg/backoff"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
)

// Streams is where events are published.
type Streams interface {
	// Add adds each group in a transaction of its own; on an error nothing is known of any.
	Add(ctx context.Context, groups []Group) ([]Reply, error)
	Tails(ctx context.Context) ([event.Shards]Tail, error)
}

// Cutter removes from the streams.
type Cutter interface {
	Clear(ctx context.Context, shard int) error
	Trim(ctx context.Context, before sequence.Positions) error
}

// Owner is a note beside the streams of which database they are; empty when there is none.
type Owner interface {
	Owner(ctx context.Context) (string, error)
	SetOwner(ctx context.Context, database string) error
}

// Log is the position log, as far back as it is kept.
type Log interface {
	Read(ctx context.Context, shard int, after int64, limit, maxBytes int, org int64) (sequence.Page, error)
}

// Ledger knows the newest positions, now and at an earlier time.
type Ledger interface {
	Heads(ctx context.Context) (sequence.Positions, error)
	HeadsAt(ctx context.Context, age time.Duration) (sequence.Positions, error)
}

// Config of a publisher.
type Config struct {
	Streams Streams
	Cutter  Cutter
	Log     Log
	Ledger  Ledger
	Owner   Owner
	// Database names the database; the name stays the same after a failover.
	Database func(ctx context.Context) (string, error)
	// Retention is how far back the streams are filled and kept.
	Retention time.Duration
	// TrimEvery is the time between two trims.
	TrimEvery time.Duration
	Logger    *slog.Logger
	Stats     *Stats
}

// Stats counts what a publisher did, for metrics. Safe for concurrent use.
type Stats struct {
	// Added counts events added as they came, Refilled those read back from the log.
	Added, Refilled atomic.Int64
	// Rebuilt counts streams deleted and filled anew, Compared comparisons of all streams with the log.
	Rebuilt, Compared atomic.Int64
	// Dropped counts batches that were left to be read back, Errors failed attempts.
	Dropped, Errors atomic.Int64
	// Through sums the positions published up to, over all shards.
	Through atomic.Int64
}

const (
	// inFlight is how many batches may wait; more would only hold memory.
	inFlight = 8
	// offerPatience is how long a healthy publisher may keep the sequencer waiting for it.
	offerPatience = time.Second
	fillEvents    = 1000
	fillBytes     = 4 << 20
)

var retry = backoff.Policy{Base: 50 * time.Millisecond, Cap: 2 * time.Second}

var (
	errAhead     = errors.New("streams are ahead of the position log")
	errDisturbed = errors.New("a stream changed while it was filled")
	errResync    = errors.New("the streams are to be compared anew")
)

// Publisher is the loop that publishes. One goroutine runs it; another one offers batches.
type Publisher struct {
	Config
	in     chan *sequence.Batch
	resync chan struct{}
	finish chan struct{}
	ahead  chan sequence.Positions
	down   atomic.Bool

	mu      sync.Mutex
	waiting chan struct{} // of those who ask for a comparison; nil if there are none

	// What follows is Run's own. Who asked before the comparison under way began; and of each shard: the stream's last position; the position up to which
	// it holds all that the log has; the greatest sent to pub/sub; whether it must be filled from the log.
	owed                    []chan struct{}
	end, through, announced sequence.Positions
	lagging                 [event.Shards]bool
}

// New makes a publisher that is not running yet.
func New(c Config) *Publisher {
	return &Publisher{
		Config: c, in: make(chan *sequence.Batch, inFlight), resync: make(chan struct{}, 1),
		finish: make(chan struct{}), ahead: make(chan sequence.Positions, 1),
	}
}

// Offer hands over a claimed batch. While publishing is healthy it waits a little for room; else, as
// sequencing must go on without Redis, the batch is dropped here and read back from the log later.
func (p *Publisher) Offer(ctx context.Context, b *sequence.Batch) {
	if !p.down.Load() {
		select {
		case p.in <- b:
			return
		default:
		}
		t := time.NewTimer(offerPatience)
		defer t.Stop()
		select {
		case p.in <- b:
			return
		case <-ctx.Done():
		case <-t.C:
		}
	}
	p.Stats.Dropped.Add(1)
	signal(p.resync)
}

// Resync says that nothing is known of the streams any more. The channel is closed when a
// comparison is done that began after this call.
func (p *Publisher) Resync() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting == nil {
		p.waiting = make(chan struct{})
	}
	signal(p.resync)
	return p.waiting
}

// Ahead tells where the streams stand when they are ahead of Postgres, which has then lost commits.
// The publisher waits until the ledger has jumped past it.
func (p *Publisher) Ahead() <-chan sequence.Positions { return p.ahead }

// Finish ends Run when all that was offered is published, or at the first error. Offer must not be
// called afterwards.
func (p *Publisher) Finish() { close(p.finish) }

// Run publishes until Finish, or until ctx ends. It never fails: it waits and tries again, since all that is
// not published is in Postgres.
func (p *Publisher) Run(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		p.drop()
		err := p.recover(ctx)
		if err == nil {
			p.down.Store(false)
			failures = 0
			if err = p.publish(ctx); err == nil {
				return
			}
		}
		if errors.Is(err, errResync) || ctx.Err() != nil {
			continue
		}
		p.down.Store(true)
		failures++
		p.Stats.Errors.Add(1)
		p.Logger.WarnContext(ctx, "publishing failed, will try again", "error", err, "failures", failures)
		if !p.pause(ctx, retry.Next(failures)) {
			return
		}
	}
}

func (p *Publisher) pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
	case <-p.finish:
	}
	return false
}

// drop empties the queue before a comparison, whose look at the ledger is newer.
func (p *Publisher) drop() {
	for {
		select {
		case <-p.in:
		default:
			return
		}
	}
}

// publish runs while all is well; nil means Finish.
func (p *Publisher) publish(ctx context.Context) error {
	trim := time.NewTicker(p.TrimEvery)
	defer trim.Stop()
	for {
		var err error
		fill := make(chan struct{})
		if p.isLagging() {
			close(fill)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.resync:
			return errResync
		case b := <-p.in:
			err = p.batch(ctx, b)
		case <-trim.C:
			err = p.trim(ctx)
		case <-fill:
			err = p.fill(ctx)
		case <-p.finish:
			return p.rest(ctx)
		}
		if err != nil {
			return err
		}
	}
}

// rest publishes what is left at the end.
func (p *Publisher) rest(ctx context.Context) error {
	for {
		select {
		case b := <-p.in:
			if err := p.batch(ctx, b); err != nil {
				p.Logger.WarnContext(ctx, "some events are left for the next relay to publish", "error", err)
				return nil
			}
		default:
			return nil
		}
	}
}

func (p *Publisher) isLagging() bool { return p.lagging != [event.Shards]bool{} }

// batch publishes what a batch has for shards that do not lag; filling takes care of the others.
func (p *Publisher) batch(ctx context.Context, b *sequence.Batch) error {
	groups := Split(b.Events)
	ready := groups[:0]
	for _, g := range groups {
		for len(g.Events) > 0 && g.Events[0].Position <= p.through[g.Shard] {
			g.Events = g.Events[1:]
		}
		if len(g.Events) == 0 || p.lagging[g.Shard] {
			continue
		}
		if g.Events[0].Position != p.through[g.Shard]+1 { // another relay's batch, or a jump, lies between
			p.lagging[g.Shard] = true
			continue
		}
		g.After, g.Announce = p.end[g.Shard], p.announced[g.Shard]
		ready = append(ready, g)
	}
	if len(ready) == 0 {
		return nil
	}
	replies, err := p.Streams.Add(ctx, ready)
	if err != nil {
		return err
	}
	for i := range ready {
		g := &ready[i]
		if Judge(g, replies[i]) != Added {
			return errResync
		}
		p.stands(g.Shard, g.End(), g.End())
		p.Stats.Added.Add(int64(len(g.Events)))
	}
	return nil
}

func (p *Publisher) trim(ctx context.Context) error {
	kept, err := p.Ledger.HeadsAt(ctx, p.Retention)
	if err != nil {
		return err
	}
	// Never past the last entry: an empty stream would look like one that was lost.
	for i := range kept {
		kept[i] = min(kept[i]+1, p.end[i])
	}
	return p.Cutter.Trim(ctx, kept)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

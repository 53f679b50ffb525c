package stream

import (
	"context"
	"errors"
	"time"
)

const (
	// catchUpAfter is how long a cursor stays behind what its consumer has passed.
	catchUpAfter = time.Second
	// passPace is how long a consumer waits for more after what did not concern it. Each look costs it and Redis the same,
	// however much there is to see: without the pause a busy shard has one for each of the relay's batches.
	passPace = 50 * time.Millisecond
)

// passed is the stretch of a shard that the cursor has yet to move past, since nothing was derived from it.
type passed struct {
	any            bool
	shard          int
	after, through int64
	since          time.Time
}

func (p *passed) add(b Batch, now time.Time) {
	if !p.any {
		*p = passed{any: true, shard: b.Shard, after: b.After, since: now}
	}
	p.through = b.Through
}

func (p *passed) due(now time.Time) bool {
	return p.any && now.Sub(p.since) >= catchUpAfter
}

// next is the follower's, which comes back with nothing when the cursor has to be moved.
func (p *passed) next(ctx context.Context, f *Follower) ([]Batch, error) {
	if !p.any {
		return f.Next(ctx)
	}
	sleep(ctx, passPace)
	waiting, cancel := context.WithDeadline(ctx, p.since.Add(catchUpAfter))
	defer cancel()
	list, err := f.Next(waiting)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, nil
	}
	return list, err
}

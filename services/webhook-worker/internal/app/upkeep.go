package app

import (
	"context"
	"log/slog"
	"time"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/services/webhook-worker/internal/feed"
	"github.com/sametick/sametick/services/webhook-worker/internal/store"
)

// upkeep makes partitions of the history ahead and drops old ones, and measures what waits.
type upkeep struct {
	store     *store.Worker
	retention time.Duration
	source    *stream.Source
	metrics   *metrics
	log       *slog.Logger
}

const (
	partitionsEvery = 10 * time.Minute
	measureEvery    = 30 * time.Second
)

// Run works until take ends. It is a lifecycle.RunFunc.
func (u *upkeep) Run(take, _ context.Context) error {
	partitions, measure := time.NewTicker(partitionsEvery), time.NewTicker(measureEvery)
	defer partitions.Stop()
	defer measure.Stop()
	u.do(take, "partitions", u.partitions)
	u.do(take, "measures", u.measure)
	for {
		select {
		case <-take.Done():
			return nil
		case <-partitions.C:
			u.do(take, "partitions", u.partitions)
		case <-measure.C:
			u.do(take, "measures", u.measure)
		}
	}
}

func (u *upkeep) do(ctx context.Context, what string, f func(context.Context) error) {
	if err := f(ctx); err != nil && ctx.Err() == nil {
		u.log.WarnContext(ctx, "upkeep failed, will try again", "what", what, "error", err)
	}
}

func (u *upkeep) partitions(ctx context.Context) error {
	if _, err := u.store.EnsurePartitions(ctx); err != nil || u.retention == 0 {
		return err
	}
	for {
		dropped, err := u.store.DropPartition(ctx, time.Now().Add(-u.retention))
		if !dropped || err != nil {
			return err
		}
		u.log.InfoContext(ctx, "a day of attempts is dropped")
	}
}

func (u *upkeep) measure(ctx context.Context) error {
	n, oldest, err := u.store.Backlog(ctx)
	if err != nil {
		return err
	}
	u.metrics.backlog.Store(n)
	u.metrics.oldest.Store(0)
	if oldest != nil {
		u.metrics.oldest.Store(oldest.UnixMilli())
	}
	lag := int64(0)
	for shard := range event.Shards {
		at, err := u.store.Cursor(ctx, feed.Consumer, shard)
		if err != nil {
			return err
		}
		head, err := u.source.Head(ctx, shard)
		if err != nil {
			return err
		}
		lag += max(head-at, 0)
	}
	u.metrics.lag.Store(lag)
	return nil
}

// Package feed brings the events of the shards that have clients from pkg/stream to the hub, and
// older ones to resuming clients.
package feed

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/sametick/sametick/pkg/backoff"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/services/sse-gateway/internal/hub"
	"github.com/sametick/sametick/services/sse-gateway/internal/resume"
)

// Feed follows shards for a hub.
type Feed struct {
	Source *stream.Source
	Hub    *hub.Hub
	// Linger is how long a shard is followed after its last client left, for one that comes back.
	Linger time.Duration
	Log    *slog.Logger
}

var again = backoff.Policy{Base: 50 * time.Millisecond, Cap: time.Second}

// Run feeds until take ends. It is a lifecycle.RunFunc.
func (f *Feed) Run(take, _ context.Context) error {
	follower := f.Source.Follow()
	defer follower.Close()
	ended := make(chan struct{})
	go func() { defer close(ended); f.choose(take, follower) }()
	defer func() { <-ended }()
	for {
		batches, err := follower.Next(take)
		var gone *stream.TrimmedError
		var rewound *stream.RewoundError
		switch {
		case errors.As(err, &gone):
			f.Log.ErrorContext(take, "retention overtook a live shard: its streams begin anew", "error", err)
			f.Hub.Break(gone.Shard, gone.First-1)
			follower.Follow(gone.Shard, gone.First-1)
		case errors.As(err, &rewound):
			f.Log.ErrorContext(take, "an older history was restored: the shard's streams begin anew", "error", err)
			f.Hub.Rewind(rewound.Shard, rewound.Head)
			follower.Follow(rewound.Shard, rewound.Head)
		case err != nil:
			return nil
		}
		for _, b := range batches {
			f.Hub.Publish(b.Shard, b.After, b.Through, entries(b.Entries))
		}
	}
}

// choose keeps the set of shards that are followed that of the clients.
func (f *Feed) choose(ctx context.Context, follower *stream.Follower) {
	tick := time.NewTicker(max(f.Linger/2, time.Millisecond))
	defer tick.Stop()
	retry := time.NewTimer(0)
	defer retry.Stop()
	failures := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.Hub.Wanted():
		case <-retry.C:
		case <-tick.C:
			for _, shard := range f.Hub.Idle(f.Linger) {
				follower.Drop(shard)
			}
		}
		failed := false
		for _, shard := range f.Hub.Starting() {
			head, err := f.Source.Head(ctx, shard)
			if err != nil {
				failed = true
				f.Log.WarnContext(ctx, "head of a shard unknown, trying again", "shard", shard, "error", err)
				continue
			}
			f.Hub.Begin(shard, head)
			follower.Follow(shard, head)
		}
		if failed {
			failures++
			retry.Reset(again.Next(failures))
		} else {
			failures = 0
		}
	}
}

func entries(list []stream.Entry) []hub.Entry {
	out := make([]hub.Entry, len(list))
	for i := range list {
		e := &list[i]
		out[i] = hub.Entry{Position: e.Position, OrgID: e.OrgID, EventType: e.EventType,
			AggregateType: e.AggregateType, AggregateID: e.AggregateID, Envelope: e.Envelope}
	}
	return out
}

// Reader reads pages for resume.
type Reader struct{ Source *stream.Source }

// Read implements resume.Reader.
func (r Reader) Read(ctx context.Context, org, after int64) (resume.Page, error) {
	p, err := r.Source.Read(ctx, event.ShardOf(org), after, org)
	var gone *stream.TrimmedError
	if errors.As(err, &gone) {
		return resume.Page{}, &resume.TrimmedError{First: gone.First}
	}
	if err != nil {
		return resume.Page{}, errs.New(errs.Unavailable, "HISTORY_UNAVAILABLE", "older events are temporarily unavailable").
			WithRetryAfter(retryAfter).WithCause(err)
	}
	source := "log"
	if p.Origin == stream.FromRedis {
		source = "redis"
	}
	return resume.Page{Entries: entries(p.Entries), Through: p.Through, Head: p.Head, Source: source}, nil
}

const retryAfter = 5 * time.Second

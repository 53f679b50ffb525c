package feed

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/schedule"
	"github.com/sametick/sametick/services/webhook-worker/internal/store"
)

// Replays works off what is to be sent again, a step at a time, and no further ahead of the sending than a bound: the
// table of what waits stays small.
type Replays struct {
	store    *store.Worker
	source   Source
	engine   Engine
	compiler *condition.Compiler
	log      *slog.Logger

	mu sync.Mutex
	// pending are shards that may have a replay. Another value says that one was added since.
	pending map[int]*pending
	added   chan struct{}
}

// pending has the endpoint of the newest step of a shard's replays; 0 before the first.
type pending struct{ endpoint int64 }

const (
	// replayAhead is how many deliveries of an endpoint may wait when its replay goes on.
	replayAhead = 2000
	// replayPause is how often it is looked whether they do.
	replayPause = 200 * time.Millisecond
)

// NewReplays works off nothing yet.
func NewReplays(s *store.Worker, source Source, engine Engine, compiler *condition.Compiler, log *slog.Logger) *Replays {
	return &Replays{store: s, source: source, engine: engine, compiler: compiler, log: log, pending: map[int]*pending{}, added: make(chan struct{}, 1)}
}

// Add says that a shard may have a replay.
func (r *Replays) Add(shard int) {
	r.mu.Lock()
	r.pending[shard] = &pending{}
	r.mu.Unlock()
	select {
	case r.added <- struct{}{}:
	default:
	}
}

// Held says which shards are this replica's; the replays of others are others'.
func (r *Replays) Held(shards []int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for shard := range r.pending {
		if !slices.Contains(shards, shard) {
			delete(r.pending, shard)
		}
	}
}

// Run works until take ends. It is a lifecycle.RunFunc.
func (r *Replays) Run(take, _ context.Context) error {
	tick := time.NewTicker(replayPause)
	defer tick.Stop()
	for take.Err() == nil {
		if r.round(take) {
			continue
		}
		select {
		case <-take.Done():
		case <-r.added:
		case <-tick.C:
		}
	}
	return nil
}

// round does a step of each shard whose last one has been sent, and tells whether there was any.
func (r *Replays) round(ctx context.Context) (moved bool) {
	r.mu.Lock()
	shards := maps.Clone(r.pending)
	r.mu.Unlock()
	for shard, p := range shards {
		stepped, err := r.step(ctx, shard, p)
		if err != nil && ctx.Err() == nil {
			r.log.WarnContext(ctx, "a replay does not go on yet", slog.Int("shard", shard), slog.Any("error", err))
		}
		moved = moved || stepped
	}
	return moved
}

func (r *Replays) step(ctx context.Context, shard int, p *pending) (stepped bool, err error) {
	if p.endpoint != 0 {
		if ahead, err := r.store.Ahead(ctx, shard, p.endpoint, replayAhead); ahead || err != nil {
			return false, err
		}
	}
	var org, endpoint int64
	err = pgx.BeginFunc(ctx, r.store, func(tx pgx.Tx) (err error) {
		if err := r.store.EveryOrg(ctx, tx); err != nil {
			return err
		}
		org, endpoint, err = r.store.StepReplay(ctx, tx, shard, func(ctx context.Context, orgID, endpointID, after int64, since *time.Time, _ int) ([]store.Replayed, int64, error) {
			e, err := r.store.Endpoint(ctx, tx, orgID, endpointID)
			if err != nil {
				return nil, 0, err
			}
			return r.events(ctx, schedule.NewTarget(e, r.compiler), after, since)
		})
		return err
	})
	if err != nil {
		return false, err
	}
	if endpoint == 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.pending[shard] == p {
			delete(r.pending, shard)
		}
		return false, nil
	}
	p.endpoint = endpoint
	r.engine.Look(shard, org, endpoint)
	return true, nil
}

// events gives those of a page that the endpoint gets again.
func (r *Replays) events(ctx context.Context, t *schedule.Target, after int64, since *time.Time) (list []store.Replayed, through int64, err error) {
	page, err := r.source.Read(ctx, event.ShardOf(t.OrgID), after, t.OrgID)
	var gone *stream.TrimmedError
	if errors.As(err, &gone) {
		return nil, gone.First - 1, nil
	}
	if err != nil {
		return nil, 0, err
	}
	for i := range page.Entries {
		e := &page.Entries[i]
		if old, err := before(e.Envelope, since); old || err != nil {
			if err != nil {
				return nil, 0, err
			}
			continue
		}
		if !t.Replays(ctx, &schedule.Event{EventType: e.EventType, AggregateType: e.AggregateType, AggregateID: e.AggregateID, JSON: e.Envelope}) {
			continue
		}
		id, err := schedule.EventID(e.Envelope)
		if err != nil {
			return nil, 0, err
		}
		list = append(list, store.Replayed{EventID: id, Position: e.Position, EventType: e.EventType, Traceparent: e.Traceparent})
	}
	return list, page.Through, nil
}

func before(envelope []byte, since *time.Time) (bool, error) {
	if since == nil {
		return false, nil
	}
	text, err := schedule.OccurredAt(envelope)
	if err != nil {
		return false, err
	}
	at, err := time.Parse(time.RFC3339, text)
	return at.Before(*since), err
}

var _ Engine = (*delivery.Engine)(nil)

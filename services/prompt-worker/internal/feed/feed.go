// Package feed schedules async runs from the stream: which hooks an event triggers, in the transaction that moves the
// cursor. What becomes of the runs is package runs' matter.
package feed

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/services/prompt-worker/internal/hooks"
	"github.com/sametick/sametick/services/prompt-worker/internal/runs"
	"github.com/sametick/sametick/services/prompt-worker/internal/store"
)

// Feed is the scheduler: Handle, Passes and Committed are stream.Consumer's. Safe for use by the goroutines of several shards.
type Feed struct {
	Store    *store.Store
	Compiler *runs.Compiler
	// MaxDepth bounds chains of hooks that trigger each other.
	MaxDepth int
	// Scheduled is told, after the commit, which hooks of a shard have new runs.
	Scheduled func(shard int, hints []runs.Hint)
	Stats     *Stats

	mu     sync.Mutex
	shards map[int]*shardState
}

// Stats count what the scheduler does.
type Stats struct {
	// Scheduled are runs; Loops are those that would have been on a hook's own consequence, Deep those beyond the depth.
	Scheduled, Loops, Deep atomic.Int64
}

// shardState is what is remembered of a shard between batches. It belongs to the shard's goroutine.
type shardState struct {
	// through is the position that it holds for; -1 while a batch is not committed.
	through int64
	hooks   map[int64][]*hooks.Hook
	hints   []runs.Hint
}

// begin gives the memory of a batch's shard. After a gap nothing is known: another replica had the shard meanwhile, or a
// batch was rolled back, which may have learnt what is not so.
func (f *Feed) begin(b stream.Batch) *shardState {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shards == nil {
		f.shards = map[int]*shardState{}
	}
	s := f.shards[b.Shard]
	if s == nil || s.through != b.After {
		s = &shardState{hooks: map[int64][]*hooks.Hook{}}
		f.shards[b.Shard] = s
	}
	s.through, s.hints = -1, nil
	return s
}

// Committed is stream.Consumer's.
func (f *Feed) Committed(b stream.Batch) {
	f.mu.Lock()
	s := f.shards[b.Shard]
	if s == nil || s.through != -1 && s.through != b.After {
		delete(f.shards, b.Shard)
		f.mu.Unlock()
		return
	}
	s.through = b.Through
	hints := s.hints
	s.hints = nil
	f.mu.Unlock()
	if len(hints) > 0 {
		f.Scheduled(b.Shard, hints)
	}
}

// Passes is stream.Consumer's: it tells whether a batch certainly triggers nothing and changes no hook. Of an organisation
// that is not known it is Handle that learns.
func (f *Feed) Passes(b stream.Batch) bool {
	f.mu.Lock()
	s := f.shards[b.Shard]
	f.mu.Unlock()
	if s == nil || s.through != b.After {
		return false
	}
	for i := range b.Entries {
		e := &b.Entries[i]
		list, known := s.hooks[e.OrgID]
		triggers := func(h *hooks.Hook) bool { return h.Triggers(e.EventType, e.Position) }
		if !known || e.AggregateType == hooks.TypeHook || slices.ContainsFunc(list, triggers) {
			return false
		}
	}
	s.through = b.Through
	return true
}

// Handle is stream.Consumer's: it schedules what a batch triggers.
func (f *Feed) Handle(ctx context.Context, tx pgx.Tx, b stream.Batch) error {
	s := f.begin(b)
	sch, err := f.Store.Schedule(ctx, tx)
	if err != nil {
		return err
	}
	if err := s.load(ctx, sch, b.Entries); err != nil {
		return err
	}
	var list []*runs.Item
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.AggregateType == hooks.TypeHook {
			if err := s.changed(ctx, sch, e); err != nil {
				return err
			}
		}
		list = append(list, f.triggered(ctx, s.hooks[e.OrgID], e)...)
	}
	if len(list) == 0 {
		return nil
	}
	for _, i := range list {
		if h := (runs.Hint{OrgID: i.OrgID, HookID: i.HookID}); !slices.Contains(s.hints, h) {
			s.hints = append(s.hints, h)
		}
	}
	f.Stats.Scheduled.Add(int64(len(list)))
	return sch.Enqueue(ctx, b.Shard, list)
}

// maxOrgs bounds the organisations that a shard remembers hooks of.
const maxOrgs = 10_000

// load learns the hooks of the entries' organisations, where they are not known.
func (s *shardState) load(ctx context.Context, sch *store.Scheduling, entries []stream.Entry) error {
	if len(s.hooks) > maxOrgs {
		clear(s.hooks)
	}
	var orgs []int64
	for i := range entries {
		org := entries[i].OrgID
		if _, known := s.hooks[org]; !known && !slices.Contains(orgs, org) {
			orgs = append(orgs, org)
		}
	}
	if len(orgs) == 0 {
		return nil
	}
	found, err := sch.AsyncHooks(ctx, orgs)
	if err != nil {
		return err
	}
	for _, org := range orgs {
		s.hooks[org] = found[org]
	}
	return nil
}

// changed learns the hooks of an organisation anew: one of them has an event.
func (s *shardState) changed(ctx context.Context, sch *store.Scheduling, e *stream.Entry) error {
	if e.EventType == event.TypeOf(hooks.TypeHook, event.Post(event.Create)) {
		if err := sch.BeginHook(ctx, e.OrgID, e.AggregateID, e.Position); err != nil {
			return err
		}
	}
	delete(s.hooks, e.OrgID)
	return s.load(ctx, sch, []stream.Entry{*e})
}

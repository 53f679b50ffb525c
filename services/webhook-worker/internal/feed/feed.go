// Package feed turns events into deliveries: it consumes the shards that this replica holds, schedules in the
// transaction that moves the cursor, and hands what is committed to the engine.
package feed

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/condition"
	"github.com/sametick/sametick/pkg/errs"
	"github.com/sametick/sametick/pkg/stream"
	"github.com/sametick/sametick/services/webhook-worker/internal/delivery"
	"github.com/sametick/sametick/services/webhook-worker/internal/schedule"
	"github.com/sametick/sametick/services/webhook-worker/internal/store"
)

// Consumer is the name of the cursors.
const Consumer = "webhooks"

// Engine is what sends (delivery.Engine).
type Engine interface {
	Held(shards []int, until time.Time)
	Begin(shard int, newest int64)
	Take(a delivery.Arrival)
	Release(ctx context.Context, shards []int)
	Look(shard int, orgID, endpointID int64)
}

// Feed schedules. Its methods are those that a stream.Consumer calls.
type Feed struct {
	Store    *store.Worker
	Engine   Engine
	Compiler *condition.Compiler
	Log      *slog.Logger
	// Replays works off replays.
	Replays *Replays
	// Scheduled, if set, counts deliveries and those of which a filter could not tell.
	Scheduled func(deliveries, faults int)

	mu     sync.Mutex
	shards map[int]*shard
}

// shard is what is known of a shard between its batches. It belongs to the shard's goroutine.
type shard struct {
	orgs map[int64]*schedule.Org
	// plan is what the batch in hand leads to once it is committed.
	plan plan
}

// plan is what a batch leads to.
type plan struct {
	arrival delivery.Arrival
	faults  []delivery.Outcome
	met     map[int64]bool
	replay  bool
}

// maxOrgs bounds the organisations of a shard that are remembered.
const maxOrgs = 10_000

// Wire makes a consumer work for the feed. It begins with the oldest event kept: an endpoint may be older than the first
// cursor, and begins with its own event.
func (f *Feed) Wire(c *stream.Consumer) {
	c.Name, c.Handle, c.Committed, c.Begun, c.Release = Consumer, f.Handle, f.Committed, f.Begun, f.Engine.Release
	c.Held = func(shards []int, until time.Time) {
		f.Replays.Held(shards)
		f.Engine.Held(shards, until)
	}
}

func (f *Feed) shard(id int) *shard {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.shards == nil {
		f.shards = map[int]*shard{}
	}
	if f.shards[id] == nil {
		f.shards[id] = &shard{orgs: map[int64]*schedule.Org{}}
	}
	return f.shards[id]
}

// Begun forgets what was known of a shard: another holder may have taken events since, and what was committed last may
// never have been told.
func (f *Feed) Begun(ctx context.Context, id int) {
	*f.shard(id) = shard{orgs: map[int64]*schedule.Org{}}
	newest, err := f.Store.Newest(ctx)
	if err != nil {
		f.Log.WarnContext(ctx, "the newest delivery cannot be read", slog.Any("error", err)) // the engine does without
	}
	f.Engine.Begin(id, newest)
	f.Replays.Add(id)
}

// Handle schedules what a batch leads to.
func (f *Feed) Handle(ctx context.Context, tx pgx.Tx, b stream.Batch) error {
	if err := f.Store.EveryOrg(ctx, tx); err != nil {
		return err
	}
	s := f.shard(b.Shard)
	s.plan = plan{arrival: delivery.Arrival{Shard: b.Shard}}
	if err := f.know(ctx, tx, s, b.Entries); err != nil {
		return err
	}
	now := time.Now()
	for i := range b.Entries {
		if err := f.entry(ctx, tx, s, &b.Entries[i], now); err != nil {
			return err
		}
	}
	if list := s.plan.arrival.Deliveries; len(list) > 0 {
		if err := f.Store.Schedule(ctx, tx, b.Shard, now, list); err != nil {
			return err
		}
	}
	return f.Store.Record(ctx, tx, s.plan.faults)
}

// Committed hands a batch's deliveries to the engine.
func (f *Feed) Committed(b stream.Batch) {
	s := f.shard(b.Shard)
	p := s.plan
	s.plan = plan{}
	if len(p.arrival.Deliveries)+len(p.arrival.Changed) > 0 {
		f.Engine.Take(p.arrival)
	}
	if p.replay {
		f.Replays.Add(b.Shard)
	}
	if f.Scheduled != nil {
		f.Scheduled(len(p.arrival.Deliveries), len(p.faults))
	}
}

// know loads the endpoints of a batch's organisations that are not known yet.
func (f *Feed) know(ctx context.Context, tx pgx.Tx, s *shard, entries []stream.Entry) error {
	var missing []int64
	for i := range entries {
		id := entries[i].OrgID
		if _, ok := s.orgs[id]; ok {
			continue
		}
		missing = append(missing, id)
		if len(s.orgs) >= maxOrgs {
			forgetOne(s.orgs, entries)
		}
		s.orgs[id] = schedule.NewOrg()
	}
	if missing == nil {
		return nil
	}
	list, err := f.Store.Endpoints(ctx, tx, missing)
	if err != nil {
		for _, id := range missing {
			delete(s.orgs, id)
		}
		return fmt.Errorf("load endpoints: %w", err)
	}
	for _, e := range list {
		s.orgs[e.OrgID].Put(f.target(e))
	}
	return nil
}

// forgetOne makes room, but not of what the batch needs.
func forgetOne(orgs map[int64]*schedule.Org, entries []stream.Entry) {
	for id := range orgs {
		needed := false
		for i := range entries {
			needed = needed || entries[i].OrgID == id
		}
		if !needed {
			delete(orgs, id)
			return
		}
	}
}

func (f *Feed) target(e *delivery.Endpoint) *schedule.Target {
	if e.Fault != "" {
		f.Log.Error("an endpoint cannot be sent to", "org_id", e.OrgID, "endpoint_id", e.ID, "fault", e.Fault)
	}
	return schedule.NewTarget(e, f.Compiler)
}

// entry plans what one event leads to.
func (f *Feed) entry(ctx context.Context, tx pgx.Tx, s *shard, e *stream.Entry, now time.Time) error {
	org := s.orgs[e.OrgID]
	if e.AggregateType == delivery.EndpointType {
		if err := f.touch(ctx, tx, s, org, e); err != nil {
			return err
		}
	}
	trigger, targets := delivery.ByEvent, org.Subscribers(e.EventType)
	if e.EventType == schedule.TestType {
		trigger, targets = delivery.ByTest, nil
		if t := org.Get(e.AggregateID); t != nil && t.Closed() == "" {
			targets = []*schedule.Target{t}
		}
	}
	if len(targets) == 0 {
		return nil
	}
	id, err := schedule.EventID(e.Envelope)
	if err != nil {
		return err
	}
	ev := schedule.Event{EventType: e.EventType, AggregateType: e.AggregateType, AggregateID: e.AggregateID, JSON: e.Envelope}
	var text []byte
	for _, t := range targets {
		wants, fault := true, error(nil)
		if trigger == delivery.ByEvent {
			if wants, fault = t.Wants(ctx, &ev, e.Position); ctx.Err() != nil {
				return ctx.Err()
			}
		}
		if !wants && fault == nil {
			continue
		}
		if text == nil {
			text = schedule.Compact(e.Envelope)
		}
		d := &delivery.Delivery{OrgID: e.OrgID, EndpointID: t.ID, Shard: s.plan.arrival.Shard, EventID: id, Position: e.Position, EventType: e.EventType,
			Trigger: trigger, Due: now, ScheduledAt: now, Traceparent: e.Traceparent, Event: text}
		if fault != nil {
			s.plan.faults = append(s.plan.faults, delivery.Outcome{Delivery: *d, Kind: delivery.Failed,
				Result: delivery.Result{Cause: delivery.CauseFilter, Error: fault.Error(), Began: now}})
			continue
		}
		s.plan.arrival.Deliveries = append(s.plan.arrival.Deliveries, d)
		s.plan.meet(t.Endpoint)
	}
	return nil
}

// meet notes an endpoint that gets a delivery; most batches have few of them, in the same order.
func (p *plan) meet(e *delivery.Endpoint) {
	if p.met == nil {
		p.met = map[int64]bool{}
	}
	if !p.met[e.ID] {
		p.met[e.ID] = true
		p.arrival.Endpoints = append(p.arrival.Endpoints, e)
	}
}

// touch follows what an endpoint's event says of it.
func (f *Feed) touch(ctx context.Context, tx pgx.Tx, s *shard, org *schedule.Org, e *stream.Entry) error {
	_, action, _ := strings.Cut(e.EventType, ".")
	switch action {
	case "post_create", delivery.ActionEnabled, delivery.ActionRestored:
		id, err := schedule.EventID(e.Envelope)
		if err != nil {
			return err
		}
		if err := f.Store.BeginEndpoint(ctx, tx, e.OrgID, e.AggregateID, e.Position, id); err != nil {
			return err
		}
	case "post_update", "post_archive", delivery.ActionDisabled, delivery.ActionSecretRotated,
		delivery.ActionRedeliveryRequested, delivery.ActionSkipRequested:
	case delivery.ActionReplayRequested:
		s.plan.replay = true
		return nil
	default:
		return nil
	}
	found, err := f.Store.Endpoint(ctx, tx, e.OrgID, e.AggregateID)
	if errs.KindOf(err) == errs.NotFound { // anybody may record an event of this type
		return nil
	}
	if err != nil {
		return fmt.Errorf("load endpoint %d: %w", e.AggregateID, err)
	}
	org.Put(f.target(found))
	s.plan.arrival.Changed = append(s.plan.arrival.Changed, found)
	return nil
}

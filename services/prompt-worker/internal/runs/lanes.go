package runs

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/sametick/sametick/pkg/backoff"
)

// database spreads attempts to reach it.
var database = backoff.Policy{Base: 50 * time.Millisecond, Cap: 2 * time.Second, Floor: 10 * time.Millisecond}

// shard is one that this replica holds, or has lost with runs in hand.
type shard struct {
	id     int
	lanes  map[int64]*lane
	flying int
	lost   bool
}

type org struct {
	id     int64
	lanes  int
	flying int
	line   []*lane
	lined  bool
	room   room
}

// lane is a hook that something waits for.
type lane struct {
	hook  int64
	org   *org
	shard *shard
	// due is when the table has something, as far as is known; zero for nothing.
	due time.Time
	// hinted: something came while the lane was being loaded.
	hinted, loading, lined bool
	inHand                 map[int64]struct{}
	flying                 int
	room                   room
	alarm                  *time.Timer
}

// room tells whether there is enough of it, under one of the bounds, that a load is worth its while.
type room struct {
	loaded time.Time
	// waiting: somebody looks again when it has lingered.
	waiting bool
}

// enough also calls again once there is, if there is not now.
func (r *room) enough(e *Engine, flying, bound int, again func()) bool {
	free := bound - flying
	if free <= 0 {
		return false
	}
	left := linger - time.Since(r.loaded)
	if flying == 0 || 2*free >= min(turn, bound) || left <= 0 {
		return true
	}
	if !r.waiting {
		r.waiting = true
		time.AfterFunc(left, func() { e.post(func() { r.waiting = false; again() }) })
	}
	return false
}

// Hint says that a hook has something due in a shard.
type Hint struct{ OrgID, HookID int64 }

// Take tells which hooks a committed batch of a shard has scheduled runs for.
func (e *Engine) Take(shard int, hints []Hint) {
	e.post(func() {
		s := e.shards[shard]
		if s == nil { // another replica's by now, which finds them in the table
			return
		}
		now := time.Now()
		for _, h := range hints {
			e.due(e.lane(s, h.OrgID, h.HookID), now)
		}
	})
}

// Held tells the engine which shards this replica holds. It begins with what waits in those that are new and forgets
// those that are missing.
func (e *Engine) Held(shards []int) {
	shards = slices.Clone(shards)
	e.post(func() { e.held(shards) })
}

// release is a call of Release that waits.
type release struct {
	shards []int
	done   chan struct{}
}

// Release forgets shards, and returns when no run of theirs is in hand, or ctx ends.
func (e *Engine) Release(ctx context.Context, shards []int) {
	r := release{slices.Clone(shards), make(chan struct{})}
	e.post(func() {
		for _, id := range r.shards {
			e.lose(e.shards[id])
		}
		e.releases = append(e.releases, r)
		e.released()
	})
	select {
	case <-r.done:
	case <-ctx.Done():
	case <-e.ended:
	}
}

// released ends the calls of Release that have nothing left to wait for.
func (e *Engine) released() {
	e.lost = slices.DeleteFunc(e.lost, func(s *shard) bool { return s.flying == 0 })
	e.releases = slices.DeleteFunc(e.releases, func(r release) bool {
		open := slices.ContainsFunc(e.lost, func(s *shard) bool { return slices.Contains(r.shards, s.id) })
		if !open {
			close(r.done)
		}
		return !open
	})
}

func (e *Engine) held(ids []int) {
	for id, s := range e.shards {
		if !slices.Contains(ids, id) {
			e.lose(s)
		}
	}
	for _, id := range ids {
		if e.shards[id] == nil {
			s := &shard{id: id, lanes: map[int64]*lane{}}
			e.shards[id] = s
			e.scan(s)
		}
	}
}

// lose forgets a shard; runs in hand go on and are persisted.
func (e *Engine) lose(s *shard) {
	if s == nil {
		return
	}
	for _, l := range s.lanes {
		e.drop(l)
	}
	s.lost = true
	delete(e.shards, s.id)
	if s.flying > 0 {
		e.lost = append(e.lost, s)
	}
}

// scan learns what waits in a shard that is new here.
func (e *Engine) scan(s *shard) {
	e.async(func() func() {
		var list []Waiting
		err := e.retry(e.take, "what waits in a shard cannot be read", func(ctx context.Context) (err error) {
			list, err = e.c.Queue.Waiting(ctx, s.id)
			return err
		})
		return func() {
			if err != nil || s.lost {
				return
			}
			for _, w := range list {
				e.due(e.lane(s, w.OrgID, w.HookID), w.Due)
			}
		}
	})
}

// retry does something until it succeeds or ctx ends.
func (e *Engine) retry(ctx context.Context, text string, do func(context.Context) error) (err error) {
	for failures := 1; ; failures++ {
		if err = do(ctx); err == nil || ctx.Err() != nil {
			return err
		}
		e.c.Log.WarnContext(ctx, text, slog.Any("error", err))
		t := time.NewTimer(database.Next(failures))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}

// lane finds or begins a hook's.
func (e *Engine) lane(s *shard, orgID, hook int64) *lane {
	l := s.lanes[hook]
	if l == nil {
		o := e.orgs[orgID]
		if o == nil {
			o = &org{id: orgID}
			e.orgs[orgID] = o
		}
		o.lanes++
		l = &lane{hook: hook, org: o, shard: s, inHand: map[int64]struct{}{}}
		s.lanes[hook] = l
		e.c.Stats.Lanes.Add(1)
	}
	return l
}

// drop forgets a lane.
func (e *Engine) drop(l *lane) {
	l.due = time.Time{}
	e.wake(l, time.Time{})
	if l.shard.lanes[l.hook] != l {
		return
	}
	delete(l.shard.lanes, l.hook)
	e.c.Stats.Lanes.Add(-1)
	if l.org.lanes--; l.org.lanes == 0 && l.org.flying == 0 {
		delete(e.orgs, l.org.id)
	}
}

// due notes that a lane has something at a time.
func (e *Engine) due(l *lane, at time.Time) {
	if l.loading && !at.After(time.Now()) {
		l.hinted = true
	}
	if l.due.IsZero() || at.Before(l.due) {
		l.due = at
	}
	e.settle(l)
}

// settle brings a lane to where it belongs after something has changed: into the line, among those that wait for a
// time, or away.
func (e *Engine) settle(l *lane) {
	now := time.Now()
	switch {
	case l.shard.lost || l.loading || l.lined:
	case l.due.IsZero():
		e.wake(l, time.Time{})
		if len(l.inHand) == 0 {
			e.drop(l)
		}
	case l.due.After(now):
		e.wake(l, l.due)
	case l.room.enough(e, l.flying, e.c.PerHook, func() { e.settle(l) }):
		e.wake(l, time.Time{})
		l.lined = true
		l.org.line = append(l.org.line, l)
		e.enlist(l.org)
	}
}

// wake sets the time at which a lane is settled by itself; zero for none.
func (e *Engine) wake(l *lane, at time.Time) {
	if l.alarm != nil {
		l.alarm.Stop()
		l.alarm = nil
	}
	if !at.IsZero() {
		l.alarm = time.AfterFunc(time.Until(at), func() { e.post(func() { e.settle(l) }) })
	}
}

// enlist puts an organisation at the end of the line if it has something due and room for it.
func (e *Engine) enlist(o *org) {
	if !o.lined && len(o.line) > 0 && o.room.enough(e, o.flying, e.c.PerOrg, func() { e.enlist(o) }) {
		o.lined = true
		e.line = append(e.line, o)
	}
}

// dispatch loads runs while there is room, an organisation's turn after the other, and of an organisation a hook's
// after the other.
func (e *Engine) dispatch() {
	for len(e.line) > 0 && (e.bytes < e.c.MaxBytes || e.flying == 0) && e.room.enough(e, e.flying, e.c.InAll, func() {}) {
		o := e.line[0]
		e.line = e.line[1:]
		o.lined = false
		l := o.line[0]
		o.line = o.line[1:]
		l.lined = false
		if !l.shard.lost && !l.due.IsZero() {
			e.load(l)
		}
		e.enlist(o)
	}
}

// load takes room for some runs of a lane, and begins as many as there are.
func (e *Engine) load(l *lane) {
	n := min(turn, e.c.PerHook-l.flying, e.c.PerOrg-l.org.flying, e.c.InAll-e.flying)
	e.fly(l, n)
	now := time.Now()
	l.room.loaded, l.org.room.loaded, e.room.loaded = now, now, now
	l.loading, l.hinted = true, false
	want := Want{Shard: l.shard.id, OrgID: l.org.id, HookID: l.hook, Limit: n, Except: slices.Collect(maps.Keys(l.inHand))}
	e.async(func() func() {
		var got Window
		err := e.retry(e.take, "what is due of a hook cannot be read", func(ctx context.Context) (err error) {
			got, err = e.c.Queue.Load(ctx, want)
			return err
		})
		return func() { e.loaded(l, n, got, err) }
	})
}

func (e *Engine) loaded(l *lane, n int, got Window, err error) {
	l.loading = false
	if err != nil || l.shard.lost { // nothing has begun
		e.fly(l, -n)
		e.released()
		return
	}
	e.fly(l, len(got.Items)-n)
	l.due = got.Next
	if l.hinted {
		l.due = time.Now()
	}
	for _, item := range got.Items {
		l.inHand[item.ID] = struct{}{}
		e.bytes += int64(len(item.Event))
		e.async(func() func() {
			next := e.run(got.Setup, item)
			return func() { e.landed(l, item, next) }
		})
	}
	e.settle(l)
}

// landed is the end of a run in hand; next is when the table has it due again, zero for never.
func (e *Engine) landed(l *lane, item *Item, next time.Time) {
	e.bytes -= int64(len(item.Event))
	delete(l.inHand, item.ID)
	e.fly(l, -1)
	if !next.IsZero() && (l.due.IsZero() || next.Before(l.due)) {
		l.due = next
	}
	e.settle(l)
	e.released()
}

// fly counts runs in hand.
func (e *Engine) fly(l *lane, n int) {
	l.flying += n
	l.org.flying += n
	l.shard.flying += n
	e.flying += n
	if n < 0 {
		e.enlist(l.org)
		if l.org.lanes == 0 && l.org.flying == 0 && e.orgs[l.org.id] == l.org {
			delete(e.orgs, l.org.id)
		}
	}
}

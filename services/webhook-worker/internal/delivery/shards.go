package delivery

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/sametick/sametick/pkg/backoff"
)

// again spreads attempts to reach the database.
var again = backoff.Policy{Base: 50 * time.Millisecond, Cap: 2 * time.Second, Floor: 10 * time.Millisecond}

// Held tells the engine which shards this replica holds, and until when at the earliest another one may. It forgets
// those that are missing.
func (e *Engine) Held(shards []int, until time.Time) {
	shards = slices.Clone(shards)
	e.post(func() { e.held(shards, until) })
}

// Begin lets the engine look what waits in a shard that it holds: at first, and whenever something may have been
// scheduled that never arrives. No delivery with an id up to newest will arrive; 0 is always true.
func (e *Engine) Begin(id int, newest int64) {
	e.post(func() {
		if s := e.shards[id]; s != nil {
			s.arrived = max(s.arrived, newest)
			e.scan(s)
		}
	})
}

// Look lets the engine read what waits for an endpoint, to which something was queued that does not arrive.
func (e *Engine) Look(shard int, orgID, endpointID int64) {
	e.post(func() {
		if s := e.shards[shard]; s != nil {
			now := time.Now()
			ep := e.endpoint(s, orgID, endpointID)
			ep.later(now)
			e.settle(ep, now)
		}
	})
}

// release is a call of Release that waits.
type release struct {
	shards []int
	done   chan struct{}
}

// Release forgets shards, and returns when no attempt of theirs is under way or not persisted, or ctx ends.
func (e *Engine) Release(ctx context.Context, shards []int) {
	r := release{shards, make(chan struct{})}
	e.post(func() {
		for _, id := range shards {
			e.lose(e.shards[id])
		}
		e.urgent = true
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
	e.lost = slices.DeleteFunc(e.lost, func(s *shard) bool { return s.open == 0 })
	e.releases = slices.DeleteFunc(e.releases, func(r release) bool {
		open := slices.ContainsFunc(e.lost, func(s *shard) bool { return slices.Contains(r.shards, s.id) })
		if !open {
			close(r.done)
		}
		return !open
	})
}

func (e *Engine) held(ids []int, until time.Time) {
	for id, s := range e.shards {
		if !slices.Contains(ids, id) {
			e.lose(s)
		}
	}
	now := time.Now()
	for _, id := range ids {
		s := e.shards[id]
		if s == nil {
			s = &shard{id: id, endpoints: map[int64]*endpoint{}, early: map[int64]struct{}{}}
			e.shards[id] = s
		}
		s.until = until
		stalled := s.stalled
		s.stalled = nil
		for _, ep := range stalled {
			ep.lined = false
			e.settle(ep, now)
		}
	}
}

// lose forgets a shard; attempts under way go on and are persisted.
func (e *Engine) lose(s *shard) {
	if s == nil {
		return
	}
	for _, ep := range s.endpoints {
		e.drop(ep)
	}
	s.lost = true
	delete(e.shards, s.id)
	if s.open > 0 {
		e.lost = append(e.lost, s)
	}
}

// scan learns what waits in a shard.
func (e *Engine) scan(s *shard) {
	s.scans++
	e.async(func() func() {
		list, err := retried(e, "what waits in a shard cannot be read", func() ([]Waiting, error) {
			return e.c.Queue.Waiting(e.take, s.id)
		})
		return func() {
			s.scans--
			if err != nil || s.lost {
				return
			}
			now := time.Now()
			for _, w := range list {
				ep := e.endpoint(s, w.OrgID, w.EndpointID)
				ep.later(w.Due)
				e.settle(ep, now)
			}
		}
	})
}

// retried reads until it succeeds or the engine takes no more.
func retried[A any](e *Engine, text string, read func() (A, error)) (a A, err error) {
	for failures := 1; ; failures++ {
		if a, err = read(); err == nil || e.take.Err() != nil {
			return a, err
		}
		e.c.Log.WarnContext(e.take, text, slog.Any("error", err))
		sleep(e.take, again.Next(failures))
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

// endpoint finds or begins the state of an endpoint.
func (e *Engine) endpoint(s *shard, orgID, id int64) *endpoint {
	ep := s.endpoints[id]
	if ep == nil {
		o := e.orgs[orgID]
		if o == nil {
			o = &org{id: orgID}
			e.orgs[orgID] = o
		}
		o.endpoints++
		ep = newEndpoint(id, s, o)
		s.endpoints[id] = ep
		e.c.Stats.Endpoints.Add(1)
	}
	return ep
}

// drop forgets an endpoint.
func (e *Engine) drop(ep *endpoint) {
	e.forget(ep)
	ep.lost = true
	e.alarms.set(ep, time.Time{})
	e.broken(ep, func() { ep.breaker.succeeded() })
	delete(ep.shard.endpoints, ep.id)
	if ep.org.endpoints--; ep.org.endpoints == 0 && e.orgs[ep.org.id] == ep.org {
		delete(e.orgs, ep.org.id)
	}
	e.c.Stats.Endpoints.Add(-1)
}

// sweep forgets endpoints that nothing happens at.
func (e *Engine) sweep(now time.Time) {
	for _, s := range e.shards {
		for _, ep := range s.endpoints {
			if ep.idle() && now.Sub(ep.used) > idleAfter {
				e.drop(ep)
			}
		}
	}
}

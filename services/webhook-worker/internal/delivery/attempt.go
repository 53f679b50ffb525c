package delivery

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"
)

// flight is an attempt, from its beginning until it is persisted.
type flight struct {
	ep      *endpoint
	d       *Delivery
	trust   trust
	outcome Outcome
}

// send begins an attempt at what is first in the window.
func (e *Engine) send(ep *endpoint, now time.Time) {
	d := ep.waiting.next()
	e.c.Stats.Waiting.Add(-1)
	f := &flight{ep: ep, d: d, trust: ep.trust}
	ep.flying++
	ep.org.flying++
	ep.shard.open++
	e.flying++
	e.trusted[f.trust]++
	ep.used = now
	if d.Event == nil {
		e.land(f, Result{Cause: CauseEventGone, Error: "the event is older than what is kept", Began: now})
		return
	}
	conf := ep.conf
	if conf.RateLimit > 0 {
		ep.pace.spend(now, conf.RateLimit)
	}
	e.async(func() func() {
		r := e.c.Sender.Send(e.work, conf, d)
		return func() { e.land(f, r) }
	})
}

// land takes in what an attempt met.
func (e *Engine) land(f *flight, r Result) {
	ep, now := f.ep, time.Now()
	ep.flying--
	ep.org.flying--
	e.flying--
	e.enlist(ep.org)
	e.trusted[f.trust]--
	if r.Cause != "" && e.work.Err() != nil { // broken off by us: it is sent again
		ep.shard.open--
		return
	}
	f.outcome = Decide(f.d, &r, ep.conf.Closed(), now, rand.Float64())
	e.note(ep, &r, now)
	if len(e.pending) == 0 {
		e.pendingSince = now
	}
	e.pending = append(e.pending, f)
	e.urgent = e.urgent || ep.waiting.ordered
	ep.unsaved++
	e.unsaved++
	e.unsavedBytes += len(r.Body)
	if e.c.Observe != nil {
		e.c.Observe(&f.outcome)
	}
	e.settle(ep, now)
}

// note lets an attempt count for its endpoint.
func (e *Engine) note(ep *endpoint, r *Result, now time.Time) {
	switch {
	case r.Cause == "":
		ep.width, ep.trust = min(ep.width+1, e.c.PerEndpoint), proven
		e.broken(ep, ep.breaker.succeeded)
	case blames(r.Cause):
		ep.width, ep.trust = 1, failing
		e.broken(ep, func() { ep.breaker.failed(now, rand.Float64()) })
	}
	if r.RetryAfter > 0 {
		ep.hold = now.Add(min(r.RetryAfter, maxHold))
	}
	if changed, disable := ep.health.note(r, now); changed {
		e.changes[ep.id] = Change{OrgID: ep.org.id, EndpointID: ep.id, FailingSince: ep.health.failingSince, Disable: disable}
		if disable != "" && ep.conf.Closed() == "" {
			closed := *ep.conf
			closed.Enabled = false
			closed.Version++
			ep.conf = &closed
			ep.later(now)
		}
	}
}

// broken counts breakers that open and close.
func (e *Engine) broken(ep *endpoint, change func()) {
	was := ep.breaker.isOpen()
	change()
	switch is := ep.breaker.isOpen(); {
	case is && !was:
		e.c.Stats.Broken.Add(1)
	case was && !is:
		e.c.Stats.Broken.Add(-1)
	}
}

// save has outcomes persisted, one batch at a time: what comes meanwhile is the next.
func (e *Engine) save(now time.Time) {
	if e.saving || len(e.pending) == 0 ||
		len(e.pending) < saveAt && !e.urgent && now.Sub(e.pendingSince) < saveAfter {
		return
	}
	n := min(len(e.pending), saveAt)
	flights := e.pending[:n:n]
	e.pending = e.pending[n:]
	e.saving, e.urgent = true, len(e.releases) > 0
	b := &Batch{Outcomes: make([]Outcome, n), Changes: make([]Change, 0, len(e.changes))}
	for i := range flights {
		b.Outcomes[i] = flights[i].outcome
	}
	for id, c := range e.changes {
		b.Changes = append(b.Changes, c)
		delete(e.changes, id)
	}
	e.async(func() func() {
		refused, err := e.persist(b)
		return func() { e.saved(flights, refused, err) }
	})
}

// persist tries until it succeeds or work has ended.
func (e *Engine) persist(b *Batch) ([]int64, error) {
	for failures := 1; ; failures++ {
		limit := saveTimeout
		if e.work.Err() != nil {
			limit = lastSave
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(e.work), limit)
		refused, err := e.c.History.Save(ctx, b)
		cancel()
		b.Again = true
		if err == nil || e.work.Err() != nil {
			return refused, err
		}
		e.c.Log.WarnContext(e.work, "outcomes are not persisted yet", slog.Any("error", err), slog.Int("outcomes", len(b.Outcomes)))
		sleep(e.work, again.Next(failures))
	}
}

func (e *Engine) saved(flights []*flight, refused []int64, err error) {
	now := time.Now()
	e.saving = false
	if len(e.pending) > 0 {
		e.pendingSince = now
	}
	unlike := make(map[int64]bool, len(refused))
	for _, id := range refused {
		unlike[id] = true
	}
	for _, f := range flights {
		f.ep.unsaved--
		f.ep.shard.open--
		e.unsaved--
		e.unsavedBytes -= len(f.outcome.Result.Body)
		e.bytes -= int64(len(f.d.Event))
		switch {
		case err != nil: // the end of work: the table knows nothing of it
		case f.outcome.Kind == Retrying && !unlike[f.d.ID]:
			e.retry(f, now)
		default:
			f.ep.leave(f.d.ID)
			if unlike[f.d.ID] {
				e.forget(f.ep)
				f.ep.later(now)
			}
		}
		e.settle(f.ep, now)
	}
	e.released()
}

// retry lets a delivery wait for its next attempt, in memory when that is soon.
func (e *Engine) retry(f *flight, now time.Time) {
	ep, d := f.ep, f.d
	far := f.outcome.Next.After(now.Add(keep)) || ep.waiting.size() >= 2*window || !e.room(ep)
	if ep.lost || far && !ep.waiting.ordered { // an ordered one's place is before the others'
		ep.leave(d.ID)
		ep.later(f.outcome.Next)
		return
	}
	d.Attempts++
	d.Due = f.outcome.Next
	e.admit(ep, d)
}

// load has a window loaded, when its turn comes.
func (e *Engine) load(ep *endpoint) {
	ep.loading = true
	e.loadLine = append(e.loadLine, ep)
	e.loadNext()
}

func (e *Engine) loadNext() {
	for len(e.loadLine) > 0 && e.loads < maxLoads {
		var ep *endpoint
		ep, e.loadLine = shift(e.loadLine)
		if ep.lost {
			continue
		}
		w := ep.want(loadSize)
		w.Conf, w.Until = ep.conf == nil, time.Now().Add(keep)
		if w.Ordered {
			w.Limit = orderedWindow
		}
		ep.goOn(&w)
		ep.beyond = time.Time{} // what is left to the table from now on, the window may not show
		e.loads++
		e.async(func() func() {
			got, err := retried(e, "a window is not loaded yet", func() (Window, error) { return e.c.Queue.Load(e.take, w) })
			return func() { e.loaded(ep, w, got, err) }
		})
	}
}

func (e *Engine) loaded(ep *endpoint, want Want, w Window, err error) {
	now := time.Now()
	e.loads--
	e.loadNext()
	ep.loading = false
	if err == nil && !ep.lost {
		if ep.conf == nil {
			e.configure(ep, w.Endpoint, now)
		}
		ep.pass(want, w.Deliveries, now)
		if len(want.IDs) == 0 {
			ep.ahead = w.Ahead
		}
		if ep.waiting.ordered != want.Ordered { // it was asked for in the wrong order
			w.Deliveries, w.Next, ep.ahead = nil, now, nil
		}
		for _, d := range w.Deliveries {
			if _, ok := ep.known[d.ID]; ok {
				continue
			}
			if d.ID > ep.shard.arrived && d.Trigger == ByEvent {
				ep.shard.early[d.ID] = struct{}{}
			}
			e.admit(ep, d)
		}
		if !w.Next.IsZero() {
			ep.later(w.Next)
		}
	}
	for _, id := range ep.left {
		delete(ep.known, id)
	}
	ep.left = nil
	e.settle(ep, now)
}

// cancel ends what waits for an endpoint that is closed.
func (e *Engine) cancel(ep *endpoint) {
	e.forget(ep)
	switch {
	case ep.beyond.IsZero(), ep.loading: // what is loaded leads here again
		return
	case ep.cancelling:
		ep.again = true
		return
	}
	ep.cancelling, ep.beyond = true, time.Time{}
	w := ep.want(cancelAt) // what is under way ends by itself
	e.async(func() func() {
		_, err := retried(e, "deliveries are not cancelled yet", func() (n int, err error) {
			for n = cancelAt; n == cancelAt && err == nil; {
				n, err = e.c.History.Cancel(e.take, w)
			}
			return n, err
		})
		return func() {
			ep.cancelling = false
			if ep.again || err != nil {
				ep.again = false
				ep.later(time.Now())
			}
			e.settle(ep, time.Now())
		}
	})
}

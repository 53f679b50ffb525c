package delivery

import "time"

// Take hands over what a committed batch led to. What memory has no room for stays in the table, where it is too.
// Batches of a shard come in order, after Held has named it.
func (e *Engine) Take(a Arrival) { e.post(func() { e.arrive(a) }) }

func (e *Engine) arrive(a Arrival) {
	s := e.shards[a.Shard]
	if s == nil { // another replica's by now, which finds it in the table
		return
	}
	now := time.Now()
	for _, conf := range a.Changed {
		e.change(e.endpoint(s, conf.OrgID, conf.ID), conf, now)
	}
	for _, conf := range a.Endpoints {
		e.configure(e.endpoint(s, conf.OrgID, conf.ID), conf, now)
	}
	for _, d := range a.Deliveries {
		s.arrived = max(s.arrived, d.ID)
		if _, ok := s.early[d.ID]; ok {
			continue
		}
		ep := e.endpoint(s, d.OrgID, d.EndpointID)
		e.offer(ep, d, now)
		e.settle(ep, now)
	}
	for id := range s.early {
		if id <= s.arrived {
			delete(s.early, id)
		}
	}
}

// offer lets a delivery wait in memory, or, behind others or without room, in the table.
func (e *Engine) offer(ep *endpoint, d *Delivery, now time.Time) {
	if _, ok := ep.known[d.ID]; ok {
		return
	}
	if ep.shard.scans > 0 || ep.backlog(now) || ep.loading && ep.waiting.ordered || ep.waiting.size() >= window || !e.room(ep) {
		ep.later(d.Due)
		return
	}
	e.admit(ep, d)
}

func (e *Engine) admit(ep *endpoint, d *Delivery) {
	ep.known[d.ID] = struct{}{}
	ep.waiting.add(d)
	e.bytes += int64(len(d.Event))
	e.c.Stats.Waiting.Add(1)
}

// forget leaves what waits to the table.
func (e *Engine) forget(ep *endpoint) {
	gone := ep.waiting.all()
	for _, d := range gone {
		e.bytes -= int64(len(d.Event))
		ep.leave(d.ID)
		ep.later(d.Due)
	}
	e.c.Stats.Waiting.Add(-int64(len(gone)))
	ep.passed, ep.ahead = time.Time{}, nil
}

// room tells whether memory has room for more of an endpoint.
func (e *Engine) room(ep *endpoint) bool {
	return e.bytes < e.c.MaxBytes/2 || ep.waiting.size() < modest && e.bytes < e.c.MaxBytes
}

// configure takes a newer state of an endpoint.
func (e *Engine) configure(ep *endpoint, conf *Endpoint, now time.Time) {
	was := ep.conf
	if was != nil && conf.Version < was.Version {
		return
	}
	ep.conf, ep.used = conf, now
	if was == nil || was.Closed() != "" {
		ep.health.failingSince = conf.FailingSince
	}
	if ep.waiting.ordered != conf.Ordered {
		e.forget(ep)
		ep.waiting.ordered = conf.Ordered
	}
}

// change takes an endpoint that its owner has touched: what waits for it may be others now, and it is tried at once.
func (e *Engine) change(ep *endpoint, conf *Endpoint, now time.Time) {
	e.configure(ep, conf, now)
	e.forget(ep)
	ep.later(now)
	ep.hold = time.Time{}
	ep.breaker.probe()
	e.settle(ep, now)
}

// settle brings an endpoint to where it belongs after something has changed: into the line when an attempt may begin,
// to the loader when its window runs out, among the alarms when its time is known.
func (e *Engine) settle(ep *endpoint, now time.Time) {
	if ep.lost {
		return
	}
	if ep.conf != nil && ep.conf.Closed() != "" {
		e.cancel(ep)
		return
	}
	open, at := ep.open(now)
	if head := ep.waiting.head(); head != nil && ep.waiting.ordered && ep.flying+ep.unsaved == 0 && head.Due.After(now.Add(keep)) {
		ep.hold = head.Due // it blocks the others
		open, at = ep.open(now)
	}
	if !open && at.After(now.Add(keep)) { // what cannot be sent has no claim to memory
		e.forget(ep)
	}
	alarm := e.refill(ep, open, at, now)
	if ep.lined {
		return
	}
	ready, due := ep.ready(now)
	if ready {
		ep.lined = true
		ep.org.line = append(ep.org.line, ep)
		e.enlist(ep.org)
		alarm = time.Time{}
	} else if alarm.IsZero() || !due.IsZero() && due.Before(alarm) {
		alarm = due
	}
	e.alarms.set(ep, alarm)
}

// refill has the next window loaded when the table has something due and memory little; else it gives when to look again,
// zero when something else will lead here.
func (e *Engine) refill(ep *endpoint, open bool, at, now time.Time) time.Time {
	head := ep.waiting.head()
	switch {
	case ep.beyond.IsZero(), ep.loading:
		return time.Time{}
	case ep.waiting.ordered && ep.waiting.size()+ep.flying+ep.unsaved > 0: // strictly after these
		return time.Time{}
	case !open:
		if at.IsZero() {
			return at
		}
		return later(at, ep.beyond)
	case ep.beyond.After(now):
		return ep.beyond
	case head != nil && !head.Due.After(now) && ep.waiting.size() > loadAt:
		return time.Time{}
	case ep.waiting.size() >= 2*window, !e.room(ep):
		return now.Add(breathe)
	}
	e.load(ep)
	return time.Time{}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// enlist puts an organisation at the end of the line if it has something ready and room for it.
func (e *Engine) enlist(o *org) {
	if !o.lined && len(o.line) > 0 && o.flying < e.c.PerOrg {
		o.lined = true
		e.line = append(e.line, o)
	}
}

// dispatch begins attempts while there is room, an organisation's turn after the other, and of an organisation an
// endpoint's after the other.
func (e *Engine) dispatch(now time.Time) {
	e.unpark(now)
	for len(e.line) > 0 && e.flying < e.c.InAll && e.unsaved < maxUnsaved && e.unsavedBytes < maxUnsavedBytes {
		var o *org
		var ep *endpoint
		o, e.line = shift(e.line)
		o.lined = false
		ep, o.line = shift(o.line)
		ep.lined = false
		e.turn(ep, now)
		e.enlist(o)
	}
}

func (e *Engine) turn(ep *endpoint, now time.Time) {
	switch {
	case ep.lost:
		return
	case !now.Add(e.c.Deadline).Before(ep.shard.until):
		ep.lined = true
		ep.shard.stalled = append(ep.shard.stalled, ep)
		return
	case e.trusted[ep.trust] >= e.most(ep.trust):
		ep.lined = true
		e.parked[ep.trust] = append(e.parked[ep.trust], ep)
		return
	}
	if ready, _ := ep.ready(now); ready {
		e.send(ep, now)
	}
	e.settle(ep, now)
}

// most bounds the attempts under way at endpoints of a kind: those that hang must leave room for those that may not,
// and both for those that do not.
func (e *Engine) most(t trust) int {
	switch t {
	case failing:
		return max(e.c.InAll/4, 1)
	case unknown:
		return max(e.c.InAll*3/4, 1)
	default:
		return e.c.InAll
	}
}

// unpark lets endpoints stand in line again when attempts of their kind may begin.
func (e *Engine) unpark(now time.Time) {
	for t := range e.parked {
		for n := e.most(trust(t)) - e.trusted[t]; n > 0 && len(e.parked[t]) > 0; n-- {
			var ep *endpoint
			ep, e.parked[t] = shift(e.parked[t])
			ep.lined = false
			e.settle(ep, now)
		}
	}
}

func shift[T any](list []*T) (*T, []*T) {
	first := list[0]
	list[0] = nil
	return first, list[1:]
}

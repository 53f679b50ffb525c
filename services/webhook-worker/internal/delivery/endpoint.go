package delivery

import "time"

// endpoint is what the engine knows of one endpoint of a shard that it holds.
type endpoint struct {
	id    int64
	shard *shard
	org   *org
	// conf is nil until it is loaded.
	conf *Endpoint

	// waiting is a window on what the table holds for it: what is due soon, with its event.
	waiting queue
	// known has the ids of all that memory holds: waiting, under way, or finished and not yet persisted. While a
	// window is being loaded those that leave stay in it, and in left, because the window may still show them.
	known map[int64]struct{}
	left  []int64
	// beyond is when the table may have something due that waiting has not; zero when it has nothing else.
	beyond  time.Time
	loading bool
	// passed is up to when windows have shown what was due, as far as is known: where the next begins. Zero: at the first
	// row. windows counts them.
	passed  time.Time
	windows int
	// ahead are ids that come next, of an ordered endpoint; when they run out the table is asked.
	ahead []int64
	// flying are attempts under way, unsaved those that have ended and are not persisted.
	flying, unsaved int

	// width is how many attempts may be under way: it grows with each success up to the bound, and falls back to 1.
	width   int
	trust   trust
	breaker breaker
	health  health
	// hold is until when the receiver asked for rest.
	hold time.Time
	pace pace

	// cancelling: what waits is being cancelled, and again if more has come meanwhile.
	cancelling, again bool
	// lined: it stands in a line for its turn.
	lined bool
	// alarm is when it has something to do, zero for never; alarmIndex its place among the alarms, -1 for none.
	alarm      time.Time
	alarmIndex int
	used       time.Time
	// lost: its shard is not held any more.
	lost bool
}

func newEndpoint(id int64, s *shard, o *org) *endpoint {
	return &endpoint{id: id, shard: s, org: o, known: map[int64]struct{}{}, width: 1, alarmIndex: -1}
}

// ready tells whether an attempt may begin now; if not, when it may for all that is known, zero when only what is
// under way can tell.
func (ep *endpoint) ready(now time.Time) (ok bool, at time.Time) {
	d := ep.waiting.head()
	switch {
	case ep.conf == nil, ep.conf.Closed() != "", d == nil:
		return false, time.Time{}
	case ep.waiting.ordered && ep.flying+ep.unsaved > 0, ep.flying >= ep.width:
		return false, time.Time{}
	}
	if ok, at = ep.open(now); !ok {
		return false, at
	}
	return !d.Due.After(now), d.Due
}

// trust is what the newest attempt says of an endpoint.
type trust int

const (
	unknown trust = iota // there has been none
	failing
	proven
)

// open tells whether the receiver may be asked now; if not, when it may, zero when only what is under way can tell.
func (ep *endpoint) open(now time.Time) (ok bool, at time.Time) {
	if ok, at = ep.breaker.allows(now, ep.flying); !ok {
		return false, at
	}
	at = ep.hold
	if ep.conf != nil && ep.conf.RateLimit > 0 && ep.pace.next().After(at) {
		at = ep.pace.next()
	}
	return !at.After(now), at
}

// want asks for what memory has not.
func (ep *endpoint) want(limit int) Want {
	w := Want{Shard: ep.shard.id, OrgID: ep.org.id, EndpointID: ep.id, Ordered: ep.waiting.ordered, Limit: limit}
	for id := range ep.known {
		w.Except = append(w.Except, id)
	}
	return w
}

// goOn asks for the window after the last one.
func (ep *endpoint) goOn(w *Want) {
	w.From = ep.passed
	if w.Ordered {
		w.IDs = ep.ahead[:min(len(ep.ahead), w.Limit)]
		ep.ahead = ep.ahead[len(w.IDs):]
	}
}

// pass notes how far a window went.
func (ep *endpoint) pass(w Want, got []*Delivery, now time.Time) {
	ep.passed = time.Time{}
	if len(w.IDs) > 0 { // there may be more, and what was not seen yet
		ep.later(now)
	}
	if ep.windows++; w.Ordered || len(got) < w.Limit || ep.windows%wholeEvery == 0 {
		return
	}
	if ep.passed = got[len(got)-1].Due; ep.passed.After(now.Add(-settled)) {
		ep.passed = now.Add(-settled)
	}
}

// leave takes out of memory what is persisted, or left to the table.
func (ep *endpoint) leave(id int64) {
	if ep.loading {
		ep.left = append(ep.left, id)
		return
	}
	delete(ep.known, id)
}

// later notes that the table has something due at a time that waiting has not.
func (ep *endpoint) later(due time.Time) {
	if ep.beyond.IsZero() || due.Before(ep.beyond) {
		ep.beyond = due
	}
}

// backlog tells whether the table has what is due and not in the window: what comes must queue behind it.
func (ep *endpoint) backlog(now time.Time) bool {
	return !ep.beyond.IsZero() && (ep.waiting.ordered || !ep.beyond.After(now))
}

// idle tells whether nothing would be lost by forgetting the endpoint.
func (ep *endpoint) idle() bool {
	return ep.flying+ep.unsaved+ep.waiting.size() == 0 && ep.beyond.IsZero() && !ep.loading && !ep.cancelling && !ep.lined && !ep.breaker.isOpen()
}

// org is an organisation with endpoints that are known.
type org struct {
	id     int64
	flying int
	// line has its endpoints that are ready; lined: it stands in the line of organisations.
	line  []*endpoint
	lined bool
	// endpoints counts those that refer to it.
	endpoints int
}

// shard is a shard that is held, or was.
type shard struct {
	id int
	// until is when at the earliest another replica may hold it.
	until     time.Time
	endpoints map[int64]*endpoint
	// arrived is the highest id that has arrived; early has those that a window showed before they arrived.
	arrived int64
	early   map[int64]struct{}
	// open counts attempts that are under way or not persisted.
	open int
	// stalled are endpoints whose turn came when the lease was too short.
	stalled []*endpoint
	// scans are looks at what waits that are under way: until they end, what comes cannot queue behind it.
	scans int
	lost  bool
}

package delivery

import (
	"container/heap"
	"slices"
	"time"
)

// queue has what waits for one endpoint: by due time, or, ordered, by id alone. Nearly all comes in that order.
type queue struct {
	// line has, from index first on, what came in its order; rest is a heap of what did not.
	line    []*Delivery
	first   int
	rest    []*Delivery
	ordered bool
}

func (q *queue) before(a, b *Delivery) bool {
	if q.ordered || a.Due.Equal(b.Due) {
		return a.ID < b.ID
	}
	return a.Due.Before(b.Due)
}

func (q *queue) size() int { return len(q.line) - q.first + len(q.rest) }

func (q *queue) add(d *Delivery) {
	if len(q.line) == q.first || q.before(q.line[len(q.line)-1], d) {
		q.line = append(q.line, d)
		return
	}
	heap.Push((*restOf)(q), d)
}

// next takes out the first.
func (q *queue) next() *Delivery {
	d := q.head()
	if len(q.rest) > 0 && q.rest[0] == d {
		heap.Pop((*restOf)(q))
		return d
	}
	q.line[q.first] = nil
	if q.first++; q.first*2 > len(q.line) { // moves each no more often than it was appended
		n := copy(q.line, q.line[q.first:])
		clear(q.line[n:])
		q.line, q.first = q.line[:n], 0
	}
	return d
}

// head is the first; nil when nothing waits.
func (q *queue) head() *Delivery {
	switch {
	case len(q.line) > q.first && (len(q.rest) == 0 || q.before(q.line[q.first], q.rest[0])):
		return q.line[q.first]
	case len(q.rest) > 0:
		return q.rest[0]
	}
	return nil
}

// all gives what waits, in no order, and leaves nothing.
func (q *queue) all() []*Delivery {
	list := slices.Concat(q.line[q.first:], q.rest)
	q.line, q.first, q.rest = nil, 0, nil
	return list
}

// restOf is a queue's heap.
type restOf queue

// Len is heap.Interface's.
func (r *restOf) Len() int { return len(r.rest) }

// Less is heap.Interface's.
func (r *restOf) Less(i, j int) bool { return (*queue)(r).before(r.rest[i], r.rest[j]) }

// Swap is heap.Interface's.
func (r *restOf) Swap(i, j int) { r.rest[i], r.rest[j] = r.rest[j], r.rest[i] }

// Push is heap.Interface's.
func (r *restOf) Push(x any) { r.rest = append(r.rest, x.(*Delivery)) }

// Pop is heap.Interface's.
func (r *restOf) Pop() any {
	last := len(r.rest) - 1
	d := r.rest[last]
	r.rest[last] = nil
	r.rest = r.rest[:last]
	return d
}

// alarms are the endpoints that have something to do at a time, the earliest first.
type alarms []*endpoint

// Len is heap.Interface's.
func (a alarms) Len() int { return len(a) }

// Less is heap.Interface's.
func (a alarms) Less(i, j int) bool { return a[i].alarm.Before(a[j].alarm) }

// Swap is heap.Interface's.
func (a alarms) Swap(i, j int) {
	a[i], a[j] = a[j], a[i]
	a[i].alarmIndex, a[j].alarmIndex = i, j
}

// Push is heap.Interface's.
func (a *alarms) Push(x any) {
	ep := x.(*endpoint)
	ep.alarmIndex = len(*a)
	*a = append(*a, ep)
}

// Pop is heap.Interface's.
func (a *alarms) Pop() any {
	last := len(*a) - 1
	ep := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	ep.alarm, ep.alarmIndex = time.Time{}, -1
	return ep
}

// set wakes an endpoint at a time; zero for never.
func (a *alarms) set(ep *endpoint, at time.Time) {
	switch {
	case at.IsZero():
		if ep.alarmIndex >= 0 {
			heap.Remove(a, ep.alarmIndex)
		}
	case ep.alarmIndex < 0:
		ep.alarm = at
		heap.Push(a, ep)
	case !at.Equal(ep.alarm):
		ep.alarm = at
		heap.Fix(a, ep.alarmIndex)
	}
}

// pace is a token bucket (GCRA): so many requests a second, a tenth of a second's worth at once.
type pace struct{ spent time.Time }

const paceBurst = 100 * time.Millisecond

// next is when the next request may begin.
func (p *pace) next() time.Time { return p.spent.Add(-paceBurst) }

// spend counts a request that begins now.
func (p *pace) spend(now time.Time, perSecond int) {
	if now.After(p.spent) {
		p.spent = now
	}
	p.spent = p.spent.Add(time.Second / time.Duration(perSecond))
}

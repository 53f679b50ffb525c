package delivery

import (
	"container/heap"
	"time"
)

// queue has what waits for one endpoint: by due time, or, ordered, by id alone.
type queue struct {
	list    []*Delivery
	ordered bool
}

// Len is heap.Interface's.
func (q *queue) Len() int { return len(q.list) }

// Less is heap.Interface's.
func (q *queue) Less(i, j int) bool {
	a, b := q.list[i], q.list[j]
	if q.ordered || a.Due.Equal(b.Due) {
		return a.ID < b.ID
	}
	return a.Due.Before(b.Due)
}

// Swap is heap.Interface's.
func (q *queue) Swap(i, j int) { q.list[i], q.list[j] = q.list[j], q.list[i] }

// Push is heap.Interface's.
func (q *queue) Push(x any) { q.list = append(q.list, x.(*Delivery)) }

// Pop is heap.Interface's.
func (q *queue) Pop() any {
	last := len(q.list) - 1
	d := q.list[last]
	q.list[last] = nil
	q.list = q.list[:last]
	return d
}

func (q *queue) add(d *Delivery) { heap.Push(q, d) }

// next takes out the first.
func (q *queue) next() *Delivery { return heap.Pop(q).(*Delivery) }

// head is the first; nil when nothing waits.
func (q *queue) head() *Delivery {
	if len(q.list) == 0 {
		return nil
	}
	return q.list[0]
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

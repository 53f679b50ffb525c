package limit

import "slices"

// waiter is a call that waits for its turn: exactly one of turn and err is set before ready is closed.
type waiter struct {
	limiter *Limiter
	org     int64
	class   Class
	ready   chan struct{}
	turn    *Turn
	err     error
}

// queue is who waits: reviews before async calls, and inside a class one organisation after the other, each in the order
// of arrival, so that one with a thousand runs delays another by one.
type queue struct {
	classes [2]line
	n       int
}

type line struct {
	// turns are the organisations that wait, the next one first.
	turns []int64
	calls map[int64][]*waiter
}

func newQueue() *queue {
	q := &queue{}
	for i := range q.classes {
		q.classes[i].calls = map[int64][]*waiter{}
	}
	return q
}

func (q *queue) len() int { return q.n }

func (q *queue) push(w *waiter) {
	l := &q.classes[w.class]
	if len(l.calls[w.org]) == 0 {
		l.turns = append(l.turns, w.org)
	}
	l.calls[w.org] = append(l.calls[w.org], w)
	q.n++
}

// pop takes the next of the classes that may go; nil for none. While a review waits no async call goes.
func (q *queue) pop(review, async bool) *waiter {
	l, may := &q.classes[Review], review
	if len(l.turns) == 0 {
		l, may = &q.classes[Async], async
	}
	if !may || len(l.turns) == 0 {
		return nil
	}
	org := l.turns[0]
	w := l.calls[org][0]
	l.turns = l.turns[1:]
	if l.calls[org] = l.calls[org][1:]; len(l.calls[org]) > 0 {
		l.turns = append(l.turns, org)
	} else {
		delete(l.calls, org)
	}
	q.n--
	return w
}

// remove takes out one that has given up.
func (q *queue) remove(w *waiter) {
	l := &q.classes[w.class]
	i := slices.Index(l.calls[w.org], w)
	if i < 0 {
		return
	}
	q.n--
	if l.calls[w.org] = slices.Delete(l.calls[w.org], i, i+1); len(l.calls[w.org]) == 0 {
		delete(l.calls, w.org)
		l.turns = slices.DeleteFunc(l.turns, func(org int64) bool { return org == w.org })
	}
}

func (q *queue) drain() (out []*waiter) {
	for w := q.pop(true, true); w != nil; w = q.pop(true, true) {
		out = append(out, w)
	}
	return out
}

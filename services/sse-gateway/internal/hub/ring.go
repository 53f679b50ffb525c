package hub

import (
	"slices"
	"sync"
	"sync/atomic"
	"unique"
)

// ring holds an organisation's newest frames, bounded in bytes. It is complete: every event of the
// organisation with a position in (base, through of the shard] is in it.
//
// Frames lie in chunks that are written once and then only read, so that a connection writes
// straight from them, without a copy and without the lock; a chunk that has been dropped lives on
// until the last such write has ended.
type ring struct {
	limit int
	total *atomic.Int64 // bytes of all rings of the hub

	mu      sync.RWMutex
	base    int64
	chunks  []*chunk // oldest first
	bytes   int
	changed chan struct{} // closed when frames are added

	users int // guarded by the shard
	// revocations counts the organisation's: a subscription that has not seen one looks whether it is meant.
	revocations atomic.Int64
}

type chunk struct {
	data  []byte // never grows beyond its capacity: slices of it stay valid
	marks []mark
}

// mark says what a frame is and where it ends.
type mark struct {
	position      int64
	aggregateID   int64
	eventType     unique.Handle[string]
	aggregateType unique.Handle[string]
	end           int
}

const chunkBytes = 16 << 10

func newRing(base int64, limit int, total *atomic.Int64) *ring {
	return &ring{base: base, limit: limit, total: total, changed: make(chan struct{})}
}

func (r *ring) add(list []Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range list {
		r.addOne(&list[i])
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *ring) addOne(e *Entry) {
	need := len(e.Envelope) + maxOverhead
	if n := len(r.chunks); n == 0 || cap(r.chunks[n-1].data)-len(r.chunks[n-1].data) < need {
		r.grow(max(chunkBytes, need))
	}
	c := r.chunks[len(r.chunks)-1]
	c.data = AppendFrame(c.data, e.Position, e.Envelope)
	c.marks = append(c.marks, mark{
		position: e.Position, aggregateID: e.AggregateID, end: len(c.data),
		eventType: unique.Make(e.EventType), aggregateType: unique.Make(e.AggregateType),
	})
}

// grow makes room, by dropping the oldest chunks where the limit says so.
func (r *ring) grow(size int) {
	for len(r.chunks) > 0 && r.bytes+size > r.limit {
		old := r.chunks[0]
		r.base = old.marks[len(old.marks)-1].position
		r.chunks = slices.Delete(r.chunks, 0, 1)
		r.count(-cap(old.data))
	}
	r.chunks = append(r.chunks, &chunk{data: make([]byte, 0, size)})
	r.count(size)
}

func (r *ring) count(bytes int) {
	r.bytes += bytes
	r.total.Add(int64(bytes))
}

// reset empties the ring: it is complete after base only.
func (r *ring) reset(base int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count(-r.bytes)
	r.chunks, r.base = nil, base
	close(r.changed)
	r.changed = make(chan struct{})
}

// take appends the frames after a position that pass, about maxBytes at most, and gives the position
// they reach to. ok is false when the ring is not complete from the position on.
func (r *ring) take(dst []Frame, after int64, f *Filter, maxBytes int) (_ []Frame, through int64, more, ok bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if after < r.base {
		return dst, after, false, false
	}
	first, _ := slices.BinarySearchFunc(r.chunks, after, func(c *chunk, p int64) int {
		return compare(c.marks[len(c.marks)-1].position, p)
	})
	bytes := 0
	for _, c := range r.chunks[first:] {
		i, _ := slices.BinarySearchFunc(c.marks, after, func(m mark, p int64) int { return compare(m.position, p) })
		for ; i < len(c.marks); i++ {
			m := &c.marks[i]
			if bytes >= maxBytes {
				return dst, after, true, true
			}
			after = m.position
			if !f.Match(m.eventType.Value(), m.aggregateType.Value(), m.aggregateID) {
				continue
			}
			begin := 0
			if i > 0 {
				begin = c.marks[i-1].end
			}
			dst = append(dst, Frame{m.position, c.data[begin:m.end:m.end]})
			bytes += m.end - begin
		}
	}
	return dst, after, false, true
}

// compare sorts p itself to the left: the search is for the first position after p.
func compare(position, p int64) int {
	if position <= p {
		return -1
	}
	return 1
}

func (r *ring) wait() <-chan struct{} {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.changed
}

func (r *ring) covers(position int64) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return position >= r.base
}

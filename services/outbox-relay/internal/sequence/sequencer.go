package sequence

import (
	"slices"

	"github.com/sametick/sametick/pkg/event"
)

// Event is one row of the outbox on its way: what is published of it, and its position once it has one.
type Event struct {
	ID            int64
	Shard         int
	Position      int64
	OrgID         int64
	EventType     string
	AggregateType string
	AggregateID   int64
	// Traceparent may be empty.
	Traceparent string
	// Envelope is the event's JSON as readers get it.
	Envelope []byte
}

// Query is what to read next, see the package comment. Limit rows are wanted at most.
type Query struct {
	// Paging selects the form: nil reads the difference to the statement's own snapshot, up to Limit
	// rows in any order; else the next Limit rows by id of the difference to Paging.
	Paging *Snapshot
	// Since is S1.
	Since Snapshot
	// Floor is below the ids of all rows wanted.
	Floor int64
	// Start is below the ids of rows with txid >= xmax(S1).
	Start int64
	Limit int
}

// Answer is what a query found.
type Answer struct {
	// Snapshot is the statement's own; meaningless when the query was paging.
	Snapshot Snapshot
	Events   []Event
	// Cut: the reader stopped early, for there is a limit to their bytes too. At least one event is there.
	Cut bool
}

// Batch is a claim: the cursor's next row and the events with their new positions, by id.
type Batch struct {
	Cursor Cursor
	Events []Event
}

// Page is a piece of one shard's position log.
type Page struct {
	// Events have positions that rise.
	Events []Event
	// Through: no other event that was asked for lies in (after, Through].
	Through int64
	// Head is the newest position of the shard.
	Head int64
}

// Sequencer holds the cursor in memory. It belongs to one goroutine and to one session of Postgres.
type Sequencer struct {
	cursor Cursor
	bounds Bounds
	n      int
	page   int // rows of the next page: n, or fewer while events are so large that answers are cut
}

// New starts from the ledger's newest row, its bounds (ascending, any subset) and the most events that
// a batch may have.
func New(c Cursor, known []Bound, n int) *Sequencer {
	s := &Sequencer{cursor: c, n: n, page: n}
	for _, b := range known {
		s.bounds.Add(b)
	}
	return s
}

// Cursor gives where the sequencer stands; its snapshot may be ahead of the ledger's.
func (s *Sequencer) Cursor() Cursor { return s.cursor }

// Next plans the next query.
func (s *Sequencer) Next() Query {
	c := &s.cursor
	q := Query{
		Paging: c.Paging,
		Since:  c.Snapshot,
		Floor:  max(c.BaseID, s.bounds.Below(c.Snapshot.Xmin)),
		Start:  max(c.BaseID, s.bounds.Below(c.Snapshot.Xmax)),
		Limit:  s.n + 1,
	}
	if c.Paging != nil {
		q.Floor, q.Start, q.Limit = max(q.Floor, c.PageAfter), max(q.Start, c.PageAfter), s.page
	}
	return q
}

// Take judges the answer to Next. It gives the batch to claim, or nil when there is none: then
// `again` tells whether the next query should follow at once.
func (s *Sequencer) Take(a Answer) (b *Batch, again bool) {
	if s.cursor.Paging != nil {
		return s.takePage(a), true
	}
	if len(a.Events) > s.n || a.Cut {
		s.resize(a)
		s.cursor.Paging, s.cursor.PageAfter = &a.Snapshot, 0
		return nil, true
	}
	next := s.cursor
	next.Snapshot = a.Snapshot
	if len(a.Events) == 0 {
		s.cursor = next
		return nil, false
	}
	slices.SortFunc(a.Events, func(x, y Event) int { return int(min(1, max(-1, x.ID-y.ID))) })
	next.MaxID = max(next.MaxID, a.Events[len(a.Events)-1].ID)
	return s.batch(next, a.Events), false
}

// takePage claims a page, also an empty one: it is the claim that ends the paging.
func (s *Sequencer) takePage(a Answer) *Batch {
	next := s.cursor
	if len(a.Events) > 0 {
		next.PageAfter = a.Events[len(a.Events)-1].ID
	}
	if len(a.Events) < s.page && !a.Cut {
		next.Snapshot, next.MaxID = *next.Paging, max(next.MaxID, next.PageAfter)
		next.Paging, next.PageAfter = nil, 0
	}
	s.resize(a)
	return s.batch(next, a.Events)
}

// resize fits the next page to an answer: what is left of a cut one has been sent for nothing.
func (s *Sequencer) resize(a Answer) {
	if a.Cut {
		s.page = max(1, len(a.Events)/2)
	} else {
		s.page = min(s.n, 2*s.page)
	}
}

func (s *Sequencer) batch(next Cursor, events []Event) *Batch {
	next.Batch++
	next.Claimed = next.Identity
	for i := range events {
		e := &events[i]
		next.Positions[e.Shard]++
		e.Position = next.Positions[e.Shard]
	}
	return &Batch{Cursor: next, Events: events}
}

// Jump plans a claim without events that raises positions to at least `past`: for streams that are
// ahead of Postgres.
func (s *Sequencer) Jump(past Positions) *Batch {
	next := s.cursor
	for i := range event.Shards {
		next.Positions[i] = max(next.Positions[i], past[i])
	}
	return s.batch(next, nil)
}

// Claimed tells that a batch is committed, by a transaction with the id xid.
func (s *Sequencer) Claimed(b *Batch, xid uint64) {
	s.cursor = b.Cursor
	s.bounds.Add(Bound{Xid: xid, MaxID: b.Cursor.MaxID})
}

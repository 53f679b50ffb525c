// Package stream follows the events of a shard from any position, of any age: Redis at the tail, the
// position log (LogService) behind it, one numbering. A reader gets positions strictly increasing,
// none left out that exists and none twice, whatever becomes of Redis meanwhile: trimmed, emptied,
// restarted, frozen, gone for good.
//
// The rule that all of it rests on: positions of a shard are gapless. What Redis gives is taken only
// while it continues at previous+1; anything else is a hole, which is read from the log, and only the
// log's Through may pass over positions. Redis is therefore never trusted with absence.
//
// For consumers that derive something in Postgres there are durable cursors, leases and Consumer,
// which takes each event exactly once. Publishing lives in services/outbox-relay.
package stream

import (
	"context"
	"fmt"
)

// Entry is one event at its position. Strings and Envelope are the holder's and are never changed.
type Entry struct {
	// Position numbers the events of a shard from 1.
	Position      int64
	OrgID         int64
	EventType     string
	AggregateType string
	AggregateID   int64
	// Traceparent is the W3C traceparent of the request that made the event; empty when it had none.
	Traceparent string
	// Envelope is the event's JSON, byte for byte as every receiver gets it.
	Envelope []byte
}

// Page is a stretch of a shard.
type Page struct {
	// Entries have increasing positions in (after, Through].
	Entries []Entry
	// Through: every position in (after, Through] that is not among Entries does not exist, or is of
	// another organisation than was asked for. Read on from here. Equal to after when there is nothing
	// newer.
	Through int64
	// Head is the newest position of the shard, and First the oldest that retention has left (0: none
	// is left). Both are 0 in a page that came from Redis.
	Head, First int64
	// Origin tells where the page came from.
	Origin Origin
}

// Origin is where a page came from.
type Origin uint8

// The origins.
const (
	FromLog Origin = iota
	FromRedis
)

// Log is the position log. Read gives up to limit entries of a shard after a position, of one
// organisation or (0) of all, and sets all of Page.
type Log interface {
	Read(ctx context.Context, shard int, after int64, limit int, org int64) (Page, error)
}

// TrimmedError says that retention has dropped positions behind the one asked for.
type TrimmedError struct {
	Shard int
	// After is the position asked for, First the oldest position that can still be read; First-1 is
	// where to go on. When nothing is left, First is the one to come.
	After, First int64
}

// Error names the shard and the positions.
func (e *TrimmedError) Error() string {
	return fmt.Sprintf("stream: shard %d: position %d was asked for, the oldest kept is %d", e.Shard, e.After+1, e.First)
}

// RewoundError says that a shard ends before a position that the reader had: Postgres and Redis have both
// been put back to an older state. What comes next takes positions that were others' before.
type RewoundError struct {
	Shard int
	// Position is where the reader was, Head the newest position there is.
	Position, Head int64
}

// Error names the shard and the positions.
func (e *RewoundError) Error() string {
	return fmt.Sprintf("stream: shard %d ends at %d, this reader was at %d: an older state was restored", e.Shard, e.Head, e.Position)
}

// trimmed tells whether positions right after `after` were dropped; nil when they were not.
func trimmed(shard int, after int64, p *Page) error {
	first := p.First
	switch {
	case after >= p.Head:
		return nil
	case first == 0:
		first = p.Head + 1
	case first <= after+1, len(p.Entries) > 0 && p.Entries[0].Position == after+1:
		// The second: retention came between the log's two looks; what was asked for is here.
		return nil
	}
	return &TrimmedError{Shard: shard, After: after, First: first}
}

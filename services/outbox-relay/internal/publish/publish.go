// Package publish brings events that have positions into the streams, one for each shard, so that a
// stream holds each of them once and without holes.
//
// The invariant: a relay adds position p only when it knows that the stream ends right before it. The
// ID of a stream's entry is its position and Redis refuses an ID that is not greater than the last, so repeating is
// harmless; what could harm is adding to a stream that has lost its tail (emptied, or failed over to a replica that lagged). Therefore
// each transaction begins by reading the stream's last entry, and Judge compares it with what was
// expected. A stream that ended earlier now has a hole: it is deleted and filled again from the
// position log. Readers see positions, so they notice a hole or a shorter stream by themselves and read Postgres
// meanwhile.
//
// What lives here is pure but for two small interfaces: Streams (internal/redis) and Log (internal/store).
package publish

import (
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
)

// Group is a run of one shard's events to add in one transaction.
type Group struct {
	Shard int
	// After is the position the stream must end with before; 0: it must be empty.
	After int64
	// Events are all that the log has between After and their last, in order.
	Events []sequence.Event
	// Announce: events after this position are also sent to plain pub/sub, when that is on.
	Announce int64
}

// End returns the position of the group's last event.
func (g *Group) End() int64 { return g.Events[len(g.Events)-1].Position }

// Reply is what the transaction of a group answered.
type Reply struct {
	// Last is the position of the stream's last entry before; 0 when it was empty.
	Last int64
	// Foreign: the last entry is none of ours.
	Foreign bool
	// Refused counts events whose ID was not greater than the stream's last.
	Refused int
}

// Tail is the newest end of a stream.
type Tail struct {
	// Last, First: positions of the newest and the oldest entry; 0 when the stream is empty.
	Last, First int64
	// Length counts the entries.
	Length int64
	// Envelope of the newest entry.
	Envelope []byte
	// Foreign: an entry is none of ours.
	Foreign bool
}

// Verdict is what a reply means for its stream.
type Verdict int

const (
	// Added means that the stream ends with the group.
	Added Verdict = iota
	// Overtaken means that another relay has added to the stream; what was refused should be there already.
	Overtaken
	// Broken means that the stream has lost entries or has others' in it; it must be filled anew.
	Broken
)

// Judge interprets a reply.
func Judge(g *Group, r Reply) Verdict {
	switch {
	case r.Foreign || r.Last < g.After:
		return Broken
	case r.Last > g.After:
		return Overtaken
	case r.Refused > 0: // the entry before was right, so somebody has cut the tail off
		return Broken
	default:
		return Added
	}
}

// Whole tells whether a tail has no hole.
func (t Tail) Whole() bool {
	return !t.Foreign && (t.Last == 0 || t.Last-t.First+1 == t.Length)
}

// Split groups a batch by shard; After and Announce are the caller's to set. The events of a batch are sorted by id, and
// positions rise with it in each shard.
func Split(events []sequence.Event) []Group {
	var (
		of     [len(sequence.Positions{})]int
		counts [len(sequence.Positions{})]int
		groups []Group
	)
	for i := range events {
		counts[events[i].Shard]++
	}
	for i := range events {
		s := events[i].Shard
		if of[s] == 0 {
			groups = append(groups, Group{Shard: s, Events: make([]sequence.Event, 0, counts[s])})
			of[s] = len(groups)
		}
		g := &groups[of[s]-1]
		g.Events = append(g.Events, events[i])
	}
	return groups
}

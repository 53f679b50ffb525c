// Package event holds what every part of the suite knows of an event: its shape on the wire, its
// shard, its lifecycle phases and the patterns that select it. No I/O lives here.
package event

import (
	"encoding/json"
	"strconv"
	"time"
)

// Shards is how many streams the events of one database are spread over. Fixed at install: positions
// are numbered per shard.
const Shards = 16

// TimeLayout is RFC 3339 in UTC with milliseconds, as every JSON of the suite shows times.
const TimeLayout = "2006-01-02T15:04:05.000Z07:00"

// ShardOf gives the shard of an organisation, 0 to Shards-1: the same function as
// sametick.shard_of in Postgres (Fibonacci hashing of the folded id).
func ShardOf(orgID int64) int {
	folded := (orgID ^ (orgID >> 31)) & 0x7fffffff
	return int((folded * 2654435761) >> 28 & (Shards - 1))
}

// Event is one recorded event. Payload is the EventContext as JSON text, see the specification.
type Event struct {
	ID            int64
	OrgID         int64
	AggregateType string
	AggregateID   int64
	EventType     string
	Payload       json.RawMessage
	OccurredAt    time.Time
}

// AppendJSON appends the event as the specification shows it, in its order of fields, without
// white space of its own. Payload must be valid JSON and is copied as it is.
func (e *Event) AppendJSON(b []byte) []byte {
	b = append(b, `{"id":`...)
	b = strconv.AppendInt(b, e.ID, 10)
	b = append(b, `,"org_id":`...)
	b = strconv.AppendInt(b, e.OrgID, 10)
	b = append(b, `,"aggregate_type":`...)
	b = appendName(b, e.AggregateType)
	b = append(b, `,"aggregate_id":`...)
	b = strconv.AppendInt(b, e.AggregateID, 10)
	b = append(b, `,"event_type":`...)
	b = appendName(b, e.EventType)
	b = append(b, `,"payload":`...)
	b = append(b, e.Payload...)
	b = append(b, `,"occurred_at":"`...)
	b = e.OccurredAt.UTC().AppendFormat(b, TimeLayout)
	return append(b, `"}`...)
}

// appendName quotes a name. Names are [a-z0-9_.] by sametick.record_events, so the fast path is the
// only one in practice; anything else still comes out as valid JSON.
func appendName(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f {
			quoted, err := json.Marshal(s)
			if err != nil { // a string always marshals
				panic(err)
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

package store

import (
	"encoding/binary"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/pkg/event"
	"github.com/sametick/sametick/services/outbox-relay/internal/sequence"
)

// columns of an event, in the order that decoder.event reads them.
const columns = `e.id, e.shard, e.org_id, e.aggregate_type, e.aggregate_id, e.event_type, e.payload, e.trace_context, e.occurred_at`

// formats of one leading column of the statement's own, then of columns: all binary but the payload,
// whose binary form has a version byte before the same text.
func formats() pgx.QueryResultFormats {
	return pgx.QueryResultFormats{1, 1, 1, 1, 1, 1, 1, 0, 1, 1}
}

// chunk is how many bytes of envelopes are allocated at once.
const chunk = 256 << 10

// epoch is where Postgres' timestamps count from, in microseconds.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

// decoder makes events out of raw rows. Envelopes share large allocations, names are kept once.
type decoder struct {
	buf   []byte
	names map[string]string
}

// maxNames bounds the memory of names; trace contexts do not go through it.
const maxNames = 10_000

func (d *decoder) name(b []byte) string {
	if s, ok := d.names[string(b)]; ok {
		return s
	}
	if d.names == nil || len(d.names) >= maxNames {
		d.names = make(map[string]string)
	}
	s := string(b)
	d.names[s] = s
	return s
}

// event reads the values of columns; b is only valid until the next row.
func (d *decoder) event(b [][]byte) sequence.Event {
	e := sequence.Event{
		ID:            integer(b[0]),
		Shard:         int(binary.BigEndian.Uint16(b[1])),
		OrgID:         integer(b[2]),
		AggregateType: d.name(b[3]),
		AggregateID:   integer(b[4]),
		EventType:     d.name(b[5]),
		Traceparent:   string(b[7]),
	}
	wire := event.Event{
		ID: e.ID, OrgID: e.OrgID, AggregateType: e.AggregateType, AggregateID: e.AggregateID,
		EventType: e.EventType, Payload: b[6], OccurredAt: time.UnixMicro(epoch + integer(b[8])),
	}
	need := len(b[6]) + 6*len(b[3]) + 6*len(b[5]) + 256
	if cap(d.buf)-len(d.buf) < need {
		d.buf = make([]byte, 0, max(chunk, need))
	}
	start := len(d.buf)
	d.buf = wire.AppendJSON(d.buf)
	e.Envelope = d.buf[start:len(d.buf):len(d.buf)]
	return e
}

func integer(b []byte) int64 { return int64(binary.BigEndian.Uint64(b)) }

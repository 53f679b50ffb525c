package judge

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"github.com/sametick/sametick/deploy/torture/internal/envelope"
	"github.com/sametick/sametick/pkg/event"
)

// Querier is what the judge needs of a Postgres connection.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// Entity is one aggregate.
type Entity struct {
	OrgID int64
	Type  string
	ID    int64
}

// Fact is one event as Postgres holds it, in 48 bytes: a long run has millions.
type Fact struct {
	ID       int64
	Sequence int64
	// Tx is the harness' number of the transaction, 0 when the payload has none.
	Tx int64
	// Hash is of the event's JSON, see envelope.Hash; Compact of the same without white space, as webhooks have it.
	Hash    uint64
	Compact uint64
	entity  uint32
	kind    uint16
	shard   uint8
}

// Facts are all events in the order of their ids.
type Facts struct {
	list     []Fact
	entities []Entity
	kinds    []string
	entityOf map[Entity]uint32
	kindOf   map[string]uint16
}

// NewFacts makes an empty set.
func NewFacts() *Facts {
	return &Facts{entityOf: map[Entity]uint32{}, kindOf: map[string]uint16{}}
}

// Add appends one event; ids must rise.
func (f *Facts) Add(e *event.Event, shard int, sequence, tx int64) {
	key := Entity{OrgID: e.OrgID, Type: e.AggregateType, ID: e.AggregateID}
	entity, ok := f.entityOf[key]
	if !ok {
		entity = uint32(len(f.entities))
		f.entityOf[key] = entity
		f.entities = append(f.entities, key)
	}
	kind, ok := f.kindOf[e.EventType]
	if !ok {
		kind = uint16(len(f.kinds))
		f.kindOf[e.EventType] = kind
		f.kinds = append(f.kinds, e.EventType)
	}
	text := e.AppendJSON(nil)
	f.list = append(f.list, Fact{ID: e.ID, Sequence: sequence, Tx: tx, Hash: envelope.Hash(text), Compact: envelope.Hash(compact(text)), entity: entity, kind: kind, shard: uint8(shard)})
}

// compact takes the white space out; JSON that is none stays as it is.
func compact(text []byte) []byte {
	var b bytes.Buffer
	if json.Compact(&b, text) != nil {
		return text
	}
	return b.Bytes()
}

// Len is the number of events.
func (f *Facts) Len() int { return len(f.list) }

// At gives one by its place.
func (f *Facts) At(i int) Fact { return f.list[i] }

// find gives the index of an event, -1 when there is none.
func (f *Facts) find(id int64) int {
	i, ok := slices.BinarySearchFunc(f.list, id, func(a Fact, id int64) int {
		return int(min(max(a.ID-id, -1), 1))
	})
	if !ok {
		return -1
	}
	return i
}

// describe names an event for a diagnostic.
func (f *Facts) describe(i int) string {
	a := &f.list[i]
	e := f.entities[a.entity]
	return fmt.Sprintf("event %d (org %d, %s, %s#%d, sequence %d, transaction %d, shard %d)",
		a.ID, e.OrgID, f.kinds[a.kind], e.Type, e.ID, a.Sequence, a.Tx, a.shard)
}

// LoadFacts reads all events.
func LoadFacts(ctx context.Context, db Querier) (*Facts, error) {
	rows, err := db.Query(ctx, `SELECT id, org_id, shard, aggregate_type, aggregate_id, sequence, event_type,
		payload::text, occurred_at, coalesce((payload->>'tx')::bigint, 0) FROM sametick.events ORDER BY id`)
	if err != nil {
		return nil, fmt.Errorf("read the events: %w", err)
	}
	var (
		f            = NewFacts()
		e            event.Event
		shard        int
		sequence, tx int64
		payload      string
	)
	_, err = pgx.ForEachRow(rows, []any{&e.ID, &e.OrgID, &shard, &e.AggregateType, &e.AggregateID, &sequence, &e.EventType,
		&payload, &e.OccurredAt, &tx}, func() error {
		e.Payload = []byte(payload)
		f.Add(&e, shard, sequence, tx)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the events: %w", err)
	}
	return f, nil
}

// order watches that each entity's events come in the order of their sequences.
type order struct {
	facts *Facts
	last  []int64
}

func newOrder(f *Facts) *order { return &order{facts: f, last: make([]int64, len(f.entities))} }

// check notes a failure when the event comes after a later one of its entity.
func (o *order) check(v *Verdict, i int, where string) {
	a := &o.facts.list[i]
	if last := o.last[a.entity]; a.Sequence < last {
		v.note(&v.OutOfOrder, "%s %s comes after sequence %d", o.facts.describe(i), where, last)
		return
	}
	o.last[a.entity] = a.Sequence
}

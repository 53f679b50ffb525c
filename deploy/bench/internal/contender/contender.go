// Package contender holds the relays that outbox-relay is measured beside: a bare loop, Watermill-SQL
// and River, each of which moves the same backlog of events into the same Redis streams. Each runs in a
// process of its own, so that none pays for another's heap.
//
// The peers run as their documentation advises for throughput; what was chosen, and why, stands beside
// each setting.
package contender

import (
	"context"
	"fmt"
	"strconv"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/redis/rueidis"

	"github.com/sametick/sametick/pkg/event"
)

// Contender is one relay under measurement.
type Contender struct {
	// Name is shown in the table and names the process.
	Name string
	// Load copies the first n events into the contender's own tables; nil when it reads sametick.events.
	Load func(ctx context.Context, pool *pgxpool.Pool) error
	// Reset makes everything loaded unread again.
	Reset func(ctx context.Context, pool *pgxpool.Pool) error
	// Run relays until ctx ends; nil when another binary does it.
	Run func(ctx context.Context, t Target) error
}

// Target is where a contender reads and writes.
type Target struct {
	DatabaseURL string
	RedisURL    string
}

// Names of the contenders.
const (
	Ours      = "outbox-relay"
	Bare      = "bare loop"
	BareAhead = "bare loop + read-ahead"
	Watermill = "Watermill-SQL"
	River     = "River"
)

// All gives the contenders in the order of the table.
func All() []Contender {
	return []Contender{
		{Name: Ours, Reset: resetOurs},
		{Name: Bare, Reset: resetNothing, Run: runBare},
		{Name: BareAhead, Reset: resetNothing, Run: runBareAhead},
		{Name: Watermill, Load: loadWatermill, Reset: resetWatermill, Run: runWatermill},
		{Name: River, Load: migrateRiver, Reset: resetRiver, Run: runRiver},
	}
}

// resetOurs forgets the ledger and the positions: the next relay begins with the first event.
func resetOurs(ctx context.Context, pool *pgxpool.Pool) error {
	_, err := pool.Exec(ctx, `TRUNCATE sametick.relay_batches, sametick.positions`)
	return err
}

// resetNothing is for the bare loops, which keep their cursor in memory.
func resetNothing(context.Context, *pgxpool.Pool) error { return nil }

// dial opens the Redis client that every contender uses, the product's own choice.
func dial(url string) (rueidis.Client, error) {
	opts, err := rueidis.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("read the Redis URL: %w", err)
	}
	opts.DisableCache = true
	client, err := rueidis.NewClient(opts)
	if err != nil {
		return nil, fmt.Errorf("connect to Redis: %w", err)
	}
	return client, nil
}

// entry is one event on its way into a stream.
type entry struct {
	shard                                      int
	org, eventType, aggregateType, aggregateID string
	envelope                                   []byte
}

// xadd builds the command that appends the entry under an ID ("*" lets Redis choose).
func (e *entry) xadd(client rueidis.Client, id string) rueidis.Completed {
	return client.B().Xadd().Key(StreamKey(e.shard)).Id(id).FieldValue().
		FieldValue("e", rueidis.BinaryString(e.envelope)).FieldValue("o", e.org).FieldValue("t", e.eventType).
		FieldValue("a", e.aggregateType).FieldValue("i", e.aggregateID).Build()
}

// StreamKey is the Redis key of a shard's stream.
func StreamKey(shard int) string { return "sametick:{" + strconv.Itoa(shard) + "}:events" }

// StreamKeys gives the keys of all shards.
func StreamKeys() []string {
	keys := make([]string, event.Shards)
	for i := range keys {
		keys[i] = StreamKey(i)
	}
	return keys
}

// envelopeSQL builds an event's JSON in Postgres, as a producer for a peer would store it.
const envelopeSQL = `format('{"id":%s,"org_id":%s,"aggregate_type":"%s","aggregate_id":%s,"event_type":"%s","payload":%s,"occurred_at":"2026-04-12T14:30:00.000Z"}',
	id, org_id, aggregate_type, aggregate_id, event_type, payload)`

package contender

import (
	"context"
	"fmt"
	"strconv"
	"time"

	watermill "github.com/ThreeDotsLabs/watermill-sql/v4/pkg/sql"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	topic = "events"
	// watermillBatch: the default of 100 makes its query, which sorts what is left of the backlog, run
	// for every 100 messages. README.md has the rates of the other sizes.
	watermillBatch = 5000
)

func watermillSchema() watermill.DefaultPostgreSQLSchema {
	return watermill.DefaultPostgreSQLSchema{
		SubscribeBatchSize: watermillBatch,
		// The envelope is copied as it is; JSON would be parsed by Postgres for nothing.
		GeneratePayloadType: func(string) string { return "BYTEA" },
	}
}

func watermillSubscriber(pool *pgxpool.Pool) (*watermill.Subscriber, error) {
	return watermill.NewSubscriber(watermill.BeginnerFromPgx(pool), watermill.SubscriberConfig{
		SchemaAdapter:  watermillSchema(),
		OffsetsAdapter: watermill.DefaultPostgreSQLOffsetsAdapter{},
		// Only waited when a query found nothing, which a backlog never lets happen.
		PollInterval: time.Millisecond,
	}, nil)
}

func loadWatermill(ctx context.Context, pool *pgxpool.Pool) error {
	subscriber, err := watermillSubscriber(pool)
	if err != nil {
		return fmt.Errorf("make a Watermill subscriber: %w", err)
	}
	if err := subscriber.SubscribeInitialize(topic); err != nil {
		return fmt.Errorf("create Watermill's tables: %w", err)
	}
	if err := subscriber.Close(); err != nil {
		return fmt.Errorf("close a Watermill subscriber: %w", err)
	}
	return copyEvents(ctx, pool, `
		INSERT INTO watermill_events (uuid, payload, metadata, transaction_id)
		SELECT gen_random_uuid(), convert_to(`+envelopeSQL+`, 'UTF8'),
		       json_build_object('s', shard::text, 'o', org_id::text, 't', event_type, 'a', aggregate_type, 'i', aggregate_id::text),
		       pg_current_xact_id()
		  FROM sametick.events WHERE id >= $1 AND id < $2 ORDER BY id`, `VACUUM (ANALYZE) watermill_events`)
}

func resetWatermill(ctx context.Context, pool *pgxpool.Pool) error {
	_, err := pool.Exec(ctx, `TRUNCATE watermill_offsets_events`)
	return err
}

// runWatermill acknowledges a message when Redis has it: sooner would lose it in a crash. Watermill
// hands out the next message of a subscription after that, so there is no pipeline to fill.
func runWatermill(ctx context.Context, t Target) error {
	pool, err := pgxpool.New(ctx, t.DatabaseURL)
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer pool.Close()
	client, err := dial(t.RedisURL)
	if err != nil {
		return err
	}
	defer client.Close()
	subscriber, err := watermillSubscriber(pool)
	if err != nil {
		return fmt.Errorf("make a Watermill subscriber: %w", err)
	}
	messages, err := subscriber.Subscribe(ctx, topic)
	if err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	for m := range messages {
		shard, err := strconv.Atoi(m.Metadata["s"])
		if err != nil {
			return fmt.Errorf("read a message: %w", err)
		}
		e := entry{
			shard: shard, org: m.Metadata["o"], eventType: m.Metadata["t"],
			aggregateType: m.Metadata["a"], aggregateID: m.Metadata["i"], envelope: m.Payload,
		}
		if err := client.Do(ctx, e.xadd(client, "*")).Error(); err != nil {
			m.Nack()
			continue
		}
		m.Ack()
	}
	return subscriber.Close()
}

// copyEvents runs an INSERT … SELECT over the events, perCopy ids a transaction, and then a last
// statement.
func copyEvents(ctx context.Context, pool *pgxpool.Pool, insert, last string) error {
	const perCopy = 1000
	var end int64
	if err := pool.QueryRow(ctx, `SELECT coalesce(max(id), 0) FROM sametick.events`).Scan(&end); err != nil {
		return fmt.Errorf("count the events: %w", err)
	}
	for id := int64(1); id <= end; id += perCopy {
		if _, err := pool.Exec(ctx, insert, id, id+perCopy); err != nil {
			return fmt.Errorf("copy the events: %w", err)
		}
	}
	if _, err := pool.Exec(ctx, last); err != nil {
		return fmt.Errorf("copy the events: %w", err)
	}
	return nil
}
